"""Two slow AUPROs written from their definitions, with plain loops and no help from `crane`."""

import numpy as np


def regions(mask):
    """Pixel lists of the 8-connected regions of a 2-D boolean mask, by flood fill."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    found = []
    while left:
        todo, region = [left.pop()], []
        while todo:
            y, x = todo.pop()
            region.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            todo.extend(near)
        found.append(region)
    return found


def _overlap_and_false_positives(found, normal, min_area, max_area):
    """Mean overlap of the regions of a size, and the false-positive rate, of binary maps."""
    overlaps = [
        sum(binary[pixel] for pixel in region) / len(region)
        for binary, image_regions in found
        for region in image_regions
        if min_area <= len(region) < max_area
    ]
    wrong = sum(int(binary[good].sum()) for (binary, _), good in zip(found, normal, strict=True))
    return np.mean(overlaps), wrong / sum(int(good.sum()) for good in normal)


def _curve(maps, masks, thresholds, above, min_area=0, max_area=np.inf):
    image_regions = [regions(mask) for mask in masks]
    normal = [~np.asarray(mask, dtype=bool) for mask in masks]
    points = []
    for threshold in thresholds:
        binary = [above(scores, threshold) for scores in maps]
        found = list(zip(binary, image_regions, strict=True))
        points.append(_overlap_and_false_positives(found, normal, min_area, max_area))
    pro, fpr = np.array(points).T
    return fpr, pro


def exact_aupro(maps, masks, limit, min_area=0, max_area=np.inf):
    """Every distinct score a threshold; cut at the limit by interpolation; divided by it."""
    thresholds = sorted({float(score) for scores in maps for score in scores.flat}, reverse=True)
    fpr, pro = _curve(maps, masks, thresholds, np.greater_equal, min_area, max_area)
    fpr, pro = [0.0, *fpr], [0.0, *pro]
    area = 0.0
    for x0, y0, x1, y1 in zip(fpr, pro, fpr[1:], pro[1:], strict=False):
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
        if x1 >= limit:
            break
    return area / limit


def published_aupro(maps, masks, limit=0.3, num_steps=200):
    """Equally spaced thresholds; FPRs below the limit, rescaled by their own ends; trapezoids."""
    lowest, highest = float(np.min(maps)), float(np.max(maps))
    steps = lowest + np.arange(num_steps) * ((highest - lowest) / num_steps)
    fpr, pro = _curve(maps, masks, steps.astype(np.float32), np.greater)
    fpr, pro = fpr[fpr < limit], pro[fpr < limit]
    fpr = (fpr - fpr.min()) / (fpr.max() - fpr.min())
    return float(abs((np.diff(fpr) * (pro[1:] + pro[:-1])).sum()) / 2)

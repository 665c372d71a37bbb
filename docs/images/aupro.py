"""Draw docs/images/aupro.png: the two AUPROs on soft and on saturated maps.

Run `python docs/images/aupro.py`. The maps are the same scores throughout, passed through
sigmoids of growing steepness: their order, and with it the exact AUPRO, stays as it is.
"""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from scipy import ndimage, special

from crane.data.images import label_regions
from crane.metrics import BinnedPixels, Counts, ScoreScale, aupro, aupro_steps, pro_curve

mpl.use("Agg")
from matplotlib import pyplot

SIZE, NUM_IMAGES, LIMIT = 256, 24, 0.3
SHOWN = {"soft maps": 1.0, "saturated maps": 8.0}
STEEPNESS = np.geomspace(0.125, 16, 29)


def logits() -> tuple[np.ndarray, np.ndarray]:
    """Smooth noise, and defects that stand out more or less."""
    rng = np.random.default_rng(3)
    y, x = np.mgrid[:SIZE, :SIZE]
    scores, masks = [], []
    for _ in range(NUM_IMAGES):
        noise = ndimage.gaussian_filter(rng.normal(size=(SIZE, SIZE)), 8)
        score, mask = noise / noise.std() - 4, np.zeros((SIZE, SIZE), dtype=bool)
        for _ in range(int(rng.integers(0, 4))):
            centre, radius = rng.uniform(0, SIZE, 2), np.exp(rng.uniform(np.log(3), np.log(30)))
            distance = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / radius**2
            mask |= distance < 1
            score += rng.uniform(1, 6) * np.exp(-distance / 2)
        scores.append(score)
        masks.append(mask)
    return np.stack(scores), np.stack(masks)


def counts_of(scores: np.ndarray, masks: np.ndarray, steepness: float) -> Counts:
    """Count the probabilities that a sigmoid of this steepness makes of the scores."""
    maps = special.expit(steepness * scores.astype(np.float32))
    state = BinnedPixels(1, ScoreScale(octave_bits=10, linear_bits=17))
    labelled = np.stack([label_regions(mask) for mask in masks])
    state.update(torch.from_numpy(maps), torch.from_numpy(labelled))
    return state.compute()[0]


def draw_curve(ax: object, counts: Counts, title: str) -> None:
    """Draw the PRO curve, and the points the published evaluation sees of it."""
    curve = pro_curve(counts)
    drawn = curve.thinned(3000)
    ax.plot(drawn.x, drawn.y, label="every score a threshold")
    ax.set(xlabel="false positive rate", ylabel="region overlap", ylim=(-0.01, 1.01))
    ax.grid(True, alpha=0.3)
    lowest, highest = counts.lower[-1], counts.upper[0]
    steps = lowest + np.arange(200) * ((highest - lowest) / 200)
    seen = np.searchsorted(-curve.threshold, -steps, side="left") - 1
    seen = seen[curve.x[seen] < LIMIT]
    label = f"200 equal steps: those below FPR 0.3 cover it up to {curve.x[seen].max():.3f}"
    ax.plot(curve.x[seen], curve.y[seen], "o", ms=3.5, color="tab:orange", label=label)
    exact, published = aupro(counts, LIMIT), aupro_steps(counts, LIMIT, 200)
    title = f"{title}: exact {exact.value:.3f}, published {published.value:.3f}"
    ax.set(xlim=(0, LIMIT), title=title)
    ax.legend(loc="lower right", fontsize=8)


def main() -> None:
    """Compute and draw."""
    scores, masks = logits()
    figure, axes = pyplot.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    for ax, (title, steepness) in zip(axes, SHOWN.items(), strict=False):
        draw_curve(ax, counts_of(scores, masks, steepness), title)
    exact, published = [], []
    for steepness in STEEPNESS:
        counts = counts_of(scores, masks, float(steepness))
        exact.append(aupro(counts, LIMIT).value)
        published.append(aupro_steps(counts, LIMIT, 200).value)
    axes[2].semilogx(STEEPNESS, exact, label="aupro (exact)")
    axes[2].semilogx(STEEPNESS, published, color="tab:orange", label="aupro_200 (published)")
    axes[2].set(xlabel="steepness of the sigmoid", ylabel="AUPRO", ylim=(0, 1))
    axes[2].set(title="the same ranking, ever more saturated")
    axes[2].legend(fontsize=8)
    axes[2].grid(True, alpha=0.3)
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
    for steepness, one, two in zip(STEEPNESS, exact, published, strict=True):
        print(f"{steepness:8.2f} {one:.4f} {two:.4f}")


if __name__ == "__main__":
    main()

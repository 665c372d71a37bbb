"""Figures of the drawings and of the guide's features."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.utils import make_grid, save_image

from crane.drawn import embedded_domain
from crane.drawn.scene import render
from crane.guides import Guide
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.pictures import draw

SIDE = 112
"""Height and width of each image in a figure, in pixels."""


def drawings(path: Path, image_size: int, options: Mapping[str, Any], seed: int) -> None:
    """Write a figure of scenes, each without and with its defect, twelve pictures per row.

    Args:
        path: File to write.
        image_size: Height and width of a picture in pixels.
        options: Arguments of `draw`, as in the recipe.
        seed: Seed of the drawings.
    """
    canvas = Canvas(image_size, torch.Generator().manual_seed(seed))
    drawn = draw(canvas, **{**options, "num": 30})
    pairs = torch.stack(drawn.images.chunk(2), dim=1).flatten(0, 1)
    save_image(make_grid(pairs, nrow=12, pad_value=1.0), path)


def guide_colours(path: Path, guide: Guide) -> None:
    """Write a figure of embedded images, unseen in training, with the guide's features below.

    Colours are the first three principal components of the patch features of each image.

    Args:
        path: File to write.
        guide: The guide.
    """
    rows = []
    for name in ("parts", "fabrics", "boards", "photos"):
        domain = embedded_domain(name)
        damaged = [p for p in domain.pictures() if p.kind in domain.defects]
        chosen = [damaged[i] for i in np.linspace(0, len(damaged) - 1, 10).astype(int)]
        shown = np.stack([render(domain, p).image for p in chosen])
        images = torch.from_numpy(shown).permute(0, 3, 1, 2) / 255.0
        with torch.no_grad():
            features = guide(images)
        small = torch.nn.functional.interpolate(images, (SIDE, SIDE), mode="area")
        rows += [small, torch.stack([_colours(one) for one in features])]
    save_image(make_grid(torch.cat(rows), nrow=10, pad_value=1.0), path)


def _colours(features: Float[Tensor, "C h w"]) -> Float[Tensor, "3 S S"]:
    patches = torch.nn.functional.normalize(features.flatten(1).T, dim=1)
    centred = patches - patches.mean(0)
    shown = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:3].T
    shown = (shown - shown.amin(0)) / (shown.amax(0) - shown.amin(0)).clamp_min(1e-6)
    grid = shown.T.view(1, 3, *features.shape[1:])
    return torch.nn.functional.interpolate(grid, (SIDE, SIDE))[0]

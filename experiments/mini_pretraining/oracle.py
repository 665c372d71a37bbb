"""A guide that knows what was drawn: the object, the defect and the colour of every patch."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from crane.drawn import embedded_domain
from crane.drawn.scene import render, scene_of
from crane.errors import UsageError
from crane.guides import Guide
from experiments.mini_pretraining.pictures import PATCH

THUMBNAIL = 16
"""Side of the pictures by which an image is found again."""
FURTHEST = 0.4
"""Distance to its thumbnail at other sizes (0.2 at most); other images are 0.8 away."""


class OracleGuide(Guide):
    """Features of embedded images from the object and the defect in them, not from their pixels.

    An image is found by its thumbnail among all that the domains have. Its features are those of
    `segment_features`, unperturbed and without noise: the shares of the object, of what lies behind
    it and of the defect in each patch, and its colour.

    Args:
        domains: The domains to find images in, as `crane.drawn.embedded_domains()`.
    """

    def __init__(self, *, domains: Sequence[str]) -> None:
        super().__init__(
            nn.Identity(),
            patch_size=PATCH,
            image_size=None,
            fit="crop",
            mean=(0,) * 3,
            std=(1,) * 3,
        )
        thumbnails, segments = [], []
        for name in domains:
            domain = embedded_domain(name)
            for picture in domain.pictures():
                seen = render(domain, picture)
                pixels = torch.from_numpy(seen.image).permute(2, 0, 1).float() / 255.0
                region = torch.as_tensor(scene_of(domain, picture).region, dtype=torch.float32)
                defect = torch.from_numpy(seen.mask).float()
                thumbnails.append(F.adaptive_avg_pool2d(pixels, THUMBNAIL).flatten())
                segments.append(torch.stack([region, 1.0 - region, 2.0 * defect]))
        self.register_buffer("thumbnails", torch.stack(thumbnails), persistent=False)
        self.register_buffer("segments", torch.stack(segments), persistent=False)

    def _features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        own = F.adaptive_avg_pool2d(images, THUMBNAIL).flatten(1)
        distance, nearest = torch.cdist(own, self.thumbnails).min(1)
        if distance.max() > FURTHEST:
            raise UsageError(
                "guide=oracle knows the images of its drawn domains only; test on "
                "embedded_fabrics, embedded_boards or embedded_photos, or choose another guide",
                key="guide",
            )
        grid = (images.shape[-2] // PATCH, images.shape[-1] // PATCH)
        segments = F.interpolate(self.segments[nearest], size=grid, mode="area")
        colours = F.adaptive_avg_pool2d(images, grid)
        colours = (colours - colours.mean((2, 3), keepdim=True)) * 2.0
        return torch.cat([segments, colours], dim=1)

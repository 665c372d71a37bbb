"""The interface of guides: from an RGB image to patch features of another frozen model.

A guide tells D-Attn which patches belong together (arXiv 2504.11055, section on D-Attn; spec:
"D-Attn (Crane+), correlations of another model"). It is never trained.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Len
from jaxtyping import Float
from torch import Tensor, nn

from crane.checks import PositiveFloat, PositiveInt, checked
from crane.errors import UsageError

KEY = "guide.features"
"""The key of a guide in the configuration, for errors."""

Fit = Literal["resize", "crop"]
"""How sides that are not a multiple of the patch become one."""
Mean = Annotated[Sequence[float], "a list of 3 numbers for red, green and blue", Len(3, 3)]
Std = Annotated[
    Sequence[PositiveFloat], "a list of 3 numbers above 0 for red, green and blue", Len(3, 3)
]


def one_line(error: Exception) -> str:
    """The beginning of an error's text, without line breaks."""
    return " ".join(str(error).split())[:500]


def resize(image: Float[Tensor, "B C H W"], height: int, width: int) -> Float[Tensor, "B C h w"]:
    """Resize bilinearly as the official code does for SAM (align_corners=False, no antialias).

    >>> resize(torch.ones(1, 3, 4, 4), 6, 2).shape
    torch.Size([1, 3, 6, 2])
    """
    return F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)


def resize_to_patches(image: Float[Tensor, "B C H W"], patch_size: int) -> Float[Tensor, "B C h w"]:
    """Resize an image to the nearest whole number of patches, at least one.

    >>> resize_to_patches(torch.ones(1, 3, 518, 520), 8).shape
    torch.Size([1, 3, 520, 520])
    """
    height, width = (max(1, round(side / patch_size)) * patch_size for side in image.shape[-2:])
    return image if image.shape[-2:] == (height, width) else resize(image, height, width)


def crop_to_patches(image: Float[Tensor, "B C H W"], patch_size: int) -> Float[Tensor, "B C h w"]:
    """Drop the rows and columns beyond the last whole patch, at the bottom and on the right.

    The official code does this to 518 px images for DINO ViT-B/8, whose patch convolution ignores
    the rest. The features are nevertheless treated as if they spanned the whole image.

    >>> crop_to_patches(torch.ones(1, 3, 518, 520), 8).shape
    torch.Size([1, 3, 512, 520])
    """
    height, width = (side // patch_size * patch_size for side in image.shape[-2:])
    return image[..., :height, :width]


FITS: dict[Fit, Callable[[Tensor, int], Tensor]] = {
    "resize": resize_to_patches,
    "crop": crop_to_patches,
}
"""The function for each `Fit`."""


class Guide(nn.Module, ABC):
    """A frozen model that computes patch features of an image.

    Args:
        model: The model; it is frozen and stays in evaluation mode.
        patch_size: Side of its patches in pixels.
        image_size: Side in pixels of the square to which images are resized first; None keeps their
            size.
        fit: How sides that are not a multiple of the patch become one.
        mean: Mean of the model's normalisation, per channel, for RGB in [0, 1].
        std: Standard deviation of the model's normalisation, per channel.

    Raises:
        UsageError: `image_size` is smaller than a patch.
    """

    mean: Tensor
    std: Tensor

    @checked
    def __init__(
        self,
        model: nn.Module,
        *,
        patch_size: PositiveInt,
        image_size: PositiveInt | None,
        fit: Fit,
        mean: Mean,
        std: Std,
    ) -> None:
        super().__init__()
        if image_size is not None and image_size < patch_size:
            raise UsageError(
                f"must be null or at least one patch of {patch_size} px, not {image_size}",
                key=f"{KEY}.image_size",
            )
        self.model = model.requires_grad_(False)
        self.patch_size, self.image_size, self.fit = patch_size, image_size, FITS[fit]
        for name, value in (("mean", mean), ("std", std)):
            channels = torch.tensor(list(value), dtype=torch.float32).view(3, 1, 1)
            self.register_buffer(name, channels, persistent=False)
        self.eval()

    def train(self, mode: bool = True) -> "Guide":
        """Stay in evaluation mode: a guide is frozen."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Compute the last layer's patch features, normalised by the model's final norm.

        Args:
            images: RGB in [0, 1]; values outside, which bicubic resizing makes, are clamped.

        Raises:
            UsageError: The image is smaller than one patch.
        """
        images = images.clamp(0, 1)
        if self.image_size is not None:
            images = resize(images, self.image_size, self.image_size)
        images = self.fit(images, self.patch_size)
        if 0 in images.shape:
            raise UsageError(
                f"must be at least one patch of the guide ({self.patch_size} px)", key="image_size"
            )
        return self._features((images - self.mean) / self.std)

    @abstractmethod
    def _features(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Run the model on normalised images whose sides are multiples of the patch."""

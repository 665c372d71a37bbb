"""The models that are measured: the paper's geometry, or the tiny one; random weights."""

from functools import lru_cache
from typing import Any, NamedTuple, cast

import torch
from open_clip import CLIP, get_model_config, get_tokenizer
from torch import Tensor, nn

from crane.backbones import Clip
from crane.config import compose, plain
from crane.methods import Crane, build_model
from crane.weights import load_open_clip

PAPER = "ViT-L-14-336"
IMAGE_SIZE = {False: 518, True: 112}
"""Pixels, by `Options.small`."""


class GuideFeatures(nn.Module):
    """A guide's features in shape, (B, 768, h, w) for patches of 14, without its cost."""

    def forward(self, images: Tensor) -> Tensor:
        """The same features for any image of a size."""
        generator = torch.Generator().manual_seed(0)
        grid = images.shape[-2] // 14, images.shape[-1] // 14
        features = torch.randn(len(images), 768, *grid, generator=generator)
        return features.to(images.device)


class Models(NamedTuple):
    """open_clip's model, and Crane and Crane+ on its very weights."""

    clip: CLIP
    crane: Crane
    crane_plus: Crane
    num_blocks: int
    """Last blocks with a second stream."""


def build(small: bool, device: str) -> Models:
    """Build all three on one set of random weights.

    Args:
        small: The tiny backbone in the place of ViT-L/14.
        device: Where they go.
    """
    backbone = "tiny" if small else "clip_vit_l14_336"
    models = []
    for method, guide in (("crane", None), ("crane_plus", GuideFeatures())):
        config = compose("train", [f"backbone={backbone}", f"method={method}"])
        config.backbone.model = {"_target_": f"{__name__}.adapted", "small": small}
        models.append(build_model(config, guide=guide).to(device))
    crane, crane_plus = models
    assert crane.vision.stream is not None
    return Models(_open_clip(small).to(device), crane, crane_plus, crane.vision.stream.num_blocks)


def adapted(small: bool) -> Clip:
    """Crane's towers made of the one open_clip model: a `_target_` of the backbone group."""
    return Clip(_open_clip(small), get_tokenizer(PAPER))


@lru_cache(maxsize=1)
def _open_clip(small: bool) -> CLIP:
    """open_clip's model made for the size in question, so that its own forward takes such images.

    Crane then has no positions to resize.
    """
    tiny: dict[str, Any] = plain(compose("train", ["backbone=tiny"]).backbone)["model"]
    architecture = tiny["architecture"] if small else get_model_config(PAPER)
    architecture["vision_cfg"]["image_size"] = IMAGE_SIZE[small]
    built = load_open_clip(
        architecture, "random", quick_gelu=True, seed=0, weights_dir=".", allow_download=False
    )
    return cast(CLIP, built.eval().requires_grad_(False))

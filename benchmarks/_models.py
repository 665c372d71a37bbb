"""Models with random weights to measure, of the paper's size or tiny."""

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
"""Height and width in pixels, by `Options.small`."""


class GuideFeatures(nn.Module):
    """Random features in the shape of a guide's, (B, 768, h, w) for patches of 14, at no cost."""

    def forward(self, images: Tensor) -> Tensor:
        """Features that depend on the size of the images only."""
        generator = torch.Generator().manual_seed(0)
        grid = images.shape[-2] // 14, images.shape[-1] // 14
        features = torch.randn(len(images), 768, *grid, generator=generator)
        return features.to(images.device)


class Models(NamedTuple):
    """An open_clip model, and Crane and Crane+ with the same weights."""

    clip: CLIP
    crane: Crane
    crane_plus: Crane
    num_blocks: int
    """Number of last blocks with a second stream."""


def build(small: bool, device: str) -> Models:
    """Build all three with the same random weights.

    Args:
        small: Use the tiny backbone in place of ViT-L/14.
        device: Device of the models.
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
    """Crane's towers around the shared open_clip model; a `_target_` for `backbone.model`."""
    return Clip(_open_clip(small), get_tokenizer(PAPER))


@lru_cache(maxsize=1)
def _open_clip(small: bool) -> CLIP:
    """An open_clip model built for this image size, so that its own forward accepts the images.

    Crane then does not have to resize position embeddings.
    """
    tiny: dict[str, Any] = plain(compose("train", ["backbone=tiny"]).backbone)["model"]
    architecture = tiny["architecture"] if small else get_model_config(PAPER)
    architecture["vision_cfg"]["image_size"] = IMAGE_SIZE[small]
    built = load_open_clip(
        architecture, "random", quick_gelu=True, seed=0, weights_dir=".", allow_download=False
    )
    return cast(CLIP, built.eval().requires_grad_(False))

"""CLIP as Crane uses it: two frozen towers of open_clip."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, get_tokenizer
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor, nn

from crane.backbones.text import TextTower, Tokenizer
from crane.backbones.vision import VisionTower
from crane.weights import OpenClip, load_open_clip, open_clip_from_state_dict


class Clip(nn.Module):
    """The two towers of an open_clip model, frozen.

    Args:
        model: A `CLIP` or `CustomTextCLIP` of open_clip.
        tokenizer: The tokenizer it was trained with.

    Raises:
        UsageError: The model is of a kind that Crane cannot adapt, such as one without a class
            token.
    """

    def __init__(self, model: OpenClip, tokenizer: Tokenizer) -> None:
        super().__init__()
        mean = getattr(model.visual, "image_mean", None) or OPENAI_DATASET_MEAN
        std = getattr(model.visual, "image_std", None) or OPENAI_DATASET_STD
        self.vision = VisionTower(model.visual, mean, std)
        self.text = TextTower(model, tokenizer)
        self.requires_grad_(False).eval()


def load_backbone(
    architecture: str | Mapping[str, Any],
    weights: str | Path,
    *,
    quick_gelu: bool,
    seed: int,
    weights_dir: str | Path,
    allow_download: bool,
) -> Clip:
    """The `_target_` of the backbone group.

    Args:
        architecture: A model name of open_clip, or a model configuration in open_clip's terms.
        weights: A pretrained tag of open_clip, a local file, or `random`.
        quick_gelu: Whether the weights were trained with QuickGELU; OpenAI's were.
        seed: Of random weights.
        weights_dir: Folder looked into first.
        allow_download: Whether weights that are not found may be downloaded.

    Raises:
        UsageError: The weights are missing, or the architecture does not fit.
    """
    model = load_open_clip(
        architecture,
        weights,
        quick_gelu=quick_gelu,
        seed=seed,
        weights_dir=weights_dir,
        allow_download=allow_download,
    )
    named = isinstance(architecture, str)
    return Clip(model, get_tokenizer(architecture) if named else SimpleTokenizer())


def clip_from_state_dict(state_dict: Mapping[str, Tensor], *, quick_gelu: bool = True) -> Clip:
    """CLIP of any geometry from a state dict with OpenAI's names, in float32.

    Args:
        state_dict: `visual.conv1.weight`, `transformer.resblocks.0.attn.in_proj_weight`, ...
        quick_gelu: Whether the weights were trained with QuickGELU; OpenAI's were.
    """
    model = open_clip_from_state_dict(state_dict, quick_gelu=quick_gelu)
    return Clip(model, _tokenizer(len(state_dict["positional_embedding"])))


@lru_cache(maxsize=4)
def _tokenizer(context_length: int) -> SimpleTokenizer:
    """CLIP's tokenizer, which takes a quarter of a second to read its vocabulary."""
    return SimpleTokenizer(context_length=context_length)

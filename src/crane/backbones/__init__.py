"""CLIP as Crane uses it: two frozen towers of open_clip."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from crane.backbones.towers import TextTower, Tokenizer, VisionTower
from crane.checks import NonNegativeInt, Text, checked
from crane.errors import UsageError
from crane.weights import load_open_clip, open_clip_from_state_dict, open_clip_with_mini


class Clip(nn.Module):
    """The two towers of an open_clip model, frozen.

    Args:
        model: A `CLIP` or `CustomTextCLIP` of open_clip.
        tokenizer: The tokenizer it was trained with.

    Raises:
        UsageError: Crane cannot adapt a model of this kind, such as one without a class token.
    """

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        from open_clip import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

        super().__init__()
        visual: Any = model.visual
        mean = getattr(visual, "image_mean", None) or OPENAI_DATASET_MEAN
        std = getattr(visual, "image_std", None) or OPENAI_DATASET_STD
        self.vision = VisionTower(visual, mean, std)
        self.text = TextTower(model, tokenizer)
        self.requires_grad_(False).eval()


@checked
def load_backbone(
    architecture: str | Mapping[str, Any],
    weights: Text | Path,
    *,
    quick_gelu: bool,
    seed: NonNegativeInt,
    weights_dir: Text | Path,
    allow_download: bool,
) -> Clip:
    """Build the CLIP of a configuration: the `_target_` of the backbone group.

    Args:
        architecture: An open_clip model name, or a model configuration with open_clip's keys.
        weights: A pretrained tag of open_clip, a local file, or `random`.
        quick_gelu: Whether the weights were trained with QuickGELU; OpenAI's were.
        seed: Seed for random weights.
        weights_dir: Folder searched first.
        allow_download: Whether missing weights may be downloaded.

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
    if not isinstance(architecture, str):
        return Clip(model, _tokenizer(int(architecture["text_cfg"].get("context_length", 77))))
    try:
        tokenizer = open_clip_with_mini().get_tokenizer(architecture)
    except (ImportError, OSError) as error:  # some are transformers', fetched from the hub
        raise UsageError(
            f"the tokenizer of {architecture} is not available: {error}",
            key="backbone.model.architecture",
        ) from error
    return Clip(model, tokenizer)


def clip_from_state_dict(state_dict: Mapping[str, Tensor], *, quick_gelu: bool = True) -> Clip:
    """Build a CLIP of any geometry from a state dict with OpenAI's names, in float32.

    Args:
        state_dict: `visual.conv1.weight`, `transformer.resblocks.0.attn.in_proj_weight`, ...
        quick_gelu: Whether the weights were trained with QuickGELU; OpenAI's were.
    """
    model = open_clip_from_state_dict(state_dict, quick_gelu=quick_gelu)
    return Clip(model, _tokenizer(len(state_dict["positional_embedding"])))


@lru_cache(maxsize=4)
def _tokenizer(context_length: int) -> Tokenizer:
    """CLIP's tokenizer, which takes a quarter of a second to read its vocabulary."""
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer: Tokenizer = SimpleTokenizer(context_length=context_length)
    return tokenizer

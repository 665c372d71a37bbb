"""From a configuration to a model."""

from collections.abc import Mapping
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from crane.backbones import Clip, clip_from_state_dict
from crane.config import plain
from crane.gate import build
from crane.identity import MODEL_KEYS
from crane.methods.crane import Crane
from crane.methods.official import is_official, prompts_from_official
from crane.methods.vision import VisionEncoder


def build_model(
    config: DictConfig,
    *,
    clip_state_dict: Mapping[str, Tensor] | None = None,
    prompt_state_dict: Mapping[str, Tensor] | None = None,
    guide: nn.Module | None = None,
) -> Crane:
    """The model of a configuration: Crane, or with a guide Crane+.

    Args:
        config: A configuration with at least `MODEL_KEYS` and `seed`, as `crane.config.compose`
            gives it.
        clip_state_dict: A CLIP of any geometry under OpenAI's names, in the backbone's place.
        prompt_state_dict: Learned prompts, ours or the official code's; otherwise they start from
            seeded random values.
        guide: A module from images (B, 3, H, W) to features (B, C, h, w), in the place of the
            configured guide; `config.guide.attention` says how it is used.

    Raises:
        UsageError: Parts do not fit each other, or weights are missing.

    >>> from crane.config import compose
    >>> model = build_model(compose("train", ["backbone=tiny", "method=crane"]))
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)  # 2·12·128 + 8·4·128
    7168
    """
    if clip_state_dict is None:
        clip: Clip = build(config.backbone.model, "backbone.model")
    else:
        quick_gelu = config.backbone.model.quick_gelu
        clip = clip_from_state_dict(clip_state_dict, quick_gelu=quick_gelu)
    if guide is None and config.guide.features is not None:
        guide = build(config.guide.features, "guide.features")
    guided = _optional(config.guide.attention, "guide.attention")
    stream = _optional(config.attention, "attention")
    vision = VisionEncoder(clip.vision, stream, guide, guided)
    with torch.random.fork_rng(devices=[]):  # the same prompts whatever was drawn before
        torch.manual_seed(config.seed)
        prompts = build(config.prompt, "prompt")(clip.text)
    model = Crane(vision, clip.text, prompts, build(config.scoring, "scoring"))
    if prompt_state_dict is not None:
        load_prompts(model, prompt_state_dict)
    return model.eval()


def _optional(node: DictConfig | None, key: str) -> Any:
    return None if node is None else build(node, key)


def load_prompts(model: Crane, state_dict: Mapping[str, Any]) -> None:
    """Give a model learned prompts.

    Args:
        model: The model.
        state_dict: Prompts under our names, or under those of the official code.

    Raises:
        UsageError: They were made for other sizes or other words.
    """
    if is_official(state_dict):
        state_dict = prompts_from_official(state_dict, into=model.prompts)
    model.prompts.load(state_dict)


def model_config(config: DictConfig) -> dict[str, Any]:
    """The part of a configuration that a checkpoint carries.

    Not resolved: folders such as `${weights_dir}` are those of whoever reads the checkpoint.
    """
    container = plain(config, resolve=False)
    return {key: container[key] for key in MODEL_KEYS}

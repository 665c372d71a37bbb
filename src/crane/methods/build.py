"""From a configuration to a model, with or without a checkpoint."""

import inspect
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from crane.attention import GuidedAttention
from crane.backbones import Clip, VisionTower, clip_from_state_dict
from crane.checks import check_value
from crane.config import compose
from crane.errors import UsageError
from crane.gate import TARGET, build, check, from_file
from crane.identity import MODEL_KEYS
from crane.methods.checkpoint import PromptCheckpoint, open_checkpoint
from crane.methods.crane import Crane
from crane.methods.detector import Detector
from crane.methods.vision import VisionEncoder
from crane.weights import (
    HUB_REPOS,
    RANDOM,
    check_image_size,
    check_pixels,
    describe,
    published_name,
)

logger = logging.getLogger(__name__)

METHOD = "method.detector"
"""Key of a method's constructor; Crane and Crane+, assembled from groups, have none."""

CompileMode = Literal["none", "default", "reduce-overhead", "max-autotune"] | bool
"""Modes of `torch.compile`; true is `default`, false is `none`."""

CODE_FROM_FILES: Mapping[str, tuple[str | None, ...]] = {
    "source": ("github",),
    "repo": HUB_REPOS,
    "repo_dir": (None,),
}
"""Keys of `guide.features` that name code, with the values that a file may choose."""


def build_model(
    config: DictConfig,
    *,
    clip_state_dict: Mapping[str, Tensor] | None = None,
    prompt_state_dict: Mapping[str, Tensor] | None = None,
    guide: nn.Module | None = None,
) -> Any:
    """Build the detector of a configuration.

    Args:
        config: A configuration with at least `MODEL_KEYS` and `seed`, such as those of
            `crane.config.compose`.
        clip_state_dict: Replaces the backbone: a CLIP of any geometry under OpenAI's names.
        prompt_state_dict: Learned values, ours or the authors'; without them they are seeded
            random values.
        guide: Replaces the configured guide: a module from images (B, 3, H, W) to features
            (B, C, h, w). `config.guide.attention` says how it is used.

    Raises:
        UsageError: Parts do not fit each other, or weights are missing.

    >>> from crane.config import compose
    >>> model = build_model(compose("train", ["backbone=tiny", "method=crane"]))
    >>> sum(p.numel() for p in model.parameters() if p.requires_grad)  # 2·12·128 + 8·4·128
    7168
    """
    if clip_state_dict is None:
        architecture = OmegaConf.select(config, "backbone.model.architecture")
        check_image_size(architecture, OmegaConf.select(config, "image_size"))
        for key in ("image_size", "guide.features.image_size"):
            side, limit = (OmegaConf.select(config, k) for k in (key, "max_megapixels"))
            check_pixels(architecture, side, limit, key=key)
        clip: Clip = build(_part(config, "backbone.model"), "backbone.model")
    else:
        quick_gelu = _part(config, "backbone.model.quick_gelu")
        clip = clip_from_state_dict(clip_state_dict, quick_gelu=quick_gelu)
    if guide is None:
        guide = _optional(config, "guide.features")
    guided = _optional(config, "guide.attention")
    with torch.random.fork_rng(devices=[]):  # the same values whatever was drawn before
        torch.manual_seed(config.seed)
        if OmegaConf.select(config, METHOD) is None:
            model: Detector[Any, Any] = _crane(config, clip, guide, guided)
        else:
            model = _other_method(config, clip, guide, guided)
    if prompt_state_dict is not None:
        model.load_learned(prompt_state_dict)
    return model.eval()


def _crane(
    config: DictConfig, clip: Clip, guide: nn.Module | None, guided: GuidedAttention | None
) -> Crane:
    """Crane, or with a guide Crane+."""
    vision = VisionEncoder(clip.vision, _optional(config, "attention"), guide, guided)
    check(_part(config, "prompt"), "prompt", {"text": clip.text})
    prompts = build(config.prompt, "prompt")(clip.text)
    return Crane(vision, clip.text, prompts, build(_part(config, "scoring"), "scoring"))


def _other_method(
    config: DictConfig, clip: Clip, guide: nn.Module | None, guided: GuidedAttention | None
) -> Detector[Any, Any]:
    """A method with a constructor of its own; parts that it does not take are refused."""
    name, node = config.method.name, config.method.detector
    made = get_object(node[TARGET])
    takes = set(inspect.signature(made).parameters)
    given: dict[str, Any] = {"clip": clip}
    if "guide" in takes:
        given |= {"guide": guide, "guided": guided}
    elif guide is not None:
        reason = getattr(made, "no_guide", Detector.no_guide)
        raise UsageError(f"{name} takes no guide: {reason}; use guide=none", key="guide")
    for key, argument in (("attention", "stream"), ("prompt", "prompts"), ("scoring", "scoring")):
        if argument not in takes and OmegaConf.select(config, key) is not None:
            raise UsageError(f"{name} has no {key} of its own to choose; leave it out", key=key)
    return build(node, METHOD, **given)


def _part(config: DictConfig, key: str) -> Any:
    """A part of a configuration; null is a part too."""
    missing = object()
    part = OmegaConf.select(config, key, default=missing)
    if part is missing:
        raise UsageError(f"{key} is missing from the configuration", key=key)
    return part


def _optional(config: DictConfig, key: str) -> Any:
    part = _part(config, key)
    return None if part is None else build(part, key)


def compile_towers(model: Detector[Any, Any], mode: str | bool) -> None:
    """Compile the vision and the text side with `torch.compile`, from their next call on.

    Parameters keep their names, so checkpoints do not change. The first batch of each size waits
    for the compiler, a minute or more for a large tower; a log line says so.

    Args:
        model: Its towers are changed in place.
        mode: A `CompileMode`; `none` and false change nothing.

    Raises:
        UsageError: The mode is unknown.
    """
    check_value(mode, CompileMode, "compile")
    if mode is False or mode == "none":
        return
    mode = "default" if mode is True else mode
    logger.info(
        "compile=%s: the first batch waits for the compiler, minutes for large towers", mode
    )
    for tower in (model.vision, model.text):
        assert isinstance(tower, nn.Module)
        # A tower without a forward is run block by block.
        for part in tower.blocks if isinstance(tower, VisionTower) else (tower,):
            part.compile(mode=mode)


def adopt_config(
    config: DictConfig, checkpoint: PromptCheckpoint, overrides: Sequence[str]
) -> DictConfig:
    """Put the model of a checkpoint into a command's configuration.

    Args:
        config: As composed for the command.
        checkpoint: One without a configuration leaves `config` as it is.
        overrides: Typed by the user, such as `guide=none` or `scoring.blur_sigma=2`: they win.

    Raises:
        UsageError: The checkpoint's configuration names something that a file may not choose, or
            the prompts were learned on another backbone than the one typed.
    """
    if checkpoint.config is None:
        return config
    typed = {
        override.key_or_group
        for override in OverridesParser.create().parse_overrides(list(overrides))
        if override.key_or_group is not None
    }
    chosen = {"guide", "scoring"} if "method" in typed else set()  # which conf/method chooses
    stored = {key: checkpoint.config[key] for key in MODEL_KEYS if key not in typed | chosen}
    for key in typed:
        stored = _without(stored, key.split("."))
    stored = from_file(stored, checkpoint.name)
    _check_guide_code(stored.get("guide"), checkpoint.name)
    adopted = config.copy()
    with open_dict(adopted):
        for key, value in stored.items():
            adopted[key] = value
        for key in typed:
            if "." in key and key.split(".")[0] in MODEL_KEYS:
                OmegaConf.update(adopted, key, OmegaConf.select(config, key))
    if any(key.split(".")[0] == "backbone" for key in typed):
        _check_backbone(adopted, checkpoint)
    return adopted


def _without(node: Mapping[str, Any], path: Sequence[str]) -> dict[str, Any]:
    """A nested mapping without one of its keys."""
    first, *rest = path
    kept = dict(node)
    if not rest:
        kept.pop(first, None)
    elif isinstance(kept.get(first), Mapping):
        kept[first] = _without(kept[first], rest)
    return kept


def _check_guide_code(guide: object, name: str) -> None:
    """Refuse code that a file chooses, unless it is catalogued at a catalogued commit."""
    features = guide.get("features") if isinstance(guide, Mapping) else None
    for key, allowed in CODE_FROM_FILES.items():
        if isinstance(features, Mapping) and key in features and features[key] not in allowed:
            raise UsageError(
                f"{name} wants to run guide code of its own choice "
                f"(guide.features.{key}={features[key]}); if you trust that code, type guide=… and "
                f"guide.features.{key}=… in the command",
                key=f"guide.features.{key}",
            )


def _check_backbone(adopted: DictConfig, checkpoint: PromptCheckpoint) -> None:
    """Compare the backbone typed with the one that the prompts were learned on."""
    before = dict((checkpoint.config or {})["backbone"].get("model", {}))
    now: Any = OmegaConf.to_container(adopted.backbone.model, resolve=True)
    fixed = ["architecture", "quick_gelu"]
    fixed += ["seed"] if now.get("weights") == RANDOM else []
    was, given = ([str(_weights(m)), *map(m.get, fixed)] for m in (before, now))
    if was == given:
        return
    own_files = [name for name in (was[0], given[0]) if name != RANDOM and describe(name) is None]
    if was[1:] == given[1:] and own_files:  # a file's name does not tell what it holds
        logger.warning(
            "%s was trained with the weights %s; make sure that %s holds the same",
            *(checkpoint.name, was[0], given[0]),
        )
        return
    raise UsageError(
        f"the prompts of {checkpoint.name} were learned on {_shown(before)} and mean nothing on "
        f"{_shown(now)}; leave the backbone to the checkpoint",
        key="backbone",
    )


def _weights(model: Mapping[str, Any]) -> str:
    return published_name(model.get("architecture"), str(model.get("weights")))


def _shown(model: Mapping[str, Any]) -> str:
    architecture = model.get("architecture")
    name = architecture if isinstance(architecture, str) else "a backbone of its own"
    return f"{name} ({model.get('weights')})"


def load_model(path: str | Path, overrides: Sequence[str] = ()) -> Any:
    """Load the model of a checkpoint, ready to predict.

    Called with images of another size than the checkpoint's, or of values outside [0, 1], it raises
    a `UsageError`; `load_model(path, ["image_size=336"])` chooses another size.

    Args:
        path: Prompts of `crane train`, the folder of a training, prompts of the official code, or a
            published name such as `crane_mvtec`.
        overrides: Changes to its configuration, as on the command line; an official checkpoint
            file has none, so give at least `method=crane` or `method=crane_plus`.

    Raises:
        UsageError: The file is not a checkpoint, does not fit, or weights are missing.
    """
    typed = compose("test", overrides)
    checkpoint = open_checkpoint(path, typed.weights_dir, allow_download=typed.allow_download)
    config = adopt_config(typed, checkpoint, overrides)
    model = build_model(config)
    model.load_learned(checkpoint.prompts)
    model.image_size = config.image_size
    return model

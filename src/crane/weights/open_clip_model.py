"""Building open_clip models: by name or geometry, with published, local or random weights."""

import difflib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crane.checks import PositiveFloat, check_value, shown
from crane.errors import UsageError
from crane.weights.catalogue import RANDOM, open_clip_with_mini
from crane.weights.locate import find_weights, published_name
from crane.weights.state_dict import (
    is_torchscript,
    load_state_dict,
    openai_geometry,
    refuse_transformers,
)

_KEY = "backbone.model"


def load_open_clip(
    architecture: str | Mapping[str, Any],
    weights: str | Path,
    *,
    quick_gelu: bool,
    seed: int,
    weights_dir: str | Path,
    allow_download: bool,
) -> nn.Module:
    """Build a frozen `CLIP` or `CustomTextCLIP` of open_clip in float32 on the CPU.

    Inside `with torch.device("meta")` it is built there without numbers, to inspect its shapes.

    Args:
        architecture: An open_clip model name, or a model configuration (`embed_dim`, `vision_cfg`,
            `text_cfg` with open_clip's keys).
        weights: A tag of that model (`openai`), a local file, or `random`.
        quick_gelu: Whether the towers use QuickGELU, x * sigmoid(1.702 x), which OpenAI's weights
            need. Must agree with the tag.
        seed: Seed for `random`; the global generators do not change.
        weights_dir: Folder searched for weights.
        allow_download: Whether missing weights may be downloaded.

    Raises:
        UsageError: The model, tag or file is unknown, the activation or the shapes do not fit the
            weights, or the weights are missing.
    """
    name = published_name(architecture, weights)
    _check_activation(_configuration(architecture), name, quick_gelu)
    path = None
    if weights != RANDOM:
        tags = open_clip_with_mini().list_pretrained_tags_by_model(str(architecture))
        path = find_weights(
            name, weights_dir, allow_download, key=f"{_KEY}.weights", choices=[RANDOM, *tags]
        )
        if is_torchscript(path) and not quick_gelu:
            raise _activation_error(path, needed=True)
    model = _build(architecture, quick_gelu, seed)
    if path is not None:
        _fill(model, load_state_dict(path), path)
    return model


def check_image_size(
    architecture: str | Mapping[str, Any] | None, size: int | None, *, key: str = "image_size"
) -> None:
    """Refuse sizes that are not a multiple of the patch size, before any weights are read.

    Args:
        architecture: As in `load_open_clip`; None if it is not known.
        size: Side of the images in pixels; None if it is not known.
        key: The key that named it, for errors.

    >>> check_image_size("ViT-L-14-336", 500)
    Traceback (most recent call last):
    crane.errors.UsageError: image_size must be a multiple of the patch of 14 px, such as 504, ...
    """
    if architecture is None or size is None:
        return
    patch = _configuration(architecture)["vision_cfg"].get("patch_size")
    if isinstance(patch, int) and patch > 0 and size % patch:
        near = max(1, round(size / patch)) * patch
        raise UsageError(
            f"must be a multiple of the patch of {patch} px, such as {near}, not {size}",
            key=key,
        )


def check_pixels(
    architecture: str | Mapping[str, Any] | None,
    size: int | None,
    max_megapixels: float | None,
    *,
    key: str,
) -> None:
    """Refuse images so large that the memory of one forward would surprise.

    The estimate is for one image in float32: eight planes of the image (its colours, the same
    normalised, map and its blur), and for each patch twelve vectors of a block (two streams,
    queries, keys, values and the four of the MLP).

    Args:
        architecture: As in `load_open_clip`; None if it is not known.
        size: Side of the images in pixels; None if it is not known.
        max_megapixels: The limit; None for none.
        key: The key that named the size, for errors.

    >>> check_pixels("ViT-L-14-336", 8960, 4, key="image_size")
    Traceback (most recent call last):
    crane.errors.UsageError: image_size: 8960 x 8960 pixels are 80.3 megapixels, which ...
    """
    if size is None or max_megapixels is None:
        return
    check_value(max_megapixels, PositiveFloat, "max_megapixels")
    if size**2 <= max_megapixels * 1e6:
        return
    tower = {} if architecture is None else _configuration(architecture)["vision_cfg"]
    vectors = 12 * tower.get("width", 1024) / tower.get("patch_size", 14) ** 2
    num_bytes = 4 * size**2 * (8 + vectors)
    raise UsageError(
        f"{size} x {size} pixels are {size**2 / 1e6:.3g} megapixels, which take about "
        f"{num_bytes / 1e9:.2g} GB of memory for each image of a batch; choose a smaller size, or "
        f"views=tiles to see detail, or raise max_megapixels above {max_megapixels:g}",
        key=key,
    )


def open_clip_from_state_dict(
    state_dict: Mapping[str, Tensor], *, quick_gelu: bool = True
) -> nn.Module:
    """Build a frozen CLIP with the geometry of an OpenAI-named state dict, in float32.

    open_clip's own reader of such dicts rounds the weights to float16; this one keeps float32.

    Args:
        state_dict: OpenAI-named tensors of a CLIP with a vision transformer; heads are 64 wide.
        quick_gelu: Whether the towers use QuickGELU; OpenAI's do.

    Raises:
        UsageError: The tensors do not form a CLIP with a vision transformer.
    """
    model = _build(openai_geometry(state_dict), quick_gelu, seed=0)
    _fill(model, state_dict, "the given state dict")
    return model


def _build(architecture: str | Mapping[str, Any], quick_gelu: bool, seed: int) -> nn.Module:
    """Create a model with seeded random weights without touching the global generator."""
    open_clip = open_clip_with_mini()
    device = "meta" if torch.get_default_device().type == "meta" else "cpu"
    with (
        tempfile.TemporaryDirectory() as folder,
        torch.device(device),
        torch.random.fork_rng(devices=[]),
        _without_remarks(),
    ):
        torch.default_generator.manual_seed(seed)
        if isinstance(architecture, str):
            name = architecture
        else:
            name = f"local-dir:{folder}"
            config = {"model_cfg": dict(architecture)}
            Path(folder, "open_clip_config.json").write_text(json.dumps(config))
        try:
            model = open_clip.create_model(
                name,
                device=device,
                force_quick_gelu=quick_gelu,
                pretrained_image=False,
                pretrained_text=False,
            )
        except (TypeError, KeyError) as error:
            raise UsageError(
                f"open_clip does not build this model configuration: {error}",
                key=f"{_KEY}.architecture",
            ) from error
    frozen: nn.Module = model.float().eval().requires_grad_(False)
    return frozen


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Drop open_clip's messages to the root logger while a model is built.

    It warns of random weights even if weights are filled in afterwards, and its calls to `logging`
    would install a handler of their own.
    """
    root, silent = logging.getLogger(), logging.NullHandler()

    def foreign(record: logging.LogRecord) -> bool:
        return "open_clip" not in record.pathname

    root.addHandler(silent)
    root.addFilter(foreign)
    try:
        yield
    finally:
        root.removeFilter(foreign)
        root.removeHandler(silent)


def _configuration(architecture: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """The model configuration of a name, if it describes a CLIP that needs no network."""
    key = f"{_KEY}.architecture"
    open_clip = open_clip_with_mini()
    config: Mapping[str, Any] | None = None
    if isinstance(architecture, Mapping):
        config = architecture
    elif not set(":/") & set(str(architecture)):  # open_clip takes those for addresses and folders
        config = open_clip.get_model_config(str(architecture))
    if config is None:
        near = difflib.get_close_matches(str(architecture), open_clip.list_models(), n=5)
        close = f"; close names are {', '.join(near)}" if near else ""
        raise UsageError(f"unknown open_clip model {shown(architecture)}{close}", key=key)
    parts = ("embed_dim", "vision_cfg", "text_cfg")
    missing = [p for p in parts if not isinstance(config.get(p), int if p == parts[0] else Mapping)]
    if missing:
        raise UsageError(f"the model configuration lacks {', '.join(missing)}", key=key)
    unfit = (
        ("multimodal_cfg" in config, "writes captions; a contrastive model is needed"),
        (
            "hf_model_name" in config["text_cfg"],
            "has a text tower of Hugging Face's transformers; open_clip's own is needed",
        ),
        (
            "timm_model_name" in config["vision_cfg"],
            "has a vision tower of timm; open_clip's own vision transformer is needed",
        ),
    )
    for is_unfit, reason in unfit:
        if is_unfit:
            name = architecture if isinstance(architecture, str) else "this architecture"
            raise UsageError(f"{name} {reason}", key=key)
    return config


def _check_activation(config: Mapping[str, Any], name: str, quick_gelu: bool) -> None:
    if config.get("quick_gelu", False) and not quick_gelu:
        raise _activation_error("this architecture", needed=True)
    pretrained = open_clip_with_mini().get_pretrained_cfg
    tag = pretrained(*name.split("/")) if name.count("/") == 1 else {}
    if tag and tag.get("quick_gelu", False) != quick_gelu:
        raise _activation_error(name, needed=not quick_gelu)


def _activation_error(what: object, needed: bool) -> UsageError:
    used = "QuickGELU" if needed else "GELU"
    return UsageError(
        f"must be {str(needed).lower()}: {what} was trained with {used}", key=f"{_KEY}.quick_gelu"
    )


def _fill(model: nn.Module, state_dict: Mapping[str, Tensor], source: object) -> None:
    from open_clip.model import CustomTextCLIP, convert_to_custom_text_state_dict

    given = dict(state_dict)
    own = model.state_dict()
    if isinstance(model, CustomTextCLIP) and "positional_embedding" in given:
        given = convert_to_custom_text_state_dict(given)
    for name in ("logit_scale", "logit_bias"):  # saved as () by some, as (1,) by others
        if name in given and name in own and given[name].numel() == own[name].numel():
            given[name] = given[name].reshape(own[name].shape)
    problems = [f"no {name}" for name in own if name not in given]
    problems += [f"{name}, which the model lacks" for name in given if name not in own]
    problems += [
        f"{name} of shape {tuple(given[name].shape)} for {tuple(own[name].shape)}"
        for name in own
        if name in given and given[name].shape != own[name].shape
    ]
    if problems:
        refuse_transformers(given, source, f"{_KEY}.weights")
        more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise UsageError(
            f"{source} does not fit the architecture: {'; '.join(problems[:4])}{more}",
            key=f"{_KEY}.weights",
        )
    model.load_state_dict(given)

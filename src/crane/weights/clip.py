"""Building open_clip models: by name or geometry, with published, local or random weights."""

import difflib
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import open_clip
import torch
from open_clip.model import convert_to_custom_text_state_dict
from torch import Tensor

from crane.errors import UsageError
from crane.weights.catalogue import RANDOM
from crane.weights.files import find_weights, published_name
from crane.weights.state_dict import is_torchscript, load_state_dict, openai_geometry

OpenClip: TypeAlias = open_clip.CLIP | open_clip.CustomTextCLIP
"""The two classes open_clip builds contrastive models as."""

_KEY = "backbone.model"


def load_open_clip(
    architecture: str | Mapping[str, Any],
    weights: str | Path,
    *,
    quick_gelu: bool,
    seed: int,
    weights_dir: str | Path,
    allow_download: bool,
) -> OpenClip:
    """Build a frozen open_clip model in float32 on the CPU.

    Inside `with torch.device("meta")` it is built there, without numbers, to look at its shapes.

    Args:
        architecture: An open_clip model name, or a model configuration of its own
            (`embed_dim`, `vision_cfg`, `text_cfg` with open_clip's keys).
        weights: A tag of that model (`openai`), a local file, or `random`.
        quick_gelu: Whether the towers use QuickGELU, x * sigmoid(1.702 x), as OpenAI's weights
            need. Must agree with the tag.
        seed: Seed of `random`; the global generators are left as they were.
        weights_dir: Folder to look for weights in.
        allow_download: Whether missing weights may be fetched.

    Raises:
        UsageError: Unknown model, tag or file; activation or shapes that do not fit the weights;
            weights missing and not fetched.
    """
    name = published_name(architecture, weights)
    _check_activation(_configuration(architecture), name, quick_gelu)
    path = None
    if weights != RANDOM:
        tags = open_clip.list_pretrained_tags_by_model(str(architecture))
        path = find_weights(
            name, weights_dir, allow_download, key=f"{_KEY}.weights", choices=[RANDOM, *tags]
        )
        if is_torchscript(path) and not quick_gelu:
            raise _activation_error(path, needed=True)
    model = _build(architecture, quick_gelu, seed)
    if path is not None:
        _fill(model, load_state_dict(path), path)
    return model


def open_clip_from_state_dict(
    state_dict: Mapping[str, Tensor], *, quick_gelu: bool = True
) -> OpenClip:
    """Build a frozen CLIP of whatever geometry an OpenAI-named state dict has, in float32.

    open_clip's own reader of such dicts rounds the weights to float16 on the way; this one keeps
    every bit of float32.

    Args:
        state_dict: OpenAI-named tensors of a CLIP with a vision transformer; heads are 64 wide.
        quick_gelu: Whether the towers use QuickGELU; OpenAI's do.

    Raises:
        UsageError: The tensors are not those of one CLIP with a vision transformer.
    """
    model = _build(openai_geometry(state_dict), quick_gelu, seed=0)
    _fill(model, state_dict, "the given state dict")
    return model


def _build(architecture: str | Mapping[str, Any], quick_gelu: bool, seed: int) -> OpenClip:
    """Create a model with seeded random weights, leaving the global generator untouched."""
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
                "a model configuration with open_clip's keys",
                str(error),
                key=f"{_KEY}.architecture",
            ) from error
    return model.float().eval().requires_grad_(False)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Drop what open_clip tells the root logger while a model is built.

    It warns that a model without weights is random even where weights are filled in afterwards, and
    its module-level logging calls would install a handler of their own.
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
    """Look up the model configuration of a name, checked to build a CLIP without the network."""
    key = f"{_KEY}.architecture"
    config: Mapping[str, Any] | None = None
    if not isinstance(architecture, str):
        config = architecture
    elif not set(":/") & set(architecture):  # open_clip takes those for addresses and folders
        config = open_clip.get_model_config(architecture)
    if config is None:
        near = difflib.get_close_matches(str(architecture), open_clip.list_models(), n=5)
        hint = f"close ones of open_clip: {', '.join(near) or 'none'}"
        raise UsageError("an open_clip model", architecture, key=key, hint=hint)
    missing = sorted({"embed_dim", "vision_cfg", "text_cfg"} - set(config))
    if missing:
        wanted = "embed_dim, vision_cfg and text_cfg in a model configuration"
        raise UsageError(wanted, f"one without {', '.join(missing)}", key=key)
    if "multimodal_cfg" in config:
        raise UsageError("a contrastive model", f"{architecture}, which writes captions", key=key)
    if "hf_model_name" in config["text_cfg"]:
        raise UsageError(
            "a model whose text tower is open_clip's own",
            architecture,
            key=key,
            hint="its text tower is a transformers model, fetched when it is built",
        )
    return config


def _check_activation(config: Mapping[str, Any], name: str, quick_gelu: bool) -> None:
    if config.get("quick_gelu", False) and not quick_gelu:
        raise _activation_error("this architecture", needed=True)
    tag = open_clip.get_pretrained_cfg(*name.split("/")) if name.count("/") == 1 else {}
    if tag and tag.get("quick_gelu", False) != quick_gelu:
        raise _activation_error(name, needed=not quick_gelu)


def _activation_error(what: object, needed: bool) -> UsageError:
    used = "QuickGELU" if needed else "GELU"
    return UsageError(
        f"quick_gelu={str(needed).lower()}, for {what} was trained with {used}",
        f"quick_gelu={str(not needed).lower()}",
        key=f"{_KEY}.quick_gelu",
    )


def _fill(model: OpenClip, state_dict: Mapping[str, Tensor], source: object) -> None:
    given = dict(state_dict)
    own = model.state_dict()
    if isinstance(model, open_clip.CustomTextCLIP) and "positional_embedding" in given:
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
        shown = "; ".join(problems[:4]) + (f"; and {len(problems) - 4} more" * (len(problems) > 4))
        raise UsageError(
            f"weights of this architecture in {source}",
            shown,
            key=f"{_KEY}.architecture or {_KEY}.weights",
        )
    model.load_state_dict(given)

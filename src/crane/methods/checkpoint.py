"""Checkpoints: learned prompts and the configuration of their model, never the frozen towers.

Nothing in a file is executed, and what its configuration may build is decided in `crane.gate` and,
for the code of guides, in `adopt_config`. The official code's tensor names stand here only.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crane.checks import shown
from crane.config import compose, plain
from crane.errors import UsageError
from crane.files import stand_in, write_bytes
from crane.identity import MODEL_KEYS, WHOLE
from crane.methods.detector import Detector
from crane.methods.official import from_other_authors, is_official, prompts_from_official
from crane.named_prompts import (
    MINI,
    PUBLISHED_BACKBONE,
    full_name,
    is_name,
    is_on_hub,
    last_prompts,
)
from crane.prompts import check_learned
from crane.weights import MINI_CLIP, fetch_checkpoint, find_weights

FORMAT = "crane-prompts-1"
AUTO = "auto"
"""The checkpoint that fits the method and the backbone, see `default_checkpoint`."""
DEFAULTS = {"Crane": "crane_mvtec", "Crane+": "crane_plus_mvtec"}
"""The published prompts of each method for the paper's backbone."""
LEARNED = ("model.prompts.", "model.learned.")
"""Prefixes of learned tensors in a Lightning checkpoint: those of Crane, of other methods."""


@dataclass(frozen=True)
class PromptCheckpoint:
    """The content of a checkpoint file."""

    prompts: dict[str, Any]
    """Learned tensors, under our names or the official code's."""
    config: dict[str, Any] | None
    """The model's configuration (`crane.identity.MODEL_KEYS`) as it was stored; only `adopt_config`
    decides what of it may be built. None in official checkpoints."""
    info: dict[str, Any] = field(default_factory=dict)
    """Origin of the prompts: epoch, step, source fingerprints, validation values. In Lightning's
    checkpoints, what must not change when the training is resumed."""
    name: str = "the checkpoint"
    """Name of the file, for errors."""
    path: Path | None = None


def model_config(config: DictConfig) -> dict[str, Any]:
    """The part of a configuration that a checkpoint carries.

    It is not resolved: folders such as `${weights_dir}` are those of whoever reads the checkpoint.
    """
    container = plain(config, resolve=False)
    return {key: container[key] for key in MODEL_KEYS}


def save_prompts(
    path: Path, model: Detector[Any, Any], config: dict[str, Any], info: dict[str, Any]
) -> None:
    """Write a model's prompts as safetensors, with configuration and origin in the metadata.

    The file appears whole or not at all, and holds a checksum of its content. Equal prompts,
    configuration and origin give equal bytes.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.trained.state_dict().items()}
    metadata = {"format": FORMAT, "config": json.dumps(config), "info": json.dumps(info)}
    metadata["sha256"] = _checksum(tensors, metadata)
    write_bytes(path, _in_order(save(tensors, metadata=metadata)), durable=True)


def _in_order(file: bytes) -> bytes:
    """The same safetensors file with the keys of its header sorted; the library's order varies."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + file[end:]


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """The SHA-256 of tensors, configuration and origin."""
    texts = [metadata.get("config"), metadata.get("info")]
    digest = hashlib.sha256(json.dumps(texts).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_checkpoint(path: str | Path, *, key: str = "checkpoint") -> PromptCheckpoint:
    """Read prompts: ours (.safetensors), Lightning's (.ckpt) or the official code's (.pth).

    Args:
        path: The file; may begin with `~`.
        key: The key that named it, for errors.

    Raises:
        UsageError: There is no such file, it is damaged, or it holds no prompts.
    """
    if not isinstance(path, (str, Path)) or not str(path):
        raise UsageError(f"must be a checkpoint file, not {shown(path)}", key=key)
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError(f"there is no checkpoint file {path}", key=key)
    if (what := stand_in(path)) is not None:
        raise UsageError(f"{path} is {what}", key=key)
    if path.suffix == ".safetensors":
        return _read_safetensors(path, key)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle's reader fails in many ways; torch's advice is unsafe
        raise UsageError(
            f"{path} is not a checkpoint: it is damaged, of another format, or holds more than "
            "tensors and plain values, which is refused because it could run code",
            key=key,
        ) from error
    with _readable(path, key):
        if isinstance(content, dict) and "crane" in content:
            return _from_lightning(content, path, key)
        if isinstance(content, dict) and is_official(content):
            check_learned(prompts_from_official(content), key)
            return PromptCheckpoint(content, None, name=path.name, path=path)
        learned = from_other_authors(content) if isinstance(content, dict) else None
        if learned is not None:
            check_learned(learned, key)
            return PromptCheckpoint(learned, None, name=path.name, path=path)
    raise UsageError(
        f"{path} holds no prompts of crane (.safetensors, .ckpt) or of the official code (.pth)",
        key=key,
    )


def _from_lightning(content: Mapping[str, Any], path: Path, key: str) -> PromptCheckpoint:
    state = content["state_dict"]
    own = {
        name.removeprefix(prefix): value
        for name, value in state.items()
        for prefix in LEARNED
        if name.startswith(prefix)
    }
    check_learned(own, key)
    training = dict(json.loads(content["crane"].get("training", "{}")))
    config = _stored_config(content["crane"]["config"], path, key)
    return PromptCheckpoint(own, config, {"training": training}, path.name, path)


def _read_safetensors(path: Path, key: str) -> PromptCheckpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            prompts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UsageError(f"{path} is not a whole safetensors file: {error}", key=key) from error
    if metadata.get("format") != FORMAT:
        stated = metadata.get("format", "not stated")
        raise UsageError(f"the format of {path} is {stated}; only {FORMAT} is read", key=key)
    if metadata.get("sha256", "") not in (
        "",
        _checksum(prompts, metadata),
    ):  # older files have none
        raise UsageError(f"{path} is damaged: its content does not fit its checksum", key=key)
    with _readable(path, key):
        check_learned(prompts, key)
        info = dict(json.loads(metadata.get("info", "{}")))
        config = _stored_config(metadata["config"], path, key)
        return PromptCheckpoint(prompts, config, info, path.name, path)


@contextmanager
def _readable(path: Path, key: str) -> Iterator[None]:
    """Turn what a malformed file raises into the user's error."""
    try:
        yield
    except UsageError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UsageError(
            f"{path} is damaged, or was not written by crane: {type(error).__name__}: {error}",
            key=key,
        ) from error


def _stored_config(text: str, path: Path, key: str) -> dict[str, Any]:
    config: dict[str, Any] = {"views": WHOLE, **json.loads(text)}
    missing = [name for name in MODEL_KEYS if name not in config]
    if missing:
        raise UsageError(f"the configuration in {path} lacks {', '.join(missing)}", key=key)
    if not isinstance(config["backbone"], dict) or not config["backbone"].get("model"):
        raise UsageError(f"the configuration in {path} lacks backbone.model", key=key)
    return config


def open_checkpoint(
    spec: str | Path,
    weights_dir: str | Path,
    *,
    allow_download: bool = True,
    key: str = "checkpoint",
) -> PromptCheckpoint:
    """Read a checkpoint.

    Args:
        spec: A name (see `prompt_names`; the authors' checkpoints are downloaded when first used,
            which is announced, and compared with their sha256), the folder of a training, a file,
            or a repository of the Hugging Face Hub, `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION`.
        weights_dir: Where named checkpoints are looked for and downloaded to.
        allow_download: Whether a missing one is downloaded.
        key: The key that named it, for errors.

    Raises:
        UsageError: There is no such name, folder or file, or it cannot be read.
    """
    if isinstance(spec, (str, Path)) and str(spec) and Path(spec).expanduser().is_dir():
        return read_checkpoint(last_prompts(Path(spec).expanduser(), key), key=key)
    if is_on_hub(spec):
        path = fetch_checkpoint(str(spec), allow_download, key=key)
        return replace(read_checkpoint(path, key=key), name=str(spec))
    if not is_name(spec):
        return read_checkpoint(spec, key=key)
    name = full_name(str(spec), key)
    path = find_weights(name, weights_dir, allow_download, key=key)
    checkpoint = replace(read_checkpoint(path, key=key), name=name)
    if checkpoint.config is not None:
        return checkpoint
    method = name.partition("@")[0].rpartition("_")[0]  # the authors' files do not say
    return replace(checkpoint, config=model_config(compose("test", [f"method={method}"])))


def default_checkpoint(config: DictConfig) -> str | None:
    """The name of the prompts that fit a configuration; None for methods that train nothing.

    Args:
        config: With at least `method`, `loss` and `backbone`.

    Raises:
        UsageError: No published prompts fit.
    """
    if config.loss is None:
        return None
    architecture, method = config.backbone.model.architecture, config.method.name
    if architecture == MINI_CLIP and method == "Crane":
        return MINI
    if method not in DEFAULTS or architecture != PUBLISHED_BACKBONE:
        raise UsageError(
            f"no published prompts fit {method} with this backbone; "
            "train some and name their file, as in checkpoint=prompts/epoch_5.safetensors",
            key="checkpoint",
        )
    return DEFAULTS[method]

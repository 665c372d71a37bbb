"""Checkpoints: learned prompts and the configuration of their model, never the frozen towers."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crane.config import compose
from crane.errors import UsageError
from crane.gate import from_file
from crane.identity import MODEL_KEYS
from crane.methods.build import build_model, load_prompts
from crane.methods.crane import Crane
from crane.methods.official import is_official

FORMAT = "crane-prompts-1"
PROMPTS = "model.prompts."
"""How the prompts' tensors are prefixed in a Lightning checkpoint."""


@dataclass(frozen=True)
class PromptCheckpoint:
    """What a checkpoint file holds."""

    prompts: dict[str, Any]
    """Learned tensors, under our names or the official code's."""
    config: dict[str, Any] | None
    """The model's configuration (`crane.methods.MODEL_KEYS`); None in official checkpoints."""
    info: dict[str, Any] = field(default_factory=dict)
    """Where the prompts come from: epoch, step, source fingerprints, validation values; of
    Lightning's checkpoints what must be the same for the training to go on."""


def save_prompts(path: Path, model: Crane, config: dict[str, Any], info: dict[str, Any]) -> None:
    """Write a model's prompts as safetensors; configuration and origin are in its metadata.

    The file appears whole or not at all; equal prompts, configuration and origin give equal bytes.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.prompts.state_dict().items()}
    metadata = {"format": FORMAT, "config": json.dumps(config), "info": json.dumps(info)}
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_bytes(_in_order(save(tensors, metadata=metadata)))
    unfinished.replace(path)


def _in_order(file: bytes) -> bytes:
    """The same safetensors file with the keys of its header sorted; the library's order varies."""
    end = 8 + int.from_bytes(file[:8], "little")
    header = json.dumps(json.loads(file[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # tensors begin at a multiple of 8
    return len(header).to_bytes(8, "little") + header + file[end:]


def read_checkpoint(path: str | Path, *, key: str = "checkpoint") -> PromptCheckpoint:
    """Read prompts: ours (.safetensors), Lightning's (.ckpt) or the official code's (.pth).

    Nothing in a file is executed: pickles are read with `weights_only=True`.

    Args:
        path: The file; may begin with `~`.
        key: The key it was given by, for errors.

    Raises:
        UsageError: There is no such file, or it holds no prompts.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UsageError("a checkpoint file", str(path), key=key)
    if path.suffix == ".safetensors":
        return _read_safetensors(path, key)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UsageError(
            "prompts of crane (.safetensors, .ckpt) or of the official code (.pth)",
            str(path),
            key=key,
            hint=f"reading failed: {type(error).__name__} {error}".splitlines()[0],
        ) from error
    if isinstance(content, dict) and "crane" in content:
        with _whole(path, key):
            state: dict[str, Tensor] = content["state_dict"]
            own = {k.removeprefix(PROMPTS): v for k, v in state.items() if k.startswith(PROMPTS)}
            training = json.loads(content["crane"].get("training", "{}"))
            return PromptCheckpoint(
                own, _config(content["crane"]["config"], path), {"training": training}
            )
    if isinstance(content, dict) and is_official(content):
        return PromptCheckpoint(content, None, {})
    raise UsageError("a file of prompts", f"{path}, which holds none", key=key)


def _read_safetensors(path: Path, key: str) -> PromptCheckpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            prompts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UsageError("a whole safetensors file", str(path), key=key, hint=str(error)) from error
    if metadata.get("format") != FORMAT:
        raise UsageError(
            f"prompts in the format {FORMAT}",
            f"{path} in the format {metadata.get('format')}",
            key=key,
        )
    with _whole(path, key):
        info = json.loads(metadata.get("info", "{}"))
        return PromptCheckpoint(prompts, _config(metadata["config"], path), info)


@contextmanager
def _whole(path: Path, key: str) -> Iterator[None]:
    """Tell the user of a file of ours that lacks something."""
    try:
        yield
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        wanted, hint = "a checkpoint as crane writes them", f"{type(error).__name__}: {error}"
        raise UsageError(wanted, str(path), key=key, hint=hint) from error


def _config(text: str, path: Path) -> dict[str, Any]:
    config: dict[str, Any] = from_file(json.loads(text), path.name)
    missing = [name for name in MODEL_KEYS if name not in config]
    if missing:
        raise KeyError(f"no {', '.join(missing)} in its configuration")
    return config


def adopt_config(
    config: DictConfig, checkpoint: PromptCheckpoint, overrides: Sequence[str]
) -> DictConfig:
    """A command's configuration with the model of a checkpoint in it.

    Args:
        config: As composed for the command.
        checkpoint: What was read; one without a configuration leaves `config` as it is.
        overrides: What the user typed, such as `guide=none` or `scoring.blur_sigma=2`: it stands.
    """
    if checkpoint.config is None:
        return config
    typed = {
        override.key_or_group
        for override in OverridesParser.create().parse_overrides(list(overrides))
        if override.key_or_group is not None
    }
    chosen = {"guide", "scoring"} & set(MODEL_KEYS) if "method" in typed else set()
    adopted = config.copy()
    with open_dict(adopted):
        for key in MODEL_KEYS:
            if key not in typed | chosen:
                adopted[key] = checkpoint.config[key]
        for key in typed:
            if "." in key and key.split(".")[0] in MODEL_KEYS:
                OmegaConf.update(adopted, key, OmegaConf.select(config, key))
    return adopted


def load_model(path: str | Path, overrides: Sequence[str] = ()) -> Crane:
    """The model of a checkpoint, ready to predict.

    Args:
        path: Prompts of `crane train`, or of the official code.
        overrides: Changes to its configuration, as on the command line; an official checkpoint
            has none, so say at least `method=crane` or `method=crane_plus`.

    Raises:
        UsageError: The file is no checkpoint, does not fit, or weights are missing.
    """
    checkpoint = read_checkpoint(path)
    config = compose("test", overrides)
    model = build_model(adopt_config(config, checkpoint, overrides))
    load_prompts(model, checkpoint.prompts)
    return model

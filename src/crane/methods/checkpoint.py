"""Checkpoints: learned prompts and the configuration of their model, never the frozen towers.

Nothing in a file is executed, and what its configuration may build is decided in `crane.gate` and,
for the code of guides, in `adopt_config`. The official code's tensor names stand here only.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from crane.checks import shown
from crane.config import plain
from crane.errors import UsageError
from crane.files import stand_in, write_bytes
from crane.identity import MODEL_KEYS
from crane.methods.crane import Crane
from crane.prompts import PromptLearner, check_learned

FORMAT = "crane-prompts-1"
PROMPTS = "model.prompts."
"""Prefix of the prompts' tensors in a Lightning checkpoint."""
OFFICIAL_STATES = {"pos": "normal", "neg": "anomalous"}
"""The official code's names of the two sentences, and ours."""


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


def model_config(config: DictConfig) -> dict[str, Any]:
    """The part of a configuration that a checkpoint carries.

    It is not resolved: folders such as `${weights_dir}` are those of whoever reads the checkpoint.
    """
    container = plain(config, resolve=False)
    return {key: container[key] for key in MODEL_KEYS}


def save_prompts(path: Path, model: Crane, config: dict[str, Any], info: dict[str, Any]) -> None:
    """Write a model's prompts as safetensors, with configuration and origin in the metadata.

    The file appears whole or not at all, and holds a checksum of its content. Equal prompts,
    configuration and origin give equal bytes.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in model.prompts.state_dict().items()}
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
            f"{path} is no checkpoint: it is damaged, of another format, or holds more than "
            "tensors and plain values, which is refused because it could run code",
            key=key,
        ) from error
    with _readable(path, key):
        if isinstance(content, dict) and "crane" in content:
            return _from_lightning(content, path, key)
        if isinstance(content, dict) and is_official(content):
            check_learned(prompts_from_official(content), key)
            return PromptCheckpoint(content, None, name=path.name)
    raise UsageError(
        f"{path} holds no prompts of crane (.safetensors, .ckpt) or of the official code (.pth)",
        key=key,
    )


def _from_lightning(content: Mapping[str, Any], path: Path, key: str) -> PromptCheckpoint:
    state = content["state_dict"]
    own = {k.removeprefix(PROMPTS): v for k, v in state.items() if k.startswith(PROMPTS)}
    check_learned(own, key)
    training = dict(json.loads(content["crane"].get("training", "{}")))
    config = _stored_config(content["crane"]["config"], path, key)
    return PromptCheckpoint(own, config, {"training": training}, path.name)


def _read_safetensors(path: Path, key: str) -> PromptCheckpoint:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            prompts = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise UsageError(f"{path} is no whole safetensors file: {error}", key=key) from error
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
        return PromptCheckpoint(prompts, config, info, path.name)


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
    config: dict[str, Any] = dict(json.loads(text))
    missing = [name for name in MODEL_KEYS if name not in config]
    if missing:
        raise UsageError(f"the configuration in {path} lacks {', '.join(missing)}", key=key)
    if not isinstance(config["backbone"], dict) or not config["backbone"].get("model"):
        raise UsageError(f"the configuration in {path} lacks backbone.model", key=key)
    return config


def is_official(content: Mapping[str, object]) -> bool:
    """Whether a loaded file is `{"prompt_learner": state dict}` or such a state dict."""
    return "prompt_learner" in content or "ctx_pos" in content


def prompts_from_official(
    content: Mapping[str, object], into: PromptLearner | None = None
) -> dict[str, Tensor]:
    """Rename the official code's prompts to ours: `words.normal`, `words.anomalous`, `deep`.

    Args:
        content: Content of the file: `{"prompt_learner": {...}}`, or the inner state dict.
        into: Prompts that will take the values. Their words must be tokenised as those that the
            checkpoint was made with.

    Raises:
        UsageError: Tensors are missing, or the checkpoint was made with other words.

    Warns:
        UserWarning: The checkpoint was made with other token embeddings, that is with other CLIP
            weights, for which its prompts mean nothing.
    """
    state = content.get("prompt_learner", content)
    if not isinstance(state, Mapping):
        raise UsageError(
            f"the checkpoint holds {type(state).__name__} under prompt_learner, not a state dict",
            key="checkpoint",
        )
    sets = sorted(
        (name for name in state if name.startswith("compound_prompts_text.")),
        key=lambda name: int(name.rsplit(".", 1)[1]),
    )
    words = [f"ctx_{short}" for short in OFFICIAL_STATES]
    wrong = [name for name in (*words, *sets) if not _is_real(state.get(name))]
    if wrong:
        raise UsageError(
            f"the checkpoint has no tensor of real numbers under {', '.join(wrong)}",
            key="checkpoint",
        )
    width = state["ctx_pos"].shape[-1]
    none = torch.empty(0, 1, width) if into is None else into.deep.detach()[:0]
    deep = torch.stack([state[name] for name in sets]) if sets else none
    prompts = {
        f"words.{OFFICIAL_STATES[short]}": state[f"ctx_{short}"].float().reshape(-1, width)
        for short in OFFICIAL_STATES
    }
    if into is not None:
        for short, name in OFFICIAL_STATES.items():
            _check_tokens(state, short, len(prompts[f"words.{name}"]), into, name)
    return prompts | {"deep": deep.float()}


def _is_real(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _check_tokens(
    state: Mapping[str, Tensor], short: str, num_words: int, into: PromptLearner, name: str
) -> None:
    ids = getattr(into, f"ids_{name}").cpu()
    made_with = state.get(f"tokenized_prompts_{short}")
    if made_with is not None:
        row = made_with.reshape(-1)
        sentence = torch.cat([row[:1], row[1 + num_words : int(row.argmax()) + 1]]).long()
        if not torch.equal(sentence, ids.long()):
            raise UsageError(
                f"the checkpoint was made for other {name} words (tokens {sentence.tolist()}) than "
                f"those of this configuration ({ids.tolist()}); change prompt.words.{name}",
                key=f"prompt.words.{name}",
            )
    embedded = getattr(into, f"embedded_{name}").cpu()
    prefix, suffix = state.get(f"token_prefix_{short}"), state.get(f"token_suffix_{short}")
    if prefix is None or suffix is None or prefix.shape[-1] != embedded.shape[-1]:
        return
    width = embedded.shape[-1]
    theirs = torch.cat([prefix.reshape(-1, width), suffix.reshape(-1, width)])[: len(embedded)]
    if not torch.allclose(theirs.float(), embedded.float(), atol=1e-3):
        warnings.warn(
            "the checkpoint was made with other CLIP weights than the backbone's (its embeddings "
            f"of the {name} words differ), so its prompts mean nothing here; check backbone",
            stacklevel=3,
        )

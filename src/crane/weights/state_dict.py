"""Reading weight files of every format in use, and the tensor names of other libraries."""

import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crane.errors import UsageError
from crane.files import stand_in

WRAPPERS = ("state_dict", "model")
"""Keys under which training scripts nest the tensors (open_clip: `state_dict`; Meta: `model`)."""
PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile add to every name."""
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size", "attn_mask")
"""Entries of archives beside the weights: OpenAI's integers, a traced CLIP's causal mask."""

TRANSFORMERS = re.compile(
    r"(\w+\.)?(vision_model|text_model|embeddings\.(patch|cls|position)|encoder\.layers?\.\d)"
)
"""How tensors are named by Hugging Face's transformers, and by no library whose files are read."""

_FORMATS = "a .pt/.pth/.bin state dict, an OpenAI .pt archive or a .safetensors file"


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a weight file.

    Args:
        path: An OpenAI TorchScript `.pt` archive, a (nested) state dict saved by `torch.save`, or
            a `.safetensors` file.

    Returns:
        Tensors on the CPU by name, in their stored type, without wrappers, prefixes and
        `NOT_WEIGHTS`.

    Raises:
        UsageError: The file does not exist, has another format, is damaged, or holds no tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there is no weight file {path}")
    if (what := stand_in(path)) is not None:
        raise UsageError(f"{path} is {what}")
    content = _reader(path)(path)
    tensors = {
        name: value
        for name, value in _strip(_unwrap(content)).items()
        if isinstance(value, Tensor) and name not in NOT_WEIGHTS
    }
    if not tensors:
        raise UsageError(f"{path} holds no tensors by name; weights come as {_FORMATS}")
    return tensors


def _reader(path: Path) -> Callable[[Path], object]:
    if path.suffix == ".safetensors":
        return _read_safetensors
    return _read_torchscript if is_torchscript(path) else _read_pickle


def is_torchscript(path: str | Path) -> bool:
    """Whether a file is a TorchScript archive, the format OpenAI publishes CLIP in."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, NotImplementedError):  # damaged: refused when read
        return False


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except SafetensorError as error:
        raise UsageError(f"{path} is not a whole safetensors file: {error}") from error


def _read_torchscript(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # torch deprecates TorchScript, but OpenAI has published its weights in it.
            warnings.simplefilter("ignore", FutureWarning)
            return dict(torch.jit.load(path, map_location="cpu").state_dict())
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} is not a whole TorchScript archive: {reason}") from error


def _read_pickle(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise  # the disk's, not the content's
    except Exception as error:  # pickle's reader takes any text for commands, and then fails
        raise UsageError(
            f"{path} is damaged, or is not {_FORMATS}, or holds more than tensors and plain "
            "values; save its state dict alone with torch.save or as safetensors"
        ) from error


def _unwrap(content: object) -> dict[str, object]:
    if not isinstance(content, Mapping):
        return {}
    inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
    if inner is not None:
        return _unwrap(inner)
    return {str(name): value for name, value in content.items()}


def _strip(tensors: dict[str, object]) -> dict[str, object]:
    for prefix in PREFIXES:
        if tensors and all(name.startswith(prefix) for name in tensors):
            tensors = {name[len(prefix) :]: value for name, value in tensors.items()}
    return tensors


def openai_geometry(state_dict: Mapping[str, Tensor]) -> dict[str, object]:
    """Derive the sizes of a CLIP with a vision transformer from its OpenAI-named tensors.

    OpenAI's heads are 64 wide in both towers, so their number follows from the width.

    Args:
        state_dict: Tensors under OpenAI's names, which open_clip's own CLIP uses too.

    Returns:
        An open_clip model configuration: `embed_dim`, `vision_cfg`, `text_cfg`.

    Raises:
        UsageError: Tensors of a CLIP with a vision transformer are missing.
    """
    needed = {
        "visual.conv1.weight",
        "visual.positional_embedding",
        "visual.proj",
        "positional_embedding",
        "token_embedding.weight",
        "text_projection",
    }
    missing = sorted(needed - set(state_dict))
    if missing:
        refuse_transformers(state_dict, "the given weights")
        raise UsageError(
            f"the weights lack {', '.join(missing)}, tensors of a CLIP with a vision transformer "
            "under OpenAI's names"
        )
    patch_size = state_dict["visual.conv1.weight"].shape[-1]
    num_patches = state_dict["visual.positional_embedding"].shape[0] - 1
    width, joint = state_dict["visual.proj"].shape
    text_width = state_dict["token_embedding.weight"].shape[1]
    return {
        "embed_dim": joint,
        "vision_cfg": {
            "image_size": patch_size * round(num_patches**0.5),
            "layers": _num_blocks(state_dict, "visual.transformer.resblocks."),
            "width": width,
            "head_width": 64,
            "patch_size": patch_size,
        },
        "text_cfg": {
            "context_length": state_dict["positional_embedding"].shape[0],
            "vocab_size": state_dict["token_embedding.weight"].shape[0],
            "width": text_width,
            "heads": text_width // 64,
            "layers": _num_blocks(state_dict, "transformer.resblocks."),
        },
    }


def refuse_transformers(names: Iterable[str], source: object, key: str | None = None) -> None:
    """Refuse tensors that carry the names of Hugging Face's transformers library.

    Args:
        names: Names of the tensors.
        source: Where they come from, for the error.
        key: The key that named them.

    Raises:
        UsageError: They do.
    """
    if any(TRANSFORMERS.match(name) for name in names):
        raise UsageError(
            f"{source} is in the format of Hugging Face's transformers library, whose tensors have "
            "other names; take the file of the same model for open_clip, OpenAI's clip, timm or "
            "torch.hub (crane weights lists them)",
            key=key,
        )


def _num_blocks(state_dict: Mapping[str, Tensor], prefix: str) -> int:
    inside = (name[len(prefix) :] for name in state_dict if name.startswith(prefix))
    return len({name.partition(".")[0] for name in inside})

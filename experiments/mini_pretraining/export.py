"""Export weights of a checkpoint to a half-precision safetensors file."""

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from crane.files import sha256


def export(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Write tensors in half precision; returns the file's SHA-256.

    Args:
        tensors: Weights of a trained model by name.
        path: The `.safetensors` file to write.
    """
    half = {name: value.detach().half().cpu().contiguous() for name, value in tensors.items()}
    save_file(half, path)
    return sha256(path)

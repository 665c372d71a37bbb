"""Checkpoints by name, by the folder of their training, or by file."""

from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from crane.config import compose
from crane.errors import UsageError
from crane.methods.checkpoint import PromptCheckpoint, model_config, read_checkpoint
from crane.named_prompts import MINI, full_name, is_name, last_prompts
from crane.weights import MINI_CLIP, find_weights

AUTO = "auto"
"""The checkpoint that fits the method and the backbone, see `default_checkpoint`."""
DEFAULTS = {"Crane": "crane_mvtec", "Crane+": "crane_plus_mvtec"}
"""The published prompts of each method for the paper's backbone."""


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
            which is announced, and compared with their sha256), the folder of a training, or a
            file.
        weights_dir: Where named checkpoints are looked for and downloaded to.
        allow_download: Whether a missing one is downloaded.
        key: The key that named it, for errors.

    Raises:
        UsageError: There is no such name, folder or file, or it cannot be read.
    """
    if isinstance(spec, (str, Path)) and str(spec) and Path(spec).expanduser().is_dir():
        return read_checkpoint(last_prompts(Path(spec).expanduser(), key), key=key)
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
    if method not in DEFAULTS or architecture != "ViT-L-14-336":
        raise UsageError(
            f"no published prompts fit {method} with this backbone; "
            "train some and name their file, as in checkpoint=prompts/epoch_5.safetensors",
            key="checkpoint",
        )
    return DEFAULTS[method]

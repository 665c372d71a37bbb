"""Loggers that need more than a constructor."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.loggers import WandbLogger

logger = logging.getLogger(__name__)


def wandb_logger(
    *,
    project: str,
    name: str | None,
    group: str | None,
    tags: Sequence[str],
    offline: bool | str,
    save_dir: str | Path,
) -> WandbLogger:
    """A Weights & Biases logger that works without a key.

    Args:
        project: The project's name.
        name: The run's name; None lets W&B choose.
        group: Runs that belong together.
        tags: Words to find it by.
        offline: `auto` is true where neither `WANDB_API_KEY` nor a stored login is found.
        save_dir: Where the run's files go.
    """
    if offline == "auto":
        offline = not _has_key() and os.environ.get("WANDB_MODE") is None
    if offline:
        logger.info("W&B runs offline; later: wandb sync %s/wandb/offline-run-*", save_dir)
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        project=project,
        name=name,
        group=group,
        tags=list(tags),
        offline=bool(offline),
        save_dir=save_dir,
    )


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return netrc.is_file() and "wandb" in netrc.read_text(errors="replace")

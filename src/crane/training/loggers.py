"""Loggers that need more than a constructor."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import Logger, WandbLogger

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


@contextmanager
def closing(run_logger: Logger | None) -> Iterator[None]:
    """Let a W&B run end with the work in here, so that the next run of a multirun starts its own.

    Args:
        run_logger: Of the trainer; others than W&B's need no end. A W&B run that someone else has
            begun goes on.
    """
    if not isinstance(run_logger, WandbLogger):
        yield
        return
    import wandb  # a second that runs without it need not wait

    is_ours = wandb.run is None
    try:
        yield
    except BaseException:
        if is_ours:
            wandb.finish(exit_code=1)
        raise
    if is_ours:
        wandb.finish()


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return netrc.is_file() and "wandb" in netrc.read_text(errors="replace")

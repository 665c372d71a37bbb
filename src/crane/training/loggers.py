"""Loggers that need more than a constructor."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import Logger, WandbLogger

from crane.identity import OPTIONS

logger = logging.getLogger(__name__)


def wandb_logger(
    *,
    project: str,
    name: str | None,
    group: str | None,
    tags: Sequence[str] | str,
    offline: bool | str,
    save_dir: str | Path,
) -> WandbLogger:
    """A Weights & Biases logger that works without a key.

    Args:
        project: The project's name.
        name: The run's name; `auto` is what a job of a multirun varies, None lets W&B choose.
        group: Runs that belong together; `auto` is the multirun's name.
        tags: Words to find it by; `auto` are the options chosen, such as `attention:vv`.
        offline: `auto` is true where neither `WANDB_API_KEY` nor a stored login is found.
        save_dir: Where the run's files go.
    """
    if offline == "auto":
        offline = not has_key() and os.environ.get("WANDB_MODE") is None
    if offline:
        logger.info("W&B runs offline; later: wandb sync %s/wandb/offline-run-*", save_dir)
    Path(save_dir).mkdir(parents=True, exist_ok=True)
    return WandbLogger(
        project=project,
        name=job_name() if name == "auto" else name,
        group=sweep_name() if group == "auto" else group,
        tags=chosen_options() if tags == "auto" else list(tags),
        offline=bool(offline),
        save_dir=save_dir,
    )


def sweep_name() -> str | None:
    """The name of the multirun this is a job of; None outside one."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return Path(HydraConfig.get().sweep.dir).name


def job_name() -> str | None:
    """What this job of a multirun varies, such as `attention=vv,seed=2`; None outside one."""
    if sweep_name() is None:
        return None
    return str(HydraConfig.get().job.override_dirname) or None


def chosen_options() -> list[str]:
    """Options chosen in the groups that tell runs apart, such as `attention:vv`."""
    if not HydraConfig.initialized():
        return []
    choices = HydraConfig.get().runtime.choices
    return [f"{group}:{choices[group]}" for group in OPTIONS if choices.get(group)]


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


def has_key() -> bool:
    """Whether `WANDB_API_KEY` or a stored login is found."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    return netrc.is_file() and "wandb" in netrc.read_text(errors="replace")

"""Going on with a training: with the same one, or not at all."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from crane.config import flat, plain
from crane.errors import UsageError
from crane.identity import Effect, decisive
from crane.methods.checkpoint import read_checkpoint


def resumed(path: str | None, facts: Mapping[str, Any]) -> Path | None:
    """Find the Lightning checkpoint to go on from.

    Args:
        path: What was given; None for a training that begins.
        facts: Of this training, see `training_facts`.

    Returns:
        The file, made absolute.

    Raises:
        UsageError: There is no such file, or it is of another training.
    """
    if path is None:
        return None
    file = Path(path).expanduser().resolve()
    if not file.is_file() or file.suffix != ".ckpt":
        raise UsageError("the checkpoints/last.ckpt of a training", path, key="resume")
    # Refuses code too, which some versions of Lightning would run.
    earlier = read_checkpoint(file, key="resume").info.get("training", {})
    was, now = flat(earlier), flat(facts)
    differing = [key for key in was if was[key] != now.get(key)]
    if differing:
        raise UsageError(
            f"the training of {path}: {_listed(differing, was)}",
            _listed(differing, now),
            key=f"{', '.join(differing[:3])}, or resume",
        )
    return file


def training_facts(config: DictConfig, sources: Mapping[str, str]) -> dict[str, Any]:
    """What must be the same for a training to go on.

    Args:
        config: Of `crane train`.
        sources: Fingerprint of each source data set.
    """
    kept = decisive(plain(config), {Effect.PROMPTS, Effect.SEED})
    kept = {key: value for key, value in kept.items() if not key.startswith("source.")}
    return {"source": dict(sources), **kept}


def bring_checkpoint(resume: Path | None, folder: Path) -> None:
    """Let a folder be gone on with where there was nothing left to train, and so nothing kept.

    Args:
        resume: The checkpoint gone on from, if any.
        folder: Where this training keeps its own.
    """
    if resume is not None and not (folder / "last.ckpt").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(resume, folder / "last.ckpt")


def _listed(keys: list[str], values: Mapping[str, Any]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(f"{key}={values.get(key, 'none')}" for key in keys[:3]) + more

"""Going on with a training: with the same one, or not at all."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from crane.config import plain
from crane.errors import UsageError
from crane.reporting.setting import without_places
from crane.training.checkpoint import read_checkpoint

PARTS: Mapping[str, tuple[str, ...] | None] = {
    **dict.fromkeys(("seed", "image_size", "backbone", "guide", "attention", "prompt"), None),
    **dict.fromkeys(("loss", "optimizer"), None),
    "scoring": ("temperature", "fusion_weight"),
    "data": (
        *("batch_size", "validation_fraction", "k_shot", "portion", "mosaic_rate"),
        *("mosaic_anomalous_rate", "drop_last", "resizer"),
    ),
    "trainer": ("gradient_clip_val", "precision"),
}
"""What decides the prompts that are learned, the number of epochs apart: groups, and which of their
keys; None is all of them."""


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
    was, now = dict(_values("", earlier)), dict(_values("", facts))
    differing = [key for key in {**was, **now} if was.get(key) != now.get(key)] if was else []
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
    known = without_places(plain(config))
    facts: dict[str, Any] = {"source": dict(sources)}
    for group, keys in PARTS.items():
        content = known[group]
        facts[group] = content if keys is None else {key: content.get(key) for key in keys}
    return facts


def bring_checkpoint(resume: Path | None, folder: Path) -> None:
    """Let a folder be gone on with where there was nothing left to train, and so nothing kept.

    Args:
        resume: The checkpoint gone on from, if any.
        folder: Where this training keeps its own.
    """
    if resume is not None and not (folder / "last.ckpt").exists():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(resume, folder / "last.ckpt")


def _values(name: str, node: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        yield name, node
        return
    for key, content in node.items():
        yield from _values(f"{name}.{key}" if name else str(key), content)


def _listed(keys: list[str], values: Mapping[str, Any]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(f"{key}={values.get(key, 'none')}" for key in keys[:3]) + more

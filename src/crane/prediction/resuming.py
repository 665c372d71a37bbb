"""What the folder of a prediction keeps for processes that share or resume it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from crane.errors import UsageError, unwritable
from crane.files import write_json
from crane.prediction.calibration import Calibration, Threshold, calibrate

SETTINGS, CALIBRATION = "settings.json", "calibration.json"
DECISION = ("threshold", "calibration")
"""Settings that may change: what was scored is decided again."""
UNDECIDED = "undecided"
"""Stands in the settings while parts may hold an earlier decision."""
JOINED = ("scores.csv", "scores.json", "regions.csv", "predictions.html")
"""Files that all parts make together."""


def start(folder: Path, settings: Mapping[str, object], *, overwrite: bool) -> None:
    """Start a prediction in a folder, or resume the one that was started there.

    Args:
        folder: Folder of all outputs; made if missing.
        settings: Everything that outputs depend on, by the key that changes it; JSON can hold it.
        overwrite: Whether to remove the scores of an earlier prediction first; its pictures are
            replaced one by one.

    Raises:
        UsageError: As `check_settings`.
    """
    with _locked(folder):
        if overwrite:
            for name in (SETTINGS, CALIBRATION, *JOINED):
                (folder / name).unlink(missing_ok=True)
            for part in (*(folder / "scores").glob("*part-*"), *(folder / "regions").glob("*")):
                part.unlink()
        is_other = check_settings(folder, settings)
        if is_other:
            for name in JOINED:
                (folder / name).unlink(missing_ok=True)
        if is_other or not (folder / SETTINGS).is_file():
            undecided = {UNDECIDED: True} if is_other else {}
            write_json(folder / SETTINGS, {**settings, **undecided}, durable=True)


def check_settings(folder: Path, settings: Mapping[str, object]) -> bool:
    """Check that a prediction started in a folder, if any, can be resumed with these settings.

    Returns:
        Whether it was decided otherwise, so that its parts have to be decided again.

    Raises:
        UsageError: It has other settings; names the keys.
    """
    if not (folder / SETTINGS).is_file():
        return False
    earlier, current = _read(folder / SETTINGS), json.loads(json.dumps(settings))
    is_undecided = bool(earlier.pop(UNDECIDED, False))
    changed = [key for key in {**earlier, **current} if earlier.get(key) != current.get(key)]
    others = [key for key in changed if key not in DECISION]
    if others:
        raise UsageError(
            f"the prediction in {folder} was started with another {', another '.join(others)}; "
            "choose another output, or overwrite=true to start again",
            key="output",
        )
    return bool(changed) or is_undecided


def mark_decided(folder: Path, settings: Mapping[str, object]) -> None:
    """Record that every part holds the decision of these settings."""
    with _locked(folder):
        if not is_decided_otherwise(folder, settings):
            write_json(folder / SETTINGS, settings, durable=True)


def is_decided_otherwise(folder: Path, settings: Mapping[str, object]) -> bool:
    """Whether another process has meanwhile begun to decide otherwise."""
    current = json.loads(json.dumps(settings))
    return any(_read(folder / SETTINGS).get(key) != current.get(key) for key in DECISION)


def settled_threshold(
    folder: Path,
    wanted: Threshold | Calibration | None,
    score: Callable[[Calibration], tuple[Sequence[float], Sequence[float]]],
) -> Threshold | None:
    """The threshold; normal images are scored once, and what they scored is kept for all.

    Args:
        folder: Folder of all outputs.
        wanted: A threshold, or what to calibrate it on; None for none.
        score: Gives scores of normal images, and the peaks of their maps.

    Raises:
        UsageError: What was kept cannot be read.
    """
    if not isinstance(wanted, Calibration):
        return wanted
    # Processes that share the images must use one threshold: devices may round differently.
    with _locked(folder):
        path, normals = folder / CALIBRATION, wanted.normals.fingerprint()
        if path.is_file():
            try:
                kept = _read(path)
                if kept["normals"] == normals:
                    return calibrate(kept["scores"], wanted.false_alarm_rate, kept["peaks"])
            except (LookupError, TypeError, ValueError) as error:
                raise _unreadable(path, error) from error
        scores, peaks = score(wanted)
        threshold = calibrate(scores, wanted.false_alarm_rate, peaks)
        content = {**asdict(threshold), "normals": normals, "scores": scores, "peaks": peaks}
        write_json(path, content)
        return threshold


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which is made if missing."""
    lock = FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise unwritable(folder, error, "output") from error
    try:
        yield
    finally:
        lock.release()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("not a mapping")
    except ValueError as error:
        raise _unreadable(path, error) from error
    return content


def _unreadable(path: Path, error: Exception) -> UsageError:
    if isinstance(error, UsageError) and str(path) in str(error):
        return error
    return UsageError(
        f"cannot read {path}: {error}; choose another output, or overwrite=true to start again",
        key="output",
    )

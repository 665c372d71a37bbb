"""What the folder of a prediction keeps for processes that share or resume it."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from crane.errors import UsageError, unwritable
from crane.files import write_json
from crane.prediction.calibration import Calibration, Threshold

SETTINGS, CALIBRATION = "settings.json", "calibration.json"


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
            for name in (SETTINGS, CALIBRATION, "scores.csv", "scores.json"):
                (folder / name).unlink(missing_ok=True)
            for part in (folder / "scores").glob("*part-*"):
                part.unlink()
        check_settings(folder, settings)
        if not (folder / SETTINGS).is_file():
            write_json(folder / SETTINGS, settings)


def check_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """Check that a prediction started in a folder, if any, can be resumed with these settings.

    Raises:
        UsageError: It has other settings; names the keys.
    """
    if not (folder / SETTINGS).is_file():
        return
    earlier, current = _read(folder / SETTINGS), json.loads(json.dumps(settings))
    changed = [key for key in {**earlier, **current} if earlier.get(key) != current.get(key)]
    if changed:
        raise UsageError(
            f"the prediction in {folder} was started with another {', another '.join(changed)}; "
            "choose another output, or overwrite=true to start again",
            key="output",
        )


def settled_threshold(
    folder: Path,
    wanted: Threshold | Calibration | None,
    calibrate: Callable[[Calibration], Threshold],
) -> Threshold | None:
    """The threshold; one to be calibrated is calibrated once and kept in the folder for all.

    Args:
        folder: Folder of all outputs.
        wanted: A threshold, or what to calibrate it on; None for none.
        calibrate: Calibrates one.

    Raises:
        UsageError: The one that was kept cannot be read.
    """
    if not isinstance(wanted, Calibration):
        return wanted
    # Processes that share the images must use one threshold: devices may round differently.
    with _locked(folder):
        path = folder / CALIBRATION
        if path.is_file():
            try:
                return Threshold(**_read(path))
            except (TypeError, ValueError) as error:
                raise _unreadable(path, error) from error
        threshold = calibrate(wanted)
        write_json(path, asdict(threshold))
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
    return UsageError(
        f"cannot read {path}: {error}; choose another output, or overwrite=true to start again",
        key="output",
    )

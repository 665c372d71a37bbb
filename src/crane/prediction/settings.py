"""What a prediction was begun with: one that goes on must be the same."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from crane.errors import UsageError
from crane.files import write_json
from crane.prediction.calibration import Threshold
from crane.prediction.inputs import ImageList

SETTINGS, CALIBRATION = "settings.json", "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """A threshold that is to be chosen from images known to be normal."""

    normals: ImageList
    """The images."""
    false_alarm_rate: float
    """The wanted rate."""


def begin(folder: Path, settings: Mapping[str, object]) -> None:
    """Begin a prediction in a folder, or go on with the one that was begun there.

    Args:
        folder: where outputs are written; made if missing.
        settings: everything that outputs depend on, by the key that changes it; JSON can hold it.

    Raises:
        UsageError: as `check_settings` does.
    """
    with _lock(folder):
        check_settings(folder, settings)
        if not (folder / SETTINGS).is_file():
            write_json(folder / SETTINGS, settings)


def check_settings(folder: Path, settings: Mapping[str, object]) -> None:
    """See that a prediction that was begun in a folder, if any, can be gone on with.

    Raises:
        UsageError: if it has other settings; names the keys.
    """
    if not (folder / SETTINGS).is_file():
        return
    earlier, current = _read(folder / SETTINGS), json.loads(json.dumps(settings))
    changed = [key for key in {**earlier, **current} if earlier.get(key) != current.get(key)]
    if changed:
        raise UsageError(
            f"the settings that the prediction in {folder} was begun with",
            f"another {', another '.join(changed)}",
            key="output to begin elsewhere",
            hint="overwrite=true begins anew there",
        )


def clear(folder: Path) -> None:
    """Remove the scores of an earlier prediction; its pictures are replaced one by one."""
    with _lock(folder):
        for name in (SETTINGS, CALIBRATION, "scores.csv", "scores.json"):
            (folder / name).unlink(missing_ok=True)
        for part in (folder / "scores").glob("*part-*"):
            part.unlink()


def settle_threshold(
    folder: Path,
    wanted: Threshold | Calibration | None,
    calibrate: Callable[[Calibration], Threshold],
) -> Threshold | None:
    """Give the threshold; one to be calibrated is so once, then kept in the folder for all.

    Args:
        folder: where outputs are written.
        wanted: a threshold, or what to choose it from; None for none.
        calibrate: chooses one.
    """
    if not isinstance(wanted, Calibration):
        return wanted
    # Processes that share the images must not each find one: roundings may differ between devices.
    with _lock(folder):
        if (folder / CALIBRATION).is_file():
            return Threshold(**_read(folder / CALIBRATION))
        threshold = calibrate(wanted)
        write_json(folder / CALIBRATION, asdict(threshold))
        return threshold


def _lock(folder: Path) -> FileLock:
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / ".lock")


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(
            "a file that crane wrote", str(path), key="output", hint=str(error)
        ) from error
    return content

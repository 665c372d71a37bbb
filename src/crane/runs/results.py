"""The numbers of a run as files: results.csv and results.json."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crane.errors import UsageError
from crane.files import csv_text, write_json, write_text
from crane.metrics.dataset_result import MEAN, DatasetResult


def write_results_csv(results: Sequence[DatasetResult], path: Path) -> Path:
    """Write a row per class and a `mean` row per data set; undefined values are `nan`.

    Args:
        results: The data sets tested; they may have different metrics.
        path: The file.

    Returns:
        `path`.
    """
    rows = [row for result in results for row in result.rows()]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [[row.get(column, "nan") for column in columns] for row in rows]
    return write_text(path, csv_text([columns, *lines]))


def write_results_json(results: Sequence[DatasetResult], path: Path) -> Path:
    """Write values, means, error bounds, counts and reasons; undefined values are `null`.

    Args:
        results: The data sets tested.
        path: The file.

    Returns:
        `path`.
    """
    return write_json(path, {"datasets": [_as_json(result) for result in results]})


def read_results_json(path: Path) -> tuple[DatasetResult, ...]:
    """Read what `write_results_json` wrote, equal to the last bit.

    Raises:
        UsageError: The file cannot be read or holds something else.
    """
    try:
        datasets = json.loads(path.read_text(encoding="utf-8"))["datasets"]
        return tuple(_from_json(one) for one in datasets)
    except (OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path} is not the results.json of a test ({reason})") from error


def _as_json(result: DatasetResult) -> dict[str, object]:
    return {
        "dataset": result.dataset,
        "means": {metric: _null(value) for metric, value in result.means.items()},
        "mean_error_bounds": {m: _null(value) for m, value in result.mean_bounds.items()},
        "classes": {
            name: {
                "num_normal": result.num_normal[place],
                "num_anomalous": result.num_anomalous[place],
                "values": {m: _null(column[place]) for m, column in result.values.items()},
                "error_bounds": {m: _null(column[place]) for m, column in result.bounds.items()},
                "reasons": {m: why for (m, about), why in result.reasons.items() if about == name},
            }
            for place, name in enumerate(result.class_names)
        },
    }


def _from_json(content: dict[str, Any]) -> DatasetResult:
    classes: dict[str, dict[str, Any]] = content["classes"]
    each = classes.values()
    bounded = dict.fromkeys(metric for one in each for metric in one["error_bounds"])
    return DatasetResult(
        dataset=content["dataset"],
        class_names=tuple(classes),
        values={m: tuple(_nan(one["values"][m]) for one in each) for m in content["means"]},
        means={metric: _nan(value) for metric, value in content["means"].items()},
        num_normal=tuple(one["num_normal"] for one in each),
        num_anomalous=tuple(one["num_anomalous"] for one in each),
        reasons={(m, name): w for name, one in classes.items() for m, w in one["reasons"].items()},
        bounds={m: tuple(_nan(one["error_bounds"][m]) for one in each) for m in bounded},
        mean_bounds={m: _nan(value) for m, value in content["mean_error_bounds"].items()},
    )


def _null(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


__all__ = ["MEAN", "DatasetResult", "read_results_json", "write_results_csv", "write_results_json"]

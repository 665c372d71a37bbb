"""The numbers of a run: results.csv, results.json, and tables in the terminal."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rich.markup import escape
from rich.table import Table

from crane.checks import one_of
from crane.errors import UsageError
from crane.files import csv_text, write_json, write_text
from crane.metrics.counts import MEAN, DatasetResult
from crane.terminal import WholeTable


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


HEADINGS: Mapping[str, str] = MappingProxyType(
    {
        "image_auroc": "image AUROC",
        "image_ap": "image AP",
        "image_f1max": "image F1-max",
        "image_f1max_threshold": "image threshold",
        "pixel_auroc": "pixel AUROC",
        "pixel_ap": "pixel AP",
        "pixel_f1max": "pixel F1-max",
        "pixel_f1max_threshold": "pixel threshold",
        "pixel_iou_max": "pixel IoU",
        "pixel_iou_max_threshold": "IoU threshold",
        "aupro": "AUPRO",
        "aupro_05": "AUPRO to 5%",
        "aupro_200": "AUPRO, 200 steps",
        "aupro_small": "AUPRO, small",
        "aupro_medium": "AUPRO, medium",
        "aupro_large": "AUPRO, large",
    }
)
"""Column headings; other metrics have their name as heading."""

SIZES = ("aupro_small", "aupro_medium", "aupro_large")
"""AUPRO by size of the region."""


def class_table(result: DatasetResult, metrics: Sequence[str]) -> Table:
    """Lay out one data set: a row per class and the mean, values in percent.

    An undefined value is `-` with the number of a footnote in the caption.

    Args:
        result: The numbers.
        metrics: The metrics to show, in this order.

    Raises:
        UsageError: A metric was not computed.
    """
    notes = _Notes()
    table = WholeTable(["class"], title=escape(result.dataset))
    table.add_column("normal + anomalous", justify="right", min_width=9)
    _add_metric_columns(table, result, metrics)
    for place, name in enumerate(result.class_names):
        cells = [
            _percent(result.values[m][place]) or notes.mark("-", result.reasons[m, name])
            for m in metrics
        ]
        last = place == len(result.class_names) - 1
        counts = f"{result.num_normal[place]} + {result.num_anomalous[place]}"
        table.add_row(escape(name), counts, *cells, end_section=last)
    counts = f"{sum(result.num_normal)} + {sum(result.num_anomalous)}"
    table.add_row(MEAN, counts, *_mean_cells(result, metrics, notes), style="bold")
    table.caption = notes.text()
    return table


def mean_table(
    results: Mapping[str, Sequence[DatasetResult]], metrics: Sequence[str], *, title: str
) -> Table:
    """Lay out the means of several data sets, a row for each and for each method.

    Args:
        results: Method, or any name of a run, to its data sets. Rows are grouped by data set, in
            the order in which the data sets first occur.
        metrics: The metrics to show, in this order.
        title: Heading of the table.

    Raises:
        UsageError: A metric was not computed, or there is no result.
    """
    notes = _Notes()
    table = WholeTable(["data set", "method"], title=title)
    first = next((result for each in results.values() for result in each), None)
    if first is None:
        raise UsageError("there is no result to show")
    _add_metric_columns(table, first, metrics)
    names = dict.fromkeys(result.dataset for each in results.values() for result in each)
    for name in names:
        rows = [(m, r) for m, each in results.items() for r in each if r.dataset == name]
        for place, (method, result) in enumerate(rows):
            _check(result, metrics)
            cells = _mean_cells(result, metrics, notes)
            last = place == len(rows) - 1
            table.add_row("" if place else escape(name), escape(method), *cells, end_section=last)
    table.caption = notes.text()
    return table


class _Notes:
    """Footnotes, one per distinct reason."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}

    def mark(self, shown: str, reason: str) -> str:
        # The number comes before the value, so that the digits of values stay aligned.
        return f"({self.numbers.setdefault(reason, len(self.numbers) + 1)}) {shown}"

    def text(self) -> str | None:
        lines = (f"({number}) {reason}" for reason, number in self.numbers.items())
        return "\n".join(lines) or None


def _add_metric_columns(table: Table, result: DatasetResult, metrics: Sequence[str]) -> None:
    _check(result, metrics)
    for metric in metrics:
        table.add_column(HEADINGS.get(metric, metric), justify="right", min_width=6)


def _check(result: DatasetResult, metrics: Sequence[str]) -> None:
    for metric in metrics:
        one_of(metric, result.values, "metric", "table_columns")


def _mean_cells(result: DatasetResult, metrics: Sequence[str], notes: _Notes) -> list[str]:
    cells = []
    for metric in metrics:
        shown = _percent(result.means[metric])
        reasons = {why for (name, _), why in result.reasons.items() if name == metric}
        if shown and reasons:
            used = sum(not math.isnan(value) for value in result.values[metric])
            why = f"mean of the {used} of {len(result.class_names)} classes where it is defined"
            shown = notes.mark(shown, why)
        cells.append(shown or notes.mark("-", "; ".join(sorted(reasons))))
    return cells


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"

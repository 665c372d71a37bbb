"""The numbers of a test, per class and in the mean, as data and as files."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from crane.errors import UsageError
from crane.files import write_json, write_text
from crane.metrics import Results

MEAN = "mean"
"""Name of the last row of a data set, where a class name stands in the others."""


@dataclass(frozen=True)
class DatasetResult:
    """What was measured on one data set.

    Raises:
        UsageError: when a metric, bound or count does not have one entry for each class, or when a
            NaN comes without its reason.

    >>> DatasetResult(
    ...     dataset="mvtec",
    ...     class_names=("bottle", "cable"),
    ...     values={"image_auroc": (0.9, 0.8)},
    ...     means={"image_auroc": 0.85},
    ...     num_normal=(20, 58),
    ...     num_anomalous=(63, 92),
    ... ).rows()[-1]
    {'dataset': 'mvtec', 'class': 'mean', 'num_normal': 78, 'num_anomalous': 155,
     'image_auroc': 0.85}
    """

    dataset: str
    """Name of the data set."""
    class_names: tuple[str, ...]
    """Its classes, in the order of all that follows."""
    values: Mapping[str, tuple[float, ...]]
    """Metric name to one value a class; NaN where the metric is not defined."""
    means: Mapping[str, float]
    """Metric name to the mean over the classes where it is defined; NaN if there is none."""
    num_normal: tuple[int, ...]
    """Normal images of each class."""
    num_anomalous: tuple[int, ...]
    """Anomalous images of each class."""
    reasons: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(metric, class) to the reason why the value is NaN."""
    bounds: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Metric name to a bound on the discretisation error of each class's value."""
    mean_bounds: Mapping[str, float] = field(default_factory=dict)
    """Metric name to a bound on the discretisation error of the mean."""

    def __post_init__(self) -> None:
        columns: list[tuple[str, Sequence[float]]] = [
            *((f"values of {metric}", column) for metric, column in self.values.items()),
            *((f"bounds of {metric}", column) for metric, column in self.bounds.items()),
            ("num_normal", self.num_normal),
            ("num_anomalous", self.num_anomalous),
        ]
        for name, column in columns:
            if len(column) != len(self.class_names):
                raise UsageError(f"{len(self.class_names)} {name}, one a class", len(column))
        if set(self.means) != set(self.values):
            raise UsageError(f"means of {', '.join(self.values)}", ", ".join(self.means))
        for metric, column in self.values.items():
            for class_name, value in zip(self.class_names, column, strict=True):
                if math.isnan(value) and (metric, class_name) not in self.reasons:
                    raise UsageError(
                        f"a reason why {metric} of {class_name} is not defined", "none"
                    )

    @classmethod
    def from_metrics(
        cls,
        dataset: str,
        class_names: Sequence[str],
        results: Results,
        *,
        num_normal: Sequence[int],
        num_anomalous: Sequence[int],
    ) -> "DatasetResult":
        """Name the classes of what an `Evaluation` computed."""
        return cls(
            dataset=dataset,
            class_names=tuple(class_names),
            values={metric: tuple(column) for metric, column in results.per_class.items()},
            means=dict(results.mean),
            num_normal=tuple(num_normal),
            num_anomalous=tuple(num_anomalous),
            reasons={
                (metric, class_names[class_id]): why
                for metric, lacking in results.reasons.items()
                for class_id, why in lacking.items()
            },
            bounds={metric: tuple(column) for metric, column in results.error.items()},
            mean_bounds=dict(results.mean_error),
        )

    def rows(self) -> list[dict[str, str | int | float]]:
        """Give one flat row a class and one for the mean, at full precision."""
        rows: list[dict[str, str | int | float]] = [
            {
                "dataset": self.dataset,
                "class": class_name,
                "num_normal": self.num_normal[place],
                "num_anomalous": self.num_anomalous[place],
                **{metric: column[place] for metric, column in self.values.items()},
            }
            for place, class_name in enumerate(self.class_names)
        ]
        total: dict[str, str | int | float] = {
            "dataset": self.dataset,
            "class": MEAN,
            "num_normal": sum(self.num_normal),
            "num_anomalous": sum(self.num_anomalous),
        }
        return [*rows, {**total, **self.means}]


def write_results_csv(results: Sequence[DatasetResult], path: Path) -> Path:
    """Write one row a class and one `mean` row a data set; what is not defined is `nan`."""
    rows = [row for result in results for row in result.rows()]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, columns, restval="nan", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return write_text(path, text.getvalue())


def write_results_json(results: Sequence[DatasetResult], path: Path) -> Path:
    """Write values, means, error bounds, counts and reasons; what is not defined is `null`."""
    return write_json(path, {"datasets": [_as_json(result) for result in results]})


def read_results_json(path: Path) -> tuple[DatasetResult, ...]:
    """Read what `write_results_json` wrote, to the last bit.

    Raises:
        UsageError: for a file that holds something else.
    """
    try:
        datasets = json.loads(path.read_text(encoding="utf-8"))["datasets"]
        return tuple(_from_json(one) for one in datasets)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "a results.json that a test wrote", str(path), hint=f"{error!r}"
        ) from error


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


def _from_json(content: dict) -> DatasetResult:
    classes: dict[str, dict] = content["classes"]
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

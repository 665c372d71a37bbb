"""The numbers of one data set. Needs no torch, so that reports and tables open quickly."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from crane.errors import UsageError, counted

MEAN = "mean"
"""What stands in the place of a class name for the mean over classes."""


@dataclass(frozen=True)
class DatasetResult:
    """What was measured on one data set. All values are fractions, not percent.

    Raises:
        UsageError: A metric, bound or count does not have one entry per class, or NaN comes
            without its reason.

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
    """Its classes; the tuples below have one entry for each, in this order."""
    values: Mapping[str, tuple[float, ...]]
    """Metric name to the value of each class; NaN where the metric is undefined."""
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
                classes = counted(len(self.class_names), "class", "classes")
                raise UsageError(f"{classes}, but {len(column)} {name}")
        if set(self.means) != set(self.values):
            differing = ", ".join(sorted(set(self.means) ^ set(self.values)))
            raise UsageError(f"each metric needs values and a mean; one is missing for {differing}")
        for metric, column in self.values.items():
            for class_name, value in zip(self.class_names, column, strict=True):
                if math.isnan(value) and (metric, class_name) not in self.reasons:
                    raise UsageError(f"{metric} of {class_name} is NaN without a reason")

    def rows(self) -> list[dict[str, str | int | float]]:
        """One flat row per class and one for the mean, at full precision."""
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

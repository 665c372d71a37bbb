"""Published numbers, to stand beside one's own."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crane.errors import UsageError
from crane.report.rows import Row, Spread
from crane.runs import MEAN

METRICS = {
    ("image", "auroc"): "image_auroc",
    ("image", "ap"): "image_ap",
    ("image", "f1max"): "image_f1max",
    ("pixel", "auroc"): "pixel_auroc",
    ("pixel", "f1max"): "pixel_f1max",
    ("pixel", "aupro"): "aupro_200",  # what published tables call AUPRO: see docs/metrics.md
}
"""Level and metric of a published table to the name here."""


@dataclass(frozen=True)
class Published:
    """The numbers of one table."""

    values: dict[tuple[str, str], dict[str, float]]
    """Method and data set to metric to fraction."""

    def rows(self, datasets: Sequence[str]) -> list[Row]:
        """The rows that are about some data sets."""
        return [
            Row(
                setting=f"{method} (published)",
                dataset=wanted,
                class_name=MEAN,
                metrics={metric: Spread((value,)) for metric, value in found.items()},
                num_seeds=0,
            )
            for wanted in datasets
            for (method, dataset), found in self.values.items()
            if dataset.replace("-", "_") == wanted.replace("-", "_")
        ]

    def beside(self, rows: Sequence[Row]) -> list[Row]:
        """Rows with the published ones of each data set before them."""
        return [
            row
            for dataset in dict.fromkeys(row.dataset for row in rows)
            for row in (*self.rows([dataset]), *(own for own in rows if own.dataset == dataset))
        ]


def read_published(path: Path) -> Published:
    """Read a table with the columns level, metric, dataset, method and percent.

    Raises:
        UsageError: for a file without these columns, or with an unknown metric or no number.
    """
    values: dict[tuple[str, str], dict[str, float]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                metric = METRICS[line["level"], line["metric"]]
                number = float(line["percent"]) / 100
                if math.isfinite(number):
                    values.setdefault((line["method"], line["dataset"]), {})[metric] = number
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            "a CSV file with the columns level, metric, dataset, method and percent",
            str(path),
            key="published",
            hint=f"{error!r}",
        ) from error
    return Published(values)

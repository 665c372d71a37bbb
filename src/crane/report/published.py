"""Published numbers, for tables beside one's own."""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crane.errors import UsageError
from crane.report.markup import TableRow
from crane.runs import MEAN, Spread

COLUMNS = ("level", "metric", "dataset", "method", "percent")
METRICS = {
    ("image", "auroc"): "image_auroc",
    ("image", "ap"): "image_ap",
    ("image", "f1max"): "image_f1max",
    ("pixel", "auroc"): "pixel_auroc",
    ("pixel", "f1max"): "pixel_f1max",
    ("pixel", "aupro"): "aupro_200",  # the definition of published tables: see docs/metrics.md
}
"""Level and metric in a published table to the name of the metric here."""


@dataclass(frozen=True)
class Published:
    """The numbers of one table."""

    values: dict[tuple[str, str], dict[str, float]]
    """Method and data set to metric to fraction."""

    def rows(self, datasets: Sequence[str]) -> list[TableRow]:
        """The rows for some data sets; hyphens and underscores in names are alike."""
        return [
            TableRow(
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

    def beside(self, rows: Sequence[TableRow]) -> list[TableRow]:
        """One's own rows, with the published ones of each data set before them."""
        return [
            row
            for dataset in dict.fromkeys(row.dataset for row in rows)
            for row in (*self.rows([dataset]), *(own for own in rows if own.dataset == dataset))
        ]


def read_published(path: Path) -> Published:
    """Read a CSV table with the columns `COLUMNS`.

    Raises:
        UsageError: The file cannot be read, or a line lacks a column, names an unknown metric or
            has no number.
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
            f"cannot read {path} as a CSV table with the columns {', '.join(COLUMNS)}: {error!r}",
            key="published",
        ) from error
    return Published(values)

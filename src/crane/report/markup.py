"""Tables of a report, with published numbers: their rows, as Markdown, LaTeX and CSV."""

import csv
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crane.errors import UsageError
from crane.files import csv_text
from crane.report.discovery import Run
from crane.runs import HEADINGS, MEAN, Spread, by_seed, measurements

BEST, SECOND = 1, 2
MARKDOWN = {BEST: "**{}**", SECOND: "<u>{}</u>"}
LATEX = {BEST: r"\textbf{{{}}}", SECOND: r"\underline{{{}}}"}
LATEX_SPECIAL = {
    "\\": r"\textbackslash{}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
"""Characters that LaTeX does not print as they are."""


@dataclass(frozen=True)
class TableRow:
    """A setting, or a published method, on one data set or on one of its classes."""

    setting: str
    dataset: str
    class_name: str
    """A class, or `mean`."""
    metrics: Mapping[str, Spread]
    """Metric name to its values over seeds, as fractions."""
    num_seeds: int
    """Number of repetitions; 0 for published numbers."""

    def spread(self, metric: str) -> Spread:
        """The values of a metric; empty if it was not measured."""
        return self.metrics.get(metric, Spread(()))


def summarise(runs: Sequence[Run], labels: Sequence[str]) -> list[TableRow]:
    """Gather the numbers of each setting over its seeds.

    Args:
        runs: Earlier runs before later ones; if two have the same setting, seed and data set, the
            later counts.
        labels: The setting of each run.

    Returns:
        Data sets and settings in the order of the runs; for each the mean over classes, then its
        classes.
    """
    frame = [
        measurement
        for run, label in zip(runs, labels, strict=True)
        for result in run.results
        for measurement in measurements(result, label, run.repetition, str(run.folder))
    ]
    found: dict[tuple[str, str, str], dict[str, Mapping[Hashable, float]]] = {}
    for (setting, dataset, class_name, metric), values in by_seed(frame).items():
        found.setdefault((dataset, setting, class_name), {})[metric] = values
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in found))
    settings = list(dict.fromkeys(labels))

    def order(key: tuple[str, str, str]) -> tuple[int, int, bool]:
        return datasets.index(key[0]), settings.index(key[1]), key[2] != MEAN

    rows = []
    for key in sorted(found, key=order):
        dataset, setting, class_name = key
        metrics = {metric: Spread.of(values.values()) for metric, values in found[key].items()}
        num_seeds = len({seed for values in found[key].values() for seed in values})
        rows.append(TableRow(setting, dataset, class_name, metrics, num_seeds))
    return rows


def heading(metric: str) -> str:
    """The heading of a metric's column."""
    return HEADINGS.get(metric, metric)


def places(rows: Sequence[TableRow], metric: str) -> list[int]:
    """The place of each row: `BEST`, `SECOND`, or 0 for the others.

    Values that look the same in the table share a place; a row alone has none.

    >>> rows = [TableRow("a", "d", "mean", {"m": Spread((v,))}, 1)
    ...         for v in (0.5, 0.7, 0.70001, 0.6)]
    >>> places(rows, "m")
    [0, 1, 1, 2]
    """
    shown = [round(100 * row.spread(metric).mean, 1) for row in rows]
    order = sorted({value for value in shown if not math.isnan(value)}, reverse=True)
    ranks = dict(zip(order, (BEST, SECOND), strict=False)) if len(order) > 1 else {}
    return [ranks.get(value, 0) for value in shown]


def markdown_table(
    head: Sequence[str], lines: Iterable[Sequence[str]], *, numbers: bool = True
) -> str:
    r"""Write a table as Markdown; pipes and line breaks in its cells do not end them.

    Args:
        head: The column headings.
        lines: The cells of each row.
        numbers: Whether every column but the first holds numbers, aligned right.

    >>> print(markdown_table(["setting", "AUPRO"], [["a|b", "50.0"]]))
    | setting | AUPRO |
    | --- | ---: |
    | a\|b | 50.0 |
    """
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    rows = [
        [" ".join(text.split()).replace("|", r"\|") for text in line] for line in (head, *lines)
    ]
    rows.insert(1, rule)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def markdown_tables(rows: Sequence[TableRow], metrics: Sequence[str]) -> str:
    """A Markdown table for each data set, of means over classes: the best bold."""
    head = ["setting", "seeds", *map(heading, metrics)]
    parts = []
    for dataset, own in _by_dataset(rows).items():
        cells = _cells(own, metrics, MARKDOWN)
        seeds = [str(row.num_seeds or "-") for row in own]
        lines = [[row.setting, n, *line] for row, n, line in zip(own, seeds, cells, strict=True)]
        parts.append(f"### {dataset}\n\n{markdown_table(head, lines)}\n")
    return "\n".join(parts)


def latex_tables(rows: Sequence[TableRow], metrics: Sequence[str]) -> str:
    """A LaTeX table (booktabs) for each data set, of means over classes: the best bold."""
    head = [escape_latex(text) for text in ("setting", *map(heading, metrics))]
    parts = ["% needs \\usepackage{booktabs}\n"]
    for dataset, own in _by_dataset(rows).items():
        cells = _cells(own, metrics, LATEX, r" $\pm$ ")
        body = [[escape_latex(row.setting), *line] for row, line in zip(own, cells, strict=True)]
        lines = [
            *(r"\begin{table}", r"\centering"),
            rf"\caption{{{escape_latex(dataset)}, in percent.}}",
            *(rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}", r"\toprule"),
            *(" & ".join(head) + r" \\", r"\midrule"),
            *(" & ".join(line) + r" \\" for line in body),
            *(r"\bottomrule", r"\end{tabular}", r"\end{table}"),
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def csv_table(rows: Sequence[TableRow]) -> str:
    """Every row and metric at full precision: mean, standard deviation and number of values."""
    head = ("setting", "dataset", "class", "metric", "mean", "deviation", "num_values")
    lines: list[tuple[object, ...]] = [head]
    for row in rows:
        for metric, spread in row.metrics.items():
            deviation = "" if spread.deviation is None else repr(spread.deviation)
            facts = (repr(spread.mean), deviation, len(spread.values))
            lines.append((row.setting, row.dataset, row.class_name, metric, *facts))
    return csv_text(lines)


def escape_latex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(escape_latex("k_shot=50%"))
    k\_shot=50\%
    """
    return "".join(LATEX_SPECIAL.get(sign, sign) for sign in text)


def _by_dataset(rows: Sequence[TableRow]) -> dict[str, list[TableRow]]:
    groups: dict[str, list[TableRow]] = {}
    for row in rows:
        if row.class_name == MEAN:
            groups.setdefault(row.dataset, []).append(row)
    return groups


def _cells(
    rows: Sequence[TableRow],
    metrics: Sequence[str],
    marks: Mapping[int, str],
    plus_minus: str = " ± ",
) -> list[list[str]]:
    """The cells of each row, the best and the second best marked."""
    columns = []
    for metric in metrics:
        texts = [row.spread(metric).percent(plus_minus=plus_minus) for row in rows]
        ranked = zip(places(rows, metric), texts, strict=True)
        columns.append([marks.get(place, "{}").format(text) for place, text in ranked])
    return [list(line) for line in zip(*columns, strict=True)]


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

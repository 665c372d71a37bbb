"""Tables as Markdown, LaTeX and CSV: the best bold, the second underlined."""

import csv
import io
import math
from collections.abc import Callable, Iterable, Sequence

from crane.report.rows import Row, Spread
from crane.runs import HEADINGS, MEAN

Mark = Callable[[str], str]
"""Sets a text off."""

BEST, SECOND = 1, 2
SPECIAL = {
    "\\": r"\textbackslash{}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
"""Characters that LaTeX reads as something else."""


def heading(metric: str) -> str:
    """What a column is called."""
    return HEADINGS.get(metric, metric)


def places(rows: Sequence[Row], metric: str) -> list[int]:
    """The place of each row: 1 for the best as shown, 2 for the second, 0 for the others.

    Values that are shown alike share a place; a row alone has none.

    >>> rows = [Row("a", "d", "mean", {"m": Spread((v,))}, 1) for v in (0.5, 0.7, 0.70001, 0.6)]
    >>> places(rows, "m")
    [0, 1, 1, 2]
    """
    shown = [round(100 * row.metrics.get(metric, Spread(())).mean, 1) for row in rows]
    order = sorted({value for value in shown if not math.isnan(value)}, reverse=True)
    ranks = dict(zip(order, (BEST, SECOND), strict=False)) if len(order) > 1 else {}
    return [ranks.get(value, 0) for value in shown]


def percent(spread: Spread | None, plus_minus: str = "±") -> str:
    """A mean in per cent with its standard deviation where there is one; `-` for none.

    >>> percent(Spread((0.5, 0.7))), percent(Spread((0.5,))), percent(None)
    ('60.0 ± 14.1', '50.0', '-')
    """
    if spread is None or not spread.values:
        return "-"
    text = f"{100 * spread.mean:.1f}"
    deviation = spread.deviation
    return text if deviation is None else f"{text} {plus_minus} {100 * deviation:.1f}"


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
    rows = [[_cell(text) for text in line] for line in (head, *lines)]
    rows.insert(1, rule)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", r"\|")


def markdown_tables(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """A table a data set, of means over classes."""
    marks: dict[int, Mark] = {
        0: str,
        BEST: lambda text: f"**{text}**",
        SECOND: lambda text: f"<u>{text}</u>",
    }
    parts = []
    for dataset, own in _by_dataset(rows).items():
        head = ["setting", "seeds", *map(heading, metrics)]
        lines = [
            [row.setting, str(row.num_seeds or "-"), *line]
            for row, line in zip(own, _cells(own, metrics, marks), strict=True)
        ]
        parts.append(f"### {dataset}\n\n{markdown_table(head, lines)}\n")
    return "\n".join(parts)


def latex_tables(rows: Sequence[Row], metrics: Sequence[str]) -> str:
    """A booktabs table a data set, of means over classes."""
    marks: dict[int, Mark] = {
        0: str,
        BEST: lambda text: rf"\textbf{{{text}}}",
        SECOND: lambda text: rf"\underline{{{text}}}",
    }
    parts = ["% needs \\usepackage{booktabs}\n"]
    for dataset, own in _by_dataset(rows).items():
        cells = _cells(own, metrics, marks, r"$\pm$")
        head = " & ".join(map(escape_latex, ["setting", *map(heading, metrics)]))
        body = [
            " & ".join([escape_latex(row.setting), *line]) + r" \\"
            for row, line in zip(own, cells, strict=True)
        ]
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(dataset)}, in per cent.}}",
            rf"\begin{{tabular}}{{l{'r' * len(metrics)}}}",
            r"\toprule",
            head + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def csv_table(rows: Sequence[Row]) -> str:
    """Every row and metric at full precision: mean, standard deviation and number of values."""
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("setting", "dataset", "class", "metric", "mean", "deviation", "num_values"))
    for row in rows:
        for metric, spread in row.metrics.items():
            deviation = "" if spread.deviation is None else repr(spread.deviation)
            facts = (repr(spread.mean), deviation, len(spread.values))
            table.writerow((row.setting, row.dataset, row.class_name, metric, *facts))
    return text.getvalue()


def escape_latex(text: str) -> str:
    r"""Text that LaTeX prints as it is.

    >>> print(escape_latex("k_shot=50%"))
    k\_shot=50\%
    """
    return "".join(SPECIAL.get(sign, sign) for sign in text)


def _by_dataset(rows: Sequence[Row]) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row.class_name == MEAN:
            groups.setdefault(row.dataset, []).append(row)
    return groups


def _cells(
    rows: Sequence[Row],
    metrics: Sequence[str],
    marks: dict[int, Mark],
    plus_minus: str = "±",
) -> list[list[str]]:
    columns = []
    for metric in metrics:
        texts = [percent(row.metrics.get(metric), plus_minus) for row in rows]
        ranked = zip(places(rows, metric), texts, strict=True)
        columns.append([marks[place](text) for place, text in ranked])
    return [list(line) for line in zip(*columns, strict=True)]

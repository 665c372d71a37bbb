"""Figures for papers: settings compared, classes, sizes of regions, and curves, as files."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from crane.errors import UsageError
from crane.files import replacing
from crane.pictures import CURVES, KINDS
from crane.report.colours import setting_colours
from crane.report.fonts import drawing_text
from crane.report.markup import heading
from crane.report.rows import Row, Spread
from crane.report.runs import Run
from crane.runs import MEAN, SIZES

FORMATS = ("pdf", "svg", "png")
NUM_COLUMNS = 4
"""Axes side by side, at most."""
STYLE: dict[Any, Any] = {
    **{"font.size": 8, "axes.titlesize": 8, "axes.axisbelow": True, "axes.grid": True},
    **{"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False},
    **{"savefig.bbox": "tight", "pdf.fonttype": 42, "svg.fonttype": "none"},
    "text.parse_math": False,
}
"""Text stays text, as journals want it; names may have a `$` in them."""

Draw = Callable[[Axes, int], None]
"""Draws on the axes with a number."""


def write_figures(
    rows: Sequence[Row],
    metrics: Sequence[str],
    first: Mapping[str, Run],
    folder: Path,
    file_format: str,
) -> list[Path]:
    """Write the figures of every data set, `FOLDER/DATASET/NAME.FORMAT`.

    `settings` has means with spread, `classes` bars a class, `sizes` AUPRO by size of the region;
    and there is one for each kind of curve. What no setting has is left out.

    Args:
        rows: the numbers, published ones among them.
        metrics: what is shown, in this order.
        first: the run of each setting whose curves are shown.
        folder: where to write.
        file_format: pdf, svg or png.

    Raises:
        UsageError: for another format.
    """
    if file_format not in FORMATS:
        raise UsageError(f"one of {', '.join(FORMATS)}, or null", file_format, key="figures")
    colours = setting_colours(rows)
    curves = {label: read_curves(run) for label, run in first.items()}
    written = []
    with mpl.rc_context(STYLE), drawing_text([*colours, *(row.class_name for row in rows)]):
        for dataset in dict.fromkeys(row.dataset for row in rows if row.num_seeds):
            own = [row for row in rows if row.dataset == dataset]
            here = {label: found[dataset] for label, found in curves.items() if dataset in found}
            drawn = {
                "settings": _settings(own, metrics, colours),
                "classes": _classes(own, metrics, colours),
                "sizes": _sizes(own, colours),
                **{kind: _curves(here, kind, colours) for kind in KINDS},
            }
            for name, figure in drawn.items():
                if figure is not None:
                    path = folder / dataset / f"{name}.{file_format}"
                    with replacing(path) as part:
                        figure.savefig(part, dpi=200)
                    written.append(path)
    return written


def read_curves(run: Run) -> dict[str, Any]:
    """The curves that a run kept: data set, kind, class; none where it kept none.

    Raises:
        UsageError: for a file that holds something else.
    """
    path = run.folder / CURVES
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (TypeError, ValueError) as error:
        raise UsageError(f"a {CURVES} that a test wrote", str(path), hint=f"{error!r}") from error


def _settings(rows: Sequence[Row], metrics: Sequence[str], colours: Mapping[str, str]) -> Figure:
    """A dot a setting with its spread, axes a metric."""
    own = [row for row in rows if row.class_name == MEAN]

    def draw(axes: Axes, number: int) -> None:
        for place, row in enumerate(own):
            spread, colour = row.metrics.get(metrics[number], Spread(())), colours[row.setting]
            if spread.deviation is None:
                axes.plot(100 * spread.mean, place, "o", color=colour, ms=4)  # NaN draws nothing
                continue
            mean, error = 100 * spread.mean, 100 * spread.deviation
            each = [100 * value for value in spread.values]
            axes.errorbar(mean, place, xerr=error, fmt="o", color=colour, ms=4)
            axes.plot(each, [place + 0.25] * len(each), ".", color=colour, alpha=0.5, ms=3)
        is_first = number % NUM_COLUMNS == 0
        axes.set_yticks(range(len(own)), [row.setting for row in own] if is_first else [])
        axes.set_ylim(len(own) - 0.5, -0.5)
        axes.set_title(heading(metrics[number]))

    return _grid(len(metrics), draw, (1.7, 0.5 + 0.2 * len(own)))


def _classes(
    rows: Sequence[Row], metrics: Sequence[str], colours: Mapping[str, str]
) -> Figure | None:
    """Bars a class and setting, axes a metric."""
    own = [row for row in rows if row.class_name != MEAN]
    names = list(dict.fromkeys(row.class_name for row in own))
    if not names:
        return None

    def draw(axes: Axes, number: int) -> None:
        values = [(row.setting, row.class_name, row.metrics.get(metrics[number])) for row in own]
        _bars(axes, names, values, colours)
        axes.set_ylabel(heading(metrics[number]))

    width = max(3.5, 0.09 * len(own) + 0.2 * len(names))
    return _grid(len(metrics), draw, (width, 1.5), num_columns=1, legend=True)


def _sizes(rows: Sequence[Row], colours: Mapping[str, str]) -> Figure | None:
    values = [
        (row.setting, size.removeprefix("aupro_"), row.metrics[size])
        for row in rows
        if row.class_name == MEAN and row.num_seeds
        for size in SIZES
        if size in row.metrics and row.metrics[size].values
    ]
    if not values:
        return None
    names = [size.removeprefix("aupro_") for size in SIZES]

    def draw(axes: Axes, number: int) -> None:
        _bars(axes, names, values, colours)
        axes.set_ylabel("AUPRO")

    return _grid(1, draw, (max(3.5, 0.09 * len(values)), 2), legend=True)


def _bars(
    axes: Axes,
    groups: Sequence[str],
    values: Sequence[tuple[str, str, Spread | None]],
    colours: Mapping[str, str],
) -> None:
    """Bars of each setting beside each other in every group, with whiskers of one deviation."""
    settings = list(dict.fromkeys(setting for setting, _, _ in values))
    width = 0.8 / len(settings)
    for place, setting in enumerate(settings):
        mine = {g: s for one, g, s in values if one == setting and s is not None and s.values}
        x = [groups.index(name) - 0.4 + width * (place + 0.5) for name in mine]
        heights = [100 * spread.mean for spread in mine.values()]
        errors = [100 * (spread.deviation or math.nan) for spread in mine.values()]
        axes.bar(x, heights, width, color=colours[setting], label=setting)
        axes.errorbar(x, heights, yerr=errors, fmt="none", ecolor="#333", elinewidth=0.7)
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_xticks(range(len(groups)), groups)
    if len(groups) > 5:
        axes.tick_params("x", rotation=30)
    axes.grid(visible=False, axis="x")


def _curves(
    found: Mapping[str, Mapping[str, Any]], kind: str, colours: Mapping[str, str]
) -> Figure | None:
    """A line a setting, axes a class."""
    names = list(dict.fromkeys(name for one in found.values() for name in one.get(kind, {})))
    if not names:
        return None

    def draw(axes: Axes, number: int) -> None:
        for setting, kinds in found.items():
            if curve := kinds.get(kind, {}).get(names[number]):
                axes.plot(curve["x"], curve["y"], color=colours[setting], label=setting, lw=1)
                axes.set_xlabel(curve["x_name"].replace("_", " "))
                if number % NUM_COLUMNS == 0:
                    axes.set_ylabel(curve["y_name"].replace("_", " "))
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), title=names[number])

    return _grid(len(names), draw, (1.8, 2), legend=True)


def _grid(
    num_axes: int,
    draw: Draw,
    size: tuple[float, float],
    *,
    num_columns: int = NUM_COLUMNS,
    legend: bool = False,
) -> Figure:
    """Axes of one size in inches, side by side and below each other, with one legend for all."""
    columns = min(num_axes, num_columns)
    lines = math.ceil(num_axes / columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * lines), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False).flat
    for number, axes in enumerate(grid):
        if number < num_axes:
            draw(axes, number)
        else:
            axes.set_axis_off()
    if legend:
        handles: dict[str, Any] = {}
        for axes in figure.axes:
            handles |= dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        figure.legend(
            handles.values(), handles, loc="outside lower center", ncols=min(3, len(handles)),
            frameon=False,
        )  # fmt: skip
    return figure

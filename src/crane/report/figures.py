"""Figures for papers: settings compared, classes, sizes of regions, and curves, as files."""

import logging
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

from crane.checks import checked
from crane.files import file_names, replacing
from crane.pictures import KINDS
from crane.report.discovery import Run
from crane.report.markup import TableRow, heading
from crane.runs import MEAN, SIZES, Spread

logger = logging.getLogger(__name__)

PALETTE = (
    *("#d9532c", "#2a7fbf", "#3d9a57", "#b07cc6", "#d4a017"),
    *("#26a6a4", "#c2577f", "#7d8b33", "#8c6d4f", "#6b7fd7"),
    *("#f0a58d", "#8fc0e6", "#94d0a4", "#dcc1ea", "#e6c566"),
    *("#8fd9d6", "#e6a8bd", "#bcc77a", "#c9b29b", "#b4bff0"),
)
"""Colours of settings, legible on white and on black; they repeat after the last."""
GREY = "#9a948a"
"""Colour of published numbers."""
FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP"),
    *("Noto Sans KR", "Source Han Sans SC", "Source Han Sans", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAGothic", "NanumGothic"),  # Linux
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic"),  # Windows
    *("PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo"),  # macOS
    *("Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Arabic"),
)
"""Fonts for characters that matplotlib's own font lacks; those installed are used."""
Format = Literal["pdf", "svg", "png"]
NUM_COLUMNS = 4
"""Plots side by side, at most."""
STYLE: dict[Any, Any] = {
    **{"font.size": 8, "axes.titlesize": 8, "axes.axisbelow": True, "axes.grid": True},
    **{"grid.alpha": 0.3, "axes.spines.top": False, "axes.spines.right": False},
    **{"savefig.bbox": "tight", "pdf.fonttype": 42, "svg.fonttype": "none"},
    "text.parse_math": False,
}
"""Text stays text, as journals require; a `$` in a name starts no formula."""

Draw = Callable[[Axes, int], None]
"""Draws one plot, given its number."""


def setting_colours(rows: Iterable[TableRow]) -> dict[str, str]:
    """The colour of each setting, the same in every chart.

    >>> rows = [TableRow("Theirs (published)", "d", "mean", {}, 0),
    ...         TableRow("vv", "d", "mean", {}, 2)]
    >>> setting_colours(rows)
    {'Theirs (published)': '#9a948a', 'vv': '#d9532c'}
    """
    colours: dict[str, str] = {}
    num_own = 0
    for row in rows:
        if row.setting not in colours:
            colours[row.setting] = PALETTE[num_own % len(PALETTE)] if row.num_seeds else GREY
            num_own += row.num_seeds > 0
    return colours


@checked
def write_figures(
    rows: Sequence[TableRow],
    metrics: Sequence[str],
    first: Mapping[str, Run],
    folder: Path,
    figures: Format,
) -> list[Path]:
    """Write the figures of every data set, `FOLDER/DATASET/NAME.FORMAT`.

    `settings` shows means with spread, `classes` bars for each class, `sizes` AUPRO by region size;
    each kind of curve has a figure of its own. Figures without any values are left out.

    Args:
        rows: The numbers, published ones included.
        metrics: The metrics shown, in this order.
        first: The run of each setting whose curves are shown.
        folder: The folder to write to.
        figures: The file format.

    Raises:
        UsageError: The format is unknown.
    """
    colours = setting_colours(rows)
    folders = file_names(row.dataset for row in rows if row.num_seeds)
    written = []
    with mpl.rc_context(STYLE), drawing_text([*colours, *(row.class_name for row in rows)]):
        for dataset, subfolder in folders.items():
            own = [row for row in rows if row.dataset == dataset]
            curves = {label: run.curves.get(dataset, {}) for label, run in first.items()}
            drawn = {
                "settings": _settings(own, metrics, colours),
                "classes": _classes(own, metrics, colours),
                "sizes": _sizes(own, colours),
                **{kind: _curves(curves, kind, colours) for kind in KINDS},
            }
            for name, figure in drawn.items():
                if figure is not None:
                    path = folder / subfolder / f"{name}.{figures}"
                    with replacing(path) as part:
                        figure.savefig(part, dpi=200)
                    written.append(path)
    return written


@contextmanager
def drawing_text(texts: Iterable[str]) -> Iterator[None]:
    """Use installed fonts for what matplotlib's own font lacks, in figures drawn inside the block.

    A warning names the characters that no font has.

    Args:
        texts: What will be drawn.
    """
    installed = {font.name for font in fontManager.ttflist}
    names = [*mpl.rcParams["font.family"], *(name for name in FALLBACKS if name in installed)]
    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in names]
    known = {code for font in fonts for code in font.get_charmap()}
    lacking = sorted({sign for text in texts for sign in text if ord(sign) not in known})
    if lacking:
        logger.warning(
            "figures show boxes for %s: no installed font has them; install one, such as Noto Sans "
            "CJK for Chinese, Japanese and Korean",
            "".join(lacking),
        )
    with mpl.rc_context({"font.family": names}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield


def _settings(
    rows: Sequence[TableRow], metrics: Sequence[str], colours: Mapping[str, str]
) -> Figure:
    """A dot with whiskers for each setting, in one plot per metric."""
    own = [row for row in rows if row.class_name == MEAN]

    def draw(axes: Axes, number: int) -> None:
        for place, row in enumerate(own):
            spread, colour = row.spread(metrics[number]), colours[row.setting]
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
    rows: Sequence[TableRow], metrics: Sequence[str], colours: Mapping[str, str]
) -> Figure | None:
    """A bar for each class and setting, in one plot per metric."""
    own = [row for row in rows if row.class_name != MEAN]
    groups = list(dict.fromkeys(row.class_name for row in own))
    bars = {
        heading(metric): [(row.setting, row.class_name, row.spread(metric)) for row in own]
        for metric in metrics
    }
    width = max(3.5, 0.09 * len(own) + 0.2 * len(groups))
    return _bar_figure(bars, groups, colours, (width, 1.5))


def write_sizes(rows: Sequence[TableRow], path: Path) -> bool:
    """Write the figure of AUPRO by region size, a plot for each data set.

    Args:
        rows: The numbers.
        path: The file; its suffix is the format.

    Returns:
        Whether there was any value to draw.
    """
    with (
        mpl.rc_context(STYLE),
        drawing_text([text for row in rows for text in (row.setting, row.dataset)]),
    ):
        figure = _sizes(rows, setting_colours(rows))
        if figure is not None:
            with replacing(path) as part:
                figure.savefig(part, dpi=110, format=path.suffix[1:])
    return figure is not None


def _sizes(rows: Sequence[TableRow], colours: Mapping[str, str]) -> Figure | None:
    """A bar for each region size and setting, in one plot per data set."""
    names = {size: size.removeprefix("aupro_") for size in SIZES}
    own = [row for row in rows if row.class_name == MEAN and row.num_seeds]
    datasets = dict.fromkeys(row.dataset for row in own)
    bars = {
        "AUPRO" if len(datasets) == 1 else f"AUPRO, {dataset}": [
            (row.setting, name, row.spread(size))
            for row in own
            for size, name in names.items()
            if row.dataset == dataset
        ]
        for dataset in datasets
    }
    width = max([3.5, *(0.09 * len(one) for one in bars.values())])
    return _bar_figure(bars, list(names.values()), colours, (width, 2))


def _bar_figure(
    bars: Mapping[str, Sequence[tuple[str, str, Spread]]],
    groups: Sequence[str],
    colours: Mapping[str, str],
    size: tuple[float, float],
) -> Figure | None:
    """Bars of all settings side by side in every group, with whiskers of one deviation.

    Args:
        bars: For each plot its label, and setting, group and height of each bar.
        groups: Names of the groups, from left to right.
        colours: The colour of each setting.
        size: Size of a plot in inches.
    """
    known = {label: [bar for bar in own if bar[2].values] for label, own in bars.items()}
    if not any(known.values()):
        return None

    def draw(axes: Axes, number: int) -> None:
        label, own = list(known.items())[number]
        settings = list(dict.fromkeys(setting for setting, _, _ in own))
        for place, setting in enumerate(settings):
            mine = {group: spread for one, group, spread in own if one == setting}
            width = 0.8 / len(settings)
            x = [groups.index(group) - 0.4 + width * (place + 0.5) for group in mine]
            heights = [100 * spread.mean for spread in mine.values()]
            errors = [100 * (spread.deviation or math.nan) for spread in mine.values()]
            axes.bar(x, heights, width, color=colours[setting], label=setting)
            axes.errorbar(x, heights, yerr=errors, fmt="none", ecolor="#333", elinewidth=0.7)
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.set_xticks(range(len(groups)), groups)
        if len(groups) > 5:
            axes.tick_params("x", rotation=30)
        axes.grid(visible=False, axis="x")
        axes.set_ylabel(label)

    return _grid(len(known), draw, size, num_columns=1, legend=True)


def _curves(
    found: Mapping[str, Mapping[str, Any]], kind: str, colours: Mapping[str, str]
) -> Figure | None:
    """A line for each setting, in one plot per class."""
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
    """Plots of one size in inches, in rows, with one legend for all."""
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

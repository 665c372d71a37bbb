"""The page of a report: one HTML file that opens from disk, with everything in it."""

import base64
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from crane.errors import UsageError
from crane.pictures import GALLERY, KINDS, Picture, read_gallery
from crane.report.discovery import MAX_NAMED, LeftOut, Run, differing_keys, first_runs, reading
from crane.report.figures import setting_colours
from crane.report.markup import TableRow, heading, places
from crane.runs import MEAN, SIZES

logger = logging.getLogger(__name__)

NUM_COLOURS = 32
"""Stops of the legend's gradient."""


class Shown(NamedTuple):
    """A picture in the page's gallery."""

    setting: str
    picture: Picture
    choices: tuple[str, ...]
    """Best, worst or random: everything that it was chosen as."""
    path: Path

    @property
    def source(self) -> str:
        """The picture itself, as a data URL."""
        return f"data:image/webp;base64,{base64.b64encode(self.path.read_bytes()).decode()}"


class PageGallery(NamedTuple):
    """The pictures that the page shows."""

    pictures: tuple[Shown, ...]
    """The same image under every setting stands side by side."""
    num_left_out: int
    """Pictures above `max_pictures`."""
    scales: tuple[Mapping[str, Any], ...]
    """The colour scales in use: one, unless runs were made with several."""


def render_page(
    title: str,
    runs: Sequence[Run],
    labels: Sequence[str],
    rows: Sequence[TableRow],
    metrics: Sequence[str],
    *,
    max_pictures: int,
    left_out: Sequence[LeftOut] = (),
) -> str:
    """Render the page.

    Args:
        title: Its heading.
        runs: The runs shown.
        labels: The setting of each run.
        rows: The numbers, published ones included.
        metrics: The metrics shown, in this order.
        max_pictures: Most pictures to include.
        left_out: Runs that cannot be shown.

    Returns:
        HTML with its scripts, styles and pictures; its content security policy forbids requests.
    """
    first = first_runs(runs, labels)
    gallery = gather_pictures(first, max_pictures)
    environment = Environment(
        loader=PackageLoader("crane.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {
        **{"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
    }
    templates = files("crane.report") / "templates"
    return environment.get_template("page.html").render(
        title=title,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        head=Markup((files("crane.pictures") / "page_head.html").read_text(encoding="utf-8")),
        style=Markup((templates / "page.css").read_text(encoding="utf-8")),
        script=Markup((templates / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(_plotly_script()),
        data=_chart_data(first, rows, metrics),
        headings=[heading(metric) for metric in metrics],
        table=list(_table(rows, metrics)),
        mean=MEAN,
        datasets=list(dict.fromkeys(row.dataset for row in rows)),
        settings=list(first),
        gallery=gallery,
        legends=[legend(scale) for scale in gallery.scales],
        varying=_varying(runs, labels),
        runs=list(zip(labels, runs, strict=True)),
        left_out=[f"{one.folder} ({one.reason})" for one in left_out],
    )


def gather_pictures(first: Mapping[str, Run], max_pictures: int) -> PageGallery:
    """Bring the galleries of settings together, evenly thinned if there are too many pictures.

    Args:
        first: The run of each setting whose pictures are shown.
        max_pictures: Most pictures kept; an image is kept under every setting or under none.
    """
    by_image: dict[tuple[str, str, int, str, str], list[Shown]] = {}
    scales: list[Mapping[str, Any]] = []
    for setting, run in first.items():
        scale, pictures = _pictures(setting, run)
        scales += [scale] if pictures and scale not in scales else []
        for one in pictures:
            image = one.picture
            place = (image.dataset, image.class_name, -image.label)  # anomalous images first
            by_image.setdefault((*place, image.defect, image.name), []).append(one)
    groups = [by_image[key] for key in sorted(by_image)]
    kept = _thinned(groups, max_pictures)
    return PageGallery(tuple(kept), sum(map(len, groups)) - len(kept), tuple(scales))


def _pictures(setting: str, run: Run) -> tuple[Mapping[str, Any], list[Shown]]:
    """The colour scale and pictures of a run's gallery, each file once.

    Whatever is damaged, missing or outside the run's folder is left out with a warning.
    """
    folder = run.folder / GALLERY
    if not (folder / "gallery.json").is_file():
        return {}, []
    try:
        with reading(folder / "gallery.json"):
            scale, pictures = read_gallery(folder)
    except UsageError as error:
        logger.warning("no pictures of %s: %s", run.folder, error)
        return {}, []
    choices: dict[str, dict[str, Picture]] = {}
    for picture in pictures:
        choices.setdefault(picture.file, {})[picture.choice] = picture
    refused = {file: reason for file in choices if (reason := _refusal(run.folder, folder / file))}
    if refused:
        named = [f"{file} {reason}" for file, reason in refused.items()][:MAX_NAMED]
        more = [f"{len(refused) - len(named)} more"] if len(refused) > len(named) else []
        logger.warning("pictures of %s left out: %s", run.folder, "; ".join([*named, *more]))
    return scale, [
        Shown(setting, next(iter(entries.values())), tuple(entries), folder / file)
        for file, entries in choices.items()
        if file not in refused
    ]


def _refusal(top: Path, path: Path) -> str | None:
    """Why a file is not shown as a picture of a run; None if it is."""
    try:
        if not path.resolve().is_relative_to(top.resolve()):
            return "is outside the run's folder"
        if not path.is_file():
            return "is missing"
        with path.open("rb") as file:
            start = file.read(12)
    except (OSError, ValueError, RuntimeError) as error:  # such as links in a circle
        return f"cannot be read ({error})"
    return None if start[:4] == b"RIFF" and start[8:] == b"WEBP" else "is not a WebP picture"


def _thinned(groups: Sequence[Sequence[Shown]], max_pictures: int) -> list[Shown]:
    """Evenly spread groups, as many as there is room for."""
    for num_groups in range(len(groups), 0, -1):
        places = np.linspace(0, len(groups) - 1, num_groups).round().astype(int)
        kept = [one for place in places for one in groups[int(place)]]
        if len(kept) <= max_pictures:
            return kept
    return list(groups[0][:max_pictures]) if groups else []


def legend(scale: Mapping[str, Any]) -> dict[str, object]:
    """The legend of the maps: a gradient, and the values at its ends and middle.

    Args:
        scale: The fields of a `ColourScale`.

    >>> legend({"vmin": 0.0, "vmax": 1.0, "colormap": "inferno"})["values"]
    ['0', '0.5', '1']
    """
    colours = mpl.colormaps[scale["colormap"]](np.linspace(0, 1, NUM_COLOURS))
    values = np.linspace(scale["vmin"], scale["vmax"], 3)
    return {
        "gradient": ", ".join(map(mpl.colors.to_hex, colours)),
        "values": [f"{value:.3g}" for value in values],
    }


def _table(
    rows: Sequence[TableRow], metrics: Sequence[str]
) -> Iterator[tuple[TableRow, list[tuple[str, float | None, int]]]]:
    """Each row with its cells: the text, the value to sort by and the place in its group."""
    groups: dict[tuple[str, str], list[TableRow]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.class_name), []).append(row)
    for own in groups.values():
        ranks = [places(own, metric) for metric in metrics]
        for row, *ranked in zip(own, *ranks, strict=True):
            spreads = [row.spread(metric) for metric in metrics]
            values = [round(one.mean, 6) if one.values else None for one in spreads]
            texts = [one.percent() for one in spreads]
            yield row, list(zip(texts, values, ranked, strict=True))


def _chart_data(
    first: Mapping[str, Run], rows: Sequence[TableRow], metrics: Sequence[str]
) -> dict[str, object]:
    """What the charts are drawn from."""
    wanted = dict.fromkeys((*metrics, *SIZES))
    return {
        "metrics": [[metric, heading(metric)] for metric in metrics],
        "sizes": [[size, size.removeprefix("aupro_")] for size in SIZES],
        "kinds": dict(KINDS),
        "colours": setting_colours(rows),
        "rows": [
            {
                "setting": row.setting,
                "dataset": row.dataset,
                "class": row.class_name,
                "mean": row.class_name == MEAN,
                "published": row.num_seeds == 0,
                "values": {
                    metric: [round(100 * value, 3) for value in row.metrics[metric].values]
                    for metric in wanted
                    if metric in row.metrics
                },
            }
            for row in rows
        ],
        "curves": {label: run.curves for label, run in first.items()},
    }


def _varying(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """The keys in which settings differ, as a table with its longer side downwards."""
    found = differing_keys(runs)
    keys, settings = list(found), list(dict.fromkeys(labels))
    values = {key: dict(zip(labels, column, strict=True)) for key, column in found.items()}
    if len(settings) > len(keys):
        lines = {setting: [values[key][setting] for key in keys] for setting in settings}
        return {"corner": "setting", "head": keys, "lines": lines}
    lines = {key: [values[key][setting] for setting in settings] for key in keys}
    return {"corner": "key", "head": settings, "lines": lines}


def _plotly_script() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        message = "the page's charts need plotly; pip install 'crane-ad[report]'"
        raise UsageError(message) from error
    return str(get_plotlyjs())

"""The page: one file that opens from disk, with everything in it."""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from crane.report.markup import heading, percent, places
from crane.report.rows import Row, Spread
from crane.report.runs import Run
from crane.report.settings import differences
from crane.reporting import CURVES, GALLERY, MEAN, Picture, read_gallery

SIZES = ("aupro_small", "aupro_medium", "aupro_large")
"""AUPRO by size of the region."""
NUM_COLOURS = 32
"""Stops of the legend's gradient."""


@dataclass(frozen=True)
class Shown:
    """A picture of the page's gallery."""

    setting: str
    picture: Picture
    choices: tuple[str, ...]
    """Best, worst or random: all that it was chosen as."""
    source: str
    """The picture itself, as a data URL."""


def render_page(
    title: str,
    runs: Sequence[Run],
    labels: Sequence[str],
    rows: Sequence[Row],
    metrics: Sequence[str],
    *,
    max_pictures: int,
    unfinished: Sequence[Path] = (),
) -> str:
    """Make the page.

    Args:
        title: its heading.
        runs: what it is about.
        labels: the setting of each run.
        rows: the numbers, published ones among them.
        metrics: what is shown, in this order.
        max_pictures: at most as many pictures are put in.
        unfinished: folders of runs without results.

    Returns:
        HTML that needs nothing else: scripts, styles and pictures are in it, and its content
        security policy forbids every request.
    """
    first = _first_of_each(runs, labels)
    found = [(label, *read_gallery(folder)) for label, folder in _galleries(first)]
    pictures, num_left_out = _pictures(
        [(label, run.folder / GALLERY) for label, run in first.items()], found, max_pictures
    )
    environment = Environment(
        loader=PackageLoader("crane.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("crane.report") / "page"
    varying = differences(runs)
    return environment.get_template("page.html").render(
        title=title,
        created=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup((folder / "page.css").read_text(encoding="utf-8")),
        script=Markup((folder / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(plotly.offline.get_plotlyjs()),
        data=Markup(_script_json(_data(first, rows, metrics))),
        headings=[heading(metric) for metric in metrics],
        table=_table(rows, metrics),
        datasets=list(dict.fromkeys(row.dataset for row in rows)),
        settings=list(first),
        pictures=pictures,
        num_left_out=num_left_out,
        scale=_scale(found[0][1]) if found else None,
        varying={key: dict(zip(labels, values, strict=True)) for key, values in varying.items()},
        runs=[_facts(run, label) for run, label in zip(runs, labels, strict=True)],
        unfinished=[str(folder) for folder in unfinished],
    )


def _first_of_each(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Run]:
    """The run of each setting whose curves and pictures are shown."""
    first: dict[str, Run] = {}
    for run, label in zip(runs, labels, strict=True):
        first.setdefault(label, run)
    return first


def _table(rows: Sequence[Row], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """The cells of each row, with the value to sort by and the place among its likes."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.dataset, row.class_name), []).append(row)
    table = []
    for (dataset, class_name), own in groups.items():
        ranks = {metric: places(own, metric) for metric in metrics}
        for number, row in enumerate(own):
            cells = [
                {
                    "text": percent(row.metrics.get(metric)),
                    "value": _number(row.metrics.get(metric, Spread(())).mean),
                    "place": ranks[metric][number],
                }
                for metric in metrics
            ]
            table.append(
                {
                    "setting": row.setting,
                    "dataset": dataset,
                    "class_name": class_name,
                    "is_mean": class_name == MEAN,
                    "num_seeds": row.num_seeds,
                    "cells": cells,
                }
            )
    return table


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _data(
    first: Mapping[str, Run], rows: Sequence[Row], metrics: Sequence[str]
) -> dict[str, object]:
    """What the charts are drawn from."""
    wanted = [*metrics, *(size for size in SIZES if size not in metrics)]
    return {
        "metrics": [[metric, heading(metric)] for metric in metrics],
        "sizes": [[size, size.removeprefix("aupro_")] for size in SIZES],
        "rows": [
            {
                "setting": row.setting,
                "dataset": row.dataset,
                "class": row.class_name,
                "published": row.num_seeds == 0,
                "values": {
                    metric: [round(100 * value, 3) for value in row.metrics[metric].values]
                    for metric in wanted
                    if metric in row.metrics
                },
            }
            for row in rows
        ],
        "curves": {label: _curves(run.folder / CURVES) for label, run in first.items()},
    }


def _curves(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _script_json(content: object) -> str:
    """JSON that nothing in can end the script it stands in."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _galleries(first: Mapping[str, Run]) -> list[tuple[str, Path]]:
    folders = [(label, run.folder / GALLERY) for label, run in first.items()]
    return [(label, folder) for label, folder in folders if (folder / "gallery.json").is_file()]


def _pictures(
    folders: Sequence[tuple[str, Path]],
    found: Sequence[tuple[str, dict[str, object], list[Picture]]],
    max_pictures: int,
) -> tuple[list[Shown], int]:
    """Pictures of every setting, evenly thinned to the number allowed; and how many are not."""
    where = dict(folders)
    merged: dict[tuple[str, str], tuple[Picture, list[str]]] = {}
    for label, _, entries in found:
        for entry in entries:
            if (where[label] / entry.file).is_file():
                merged.setdefault((label, entry.file), (entry, []))[1].append(entry.choice)
    everything = list(merged.items())
    num_kept = min(max_pictures, len(everything))
    kept = np.linspace(0, len(everything) - 1, num_kept).round().astype(int) if num_kept else []
    shown = [
        Shown(label, entry, tuple(choices), _data_url(where[label] / file))
        for (label, file), (entry, choices) in (everything[int(place)] for place in kept)
    ]
    return shown, len(everything) - len(shown)


def _data_url(path: Path) -> str:
    return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _scale(scale: Mapping[str, Any]) -> dict[str, object]:
    """The legend of the maps: a gradient, and the values at its ends and middle."""
    colours = matplotlib.colormaps[str(scale["colormap"])](np.linspace(0, 1, NUM_COLOURS))
    stops = [matplotlib.colors.to_hex(colour) for colour in colours]
    ends = (float(scale["vmin"]), float(scale["vmax"]))
    return {
        "gradient": ", ".join(stops),
        "values": [f"{value:.3g}" for value in (ends[0], sum(ends) / 2, ends[1])],
    }


def _facts(run: Run, label: str) -> dict[str, object]:
    """What the list of runs says of one."""
    record = run.record
    facts = {key: record.get(key) for key in ("command", "device", "started", "commit")}
    commit = str(facts["commit"] or "-")[:8] + ("+" if record.get("dirty") else "")
    shown = {key: str(value or "-") for key, value in facts.items()}
    return {**shown, "commit": commit, "label": label, "seed": run.seed, "folder": str(run.folder)}

"""The page: one file that opens from disk, with everything in it."""

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from importlib.resources import files
from typing import Any

import plotly.offline
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from crane.pictures import KINDS
from crane.report.colours import setting_colours
from crane.report.figures import read_curves
from crane.report.markup import heading, percent, places
from crane.report.pictures import gather_pictures, legend
from crane.report.rows import Row, Spread
from crane.report.runs import Run, Untested
from crane.report.settings import differences, first_runs
from crane.runs import MEAN, SIZES


def render_page(
    title: str,
    runs: Sequence[Run],
    labels: Sequence[str],
    rows: Sequence[Row],
    metrics: Sequence[str],
    *,
    max_pictures: int,
    unfinished: Sequence[Untested] = (),
) -> str:
    """Make the page.

    Args:
        title: its heading.
        runs: what it is about.
        labels: the setting of each run.
        rows: the numbers, published ones among them.
        metrics: what is shown, in this order.
        max_pictures: at most as many pictures are put in.
        unfinished: runs without results.

    Returns:
        HTML that needs nothing else: scripts, styles and pictures are in it, and its content
        security policy forbids every request.
    """
    first = first_runs(runs, labels)
    gallery = gather_pictures(first, max_pictures)
    environment = Environment(
        loader=PackageLoader("crane.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    folder = files("crane.report") / "page"
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
        gallery=gallery,
        legends=[legend(scale) for scale in gallery.scales],
        varying=_varying(runs, labels),
        runs=[_facts(run, label) for run, label in zip(runs, labels, strict=True)],
        unfinished=[f"{one.folder} ({one.why})" for one in unfinished],
    )


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
        "curves": {label: read_curves(run) for label, run in first.items()},
    }


def _script_json(content: object) -> str:
    """JSON that nothing in can end the script it stands in."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _varying(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Any]:
    """The keys that differ as a table, its longer side downwards."""
    found = differences(runs)
    keys, settings = list(found), list(dict.fromkeys(labels))
    values = {key: dict(zip(labels, column, strict=True)) for key, column in found.items()}
    if len(settings) > len(keys):
        lines = {setting: [values[key][setting] for key in keys] for setting in settings}
        return {"corner": "setting", "head": keys, "lines": lines}
    lines = {key: [values[key][setting] for setting in settings] for key in keys}
    return {"corner": "key", "head": settings, "lines": lines}


def _facts(run: Run, label: str) -> dict[str, object]:
    """What the list of runs says of one."""
    record = run.record
    facts = {key: record.get(key) for key in ("command", "device", "started", "commit")}
    commit = str(facts["commit"] or "-")[:8] + ("+" if record.get("dirty") else "")
    shown = {key: str(value or "-") for key, value in facts.items()}
    started = shown["started"][:16].replace("T", " ")
    return {
        **{**shown, "commit": commit, "started": started},
        **{"label": label, "seed": "-" if run.seed is None else run.seed},
        "folder": str(run.folder),
    }

"""Line charts of costs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt


class Line(NamedTuple):
    """A line of a chart, with a marker at each measurement."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    dashed: bool = False
    """Whether it is a reference line instead of a measurement."""


def draw(path: Path, *, x: str, panels: Mapping[str, Sequence[Line]]) -> None:
    """Draw panels side by side with a common x axis and one legend below; axes start at 0.

    Args:
        path: PNG to write; missing folders are created.
        x: Label of the x axis.
        panels: Label of the y axis to the lines of its panel.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, axes = plt.subplots(1, len(panels), figsize=(5 * len(panels), 3.8), squeeze=False)
    named = {}
    for axis, (y, lines) in zip(axes[0], panels.items(), strict=True):
        for number, line in enumerate(lines):
            style = "--" if line.dashed else "o-"
            colour = "0.6" if line.dashed else f"C{number}"
            (named[line.name],) = axis.plot(line.x, line.y, style, color=colour, markersize=4)
        axis.set_xlabel(x)
        axis.set_ylabel(y)
        axis.set_xlim(left=0)
        axis.set_ylim(0, 1.1 * max(value for line in lines for value in line.y))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.legend(named.values(), named.keys(), loc="upper center", bbox_to_anchor=(0.5, 0.0))
    figure.tight_layout()
    figure.savefig(path, dpi=110, bbox_inches="tight")
    plt.close(figure)

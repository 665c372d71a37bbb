"""The results of a recipe: a line for each number, with all that it takes to understand it."""

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from crane.errors import UsageError
from crane.files import write_text

WITHIN, OUTSIDE, MEASURED = "within tolerance", "outside tolerance", "measured"
MISSING, FAILED, UNDEFINED, LEFT_OUT = "missing", "failed", "not defined", "left out"
NOT_RUN = "not run"
"""What the page says where a recipe has gained something since its results were written."""
STATES = (FAILED, OUTSIDE, MISSING, WITHIN, MEASURED, LEFT_OUT, UNDEFINED)
"""What a number may be, the gravest first. Left out is what makes no sense in a suite."""


def gravest(states: Iterable[str]) -> str:
    """The state that counts for several of them."""
    return min(states, key=STATES.index)


@dataclass(frozen=True)
class Number:
    """One number of a table, or why there is none."""

    row: str
    dataset: str
    metric: str
    state: str
    """One of `STATES`."""
    percent: float | None = None
    """Mean over the seeds."""
    spread: float | None = None
    """Standard deviation over the seeds; None for fewer than two."""
    seeds: str = ""
    """Those measured."""
    published: float | None = None
    """In per cent."""
    difference: float | None = None
    """Measured less published, in points."""
    to_baseline: float | None = None
    """Measured less the baseline row's, in points: the mean over the seeds that both have."""
    reason: str = ""
    """Why there is no value, or none of some seeds."""
    commit: str = ""
    """Of the sources that measured it; + where they were changed."""
    device: str = ""
    data: str = ""
    """Fingerprint of the data set."""
    weights: str = ""
    """First digits of the sha256 of each weight file, or what random weights came from."""

    @property
    def text(self) -> str:
        """The value as tables show it, or why there is none: never empty."""
        if self.percent is None:
            return f"{self.state}: {self.reason}" if self.reason else self.state
        spread = "" if self.spread is None else f" ± {self.spread:.1f}"
        return f"{self.percent:.1f}{spread}"

    @property
    def note(self) -> str:
        """What is to be said about it apart from its value; empty where that is all."""
        return self.text if self.percent is None else self.reason


FLOATS = ("percent", "spread", "published", "difference", "to_baseline")
"""Fields of `Number` that are numbers or nothing."""


def write_numbers(numbers: Sequence[Number], path: Path) -> Path:
    """Write a line for each number; values to four decimals, per cent and points."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [one.name for one in fields(Number)], lineterminator="\n")
    table.writeheader()
    for number in numbers:
        table.writerow(
            {k: f"{v:.4f}" if isinstance(v, float) else v for k, v in asdict(number).items()}
        )
    return write_text(path, text.getvalue())


def read_numbers(path: Path) -> list[Number]:
    """Read what `write_numbers` wrote.

    Raises:
        UsageError: The file holds something else.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_number(line) for line in csv.DictReader(file)]
    except (OSError, KeyError, TypeError, ValueError) as error:
        wanted = "results that crane reproduce wrote"
        raise UsageError(wanted, str(path), hint=f"{error!r}") from error


def _number(line: dict[str, str]) -> Number:
    floats = {name: float(line[name]) if line[name] else None for name in FLOATS}
    texts = {one.name: line[one.name] for one in fields(Number) if one.name not in FLOATS}
    return Number(**texts, **floats)  # type: ignore[arg-type]

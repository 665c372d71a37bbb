"""Reasons why there is no number, each told once below the tables."""

import re

from crane.reproduce.numbers import FAILED, LEFT_OUT, MISSING, NOT_RUN, UNDEFINED, Number

KINDS = ("data", "weights", "checkpoint")
"""What may be missing."""
IN_PART = {FAILED: "a seed failed", MISSING: "a seed missing"}
"""State to what is said beside the value of the other seeds."""


class Notes:
    """Hands out the cells of tables, and keeps the reasons for what stands below them."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def cell(self, number: Number, difference: str = "") -> str:
        """The value, or in short why there is none, with the number of its note.

        Args:
            number: The number.
            difference: What stands behind a value.

        >>> Notes().cell(Number("Crane", "visa", "aupro", "missing", reason="data visa + mvtec"))
        'missing: data (1)'
        >>> Notes().cell(Number("Crane", "visa", "aupro", "failed", 61.2, reason="seed 3 failed"))
        '61.2, a seed failed (1)'
        """
        if number.percent is None:
            return f"{_in_short(number)} {self.place(number)}"
        text = number.text + difference
        if not number.note:
            return text
        return f"{text}, {IN_PART.get(number.state, 'not all seeds')} {self.place(number)}"

    def place(self, number: Number) -> str:
        """The note's number alone, for narrow tables."""
        return f"({self._places.setdefault(number.note, len(self._places) + 1)})"

    def lines(self) -> list[str]:
        """A line for each reason."""
        return [f"({place}) {text}" for text, place in self._places.items()]


def _in_short(number: Number) -> str:
    if number.state in (LEFT_OUT, UNDEFINED, FAILED, NOT_RUN):
        return number.state
    kinds = [kind for kind in KINDS if re.search(rf"(^|, ){kind} ", number.reason)]
    return f"{number.state}: {', '.join(kinds) or number.reason}"

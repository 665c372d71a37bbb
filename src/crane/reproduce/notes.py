"""Reasons why there is no number, each told once below the tables."""

import re

from crane.reproduce.numbers import FAILED, LEFT_OUT, UNDEFINED, Number

KINDS = ("data", "weights", "checkpoint")
"""What may be missing."""


class Notes:
    """Hands out the cells of tables, and keeps the reasons for what stands below them."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def cell(self, number: Number) -> str:
        """The value, or in short why there is none, with the number of its note.

        >>> Notes().cell(Number("Crane", "visa", "aupro", "missing", reason="data visa + mvtec"))
        'missing: data (1)'
        """
        if number.percent is not None:
            return number.text
        return f"{_in_short(number)} {self.place(number)}"

    def place(self, number: Number) -> str:
        """The note's number alone, for narrow tables."""
        return f"({self._places.setdefault(number.text, len(self._places) + 1)})"

    def lines(self) -> list[str]:
        """A line for each reason."""
        return [f"({place}) {text}" for text, place in self._places.items()]


def _in_short(number: Number) -> str:
    if number.state in (LEFT_OUT, UNDEFINED, FAILED):
        return number.state
    kinds = [kind for kind in KINDS if re.search(rf"(^|, ){kind} ", number.reason)]
    return f"{number.state}: {', '.join(kinds) or number.reason}"

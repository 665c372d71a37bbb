"""What is printed: no encoding of a terminal ends a run, and no width cuts a number."""

import io
import os
import sys
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE
from rich.console import Console, ConsoleOptions, ConsoleRenderable
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text


def accept_any_text() -> None:
    r"""Let standard output and error take any text.

    What the terminal's encoding lacks is printed as an escape such as `\u2022`, and so are the
    bytes of file names that are not UTF-8; a stream that was closed swallows everything.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class WholeTable(Table):
    """A table that is never cut off: words stay whole, and columns are never dropped.

    A terminal that is too narrow for the longest word of every column gets a list instead, with
    one line for each cell.

    Args:
        columns: Headings.
        title: Title above the table.
        right: Headings of columns that are aligned to the right, such as numbers.

    >>> table = WholeTable(["class", "image AUROC"], title="visa")
    >>> table.add_row("electrical commutators", "55.9")
    >>> Console(width=20).print(table)
    visa
    electrical
    commutators
      image AUROC: 55.9
    """

    def __init__(
        self, columns: Sequence[str] = (), *, title: str | None = None, right: Sequence[str] = ()
    ) -> None:
        super().__init__(
            title=title,
            box=SIMPLE,
            padding=(0, 1, 0, 0),  # eight columns in a terminal of 80
            title_justify="left",
            caption_justify="left",
        )
        for column in columns:
            self.add_column(column, justify="right" if column in right else "left")

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[ConsoleRenderable | Segment]:
        if self._fit(console, options):
            yield from super().__rich_console__(console, options)  # type: ignore[misc]
        else:
            yield from self._lines()

    def _fit(self, console: Console, options: ConsoleOptions) -> bool:
        """Choose widths at which every word is whole; False if there are none."""
        spans = [_span(column, console, options) for column in self.columns]
        margins = sum(map(self._get_padding_width, range(len(spans)))) + self._extra_width
        room = options.max_width - margins - sum(span.minimum for span in spans)
        if room < 0:
            return False
        for column, span in zip(self.columns, spans, strict=True):
            more = min(room, span.maximum - span.minimum)
            column.width, room = span.minimum + more, room - more
        return True

    def _lines(self) -> Iterator[Text]:
        """Every cell with its heading, a line each, below the first cell of its row."""
        if self.title:
            yield Text.from_markup(str(self.title), style="italic")
        for first, *others in zip(*(column.cells for column in self.columns), strict=True):
            if str(first):
                yield Text.from_markup(str(first), style="bold", overflow="fold")
            for column, cell in zip(self.columns[1:], others, strict=True):
                if str(cell):
                    yield Text.from_markup(f"  {column.header}: {cell}", overflow="fold")
        if self.caption:
            yield Text.from_markup(str(self.caption), overflow="fold")


def _span(column: Column, console: Console, options: ConsoleOptions) -> Measurement:
    """The width of a column's longest word, and of its longest line."""
    texts = [Text.from_markup(str(text)) for text in (column.header, *column.cells)]
    spans = [Measurement.get(console, options.update(width=10**6), text) for text in texts]
    least = max([span.minimum for span in spans] + [column.min_width or 0])
    return Measurement(least, max([span.maximum for span in spans] + [least]))

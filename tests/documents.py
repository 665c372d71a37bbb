"""What the documentation shows: its pages, and the files, commands and Python in them, in order."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("**/*.md")),
    *sorted((ROOT / "experiments").glob("**/*.md")),
]
BLOCK = re.compile(
    r"^(?:`(?P<file>\S+/\S+)`:\n\n)?```(?P<language>\w+)\n(?P<text>.*?)^```", re.M | re.S
)


class Block(NamedTuple):
    """Fenced text of a page."""

    language: str
    text: str
    file: str | None
    """The path above it, if it is shown as a file."""


def blocks(page: str) -> Iterator[Block]:
    """The fenced texts of a page, in its order."""
    for found in BLOCK.finditer(page):
        yield Block(found["language"], found["text"], found["file"])


def shell_lines(page: str) -> list[str]:
    """The commands of a page, one a line."""
    texts = [block.text for block in blocks(page) if block.language == "sh"]
    return [line for text in texts for line in text.splitlines() if line.strip()]


def shown_files(page: str) -> dict[str, str]:
    """Path to content of the files that a page shows."""
    return {block.file: block.text for block in blocks(page) if block.file}

"""What layouts have in common."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from crane.data.files import MissingSplitError
from crane.types import Sample

ReadClass = Callable[[], list[Sample]]
"""Makes the samples of one class."""

Layout = Callable[[str, Path, str], Mapping[str, ReadClass] | None]
"""Called with a data set's name, a folder and a split: class to its reader, None if the folder is
laid out in another way."""


def missing_split(name: str, root: Path, split: str, splits: Iterable[str]) -> MissingSplitError:
    """The error for a split that a layout does not have."""
    return MissingSplitError(
        f"split {split} of {name} in {root}",
        f"only {', '.join(splits)}",
        key=f"source.{name}.split or targets.{name}.split",
    )

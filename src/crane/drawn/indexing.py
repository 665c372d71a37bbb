"""The embedded data as an index, made where it is not there yet."""

from collections.abc import Sequence
from pathlib import Path

from crane.data.folder import index_folder
from crane.data.index import Index
from crane.drawn.writer import make_embedded


def index_embedded(
    name: str,
    root: str | Path,
    domain: str,
    split: str,
    *,
    mask_threshold: int,
    classes: str | Sequence[str] | None = None,
) -> Index:
    """List the images of an embedded domain; draw them first if they are not there.

    Args:
        name: What to call the data set.
        root: The folder of the embedded domains; made if it is not there.
        domain: Which domain (`embedded_domains()` lists them).
        split: `test`, with defects, or `train`, a few normal images of each class.
        mask_threshold: A mask's pixel is anomalous where its 8-bit luminance exceeds this.
        classes: The classes to keep; None keeps all.

    Raises:
        UsageError: There is no such domain, split or class.
    """
    folder = make_embedded(root, domain)
    return index_folder(name, folder, split, mask_threshold=mask_threshold, classes=classes)

"""Data sets that the package draws itself: one source domain, three target domains.

Nothing is downloaded; the same version has the same pixels on every machine.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import Literal

from PIL import Image

from crane.checks import PathText
from crane.data.index import ClassNames, Index, MaskThreshold
from crane.data.labelled_folders import index_folder
from crane.drawn import boards, fabrics, parts, photos
from crane.drawn.scene import Domain, PictureId, render
from crane.errors import UsageError, counted, unwritable
from crane.files import making

EMBEDDED_VERSION = "1"
"""Changes whenever a pixel, a file or a name of the drawn data changes."""

_STAMP = "EMBEDDED_VERSION"
"""The file in a domain's folder that says it is complete and of which version."""

_DOMAINS: dict[str, Domain] = {
    module.DOMAIN.name: module.DOMAIN for module in (parts, fabrics, boards, photos)
}

logger = logging.getLogger(__name__)


def embedded_domains(role: Literal["source", "target"] | None = None) -> tuple[str, ...]:
    """The names of the drawn domains, the source first.

    >>> embedded_domains("source"), embedded_domains("target")
    (('parts',), ('fabrics', 'boards', 'photos'))
    """
    return tuple(name for name, domain in _DOMAINS.items() if role in (None, domain.role))


def embedded_domain(name: str) -> Domain:
    """A domain: its role, classes, kinds of defect and generators.

    >>> embedded_domain("photos").kinds["tissue"]
    ('fold', 'bubble', 'deposit')

    Raises:
        UsageError: There is no such domain.
    """
    if name not in _DOMAINS:
        raise UsageError(
            f"unknown drawn domain {name!r}; choose one of {', '.join(_DOMAINS)}",
            key="source.NAME.domain or targets.NAME.domain",
        )
    return _DOMAINS[name]


def reserved_generators() -> dict[str, str]:
    """Every function that draws a domain, and the word for what it draws.

    Data that a model is pretrained on must not use these functions and words, or the drawn targets
    would no longer be unseen.

    >>> reserved_generators()["crane.drawn.fabrics.linen"]
    'linen'
    """
    generators = [name for domain in _DOMAINS.values() for name in domain.generators]
    return {name: name.rpartition(".")[2] for name in generators}


def drawn_dir() -> Path:
    """Where drawn data lie by default, one folder per version: in the user's cache.

    `$CRANE_CACHE/drawn`, else `crane/drawn` below `$XDG_CACHE_HOME` or `~/.cache`.
    """
    cache = os.environ.get("CRANE_CACHE")
    above = Path(cache) if cache else Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "crane")
    return above.expanduser() / "drawn" / f"v{EMBEDDED_VERSION}"


def index_embedded(
    name: str,
    root: PathText | Path | None,
    domain: str,
    split: str,
    *,
    mask_threshold: MaskThreshold,
    classes: ClassNames = None,
) -> Index:
    """List the images of a drawn domain; draw them first if they are missing.

    Args:
        name: What to call the data set.
        root: The folder of the drawn domains; None for `drawn_dir()`.
        domain: One of `embedded_domains()`.
        split: `test`, with defects, or `train`, a few normal images of each class.
        mask_threshold: Mask pixels are anomalous where their 8-bit luminance exceeds this.
        classes: The classes to read; None for all.

    Raises:
        UsageError: There is no such domain, split or class, or the folder cannot be written.
    """
    folder = make_embedded(root, domain)
    return index_folder(name, folder, split, mask_threshold=mask_threshold, classes=classes)


def make_embedded(root: str | Path | None = None, domain: str | None = None) -> Path:
    """Draw domains, unless they exist already.

    A domain appears in its folder when it is complete: an interrupted run leaves nothing, and
    several processes may draw it at once.

    Args:
        root: Where to put them: `root/DOMAIN/CLASS/{train/good, test/KIND, ground_truth/KIND}`;
            None for `drawn_dir()`.
        domain: Which domain; None for all.

    Returns:
        The domain's folder, or `root` for all.

    Raises:
        UsageError: There is no such domain, a folder of its name holds something else, or the
            folder cannot be written.
    """
    root = drawn_dir() if root is None else Path(root).expanduser()
    for name in embedded_domains() if domain is None else (domain,):
        chosen, folder = embedded_domain(name), root / name
        if _is_current(folder):
            continue
        try:
            _draw(chosen, folder)
        except OSError as error:
            if not _is_current(folder):  # else another process was faster
                raise unwritable(root, error, _root_key(folder)) from error
    return root if domain is None else root / domain


def _root_key(folder: Path) -> str:
    return f"source.embedded_{folder.name}.root or targets.embedded_{folder.name}.root"


def _is_current(folder: Path) -> bool:
    """Whether `folder` holds a complete domain of this version.

    Raises:
        UsageError: It holds something else, which must not be replaced.
    """
    try:
        return (folder / _STAMP).read_text().strip() == EMBEDDED_VERSION
    except OSError:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                f"{folder} holds something other than drawn data (it has no {_STAMP}); move it "
                f"away, or choose another {_root_key(folder)}",
                key=_root_key(folder),
            ) from None
        return False


def _draw(domain: Domain, folder: Path) -> None:
    pictures = domain.pictures()
    logger.info(
        "Drawing the %s of %s into %s", counted(len(pictures), "image"), domain.name, folder
    )
    with making(folder) as made:
        for picture in pictures:
            _write(domain, picture, made)
        (made / _STAMP).write_text(EMBEDDED_VERSION + "\n")
        if folder.exists() and not _is_current(folder):
            with suppress(FileNotFoundError):  # another process has moved it away
                folder.rename(made.with_name(f"{folder.name} of another version"))


def _write(domain: Domain, picture: PictureId, folder: Path) -> None:
    rendered = render(domain, picture)
    base = folder / picture.class_name
    stem = f"{picture.number:03d}"
    _save(Image.fromarray(rendered.image), base / picture.split / picture.kind / f"{stem}.png")
    if picture.kind != "good":
        mask = Image.fromarray(rendered.mask).convert("L")
        _save(mask, base / "ground_truth" / picture.kind / f"{stem}_mask.png")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, compress_level=1)  # higher levels gain a twentieth and take twice as long

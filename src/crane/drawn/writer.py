"""Writing the embedded data to disk, in MVTec AD's layout, whole or not at all."""

import logging
import shutil
import tempfile
from pathlib import Path

from PIL import Image

from crane.drawn.catalog import EMBEDDED_VERSION, embedded_domain, embedded_domains
from crane.drawn.scene import Domain, PictureId, render
from crane.errors import UsageError

_STAMP = "EMBEDDED_VERSION"
"""The file, beside the classes of a domain, that says it is whole and of which version."""

logger = logging.getLogger(__name__)


def make_embedded(root: str | Path, domain: str | None = None) -> Path:
    """Draw embedded domains, unless they are there already.

    A domain is drawn into a hidden folder beside its own and renamed when whole, so an interrupted
    run leaves nothing half done and several processes may do this at once.

    Args:
        root: Where to put them: `root/DOMAIN/CLASS/{train/good, test/KIND, ground_truth/KIND}`.
        domain: Which domain; None for all.

    Returns:
        The domain's folder, or `root` for all.

    Raises:
        UsageError: There is no such domain, or a folder of its name that holds something else.
    """
    root = Path(root).expanduser()
    names = embedded_domains() if domain is None else (embedded_domain(domain).name,)
    for name in names:
        if not _is_current(root / name):
            _make(embedded_domain(name), root)
    return root if domain is None else root / domain


def _is_current(folder: Path) -> bool:
    """Whether a whole domain of this version lies in `folder`.

    Raises:
        UsageError: The folder was not made by this package, and so must not be replaced by it.
    """
    stamp = folder / _STAMP
    try:
        return stamp.read_text().strip() == EMBEDDED_VERSION
    except OSError:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(
                f"the embedded domain, or nothing, at {folder}",
                "something without " + _STAMP,
                key=f"source.embedded_{folder.name}.root or targets.embedded_{folder.name}.root",
                hint="move it away, or choose another root",
            ) from None
        return False


def _make(domain: Domain, root: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    pictures = domain.pictures()
    logger.info("Drawing the %d images of %s into %s", len(pictures), domain.name, root)
    with tempfile.TemporaryDirectory(prefix=f".{domain.name}-", dir=root) as scratch:
        made = Path(scratch) / "made"
        for picture in pictures:
            _write(domain, picture, made)
        (made / _STAMP).write_text(EMBEDDED_VERSION + "\n")
        _put(made, root / domain.name, Path(scratch) / "old")


def _write(domain: Domain, picture: PictureId, folder: Path) -> None:
    rendered = render(domain, picture)
    base = folder / picture.class_name
    stem = f"{picture.number:03d}"
    _save(Image.fromarray(rendered.image), base / picture.split / picture.kind / f"{stem}.png")
    if picture.kind != "good":
        mask = Image.fromarray(rendered.mask)
        _save(mask.convert("L"), base / "ground_truth" / picture.kind / f"{stem}_mask.png")


def _save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, compress_level=1)  # higher levels gain a twentieth and take twice as long


def _put(made: Path, folder: Path, old: Path) -> None:
    """Rename `made` to `folder`, in place of an older version, unless another process was faster.

    A rename onto a folder with files in it fails, which is how the slower process notices.
    """
    for _ in range(16):
        try:
            made.rename(folder)
        except OSError:
            if not folder.exists():
                raise
        else:
            return
        if _is_current(folder):
            return
        try:
            folder.rename(old)
        except FileNotFoundError:
            continue
        shutil.rmtree(old)
    raise OSError(f"could not replace {folder}: other processes keep writing it")

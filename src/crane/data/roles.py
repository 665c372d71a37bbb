"""What the names of folders and labels mean: normal, anomalous, masks, a split, an extra level.

This is the only place that decides it. Names are compared in any case and spelling: `Normal
Images`, `normal_images` and `0_normal` are one name.
"""

import re
import unicodedata
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from crane.errors import UsageError
from crane.samples import ANOMALOUS, NORMAL

Names = str | int | bool | Sequence[str | int | bool] | None
"""One name, several, or None for the usual ones."""

SPLITS = {
    **{name: name for name in ("train", "test", "validation", "test_public", "test_private")},
    **{"training": "train", "testing": "test", "val": "validation", "valid": "validation"},
    "test_private_mixed": "test_private_mixed",
}
"""Names of folders that hold a split, and the split: MVTec AD's, MVTec AD 2's and usual others."""


def split_of(wanted: str, present: Container[str]) -> str:
    """The split that a name asks for; `test` is the public test split of MVTec AD 2.

    Its private splits have no labels.

    >>> split_of("Testing", ["train", "test"]), split_of("test", ["train", "test_public"])
    ('test', 'test_public')
    """
    split = SPLITS.get(same_name(wanted), wanted)
    is_public = split == "test" and split not in present and "test_public" in present
    return "test_public" if is_public else split


def _set(*texts: str) -> frozenset[str]:
    return frozenset(word for text in texts for word in text.split())


_NORMAL = _set(
    "good ok okay normal normals nominal pass passed io accept accepted healthy intact flawless",
    "faultless conform conforming undamaged nodefect nodefects nondefect nondefective defectfree",
    "notdefective anomalyfree withoutdefect withoutdefects noanomaly noanomalies nonanomalous",
    "nofault nofaults gut",
)
_ANOMALOUS = _set(
    "bad ng ko nok notok nogood notgood nio defect defects defective anomaly anomalies anomalous",
    "abnormal abnormals abnormality fail failed failure fault faults faulty reject rejected",
    "outlier outliers nonconforming damaged schlecht",
)
_MASK_WORDS = _set(
    "mask masks gt groundtruth groundtruths annotation annotations segmentation segmentations"
)
_MASKS = _set("label labels seg segs labelmap labelmaps truth")
_LEVELS = _set("image images img imgs picture pictures photo photos data dataset rgb")
_FILLERS = _LEVELS | _set(
    "sample samples part parts item items object objects piece pieces class case cases train test",
    "only type",
)
_PAIRS = (("yes", "no"), ("true", "false"), ("1", "0"), ("positive", "negative"), ("pos", "neg"))
DOUBTFUL = dict((*_PAIRS, *((b, a) for a, b in _PAIRS)))
"""Names that mean a defect to some and a passed test to others, with their opposites."""


def same_name(name: object) -> str:
    """A name in the form in which names are compared letter by letter.

    >>> same_name("Prüfling") == same_name("pru\N{COMBINING DIAERESIS}fling"), same_name(True)
    (True, 'true')
    """
    return unicodedata.normalize("NFC", str(name).strip()).casefold()


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", unicodedata.normalize("NFC", name.strip()))
    return [word for word in re.split(r"[\W_]+", spaced.casefold()) if word]


def plain_name(name: str, *, without_masks: bool = False) -> str:
    """A name without what does not change its meaning: case, separators, numbers, fillers.

    Args:
        name: Any name.
        without_masks: Whether words that say mask are left out, too.

    >>> [plain_name(n) for n in ("Normal Images", "0_normal", "NoDefect", "i.O.", "images", "0")]
    ['normal', 'normal', 'nodefect', 'io', 'images', '0']
    >>> plain_name("crack_mask", without_masks=True), plain_name("masks", without_masks=True)
    ('crack', '')
    """
    words = _words(name)
    if without_masks:
        words = [word for word in words if word not in _MASK_WORDS | _MASKS | {"ground", "truth"}]
    kept = [word for word in words if word not in _FILLERS and not word.isdigit()]
    return "".join(kept or words)


def is_level(name: str) -> bool:
    """Whether a folder is only one more level around images, such as `Images` or `data`."""
    return bool(words := _words(name)) and all(word in _LEVELS for word in words)


@dataclass(frozen=True)
class Roles:
    """What the names of one data set mean; a list that is given replaces the usual names.

    >>> roles = Roles.of(normal="nominal", anomalous=None, masks=None)
    >>> roles.label("Nominal"), roles.label("good"), roles.is_mask("Ground Truth")
    (0, 1, True)
    """

    normal: tuple[str, ...] | None = None
    """Names that are normal; None for the usual ones (good, ok, normal, nominal, passed, …)."""
    anomalous: tuple[str, ...] | None = None
    """Names that are anomalous; None for every other name."""
    masks: tuple[str, ...] | None = None
    """Names of folders of masks; None for the usual ones (ground_truth, gt, masks, labels, …)."""

    @classmethod
    def of(cls, normal: Names = None, anomalous: Names = None, masks: Names = None) -> "Roles":
        """Roles from the values of keys.

        Raises:
            UsageError: A name is both normal and anomalous.
        """

        def listed(value: Names) -> tuple[str, ...] | None:
            several = [value] if isinstance(value, (str, int)) else value
            return None if several is None else tuple(map(same_name, several))

        roles = cls(listed(normal), listed(anomalous), listed(masks))
        both = set(roles.normal or ()) & set(roles.anomalous or ())
        if both:
            raise UsageError(
                f"{', '.join(sorted(both))} is both normal and anomalous", key="normal"
            )
        return roles

    def is_named(self, name: str) -> bool:
        """Whether a key names it."""
        return same_name(name) in (self.normal or ()) + (self.anomalous or ())

    def is_mask(self, name: str) -> bool:
        """Whether a folder of this name holds masks."""
        if self.masks is not None or self.is_named(name):
            return same_name(name) in (self.masks or ())
        words = _words(name)
        is_truth = not _MASK_WORDS.isdisjoint(words) or {"ground", "truth"} <= set(words)
        return is_truth or plain_name(name) in _MASKS

    def is_normal(self, name: str) -> bool:
        """Whether images of this name are normal."""
        return self.label(name) == NORMAL

    def label(self, name: str) -> int | None:
        """`NORMAL`, `ANOMALOUS`, or None for a name that keys leave out."""
        own = same_name(name)
        if self.normal is not None and own in self.normal:
            return NORMAL
        if self.anomalous is not None and own in self.anomalous:
            return ANOMALOUS
        if self.normal is None and (plain_name(name) in _NORMAL or own == "no"):
            return NORMAL
        return ANOMALOUS if self.anomalous is None else None

    def is_known(self, name: str) -> bool:
        """Whether a name says of itself that it is a label: a usual or given one."""
        return self.is_named(name) or self.is_normal(name)

    def says(self, name: str) -> int | None:
        """The label that a name states by itself; None for a name that only others decide."""
        if self.is_known(name):
            return self.label(name)
        return ANOMALOUS if plain_name(name) in _ANOMALOUS else None

    def doubt(self, names: Iterable[str]) -> tuple[str, bool] | None:
        """What is doubtful about the names of one class's labels.

        Args:
            names: All of them.

        Returns:
            What to say, and whether the names must be refused; None without a doubt.
        """
        if self.normal is not None:
            return None
        known = list(dict.fromkeys(names))
        normal = [name for name in known if self.is_normal(name)]
        if any(same_name(name) == "no" for name in normal):
            others = ",".join(name for name in known if name not in normal) or "NAME"
            text = (
                f"folder no counts as normal (no defect); if it means rejected, {others} is normal"
            )
            return text, False
        if normal or self.anomalous is not None:
            return None
        words = {plain_name(name) for name in known}
        is_pair = any(DOUBTFUL.get(word) in words for word in words)
        is_mixed = bool(words & _ANOMALOUS) and bool(words - _ANOMALOUS)
        if is_pair or is_mixed:
            return f"it is unclear which of {', '.join(known)} is normal", True
        return None


def label_of(value: object, column: str, roles: Roles) -> int | None:
    """The label that a cell of a list states.

    Numbers and truth values count from the column's name: 1 is anomalous in `anomaly` and `label`.

    Args:
        value: The cell, as a number, a truth value or text.
        column: The name of its column.
        roles: The names that keys give.

    Returns:
        `NORMAL` or `ANOMALOUS`; None if it is unclear.

    >>> [label_of(v, "label", Roles()) for v in (0, "1", "good", "scratch", "yes", 0.3)]
    [0, 1, 0, 1, None, None]
    >>> label_of("yes", "is_anomaly", Roles()), label_of("1", "is_good", Roles())
    (1, None)
    """
    text = same_name(value)
    text = text[:-2] if re.fullmatch(r"[01]\.0", text) else text
    if roles.normal is not None or roles.is_named(text):
        return roles.label(text)
    plain = plain_name(column)
    is_about_defects = plain.removeprefix("is").removeprefix("has") in _ANOMALOUS
    if text in ("0", "1") and (is_about_defects or plain in ("label", "labels", "target", "y")):
        return int(text)
    if is_about_defects and text in ("yes", "true", "no", "false"):
        return ANOMALOUS if text in ("yes", "true") else NORMAL
    if (
        text in DOUBTFUL
        or not text
        or re.fullmatch(r"[-+.\d]+(e[-+]?\d+)?|nan|inf|none|null", text)
    ):
        return None
    return roles.label(text)

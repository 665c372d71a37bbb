"""Captions of pictures, phrases for their states, and the vocabulary of both."""

import gzip
import itertools
import random
from collections.abc import Sequence
from pathlib import Path

from experiments.mini_pretraining.defects import DEFECTS, HELD_OUT_DEFECTS, NOUNS
from experiments.mini_pretraining.pictures import Facts
from experiments.mini_pretraining.scenes import COLOURS
from experiments.mini_pretraining.shapes import HELD_OUT_SHAPES, SHAPES
from experiments.mini_pretraining.surfaces import HELD_OUT_PATTERNS, PATTERNS

ANYTHING = ("object", "item", "thing", "part", "sample", "surface", "product")
"""Generic nouns."""
NORMAL_PHRASES = (
    "{x}.",
    "a {x}",
    "flawless {x}.",
    "a flawless {x}",
    "a perfect {x}",
    "an intact {x}",
    "a normal {x}",
    "a {x} without damage",
    "a {x} without defect",
    "a photo of a flawless {x}",
    "a photo of a {x}",
)
"""Phrases for flawless things."""
DAMAGED_PHRASES = (
    "damaged {x}.",
    "a damaged {x}",
    "a defective {x}",
    "a flawed {x}",
    "an abnormal {x}",
    "a {x} with damage",
    "a {x} with a defect",
    "a {x} with a flaw",
    "a photo of a damaged {x}",
    "a photo of a defective {x}",
)
"""Phrases for damaged things."""
_KIND_PHRASES = (
    "a {state} {x}",
    "{state} {x}.",
    "a {x} with a {noun}",
    "a {x} with a {size} {noun}",
    "a {x} with a {noun} at the {place}",
    "a {x} with a {size} {noun} at the {place}",
    "a damaged {x} with a {noun}",
    "a {x} damaged at the {place}",
)
_SIZES = ("tiny", "small", "large", "huge")
_PLACES = ("top", "bottom", "left", "right", "middle")


def caption(facts: Facts, rng: random.Random) -> str:
    """A random true caption of a picture; it always mentions the state.

    Args:
        facts: What is true of the picture.
        rng: Chooses the caption.
    """
    thing = _thing(facts, rng)
    if facts.state == "flawless":
        return rng.choice(NORMAL_PHRASES).format(x=thing)
    phrases = DAMAGED_PHRASES if rng.random() < 0.3 else _KIND_PHRASES
    return rng.choice(phrases).format(
        x=thing,
        state=facts.state,
        noun=NOUNS[facts.state],
        place=facts.place,
        size=facts.size,
    )


def _thing(facts: Facts, rng: random.Random) -> str:
    name = facts.shape if rng.random() < 0.8 else rng.choice(ANYTHING)
    words = [facts.pattern] * (rng.random() < 0.85 and facts.pattern != "") + [name]
    if rng.random() < 0.85 and facts.colour:
        words.insert(0, facts.colour)
    if facts.arrangement == "grid" and rng.random() < 0.6:
        words.insert(0, rng.choice(("repeated", "many")))
    return " ".join(words)


def state_phrases(rng: random.Random, num: int) -> tuple[list[str], list[str]]:
    """Pairs of sentences, flawless and damaged, about the same thing.

    The first pair is always the method's own: "object." and "damaged object.".
    """
    normal, damaged = ["object."], ["damaged object."]
    for _ in range(num - 1):
        name = rng.choice(ANYTHING) if rng.random() < 0.6 else rng.choice(list(SHAPES))
        if rng.random() < 0.3:
            name = f"{rng.choice(list(PATTERNS))} {name}"
        normal.append(rng.choice(NORMAL_PHRASES).format(x=name))
        damaged.append(rng.choice(DAMAGED_PHRASES).format(x=name))
    return normal, damaged


def vocabulary() -> list[str]:
    """Every word that a caption can contain, in a fixed order."""
    texts = [*NORMAL_PHRASES, *DAMAGED_PHRASES, *_KIND_PHRASES]
    words = {w.strip(".") for text in texts for w in text.split() if "{" not in w}
    groups: Sequence[Sequence[str]] = (
        ANYTHING,
        list(PATTERNS) + list(HELD_OUT_PATTERNS),
        list(SHAPES) + list(HELD_OUT_SHAPES),
        list(COLOURS),
        list(DEFECTS) + list(HELD_OUT_DEFECTS),
        list(NOUNS.values()),
        _SIZES,
        _PLACES,
        ("flawless", "repeated", "many"),
    )
    return sorted(words.union(*groups))


def merges(words: Sequence[str]) -> list[str]:
    """Byte-pair merges that turn each word into one token.

    A later merge never changes a word that earlier merges completed.
    """
    ranks: dict[tuple[str, str], int] = {}
    for word in words:
        parts = _merged(word, ranks)
        while len(parts) > 1:
            ranks[(parts[0], parts[1])] = len(ranks)
            parts = _merged(word, ranks)
    return [f"{left} {right}" for left, right in ranks]


def _merged(word: str, ranks: dict[tuple[str, str], int]) -> list[str]:
    """A word after byte-pair encoding, merging the pair of lowest rank first."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while True:
        pairs = list(itertools.pairwise(parts))
        known = [pair for pair in pairs if pair in ranks]
        if not known:
            return parts
        at = pairs.index(min(known, key=ranks.__getitem__))
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def write_merges(path: Path) -> int:
    """Write the vocabulary in the format of open_clip's tokenizer; returns the number of tokens."""
    lines = merges(vocabulary())
    text = "\n".join(['"crane mini: every word of the captions is one token"', *lines])
    with path.open("wb") as file, gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
        packed.write(text.encode())
    return 2 * 256 + len(lines) + 2

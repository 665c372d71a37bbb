import random
from collections.abc import Mapping

import pytest
import torch

from crane.drawn import reserved_generators
from experiments.mini_pretraining.canvas import Canvas
from experiments.mini_pretraining.captions import (
    caption,
    merges,
    state_phrases,
    vocabulary,
)
from experiments.mini_pretraining.defects import DEFECTS, HELD_OUT_DEFECTS, NOUNS
from experiments.mini_pretraining.natural import NATURAL
from experiments.mini_pretraining.pictures import draw, window
from experiments.mini_pretraining.scenes import COLOURS
from experiments.mini_pretraining.shapes import HELD_OUT_SHAPES, SHAPES
from experiments.mini_pretraining.surfaces import HELD_OUT_PATTERNS, PATTERNS

KINDS: dict[str, tuple[Mapping, Mapping]] = {
    "defects": (DEFECTS, HELD_OUT_DEFECTS),
    "shapes": (SHAPES, HELD_OUT_SHAPES),
    "patterns": (PATTERNS, HELD_OUT_PATTERNS),
}


def test_the_embedded_domains_share_no_generator_and_no_word_with_pretraining():
    reserved = reserved_generators()
    ours = [f for kinds in KINDS.values() for part in kinds for f in part.values()]
    ours.extend(NATURAL)
    assert not {f"{f.__module__}.{f.__name__}" for f in ours} & set(reserved)
    assert not {f.__module__ for f in ours} & {name.rpartition(".")[0] for name in reserved}
    assert not set(vocabulary()) & set(reserved.values())


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
def test_held_out_kinds_are_separate_functions(kinds):
    drawn, held_out = kinds
    assert held_out
    assert not set(drawn) & set(held_out)
    assert not set(drawn.values()) & set(held_out.values())


def test_held_out_kinds_are_not_drawn_by_default(drawn, monkeypatch):
    def refuse(*_):
        raise AssertionError("a held-out kind was drawn")

    for module, table in (
        ("defects", HELD_OUT_DEFECTS),
        ("shapes", HELD_OUT_SHAPES),
        ("surfaces", HELD_OUT_PATTERNS),
    ):
        for function in table.values():
            place = f"experiments.mini_pretraining.{module}.{function.__name__}"
            monkeypatch.setattr(place, refuse)
        for word in list(table):
            monkeypatch.setitem(table, word, refuse)
    draw(Canvas(56, torch.Generator().manual_seed(0)), 120, 0.05)
    words = {w for f in drawn.facts for w in (f.state, f.shape, f.pattern)}
    assert len(words & set(DEFECTS)) > 5
    assert not words & {*HELD_OUT_DEFECTS, *HELD_OUT_SHAPES, *HELD_OUT_PATTERNS}
    with pytest.raises(AssertionError, match="held-out"):
        draw(Canvas(56, torch.Generator()), 4, 0.05, defects=HELD_OUT_DEFECTS)


def test_twins_differ_inside_the_mask_only(drawn):
    num = len(drawn.images) // 2
    flawless, damaged = drawn.images[:num], drawn.images[num:]
    masks = drawn.masks[num:]
    assert not drawn.masks[:num].any()
    assert masks.flatten(1).any(1).float().mean() > 0.9
    # Twins have different exposures, so a linear fit is removed before the comparison.
    inside, outside = [], []
    for before, after, mask in zip(flawless, damaged, masks, strict=True):
        if mask.sum() < 10:
            continue
        x, y = before[:, ~mask].flatten(), after[:, ~mask].flatten()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
        left = (after - (y.mean() + slope * (before - x.mean()))).abs().amax(0)
        inside.append(left[mask].mean())
        outside.append(left[~mask].mean())
    assert torch.stack(inside).mean() > 3 * torch.stack(outside).mean()


def test_the_same_seed_draws_the_same(drawn):
    again = draw(Canvas(112, torch.Generator().manual_seed(3)), 40, 0.05)
    assert torch.equal(again.images, drawn.images)
    assert again.facts == drawn.facts


@pytest.mark.parametrize(("size", "side"), [(112, 8), (112, 14), (56, 3)])
def test_a_window_is_a_square_around_the_centre_of_the_defect(drawn, size, side):
    canvas = Canvas(size, torch.Generator().manual_seed(1))
    own = drawn if size == 112 else draw(canvas, 20, 0.05)
    kept = window(canvas, own, 8, side)
    num, grid = len(own.images) // 2, size // 8
    assert kept.shape == (2 * num, side * side)
    assert torch.equal(kept[:num], kept[num:])
    rows, columns = kept // grid, kept % grid
    for part in (rows, columns):
        assert (part.amax(1) - part.amin(1) == side - 1).all()
    line = torch.arange(size) + 0.5
    for row, column, mask in zip(rows[num:], columns[num:], own.masks[num:], strict=True):
        if mask.any():
            down = float((mask.sum(1) * line).sum() / mask.sum()) / 8
            across = float((mask.sum(0) * line).sum() / mask.sum()) / 8
            assert row.min() - 0.51 <= down <= row.max() + 1.51
            assert column.min() - 0.51 <= across <= column.max() + 1.51


def test_captions_state_the_defect_in_words_of_the_vocabulary(drawn):
    rng, words = random.Random(0), set(vocabulary())
    hints = {"damaged", "defective", "flawed", "abnormal", *NOUNS.values()}
    for facts in drawn.facts:
        said = caption(facts, rng).replace(".", "").split()
        assert set(said) <= words
        if facts.state == "flawless":
            assert not set(said) & hints
        else:
            assert not set(said) & {"flawless", "perfect", "intact", "normal", "without"}
    assert state_phrases(rng, 3)[0][0] == "object."
    assert state_phrases(rng, 3)[1][0] == "damaged object."


def test_each_word_is_one_token_of_the_shipped_vocabulary():
    import gzip

    from crane.weights.catalogue import MINI_FOLDER

    shipped = gzip.decompress((MINI_FOLDER / "merges.txt.gz").read_bytes()).decode().split("\n")
    assert shipped[1:] == merges(vocabulary())
    import open_clip

    tokenizer = open_clip.get_tokenizer("crane-mini")
    for word in vocabulary():
        assert len(tokenizer.encode(word)) == 1


@pytest.mark.parametrize("kind", NATURAL, ids=lambda kind: kind.__name__)
def test_natural_surfaces_differ_and_follow_the_seed(kind):
    twice = [kind(Canvas(56, torch.Generator().manual_seed(4)), 6) for _ in range(2)]
    assert torch.equal(*twice)
    pictures = twice[0]
    assert pictures.shape == (6, 3, 56, 56)
    assert pictures.isfinite().all()
    assert 0.0 <= pictures.min() < pictures.max() <= 1.0
    assert (pictures.flatten(1).std(1) > 0.01).all()
    assert (torch.cdist(pictures.flatten(1), pictures.flatten(1)) > 1.0).sum() == 6 * 5


def test_captions_name_no_pattern_or_colour_of_natural_surfaces():
    named = {*PATTERNS, *COLOURS}
    for share in (0.0, 1.0):
        canvas = Canvas(56, torch.Generator().manual_seed(2))
        facts = draw(canvas, 20, 0.12, natural=share).facts
        rng = random.Random(0)
        said = [set(caption(f, rng).replace(".", "").split()) & named for f in facts]
        assert any(said) == (share == 0.0)
        assert all((f.pattern == "") == (f.colour == "") == (share == 1.0) for f in facts)

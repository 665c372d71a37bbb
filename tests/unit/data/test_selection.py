import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crane.data import Index
from crane.data.index import few_shots, hold_out, portion_of
from crane.errors import UsageError
from crane.types import Sample


def index_of(counts: dict[str, tuple[int, int]]) -> Index:
    """Classes with so many normal and anomalous images; no file is opened here."""
    samples = tuple(
        Sample(Path(f"/r/{name}/{label}/{i:03d}.png"), label, name)
        for name, both in counts.items()
        for label, num in enumerate(both)
        for i in range(num)
    )
    return Index("made", Path("/r"), samples, 0)


INDEX = index_of({"a": (10, 20), "b": (3, 1), "c": (0, 5)})
ALL = range(len(INDEX.samples))


def strata(index, positions):
    return Counter((index.samples[p].class_name, index.samples[p].label) for p in positions)


def names(index, positions):
    return {index.samples[p].image for p in positions}


def test_hold_out_is_stratified():
    training, held = hold_out(INDEX, 0.25, 111)
    assert sorted(training + held) == list(ALL)
    assert strata(INDEX, held) == {("a", 0): 2, ("a", 1): 5, ("b", 0): 1, ("c", 1): 1}
    assert hold_out(INDEX, 0.0, 111) == (list(ALL), [])


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("abcd"), st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4
    ),
    st.floats(0, 0.99),
    st.integers(0, 5),
)
def test_hold_out_leaves_something_of_everything(counts, fraction, seed):
    index = index_of(counts)
    training, held = hold_out(index, fraction, seed)
    assert not set(training) & set(held)
    assert len(training) + len(held) == len(index.samples)
    assert set(strata(index, training)) == set(strata(index, range(len(index.samples))))


def test_few_shots_are_half_and_half(caplog):
    with caplog.at_level(logging.WARNING):
        kept = few_shots(INDEX, ALL, 4, 111)
    assert strata(INDEX, kept) == {
        ("a", 0): 2, ("a", 1): 2, ("b", 0): 2, ("b", 1): 1, ("c", 1): 2,
    }  # fmt: skip
    assert "made/b has 1 anomalous images" in caplog.text
    assert "made/c has 0 normal images" in caplog.text
    assert "made/a" not in caplog.text


def test_portion_rounds_down_in_each_class_and_label():
    kept = portion_of(INDEX, ALL, 0.5, 111)
    assert strata(INDEX, kept) == {("a", 0): 5, ("a", 1): 10, ("b", 0): 1, ("c", 1): 2}
    assert portion_of(INDEX, ALL, 1.0, 111) == list(ALL)
    with pytest.raises(UsageError, match=r"data\.portion"):
        portion_of(INDEX, ALL, 0.01, 111)


def test_choices_depend_on_the_seed_and_on_nothing_else():
    assert few_shots(INDEX, ALL, 4, 1) == few_shots(INDEX, ALL, 4, 1)
    assert few_shots(INDEX, ALL, 4, 1) != few_shots(INDEX, ALL, 4, 2)
    moved = replace(
        INDEX,
        root=Path("/elsewhere"),
        samples=tuple(
            replace(s, image=Path("/elsewhere") / s.image.relative_to("/r"))
            for s in reversed(INDEX.samples)
        ),
    )
    here = {p.relative_to("/r") for p in names(INDEX, few_shots(INDEX, ALL, 4, 1))}
    there = {p.relative_to("/elsewhere") for p in names(moved, few_shots(moved, ALL, 4, 1))}
    assert here == there


def test_a_class_more_changes_nothing_for_the_others():
    alone = index_of({"a": (10, 20)})
    kept = names(INDEX, few_shots(INDEX, ALL, 6, 5))
    assert names(alone, few_shots(alone, range(30), 6, 5)) == {p for p in kept if p.parts[2] == "a"}


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(0, 9))
def test_smaller_choices_lie_in_larger_ones(half, seed):
    smaller = few_shots(INDEX, ALL, 2 * half, seed)
    assert set(smaller) <= set(few_shots(INDEX, ALL, 2 * half + 2, seed))


def test_purposes_choose_independently():
    index = index_of({"a": (40, 40)})
    _, held = hold_out(index, 0.5, 3)
    assert held != portion_of(index, range(80), 0.5, 3)

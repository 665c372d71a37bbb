"""Values against their declared types."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane.checks import (
    Fraction,
    Gt,
    Interval,
    Lt,
    MinLen,
    NonNegativeFloat,
    NonNegativeInt,
    PathText,
    PositiveFloat,
    PositiveInt,
    Seed,
    Text,
    check_value,
    checked,
    declared_values,
    describe,
    existing_file,
    one_of,
    shown,
)
from crane.errors import InvalidValueError, UsageError

GOOD = [
    (int, 3), (int, -3), (float, 3), (float, 0.5), (bool, True), (str, ""), (str, "text"),
    (PositiveInt, 1), (NonNegativeInt, 0), (PositiveFloat, 1e-9), (NonNegativeFloat, 0),
    (Fraction, 0), (Fraction, 1), (Seed, 0), (Seed, 2**32 - 1), (Text, "a"), (PathText, "a"),
    (int | None, None), (Literal["a", "b"], "a"), (PositiveInt | Literal["auto"], "auto"),
    (list[int], [1, 2]), (Sequence[int], (1, 2)), (tuple[float, float], [0.5, 1]),
    (Mapping[str, int], {"a": 1}), (dict[str, list[int]], {"a": [1]}), (str | Path, Path("a")),
    (PositiveInt, np.int64(3)), (Fraction, np.float32(0.5)), (Path, "a"), (list[int], []),
    (Callable[[int], int], "anything"), (Any, "anything"), (np.ndarray, "anything"),
]  # fmt: skip
BAD = [
    (int, True, "must be an integer, not true"),
    (int, 2.0, "must be an integer, not 2.0"),
    (int, "2", "must be an integer, not '2'"),
    (int, None, "must be an integer, not null"),
    (float, "0.5", "must be a number, not '0.5'"),
    (float, True, "must be a number, not true"),
    (float, float("nan"), "must be a number, not nan"),
    (float, float("inf"), "must be a number, not inf"),
    (bool, 1, "must be true or false, not 1"),
    (bool, "true", "must be true or false, not 'true'"),
    (str, 5, "must be text, not 5"),
    (PositiveInt, 0, "must be an integer of at least 1, not 0"),
    (NonNegativeInt, -1, "must be an integer of at least 0, not -1"),
    (PositiveFloat, 0, "must be a number above 0, not 0"),
    (Fraction, 1.5, "must be a number from 0 to 1, not 1.5"),
    (Seed, 2**32, "must be an integer from 0 to 4294967295, not 4294967296"),
    (Text, "", "must be text that is not empty, not ''"),
    (PathText, "", "must be a path, not ''"),
    (PathText | None, 5, "must be a path, or null, not 5"),
    (Literal["a", "b", "c"], "d", "must be a, b or c, not 'd'"),
    (Literal["a", "b"], True, "must be a or b, not true"),
    (PositiveInt | Literal["auto"], "many", "must be an integer of at least 1 or auto, not 'many'"),
    (list[PositiveInt], [1, 0], "must be a list, each entry an integer of at least 1, not [1, 0] "
     "(entry 2)"),
    (list[int], "1", "must be a list, each entry an integer, not '1'"),
    (Sequence[str], "abc", "must be a list, each entry text, not 'abc'"),
    (Annotated[list[Text], MinLen(1)], [], "must be a non-empty list, each entry text that is"),
    (tuple[float, float], [1.0], "must be a list of 2: a number, a number, not [1.0]"),
    (Mapping[str, int], {"a": "b"}, "must be a mapping, each value an integer, not {'a': 'b'}"),
    (Annotated[float, Gt(0), Lt(1)], 1, "must be a number above 0 and below 1, not 1"),
    (Annotated[float, Interval(ge=0, lt=0.5)], 0.5, "must be a number from 0 and below 0.5, not"),
    (Annotated[int, Gt(0), "an odd number"], 0, "must be an odd number, not 0"),
    (str | Path, 2024, "must be text, not 2024"),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value"), GOOD)
def test_what_fits_is_taken(annotation, value):
    check_value(value, annotation, "key")


@pytest.mark.parametrize(("annotation", "value", "said"), BAD)
def test_what_does_not_fit_is_refused_in_words(annotation, value, said):
    with pytest.raises(InvalidValueError) as caught:
        check_value(value, annotation, "key")
    assert str(caught.value).startswith(f"key {said}")


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_only_numbers_in_the_range_are_taken(value):
    try:
        check_value(value, Fraction, "key")
    except InvalidValueError:
        assert not 0 <= value <= 1
    else:
        assert 0 <= value <= 1


def test_a_long_value_is_cut():
    with pytest.raises(InvalidValueError) as caught:
        check_value("x" * 1000, int, "key")
    assert len(str(caught.value)) < 120


@checked
def scale(factor: PositiveFloat, *others: int, mode: Literal["a", "b"] = "a", **more: int) -> float:
    return factor


@checked
@dataclass(frozen=True)
class Options:
    """Two values."""

    size: PositiveInt
    names: Sequence[str] = ()


@checked
class Model:
    def __init__(self, width: PositiveInt, made: Callable[[], int]) -> None:
        self.width, self.made = width, made


def test_functions_and_constructors_are_checked():
    assert scale(2, 1, 2, mode="b", extra=3) == 2
    assert Options(3).size == 3
    assert Model(1, int).width == 1
    for call, said in [
        (lambda: scale(0), "factor must be a number above 0"),
        (lambda: scale(factor=True), "factor must be a number above 0"),
        (lambda: scale(1, mode="c"), "mode must be a or b"),
        (lambda: Options(0), "size must be an integer of at least 1"),
        (lambda: Options(1, names="abc"), "names must be a list"),
        (lambda: Model(0, int), "width must be"),
    ]:
        with pytest.raises(UsageError, match=said):
            call()
    with pytest.raises(TypeError, match="missing"):
        scale()


def test_declared_values_are_those_that_can_be_checked():
    assert set(declared_values(Model)) == {"width"}
    assert set(declared_values(Options)) == {"size", "names"}
    assert set(declared_values(scale)) == {"factor", "mode"}


def test_words_for_ranges():
    assert describe(Annotated[int, Lt(3)]) == "an integer below 3"
    assert describe(Path) == "a path"
    assert describe(None) == "null"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "null"), (False, "false"), (0.5, "0.5"), ("a", "'a'"), ([1], "[1]")]
)
def test_values_are_shown_as_they_are_typed(value, text):
    assert shown(value) == text


def test_one_of_names_the_nearest():
    one_of("vv", ["qq", "vv"], "attention", "attention")
    with pytest.raises(UsageError) as caught:
        one_of("vvv", ["qq", "vv"], "attention", "attention")
    assert str(caught.value) == "unknown attention 'vvv'; did you mean vv? choose one of qq, vv"
    with pytest.raises(UsageError, match=r"^unknown command null; choose one of a$"):
        one_of(None, ["a"], "command")


def test_a_file_must_exist(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.ckpt").touch()
    assert existing_file("~/a.ckpt", "resume", "a checkpoint") == tmp_path / "a.ckpt"
    with pytest.raises(UsageError, match=r"resume: .* is a folder; give a checkpoint"):
        existing_file(tmp_path, "resume", "a checkpoint")

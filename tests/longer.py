"""Cases of a test that are alike: the first runs by default, all of them among the longer tests."""

from collections.abc import Iterable

import pytest


def one_by_default(cases: Iterable[object]) -> list[object]:
    """The cases for `parametrize`, all but the first marked `long`."""
    first, *others = cases
    return [first, *(pytest.param(one, marks=pytest.mark.long) for one in others)]

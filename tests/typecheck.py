"""The type checker of the test run: beartype, applied to each function when it is first called."""

from collections.abc import Callable
from typing import Any, TypeVar

from beartype import BeartypeConf, beartype

_CONF = BeartypeConf(is_pep484_tower=True)  # an int is a float, as it is for Python

T = TypeVar("T", bound=Callable[..., Any])


def check(target: T) -> Any:
    """Check the arguments and results of a function.

    jaxtyping decorates every function of crane, twice; decorating the few that a test process
    calls, when it calls them, saves each process ten seconds.
    """
    if isinstance(target, type):
        return beartype(target, conf=_CONF)
    checked: list[T] = []

    def call(*args: Any, **kwargs: Any) -> Any:
        if not checked:
            checked.append(beartype(target, conf=_CONF))
        return checked[0](*args, **kwargs)

    return call

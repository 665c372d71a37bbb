"""What the tests of the command line share."""

from collections.abc import Callable
from functools import cache

import pytest
from omegaconf import DictConfig

from crane.cli import validation
from crane.config import compose


@cache
def _once(command: str, *chosen: str) -> DictConfig:
    return compose(command, chosen)


@pytest.fixture
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose each choice of groups only once; what is typed is applied to copies."""
    monkeypatch.setattr(
        validation, "compose", lambda command, chosen: _once(command, *chosen).copy()
    )


@pytest.fixture
def check() -> Callable[..., validation.Arguments]:
    """Parse and check what is typed after a command."""

    def typed(command: str, *words: str) -> validation.Arguments:
        arguments = validation.Arguments(command, words)
        validation.check_arguments(arguments)
        return arguments

    return typed

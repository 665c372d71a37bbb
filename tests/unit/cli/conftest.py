"""What the tests of the command line share."""

from collections.abc import Callable

import pytest

from crane.cli import validation


@pytest.fixture
def check() -> Callable[..., validation.Arguments]:
    """Parse and check what is typed after a command."""

    def typed(command: str, *words: str) -> validation.Arguments:
        arguments = validation.Arguments(command, words)
        validation.check_arguments(arguments)
        return arguments

    return typed

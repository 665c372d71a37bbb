"""`crane data verify mvtec --fast`: words that stand for overrides."""

from collections.abc import Sequence

from crane.cli.overrides import FLAGS_WITH_VALUE
from crane.errors import UsageError

ACTIONS = ("list", "verify", "prepare", "stats")
"""What `crane data` does."""

FLAGS = {"--fast": "fast=true"}
"""Flags of `crane data`."""


def with_words(command: str, arguments: Sequence[str]) -> list[str]:
    """Arguments in which the words of `crane data` are overrides; other commands have no words.

    Args:
        command: The command they are for.
        arguments: What follows it.

    Raises:
        UsageError: If an action is missing or misspelt.

    >>> with_words("data", ["verify", "mvtec", "visa", "--fast", "seed=1"])
    ['action=verify', 'targets=[mvtec,visa]', 'fast=true', 'seed=1']
    """
    if command != "data":
        return list(arguments)
    words, others = [], []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_word = not argument.startswith(("-", "~", "+")) and "=" not in argument
        if is_word and before not in FLAGS_WITH_VALUE:
            words.append(argument)
        else:
            others.append(FLAGS.get(argument, argument))
    if any(argument.startswith("action=") for argument in others):
        return [*_names(words), *others]
    if not words or words[0] not in ACTIONS:
        raise UsageError(f"crane data {', '.join(ACTIONS)}", " ".join(words) or "no such word")
    return [f"action={words[0]}", *_names(words[1:]), *others]


def _names(words: Sequence[str]) -> list[str]:
    return [f"targets=[{','.join(words)}]"] if words else []

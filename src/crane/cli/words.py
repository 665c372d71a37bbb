"""`crane data verify mvtec --fast`: words that stand for overrides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.override_parser.types import Quote, QuotedString

from crane.cli.overrides import FLAGS_WITH_VALUE
from crane.errors import UsageError

ACTIONS = ("list", "verify", "prepare", "stats")
"""What `crane data` does."""
CACHE_ACTIONS = ("list", "prune")
"""What `crane cache` does."""


@dataclass(frozen=True)
class Words:
    """What the words after a command mean."""

    key: str
    """The key that takes them as a list."""
    actions: tuple[str, ...] = ()
    """What the first word is one of, where it is the key `action`."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Flags, and the overrides they stand for."""
    are_options: bool = False
    """Whether they are options of a group, not text."""
    are_folders: bool = False
    """Whether they are folders."""


WORDS: Mapping[str, Words] = {
    "data": Words("targets", ACTIONS, {"--fast": "fast=true"}, are_options=True),
    "cache": Words("entries", CACHE_ACTIONS),
    "report": Words("paths", are_folders=True),
    "reproduce": Words("experiments"),
}
"""Commands that take words; the others take overrides alone."""


def with_words(command: str, arguments: Sequence[str]) -> list[str]:
    """Arguments in which words have become overrides.

    Args:
        command: The command they are for.
        arguments: What follows it.

    Raises:
        UsageError: If an action is missing or misspelt.

    >>> with_words("data", ["verify", "mvtec", "visa", "--fast", "seed=1"])
    ['action=verify', 'targets=[mvtec,visa]', 'fast=true', 'seed=1']
    >>> with_words("report", ["runs/sweep 3", "title=Attention"])
    ["paths=['runs/sweep 3']", 'title=Attention']
    """
    meaning = WORDS.get(command)
    if meaning is None:
        return list(arguments)
    words, others = [], []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        is_word = not argument.startswith(("-", "~", "+")) and "=" not in argument
        is_folder = meaning.are_folders and argument[:1] != "-" and _is_folder(argument)
        if (is_word or is_folder) and before not in FLAGS_WITH_VALUE:
            words.append(argument)
        else:
            others.append(meaning.flags.get(argument, argument))
    action = []
    if meaning.actions and not any(argument.startswith("action=") for argument in others):
        if not words or words[0] not in meaning.actions:
            wanted = f"crane {command} {', '.join(meaning.actions)}"
            raise UsageError(wanted, " ".join(words) or "no such word")
        action = [f"action={words.pop(0)}"]
    return [*action, *_listed(words, meaning), *others]


def _is_folder(argument: str) -> bool:
    """Whether a folder is meant: jobs of a multirun lie in such as 0_attention=vv.

    A misspelt one is none, but no key of an override begins with a digit or has a `/` in it.
    """
    name = argument.partition("=")[0]
    is_key = not name[:1].isdigit() and ("/" not in name or name.lstrip("+~").startswith("hydra/"))
    return Path(argument).expanduser().is_dir() or not is_key


def _listed(words: Sequence[str], meaning: Words) -> list[str]:
    if not words:
        return []
    if not meaning.are_options:
        words = [QuotedString(word, Quote.single).with_quotes() for word in words]
    return [f"{meaning.key}=[{','.join(words)}]"]

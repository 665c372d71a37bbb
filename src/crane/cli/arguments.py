"""What was typed after a command, parsed once, and what Hydra is given in its place."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException

from crane.config import parse_override
from crane.errors import UsageError
from crane.identity import is_place
from crane.schema import is_text

SHORT_NAMES = {"source": "dataset@source", "targets": "dataset@targets"}
"""What may be typed for what: `source=[mvtec,visa]` is `dataset@source=[mvtec,visa]`."""

ACTIONS = ("list", "verify", "prepare", "stats")
"""What `crane data` does."""
CACHE_ACTIONS = ("list", "prune")
"""What `crane cache` does."""

FLAGS = (
    *("-m", "--multirun", "-r", "--run", "--resolve", "--hydra-help"),
    *("-sc", "--shell-completion"),
)
"""Flags of Hydra without a value."""
FLAGS_WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--info", "-i", "--experimental-rerun"),
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
)
"""Flags of Hydra whose value is the next argument."""

JOB_NAME_EXCLUDES = "hydra.job.config.override_dirname.exclude_keys"
"""Hydra's key for the overrides that are left out of a job's name."""
NEVER_IN_NAMES = (
    *("run_dir", "datasets_dir", "weights_dir", "results_store", "skip_finished", "baseline"),
)
"""What is left out in conf/base/hydra.yaml, too: the command line replaces that list."""

SEARCHPATH = "hydra.searchpath"
"""Hydra's key for further folders of configuration."""

SWEEPER, DIRECTION = "hydra/sweeper", "hydra.sweeper.direction"
"""Hydra's group of sweepers, and Optuna's key for whether less or more is better."""


@dataclass(frozen=True)
class Words:
    """What the words after a command mean."""

    key: str
    """The key that takes them as a list."""
    actions: tuple[str, ...] = ()
    """If not empty, the first word is one of these, and sets the key `action`."""
    flags: Mapping[str, str] = field(default_factory=dict)
    """Flags, and the overrides they stand for."""
    are_options: bool = False
    """Whether they are options of a group rather than text."""
    are_folders: bool = False
    """Whether they are folders."""


WORDS: Mapping[str, Words] = {
    "data": Words("targets", ACTIONS, {"--fast": "fast=true"}, are_options=True),
    "cache": Words("entries", CACHE_ACTIONS),
    "report": Words("paths", are_folders=True),
    "reproduce": Words("experiments"),
}
"""Commands that take words; the others take only overrides."""


class Arguments:
    """The arguments of a command: Hydra's flags, and overrides that are parsed once.

    Words become overrides, short names are written out, and text is quoted where Hydra would not
    read it as it was typed.

    Args:
        command: The command.
        typed: What follows it.

    Raises:
        UsageError: An argument is not an override and no known flag, an action is missing, a key is
            given twice, or several values are given without `-m`.

    >>> Arguments("data", ["verify", "mvtec", "visa", "--fast", "seed=1"]).for_hydra()
    ['action=verify', 'dataset@targets=[mvtec,visa]', 'fast=true', 'seed=1']
    >>> Arguments("predict", ["input=~/photos (2)", "checkpoint=epoch=5.ckpt"]).for_hydra()
    ["input='~/photos (2)'", "checkpoint='epoch=5.ckpt'"]
    """

    def __init__(self, command: str, typed: Sequence[str]) -> None:
        self.command = command
        self._words = WORDS.get(command, Words(""))
        self.flags, others = self._without_flags(typed)
        self.is_multirun = bool({"-m", "--multirun"} & set(self.flags))
        self.overrides = [self._parse(text) for text in self._without_words(others)]
        self._check_repeated()
        self._check_listed_twice()

    def _without_flags(self, typed: Sequence[str]) -> tuple[list[str], list[str]]:
        """Hydra's flags with their values, and everything else."""
        flags: list[str] = []
        others: list[str] = []
        rest = iter(typed)
        for argument in rest:
            name, equals, _ = argument.partition("=")
            if not argument.startswith("-") or self._is_folder(argument):
                others.append(argument)
            elif argument in self._words.flags:
                others.append(self._words.flags[argument])
            elif name in FLAGS_WITH_VALUE:
                flags += (
                    [argument] if equals else [argument, *([v] if (v := next(rest, "")) else [])]
                )
            elif name in FLAGS:
                flags.append(argument)
            else:
                raise UsageError(f"unknown option {argument}; see crane {self.command} --help")
        return flags, others

    def _without_words(self, typed: Sequence[str]) -> list[str]:
        """Overrides, those that words stand for first.

        Raises:
            UsageError: An action is missing or unknown.
        """
        if not self._words.key:
            return list(typed)
        words = [argument for argument in typed if self._is_word(argument)]
        others = [argument for argument in typed if not self._is_word(argument)]
        overrides = []
        if self._words.actions and not any(o.startswith("action=") for o in others):
            if not words or words[0] not in self._words.actions:
                known = " | ".join(self._words.actions)
                given = f"unknown action {words[0]!r}" if words else "an action is missing"
                raise UsageError(f"{given}; type crane {self.command} {known}")
            overrides.append(f"action={words.pop(0)}")
        if words and not self._words.are_options:
            words = [_quoted(word) for word in words]
        if words:
            overrides.append(f"{self._words.key}=[{','.join(words)}]")
        return [*overrides, *others]

    def _is_word(self, argument: str) -> bool:
        is_override = argument.startswith(("~", "+")) or "=" in argument
        return not is_override or self._is_folder(argument)

    def _is_folder(self, argument: str) -> bool:
        """Whether a folder is meant: jobs of a multirun lie in such as 0_attention=vv.

        A misspelt folder does not exist, but no key begins with a digit or contains a `/`.
        """
        if not self._words.are_folders or argument.startswith("-"):
            return False
        name = argument.partition("=")[0]
        is_hydra = name.lstrip("+~").startswith("hydra/")
        is_key = not name[:1].isdigit() and ("/" not in name or is_hydra)
        return Path(argument).expanduser().is_dir() or not is_key

    def _parse(self, text: str) -> Override:
        name, equals, value = text.partition("=")
        name = SHORT_NAMES.get(name, name)
        is_structured = value.startswith(("[", "{", "'", '"'))
        try:
            override = parse_override(f"{name}{equals}{value}")
        except HydraException as error:
            if not equals or is_structured:
                reason = str(error).splitlines()[0]
                raise UsageError(f"{text!r} is not of the form KEY=VALUE ({reason})") from error
            return self._parse_quoted(text, name, value)
        if equals and not is_structured and self._is_changed_text(override):
            return self._parse_quoted(text, name, value)
        if override.is_sweep_override() and not self.is_multirun:
            typed = text.partition("=")[0]
            listed = "" if "(" in value else f", or type {typed}=[{value}] for one list"
            raise UsageError(f"{text} gives several values; add -m to run each of them{listed}")
        return override

    def _parse_quoted(self, text: str, name: str, value: str) -> Override:
        values = value.split(",") if self.is_multirun else [value]
        try:
            return parse_override(f"{name}={','.join(map(_quoted, values))}")
        except HydraException as error:
            raise UsageError(f"{text!r} is not of the form KEY=VALUE") from error

    def _is_changed_text(self, override: Override) -> bool:
        """Whether a key that takes text was given what Hydra reads as something else."""
        key = str(override.key_or_group)
        if not (is_place(key) or is_text(self.command, key)):
            return False
        value = override.value()
        if override.value_type is ValueType.SIMPLE_CHOICE_SWEEP:
            values = list(override.sweep_iterator())
            if not self.is_multirun:  # a comma in a name
                return True
            return any(isinstance(one, (int, float)) for one in values)
        return isinstance(value, (int, float))

    def _check_repeated(self) -> None:
        """Refuse a key that is given twice, of which Hydra would silently use the last."""
        keys = [override.get_key_element().lstrip("+~") for override in self.overrides]
        for key, number in Counter(keys).items():
            if number > 1:
                given = [
                    o.input_line for o, k in zip(self.overrides, keys, strict=True) if k == key
                ]
                shown = key.removeprefix("dataset@")
                raise UsageError(f"{shown} is given more than once: {' '.join(map(str, given))}")

    def _check_listed_twice(self) -> None:
        """Refuse a data set that is listed twice, of which Hydra would silently use one."""
        for override in self.overrides:
            value = override.value()
            names = value if isinstance(value, list) and not override.is_sweep_override() else []
            twice = [name for name, number in Counter(map(str, names)).items() if number > 1]
            if twice and str(override.key_or_group) == "dataset":
                typed = str(override.input_line).removeprefix("dataset@")
                raise UsageError(
                    f"{typed} lists {twice[0]} twice; folder, folder_2 and folder_3 are three "
                    "folders of your own, each with its root",
                    key=str(override.package or "targets"),
                )

    def own_folders(self) -> list[Path]:
        """Folders of configuration beside crane's: `--config-dir`, and those of `hydra.searchpath`.

        Raises:
            UsageError: One is not there.
        """
        found: list[str] = []
        for place, flag in enumerate(self.flags):
            name, equals, value = flag.partition("=")
            if name in ("--config-dir", "-cd"):
                found.append(value if equals else self.flags[place + 1])
        for override in self.overrides:
            if override.key_or_group == SEARCHPATH:
                listed = override.value()
                found += map(str, listed if isinstance(listed, list) else [listed])
        places = [
            Path(text.removeprefix("file://")).expanduser().absolute()
            for text in found
            if "://" not in text or text.startswith("file://")
        ]
        for own in places:
            if not own.is_dir():
                raise UsageError(f"there is no folder {own} of configuration")
        return places

    def check_sweep(self) -> None:
        """Refuse a multirun whose jobs would all write into one folder.

        Raises:
            UsageError: Names the key that gives each job a folder below.
        """
        for override in self.overrides:
            if override.key_or_group == "run_dir" and not override.is_sweep_override():
                raise UsageError(
                    f"{override.input_line} would be the folder of every job; "
                    "type hydra.sweep.dir=FOLDER, and each job gets a folder below"
                )

    def for_hydra(self) -> list[str]:
        """The arguments as Hydra is to read them; argparse refuses flags between overrides."""
        typed = [*self.flags, *(str(override.input_line) for override in self.overrides)]
        return [*typed, *self._job_names(), *self._direction()] if self.is_multirun else typed

    def _job_names(self) -> list[str]:
        """Leave out of jobs' names what all of them share.

        >>> Arguments("train", ["-m", "trainer=cpu", "attention=vv,qq"]).for_hydra()[-1]
        "hydra.job.config.override_dirname.exclude_keys=['run_dir', ..., 'trainer']"
        """
        keys = [str(override.key_or_group) for override in self.overrides]
        if JOB_NAME_EXCLUDES in keys:
            return []
        # Group without its package: a sweep over sources names jobs though targets are the same.
        swept = {str(o.key_or_group) for o in self.overrides if o.is_sweep_override()}
        shared = [key for key in keys if key not in swept and not key.startswith("hydra.")]
        return [f"{JOB_NAME_EXCLUDES}={list(dict.fromkeys([*NEVER_IN_NAMES, *shared]))}"]

    def _direction(self) -> list[str]:
        """Let Optuna maximise unless told otherwise; by itself it minimises."""
        values = {o.key_or_group: o.value() for o in self.overrides if not o.is_delete()}
        is_optuna = values.get(SWEEPER) == "optuna" and DIRECTION not in values
        return [f"{DIRECTION}=maximize"] if is_optuna else []


def _quoted(text: str) -> str:
    return str(QuotedString(text, Quote.single).with_quotes())

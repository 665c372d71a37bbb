"""Every configuration that `conf/` can make: each option of each group, in as few as possible."""

from functools import cache
from itertools import zip_longest
from typing import Any

from omegaconf import DictConfig, OmegaConf

from crane.cli.main import COMMANDS
from crane.cli.validation import options
from crane.config import compose, conf_dir, flat, plain

GIVEN = {"test": ("checkpoint=a.ckpt",), "predict": ("checkpoint=a.ckpt", "input=photos")}
"""Keys without which a command does not run."""


@cache
def places(command: str) -> list[str]:
    """Where a command chooses options: `attention`, `dataset@source`, ..."""
    found: list[str] = []
    for entry in OmegaConf.load(conf_dir() / f"{command}.yaml").defaults:
        if OmegaConf.is_dict(entry):
            keys = [str(key) for key in entry if not str(key).startswith("optional ")]
            found += [key.removeprefix("override ") for key in keys]
        elif (conf_dir() / f"{entry}.yaml").is_file():
            found += places(entry)
    return list(dict.fromkeys(found))


@cache
def choices(command: str) -> list[tuple[str, ...]]:
    """Overrides that together name each option of each of the command's groups."""
    columns = []
    for place in places(command):
        group, _, node = place.partition("@")
        names = options(conf_dir() / group)
        assert names, f"{command} chooses from {group}, which has no options"
        if node:
            columns.append([f"{place}=[{','.join(names)}]", f"{place}=[]"])
        else:
            columns.append([f"{group}={name}" for name in names])
    return [tuple(filter(None, row)) for row in zip_longest(*columns)] or [()]


@cache
def composed_once(command: str, *overrides: str) -> DictConfig:
    """The configuration of a command; not to be changed."""
    return compose(command, overrides)


@cache
def composed(command: str, row: tuple[str, ...]) -> DictConfig:
    """The configuration of a command with some options chosen; not to be changed."""
    return compose(command, [*GIVEN.get(command, ()), *row])


def compositions() -> list[tuple[str, tuple[str, ...]]]:
    """Every command with each row of `choices`."""
    return [(command, row) for command in COMMANDS for row in choices(command)]


@cache
def every_key() -> dict[str, list[Any]]:
    """Each key that a configuration may have, with its default values."""
    found: dict[str, list[Any]] = {}
    for command, row in compositions():
        for key, value in flat(plain(composed(command, row))).items():
            values = found.setdefault(key, [])
            if value not in values:
                values.append(value)
    return found

"""Overrides checked before anything runs: a misspelt one is refused with the alternatives shown."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from crane.config import compose, conf_dir
from crane.errors import UsageError

SHORT_NAMES = {"source": "dataset@source", "targets": "dataset@targets"}
"""What may be typed for what: `source=[mvtec,visa]` is `dataset@source=[mvtec,visa]`."""


def with_short_names(arguments: Sequence[str]) -> list[str]:
    """Arguments with short names written out.

    >>> with_short_names(["source=[mvtec]", "source.mvtec.root=/data", "-m"])
    ['dataset@source=[mvtec]', 'source.mvtec.root=/data', '-m']
    """
    written_out = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        written_out.append(SHORT_NAMES.get(name, name) + equals + value)
    return written_out


def groups() -> dict[str, list[str]]:
    """The configuration groups and their options, sorted."""
    folders = (path for path in conf_dir().iterdir() if path.is_dir() and path.name != "base")
    return {path.name: options(path) for path in sorted(folders)}


def options(folder: Path) -> list[str]:
    """The options of a group, sorted."""
    return sorted(path.stem for path in folder.glob("[!_]*.yaml"))


def check_overrides(command: str, arguments: Sequence[str]) -> None:
    """Refuse overrides that name no group, option or key.

    Args:
        command: The command they are for.
        arguments: What follows it; those that begin with a dash are Hydra's own.

    Raises:
        UsageError: With the names that come nearest.
    """
    typed = [a for a in arguments if not a.startswith("-") and "=" in a]
    try:
        parsed = OverridesParser.create().parse_overrides(typed)
    except HydraException as error:
        raise UsageError(
            "overrides of the form KEY=VALUE", " ".join(typed), hint=str(error).splitlines()[0]
        ) from error
    known = groups()
    chosen = []
    for override in parsed:
        if override.key_or_group in known and override.value() is not None:
            _check_options(override, known[override.key_or_group])
            chosen.append(_first_of_sweep(override))
    config = compose(command, chosen)
    for override in parsed:
        if override.key_or_group not in known:
            _check_key(override, config, known)


def _check_options(override: Override, allowed: Sequence[str]) -> None:
    for option in _values(override):
        if option not in allowed:
            near = difflib.get_close_matches(str(option), allowed, n=1)
            raise UsageError(
                f"an option of {override.key_or_group} out of {', '.join(allowed)}",
                option,
                hint=f"did you mean {near[0]}?" if near else None,
            )


def _check_key(override: Override, config: DictConfig, known: Iterable[str]) -> None:
    key = override.key_or_group
    if override.is_add() or key.startswith("hydra") or override.package is not None:
        return
    if not _exists(config, key):
        every = list(dict.fromkeys([*_keys(config), *known, *SHORT_NAMES]))
        near = difflib.get_close_matches(key, every, n=3, cutoff=0.5)
        last = key.rsplit(".", 1)[-1]
        near += [k for k in every if k.rsplit(".", 1)[-1] == last and k not in near][:3]
        beside = _siblings(config, key)
        raise UsageError(
            f"a key of the configuration such as {', '.join(near or beside)}",
            key,
            hint="crane COMMAND --help lists the groups, --cfg job shows every key",
        )


def _exists(config: DictConfig, key: str) -> bool:
    *parents, last = key.split(".")
    node = OmegaConf.select(config, ".".join(parents)) if parents else config
    if OmegaConf.is_list(node):
        return last.isdigit() and int(last) < len(node)
    return OmegaConf.is_dict(node) and last in node.keys()  # noqa: SIM118 - "in node" hides missing values


def _keys(node: object, prefix: str = "") -> list[str]:
    if not OmegaConf.is_dict(node):
        return []
    assert isinstance(node, DictConfig)
    found = []
    for name in map(str, node):
        found.append(prefix + name)
        if not OmegaConf.is_missing(node, name):
            found += _keys(node._get_node(name), f"{prefix}{name}.")
    return found


def _siblings(config: DictConfig, key: str) -> list[str]:
    parent = key.rpartition(".")[0]
    return [k for k in _keys(config) if k.rpartition(".")[0] == parent] or list(map(str, config))


def _values(override: Override) -> list[object]:
    value = override.value()
    if override.is_sweep_override():
        return [v for choice in override.sweep_iterator() for v in _flat(choice)]
    return _flat(value)


def _flat(value: object) -> list[object]:
    if isinstance(value, list):
        return list(value)
    text = str(value)
    is_list = text.startswith("[") and text.endswith("]")
    return list(text[1:-1].split(",")) if is_list else [text]


def _first_of_sweep(override: Override) -> str:
    if not override.is_sweep_override():
        return override.input_line or ""
    first = next(iter(override.sweep_iterator()))
    return f"{override.get_key_element()}={first}"

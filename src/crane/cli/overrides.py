"""Overrides checked before anything runs: a misspelt one is refused with the alternatives shown."""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf

from crane.config import compose, conf_dir
from crane.errors import UsageError

SHORT_NAMES = {"source": "dataset@source", "targets": "dataset@targets"}
"""What may be typed for what: `source=[mvtec,visa]` is `dataset@source=[mvtec,visa]`."""

FLAGS_WITH_VALUE = (
    *("--cfg", "-c", "--package", "-p", "--info", "-i", "--experimental-rerun"),
    *("--config-path", "-cp", "--config-name", "-cn", "--config-dir", "-cd"),
)
"""Flags of Hydra whose value is the next argument."""


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


def with_quotes(arguments: Sequence[str], at_commas: bool = False) -> list[str]:
    """Arguments with plain text, such as most paths, quoted where Hydra would stumble over it.

    Args:
        arguments: What was typed after the command.
        at_commas: Whether commas part the values of a sweep, as in a multirun.

    >>> with_quotes(["input=~/Bilder (2)", "checkpoint=epoch=5.ckpt", "source=[mvtec]"])
    ["input='~/Bilder (2)'", "checkpoint='epoch=5.ckpt'", 'source=[mvtec]']
    >>> with_quotes(["checkpoint=seed=1/a.ckpt,seed=2/a.ckpt"], at_commas=True)
    ["checkpoint='seed=1/a.ckpt','seed=2/a.ckpt'"]
    """
    return [_quoted(argument, at_commas) for argument in arguments]


def _quoted(argument: str, at_commas: bool) -> str:
    name, equals, value = argument.partition("=")
    if argument.startswith("-") or not equals or value.startswith(("[", "{", "'", '"')):
        return argument
    try:
        OverridesParser.create().parse_override(argument)
    except HydraException:
        texts = value.split(",") if at_commas else [value]
        quoted = ",".join(QuotedString(text, Quote.single).with_quotes() for text in texts)
        return f"{name}={quoted}"
    return argument


def overrides_among(arguments: Sequence[str]) -> list[str]:
    """Arguments without Hydra's own flags and what these take.

    >>> overrides_among(["seed=1", "--cfg", "job", "-m", "attention=vv"])
    ['seed=1', 'attention=vv']
    """
    previous = ["", *arguments]
    return [
        argument
        for before, argument in zip(previous, arguments, strict=False)
        if not argument.startswith("-") and before not in FLAGS_WITH_VALUE
    ]


def groups() -> dict[str, list[str]]:
    """The configuration groups and their options, sorted."""
    folders = (path for path in conf_dir().iterdir() if path.is_dir() and path.name != "base")
    return {path.name: options(path) for path in sorted(folders)}


def options(folder: Path) -> list[str]:
    """The options of a group, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def check_overrides(command: str, arguments: Sequence[str]) -> None:
    """Refuse overrides that name no group, option or key, and text where a number belongs.

    Args:
        command: The command they are for.
        arguments: What follows it, Hydra's own flags included.

    Raises:
        UsageError: With the names that come nearest.
    """
    typed = overrides_among(arguments)
    try:
        parsed = OverridesParser.create().parse_overrides(typed)
    except HydraException as error:
        raise UsageError(
            "overrides of the form KEY=VALUE", " ".join(typed), hint=str(error).splitlines()[0]
        ) from error
    known = groups()
    chosen = []
    for override in parsed:
        if override.key_or_group in known:
            _check_options(override, known[override.key_or_group])
            chosen.append(_first_of_sweep(override, known[override.key_or_group]))
    try:
        config = compose(command, chosen)
    except HydraException as error:
        raise UsageError(
            f"groups of crane {command}", " ".join(chosen), hint=_explained(error, parsed)
        ) from error
    for override in parsed:
        if override.key_or_group not in known:
            _check_key(override, config, known)


def check_sweep(arguments: Sequence[str]) -> None:
    """Refuse a multirun whose jobs would all write into one folder.

    Args:
        arguments: What follows the command, Hydra's own flags included.

    Raises:
        UsageError: Names the key that gives each job a folder below.
    """
    for override in OverridesParser.create().parse_overrides(overrides_among(arguments)):
        if override.key_or_group == "run_dir" and not override.is_sweep_override():
            raise UsageError(
                "a folder for each job of a multirun",
                override.input_line,
                hint="hydra.sweep.dir=FOLDER is where jobs have theirs",
            )


def _explained(error: HydraException, parsed: Iterable[Override]) -> str:
    """Why a choice of groups does not compose."""
    unplaced = {override.key_or_group for override in parsed if override.package is None}
    short = [name for name, whole in SHORT_NAMES.items() if whole.split("@")[0] in unplaced]
    if short:
        return f"did you mean {' or '.join(f'{name}=[…]' for name in short)}?"
    return str(error).splitlines()[0]


def _check_options(override: Override, allowed: Sequence[str]) -> None:
    chosen = _options_of(override, allowed)
    for option in chosen or [override.input_line]:
        if option not in allowed:
            near = difflib.get_close_matches(str(option), allowed, n=1)
            raise UsageError(
                f"an option of {override.key_or_group} out of {', '.join(allowed)}",
                option,
                hint=f"did you mean {near[0]}?" if near else None,
            )


def _options_of(override: Override, allowed: Sequence[str]) -> list[object]:
    """The options that an override chooses; `~group` chooses none, and `[]` no more than that."""
    value = override.value()
    if isinstance(value, Glob):
        return list(value.filter(list(allowed)))
    if override.is_sweep_override():
        return [option for choice in override.sweep_iterator() for option in _flat(choice)]
    if override.is_delete():
        return []
    return _flat("null" if value is None else value) or [*allowed[:1]]


def _flat(value: object) -> list[object]:
    if isinstance(value, list):
        return list(value)
    text = str(value)
    is_list = text.startswith("[") and text.endswith("]")
    return list(filter(None, text[1:-1].split(","))) if is_list else [text]


def _first_of_sweep(override: Override, allowed: Sequence[str]) -> str:
    if not override.is_sweep_override():
        return override.input_line or ""
    value = override.value()
    choices = value.filter(list(allowed)) if isinstance(value, Glob) else override.sweep_iterator()
    return f"{override.get_key_element()}={next(iter(choices))}"


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
    _check_type(override, OmegaConf.select(config, key))


def _check_type(override: Override, default: object) -> None:
    """Text in a number's or list's place fails late, and in a truth value's it counts as true."""
    is_range = override.is_sweep_override() and not override.is_choice_sweep()
    is_checked = isinstance(default, (bool, int, float, ListConfig))
    if not is_checked or override.is_delete() or is_range:
        return
    for value in override.sweep_iterator() if override.is_sweep_override() else [override.value()]:
        text = value.text if isinstance(value, QuotedString) else value
        if not isinstance(text, str) or "${" in text:
            continue
        if isinstance(default, ListConfig):
            if not text.startswith("["):  # of a sweep it is text
                raise UsageError(f"a list such as [{text}]", text, key=override.key_or_group)
            continue
        if isinstance(default, bool):
            raise UsageError("true or false", text, key=override.key_or_group)
        if text != "auto":
            raise UsageError("a number", text, key=override.key_or_group)


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

"""Checks of arguments, configuration and files before a command imports anything heavy."""

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from glob import has_magic
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override, QuotedString, Transformer, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError

from crane import schema
from crane.checks import PathText, check_value, existing_file, existing_folder, one_of, shown
from crane.cli.arguments import SHORT_NAMES, Arguments
from crane.config import compose, conf_dir, flat, plain, recipe_dir
from crane.errors import InvalidValueError, UsageError
from crane.files import is_remote
from crane.gate import TARGET, resolved
from crane.named_prompts import full_name, hub_place, is_name, is_on_hub, last_prompts

FREE = ("source", "targets", "methods")
"""Keys whose entries have names of the user's own."""

OWN_FILES = ("--config-path", "-cp", "--config-name", "-cn")
"""Flags with which Hydra reads another configuration than crane's."""

ELSEWHERE: Mapping[str, str] = {
    "ckpt_path": "resume=… continues a training, checkpoint=… names what is tested",
    "task_name": "hydra.run.dir=FOLDER names the folder of a run",
    "tags": "logger.tags=[…] with logger=wandb",
    "train": "crane test tests without training",
    "model": "method=…, backbone=… and prompt=… choose the model",
    "datamodule": "source=[…] and targets=[…] choose data, data.KEY=… how they are loaded",
    "net": "backbone=… chooses the backbone",
    "debug": "trainer.max_steps=2 with experiment=quick_look is a run of seconds",
    "hparams_search": "hydra/sweeper=optuna searches; see docs/sweeps.md",
    "paths": "datasets_dir=…, weights_dir=… and hydra.run.dir=… name the folders",
    "optimized_metric": "objective=METRIC names what a search maximises",
    "lr": "optimizer.lr=… sets the rate",
    "learning_rate": "optimizer.lr=… sets the rate",
    "batch_size": "data.batch_size=… and data.test_batch_size=… set the sizes of batches",
    "gpus": "trainer.devices=N with trainer=gpu or trainer=ddp takes N GPUs",
    "shard": "torchrun and srun share the images of crane predict among processes, and engine=ray "
    "among the machines of a Ray cluster",
    "device": "trainer=cpu or trainer=gpu chooses the device",
}
"""Words of other frameworks' command lines, the Lightning-Hydra template first, and crane's own."""

MISSING = "???"
"""The value of a required key that was not given."""

MAX_CHECKED = 1000
"""Values of a sweep that are checked; a range may have any number."""


def groups(more: Sequence[Path] = ()) -> dict[str, list[str]]:
    """The configuration groups and their options, sorted.

    Args:
        more: Folders of the user's own with further groups and options.
    """
    found: dict[str, set[str]] = {}
    for place in (conf_dir(), *more):
        for path in place.iterdir():
            if path.is_dir() and path.name not in ("base", "hydra"):
                found.setdefault(path.name, set()).update(options(path))
    return {name: sorted(found[name]) for name in sorted(found)}


def options(folder: Path) -> list[str]:
    """The options of a group, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def check_arguments(arguments: Arguments) -> DictConfig | None:
    """Refuse unknown groups, options and keys, and values that do not fit.

    Args:
        arguments: What was typed after a command.

    Returns:
        The configuration; None if it is made elsewhere: of each job of a multirun, or with files of
        the user's own.

    Raises:
        UsageError: Names the key, and the nearest names for one that is misspelt.
    """
    flags = {flag.partition("=")[0] for flag in arguments.flags}
    if flags & set(OWN_FILES):
        return None
    known = groups(arguments.own_folders())
    config = _composed(arguments, known)
    if flags - {"--config-dir", "-cd"}:
        return None
    for override in arguments.overrides:
        _apply(override, config, known)
    check_configuration(config, arguments.command)
    return config


def _composed(arguments: Arguments, known: Mapping[str, list[str]]) -> DictConfig:
    """The configuration with the options chosen, after a check of every override."""
    chosen = [f"hydra.searchpath=[{','.join(f'file://{p}' for p in arguments.own_folders())}]"]
    chosen = chosen if arguments.own_folders() else []
    for override in arguments.overrides:
        group = str(override.key_or_group)
        if group in known and override.is_add() and override.package not in FREE:
            place = override.package or group
            raise UsageError(f"unknown key {place}; nothing reads {override.input_line}")
        if group in known:
            _check_options(override, known[group])
            chosen.append(_first_of_sweep(override, known[group]))
    try:
        config = compose(arguments.command, chosen)
    except HydraException as error:
        raise _not_composed(error, arguments) from error
    text = " ".join(str(override.input_line) for override in arguments.overrides)
    for override in arguments.overrides:
        key = str(override.key_or_group)
        if key in known or key.startswith(("hydra.", "hydra/")):
            continue
        if override.package is not None:
            message = f"unknown group {key} in {override.input_line}; choose one of"
            raise UsageError(f"{message} {', '.join(known)}")
        if override.is_add():
            _check_added(override, config, text)
        else:
            _check_key(key, config, known)
        if not override.is_delete():
            _check_values(arguments.command, override, OmegaConf.select(config, key))
        if key in ("objective", "monitor") and override.is_sweep_override():
            one = config.copy()
            for one[key] in _values(override):  # before the first job, not when its turn comes
                check_metrics(one)
    return config


def _apply(override: Override, config: DictConfig, known: Iterable[str]) -> None:
    """Change a configuration as Hydra does."""
    key = str(override.key_or_group)
    if override.package is not None or key.startswith(("hydra.", "hydra/")) or key in known:
        return
    parent, _, last = key.rpartition(".")
    node = OmegaConf.select(config, parent) if parent else config
    if override.is_delete():
        with open_dict(config):
            node.pop(int(last) if isinstance(node, ListConfig) else last)
    else:
        OmegaConf.update(config, key, override.value(), merge=True, force_add=True)


def _not_composed(error: HydraException, arguments: Arguments) -> UsageError:
    """Explain why a choice of groups does not compose."""
    unplaced = {override.key_or_group for override in arguments.overrides if not override.package}
    short = [name for name, full in SHORT_NAMES.items() if full.split("@")[0] in unplaced]
    if short:
        typed = " or ".join(f"{name}=[…]" for name in short)
        return UsageError(f"a data set needs a role; did you mean {typed}?")
    return UsageError(f"crane {arguments.command}: {str(error).splitlines()[0]}")


def _check_options(override: Override, allowed: Sequence[str]) -> None:
    group = str(override.get_key_element()).lstrip("+~").removeprefix("dataset@")
    for option in _options_of(override, allowed) or [override.input_line]:
        if option not in allowed:
            near = difflib.get_close_matches(str(option), allowed, n=1)
            guess = f"did you mean {near[0]}? " if near else ""
            message = f"unknown option {shown(str(option))} of {group}; {guess}choose one of"
            raise UsageError(f"{message} {', '.join(allowed)}")


def _options_of(override: Override, allowed: Sequence[str]) -> list[object]:
    """The options that an override chooses; `~group` chooses none, `[]` only that."""
    value = override.value()
    if isinstance(value, Glob):
        return list(value.filter(list(allowed)))
    if override.is_sweep_override():
        return [option for choice in override.sweep_iterator() for option in _entries(choice)]
    if override.is_delete():
        return []
    return _entries("null" if value is None else value) or [*allowed[:1]]


def _entries(value: object) -> list[object]:
    if isinstance(value, list):
        return list(value)
    text = str(value)
    is_list = text.startswith("[") and text.endswith("]")
    return list(filter(None, text[1:-1].split(","))) if is_list else [text]


def _first_of_sweep(override: Override, allowed: Sequence[str]) -> str:
    if not override.is_sweep_override():
        return override.input_line or ""
    value = override.value()
    choices = (
        value.filter(list(allowed))
        if isinstance(value, Glob)
        else override.sweep_iterator(Transformer.str)
    )
    return f"{override.get_key_element()}={next(iter(choices))}"


def _check_key(key: str, config: DictConfig, known: Iterable[str]) -> None:
    if _exists(config, key):
        return
    every = list(dict.fromkeys([*_keys(config), *known, *SHORT_NAMES]))
    if key in ELSEWHERE:
        raise UsageError(f"unknown key {key}; {ELSEWHERE[key]}")
    near = difflib.get_close_matches(key, every, n=3, cutoff=0.5)
    last = key.rsplit(".", 1)[-1]
    near += [k for k in every if k.rsplit(".", 1)[-1] == last and k not in near][:3]
    guess = f"did you mean {', '.join(near)}?" if near else f"there are {_siblings(config, key)}"
    raise UsageError(
        f"unknown key {key}; {guess} (--help lists groups and keys, --cfg job shows every key)"
    )


def _check_added(override: Override, config: DictConfig, text: str) -> None:
    """Refuse a `+key` that nothing reads.

    A constructor may take it, as the gate checks, or another override may refer to it.
    """
    key = str(override.key_or_group)
    if _exists(config, key):
        raise UsageError(f"{key} exists already; type {str(override.input_line).lstrip('+')}")
    parents = [key[:place] for place, letter in enumerate(key) if letter == "."]
    nodes = [OmegaConf.select(config, parent) for parent in parents]
    is_argument = any(isinstance(node, DictConfig) and TARGET in node for node in nodes)
    is_entry = len(parents) == 1 and parents[0] in FREE and nodes[0] is not None
    if not (is_argument or is_entry or f"${{{key}}}" in text):
        raise UsageError(f"unknown key {key}; nothing reads {override.input_line}")


def _check_values(command: str, override: Override, default: object) -> None:
    """Check what is typed for a key against its declared type, or its default's."""
    key = str(override.key_or_group)
    is_list = schema.is_list(command, key) or isinstance(default, ListConfig)
    for value in _values(override):
        if "${" in str(value):
            continue  # resolved and checked with the whole configuration
        if isinstance(value, str) and is_list:
            if not value.startswith("["):  # a list in a sweep is text
                raise UsageError(f"{key} must be a list; type {key}=[{value}]")
        elif schema.declared(command, key) is not None:
            schema.check(command, {key: value})
        else:
            _check_like(value, default, key)


def _check_like(value: object, default: object, key: str) -> None:
    """Compare a value that a constructor takes with its default; the gate checks it in full."""
    is_text = isinstance(value, str)
    if isinstance(default, bool):
        if is_text:
            raise UsageError(f"{key} must be true or false, not {shown(value)}")
    elif isinstance(default, (int, float)):
        is_finite = not isinstance(value, float) or math.isfinite(value)
        if isinstance(value, bool) or not is_finite or (is_text and value != "auto"):
            kind = "a number" if is_finite else "a finite number"
            raise UsageError(f"{key} must be {kind}, not {shown(value)}")


def _values(override: Override) -> Iterator[Any]:
    if not override.is_sweep_override():
        yield override.value()
    elif override.value_type is not ValueType.INTERVAL_SWEEP:
        for value in islice(override.sweep_iterator(), MAX_CHECKED):
            yield value.text if isinstance(value, QuotedString) else value


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


def _siblings(config: DictConfig, key: str) -> str:
    parent = key.rpartition(".")[0]
    found = [k for k in _keys(config) if k.rpartition(".")[0] == parent]
    return ", ".join(found or map(str, config))


def check_configuration(config: DictConfig, command: str) -> None:
    """Check the composed configuration: required values, interpolations, types, names of metrics.

    Args:
        config: The configuration of a command.
        command: Its name.

    Raises:
        UsageError: Names the key.
    """
    missing = [k for k, v in flat(plain(config, resolve=False)).items() if v == MISSING]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        typed = " ".join(f"{key}=…" for key in missing)
        keys = " and ".join(missing)
        raise UsageError(f"{keys} {verb} required: crane {command} {typed}", key=missing[0])
    schema.check(command, flat(resolved(config, "")))
    check_metrics(config)


def removed_key(error: BaseException, overrides: Iterable[str]) -> UsageError | None:
    """The mistake behind a key that is missing because of an override such as `~seed`, if it is.

    Args:
        error: What the command ended in.
        overrides: What was typed.
    """
    removed = [text for text in overrides if text.startswith("~")]
    if not removed or not isinstance(error, ConfigAttributeError):
        return None
    key = str(error.full_key)
    return UsageError(f"{key} is required; leave {' '.join(removed)} out", key=key)


def check_metrics(config: DictConfig) -> None:
    """Refuse metrics that nothing measures: columns of tables, what a sweep or training maximises.

    Args:
        config: The configuration of a command; one that measures nothing passes.

    Raises:
        UsageError: Lists the metrics.
    """
    if "metrics" not in config:
        return
    metrics = [*config.metrics.image_measures, *config.metrics.pixel_measures]
    for column in config.table_columns:
        one_of(str(column).removesuffix("_threshold"), metrics, "metric", "table_columns")
    if "objective" in config:
        one_of(config.objective, metrics, "metric", "objective")
    if "monitor" in config:
        values = [f"val/{name}" for name in ("mean", *metrics)]
        one_of(config.monitor, values, "validation value", "monitor")


def optimises(sweeper: DictConfig) -> bool:
    """Whether a sweeper looks at what the jobs measure, as Optuna does."""
    return "BasicSweeper" not in sweeper._target_


def check_files(config: DictConfig, command: str) -> None:
    """Check that the files that a command reads first exist.

    Args:
        config: The configuration of a command.
        command: Its name.

    Raises:
        UsageError: One does not exist; names its key.
    """
    trains_nothing = "loss" in config and config.loss is None  # loss=none, which methods choose
    if command == "train" and trains_nothing:
        name = config.method.name
        raise UsageError(
            f"{name} has nothing to train; crane test needs no checkpoint", key="method"
        )
    if "checkpoint" in config and (config.checkpoint is not None or not trains_nothing):
        check_value(config.checkpoint, PathText, "checkpoint")
        _check_checkpoint(str(config.checkpoint))
    if config.get("resume") is not None:
        existing_file(config.resume, "resume", "the checkpoints/last.ckpt of a training")
    if command == "report":
        for path in config.paths:
            existing_folder(path, "paths", "folders of runs, or folders that hold some")
    if command in ("train", "test"):
        _check_data_sets(config)
    if command == "reproduce":
        for folder in config.experiments:
            if recipe_dir(str(folder)) is None:
                raise UsageError(f"experiments: {folder} has no recipe.yaml", key="experiments")
    if command in ("predict", "export"):
        for key in ("input", "calibration.input"):
            spec = OmegaConf.select(config, key)
            for entry in spec if isinstance(spec, ListConfig) else filter(None, [spec]):
                if is_remote(entry) or has_magic(str(entry)):
                    continue
                if not Path(entry).expanduser().exists():
                    wanted = "an image, a folder, a glob or a list of paths"
                    raise UsageError(f"{key}: {entry} does not exist; give {wanted}", key=key)


def _check_checkpoint(spec: str) -> None:
    """Check that a checkpoint is a published name, a file, or the folder of a training."""
    if spec == "auto":
        return
    if is_on_hub(spec):
        hub_place(spec)
    elif is_name(spec):
        full_name(spec)
    elif Path(spec).expanduser().is_dir():
        last_prompts(Path(spec).expanduser())
    else:
        existing_file(spec, "checkpoint", "a checkpoint file, the folder of a training, or a name")


def _check_data_sets(config: DictConfig) -> None:
    """Check that there is a folder for each data set, except those drawn on first use."""
    from crane.data.index import Request  # a quarter of a second that other commands save
    from crane.datasets import candidate_folders

    named = [(r, *item) for r in ("source", "targets") for item in config[r].items()]
    for role, name, node in named:
        if not str(node.get(TARGET)).startswith(("crane.data.", "crane.datasets.")):
            continue
        root, folders = node.get("root"), node.get("folders") or [str(name)]
        if root is None and "file" in node:  # a table, which lies beside its images
            existing_file(node.file, f"{role}.{name}.file", "a list of images and labels")
            continue
        if root is None:
            top = Path(node.get("datasets_dir") or config.datasets_dir)
            if candidate_folders(top, folders):
                continue
            root = top / folders[0]
        try:
            request = Request(str(name), str(root), "test", 0, fetch=node.get("fetch") or "")
        except InvalidValueError as error:
            raise error.under(f"{role}.{name}") from None
        request.folder()

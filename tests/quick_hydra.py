"""Composes configurations faster: a test run composes the same ones thousands of times.

Hydra parses every file anew whenever it composes, and composes twice to run a command: the first
time only to look for `hydra.mode`. Both take half the time of a small training. What the choices of
groups make of the files is the same whatever other keys are set, so it is also kept.
"""

import copy
import functools
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.defaults_list import DefaultsList
from hydra._internal.hydra import Hydra
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigSource
from omegaconf import DictConfig

CONF = Path(__file__).resolve().parents[1] / "conf"


def install() -> None:
    """Replace six functions by equivalent ones, for the rest of this process."""
    from crane import config

    Plugins.instance()  # runs the modules of sources anew, and with them their classes
    files = SourcesRegistry.instance().resolve("file")
    files.load_config = _parsed_once(files.load_config)
    CachingConfigRepository.__init__ = _own_sources_only
    Hydra.get_mode = _mode_if_asked_for(Hydra.get_mode)
    config.compose = _composed_once(config.compose)
    config_loader_impl.create_defaults_list = _listed_once(config_loader_impl.create_defaults_list)
    merge = ConfigLoaderImpl._compose_config_from_defaults_list
    ConfigLoaderImpl._compose_config_from_defaults_list = _merged_once(merge)


def _own_sources_only(self: CachingConfigRepository, delegate: IConfigRepository) -> None:
    """Hydra copies the repository in depth, with the settings of every plugin."""
    self.delegate = copy.copy(delegate)  # `initialize_sources` gives it another list
    self.cache = {}


def _parsed_once(load: Callable[..., Any]) -> Callable[..., Any]:
    parsed: dict[tuple[object, ...], bytes] = {}

    @functools.wraps(load)
    def quick_load(self: ConfigSource, config_path: str) -> Any:
        file = Path(self.path, self._normalize_file_name(config_path))
        if not file.is_file():
            return load(self, config_path)
        state = file.stat()
        key = (str(file), self.provider, self.path, state.st_mtime_ns, state.st_size)
        if key not in parsed:
            parsed[key] = pickle.dumps(load(self, config_path))
        return pickle.loads(parsed[key])

    return quick_load


def _mode_if_asked_for(get_mode: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get_mode)
    def quick_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        if any("hydra.mode" in override for override in overrides):
            return get_mode(self, config_name, overrides)
        return None  # no file in conf/ sets it

    return quick_mode


def _composed_once(compose: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    composed: dict[tuple[str, tuple[str, ...]], bytes] = {}

    @functools.wraps(compose)
    def quick_compose(command: str, overrides: Sequence[str] = ()) -> DictConfig:
        from crane.config import conf_dir

        own = any("searchpath" in override for override in overrides)
        if own or not conf_dir().samefile(CONF):
            return compose(command, overrides)
        key = (command, tuple(overrides))
        if key not in composed:
            composed[key] = pickle.dumps(compose(command, overrides))
        return pickle.loads(composed[key])

    return quick_compose


def _sources(repo: IConfigRepository) -> tuple[object, ...]:
    """Where files are read, and their state; that of `conf/`, which no test changes, once."""
    places = ((one.provider, one.path) for one in repo.get_sources())
    return tuple((who, path, _own() if path == str(CONF) else _state(path)) for who, path in places)


@functools.cache
def _own() -> tuple[tuple[str, int, int], ...]:
    return _state(str(CONF))


def _state(folder: str) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of each file of a folder; of Hydra's own there is none."""
    found = sorted(Path(folder).rglob("*.yaml")) if folder else []
    files = ((path, path.stat()) for path in found)
    return tuple((str(path), facts.st_mtime_ns, facts.st_size) for path, facts in files)


def _listed_once(create: Callable[..., DefaultsList]) -> Callable[..., DefaultsList]:
    """Keep what the choices of groups make; the other overrides change values only."""
    listed: dict[tuple[object, ...], DefaultsList] = {}

    @functools.wraps(create)
    def quick_create(
        repo: IConfigRepository,
        config_name: str | None,
        overrides_list: list[Override],
        prepend_hydra: bool,
        skip_missing: bool,
    ) -> DefaultsList:
        sources = _sources(repo)
        of_groups = {id(o) for o in overrides_list if repo.group_exists(o.key_or_group)}
        chosen = [o for o in overrides_list if id(o) in of_groups]
        key = (sources, config_name, *(o.input_line for o in chosen), prepend_hydra, skip_missing)
        if key not in listed:
            listed[key] = create(repo, config_name, chosen, prepend_hydra, skip_missing)
        found = listed[key]
        values = [
            o
            for o in overrides_list
            if not o.is_sweep_override() and (id(o) not in of_groups or isinstance(o.value(), dict))
        ]
        return DefaultsList(list(found.defaults), found.defaults_tree, values, found.overrides)

    return quick_create


def _merged_once(merge: Callable[..., DictConfig]) -> Callable[..., DictConfig]:
    merged: dict[tuple[object, ...], bytes] = {}

    @functools.wraps(merge)
    def quick_merge(
        self: ConfigLoaderImpl, defaults: list[ResultDefault], repo: IConfigRepository
    ) -> DictConfig:
        sources = _sources(repo)
        key = (sources, repr(defaults))
        if key not in merged:
            merged[key] = pickle.dumps(merge(self, defaults, repo))
        return pickle.loads(merged[key])

    return quick_merge

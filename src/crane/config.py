"""Where the configuration lives, how to compose it outside the command line, and overrides."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf


def conf_dir() -> Path:
    """The folder of configuration groups: inside an installed package, or `conf/` of a clone."""
    installed = Path(str(files("crane"))) / "conf"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "conf"


def recipe_dir(word: str) -> Path | None:
    """The folder of a recipe: the one named, or one of the package's by its name alone.

    Args:
        word: A folder with a `recipe.yaml`, or a name such as `table1_zero_shot`.

    Returns:
        None if there is no such recipe.

    >>> recipe_dir("table1_zero_shot").name, recipe_dir("nothing")
    ('table1_zero_shot', None)
    """
    installed = Path(str(files("crane"))) / "experiments"
    top = installed if installed.is_dir() else Path(__file__).resolve().parents[2] / "experiments"
    places = [Path(word).expanduser(), *([top / word] if Path(word).name == word else [])]
    return next((place for place in places if (place / "recipe.yaml").is_file()), None)


def compose(command: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration of a command, as if it had been typed.

    Args:
        command: `train`, `test`, `predict` or `demo`.
        overrides: What would follow it on the command line, such as `attention=vv`.

    Returns:
        The composed configuration. `run_dir` is the current folder unless overridden.

    >>> compose("train", ["method=crane_plus", "attention=vv"]).scoring.fusion_weight
    0.5
    """
    if not any(override.startswith("run_dir=") for override in overrides):
        overrides = [*overrides, "run_dir=."]
    around = GlobalHydra.instance().hydra  # of a running command, or of someone else's program
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra_compose(command, overrides=list(overrides))
    finally:
        GlobalHydra.instance().hydra = around


def parse_override(text: str) -> Override:
    """One override as Hydra understands it.

    Raises:
        HydraException: It is not of the form KEY=VALUE.
    """
    return _parser().parse_override(text)


def overridden(overrides: Iterable[str]) -> set[str]:
    """The keys and groups that overrides change.

    >>> sorted(overridden(["seed=1", "dataset@source=[mvtec]", "~guide.features"]))
    ['dataset', 'guide.features', 'seed']
    """
    return {str(parse_override(text).key_or_group) for text in overrides}


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


def plain(config: DictConfig, *, resolve: bool = True) -> dict[str, Any]:
    """A configuration as ordinary dictionaries and lists.

    Args:
        config: Any configuration.
        resolve: Whether to fill interpolations such as `${image_size}` in.
    """
    container = OmegaConf.to_container(config, resolve=resolve)
    return {str(key): value for key, value in dict(container).items()}  # type: ignore[arg-type]


def flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level of full keys; empty mappings stay as values.

    >>> flat({"a": {"b": 1, "c": {}}, "d": [2]})
    {'a.b': 1, 'a.c': {}, 'd': [2]}
    """
    found: dict[str, Any] = {}
    for name, value in node.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{key}.")
        else:
            found[key] = value
    return found

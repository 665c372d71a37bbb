"""The metrics a command is asked for, and what a sweeper that optimises, as Optuna, looks at."""

import math
from collections.abc import Mapping, Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from crane.cli.overrides import overrides_among
from crane.errors import UsageError

SWEEPER, DIRECTION = "hydra/sweeper", "hydra.sweeper.direction"
"""Hydra's group of sweepers, and Optuna's key for whether less or more is better."""


def with_direction(arguments: Sequence[str]) -> list[str]:
    """Arguments of a multirun, with word to Optuna that more is better; by itself it minimises.

    >>> with_direction(["-m", "hydra/sweeper=optuna"])[-1]
    'hydra.sweeper.direction=maximize'
    >>> with_direction(["-m", "attention=vv,qq"])[-1]
    'attention=vv,qq'
    """
    overrides = OverridesParser.create().parse_overrides(overrides_among(arguments))
    values = {str(o.key_or_group): o.value() for o in overrides if not o.is_delete()}
    if values.get(SWEEPER) != "optuna" or DIRECTION in values:
        return list(arguments)
    return [*arguments, f"{DIRECTION}=maximize"]


def is_optimising() -> bool:
    """Whether this is a job of a multirun whose sweeper looks at what jobs measure."""
    return HydraConfig.initialized() and _optimises(HydraConfig.get().sweeper)


def check_objective(config: DictConfig) -> None:
    """Refuse, before any job, an objective that no job will measure.

    Args:
        config: Of the multirun, Hydra's own part included.

    Raises:
        UsageError: Names the metrics there are.
    """
    if "objective" not in config or not _optimises(config.hydra.sweeper):
        return
    known = _measures(config)
    if config.objective not in known:
        raise UsageError(f"a metric out of {', '.join(known)}", config.objective, key="objective")


def check_columns(config: DictConfig) -> None:
    """Refuse, before any work, columns of tables that no run will fill.

    Args:
        config: Of a command that measures.

    Raises:
        UsageError: Names the metrics there are.
    """
    known = _measures(config)
    for column in config.table_columns:
        if str(column).removesuffix("_threshold") not in known:
            raise UsageError(f"metrics out of {', '.join(known)}", column, key="table_columns")


def _measures(config: DictConfig) -> list[str]:
    return [*config.metrics.image_measures, *config.metrics.pixel_measures]


def objective(metric: str, values: Mapping[str, float]) -> float:
    """The mean over the targets.

    Args:
        metric: The metric's name.
        values: Target to its mean over classes.

    Raises:
        UsageError: There is no target, or one on which the metric is not defined.

    >>> objective("aupro", {"visa": 0.8, "btad": 0.6})
    0.7
    """
    undefined = [name for name, value in values.items() if math.isnan(value)]
    if undefined or not values:
        came = f"none on {', '.join(undefined)}" if undefined else "no target"
        raise UsageError(f"a value of {metric} on every target", came, key="objective")
    return math.fsum(values.values()) / len(values)


def worst_objective() -> float:
    """What a job that failed counts as, so that the sweeper goes on and looks elsewhere."""
    direction = str(HydraConfig.get().sweeper.get("direction", "")).rpartition(".")[2].lower()
    return math.inf if direction == "minimize" else -math.inf


def _optimises(sweeper: DictConfig) -> bool:
    return "BasicSweeper" not in sweeper._target_

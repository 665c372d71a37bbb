"""What a reproduction will do: its cells and runs, what is missing for them, what they cost.

A cell is a setting, a data set and a seed; a recipe and a suite say which there are.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from crane.checks import PositiveInt, check_value, one_of
from crane.config import compose, plain
from crane.errors import UsageError
from crane.identity import setting_of
from crane.reproduce.recipe import Recipe, RecipeRow, case_of, check_override, key_of
from crane.reproduce.resources import (
    DataSet,
    Missing,
    Resources,
    Suite,
    distinct,
    missing_checkpoint,
)
from crane.weights import weights_needed


@dataclass(frozen=True)
class Cell:
    """One test of a row on one data set with one seed."""

    row: str
    """The row of the recipe."""
    dataset: str
    """The data set, as an option of the group `dataset`."""
    seed: int
    """The seed of training and test."""
    train: tuple[str, ...] | None = None
    """Overrides of the `crane train` whose prompts are tested, without its seed and targets; None
    for a checkpoint, and for methods that train nothing."""
    checkpoint: str | None = None
    """A checkpoint of the authors, below `checkpoints_dir`."""
    epoch: int | None = None
    """Epoch whose prompts are tested; None for the last one."""
    test: tuple[str, ...] = ()
    """Overrides of the `crane test`, without its checkpoint, seed and target."""
    excluded: str | None = None
    """Why it does not run in this suite; None if it runs."""


@dataclass(frozen=True)
class Changes:
    """What the command line changes in every recipe."""

    seeds: tuple[int, ...] | None = None
    """Seeds in place of the recipes'; None for the recipes'."""
    overrides: tuple[str, ...] = ()
    """Overrides of every run."""
    train: tuple[str, ...] = ()
    """Overrides of every training."""


NO_CHANGES = Changes()


def expand(recipe: Recipe, suite: Suite, changes: Changes = NO_CHANGES) -> list[Cell]:
    """Every cell of a recipe in a suite, row by row.

    Raises:
        UsageError: The suite has no replacement for a source, or an override cannot be parsed.
    """
    kept = tuple(target for target in recipe.targets if target in suite.kept)
    targets = recipe.targets if suite.targets is None else kept or tuple(suite.targets)
    own = recipe.suite_seeds.get(suite.name, recipe.seeds)
    seeds = own if changes.seeds is None else changes.seeds
    return [
        _cell(recipe, row, suite, target, seed, changes)
        for row in recipe.rows
        for target in targets
        # What is not trained does not depend on the seed.
        for seed in seeds[: None if row.trains and not row.checkpoint else 1]
    ]


def _cell(
    recipe: Recipe, row: RecipeRow, suite: Suite, target: str, seed: int, changes: Changes
) -> Cell:
    own = row.suites.get(suite.name, row.overrides)
    if isinstance(own, str):
        return Cell(row.name, target, seed, excluded=own)
    case = case_of(target, recipe.protocol, row.protocol)
    common = [*suite.overrides, *_replaced(own, suite)]
    test = joined(common, _replaced([*row.test, *case.test], suite), changes.overrides)
    if not row.trains:
        return Cell(row.name, target, seed, test=test)
    names = case.source or row.source or recipe.source
    sources = list(dict.fromkeys(_source(name, suite) for name in names))
    if target in sources:
        return Cell(row.name, target, seed, excluded="it is trained on")
    epoch = case.epoch or row.epoch
    if row.checkpoint is not None:
        path = row.checkpoint.format(source="+".join(sources), epoch=epoch)
        return Cell(row.name, target, seed, checkpoint=path, epoch=epoch, test=test)
    own_train = [*suite.train, *_replaced([*row.train, *case.train], suite)]
    typed = [*changes.overrides, *changes.train, f"dataset@source=[{','.join(sources)}]"]
    return Cell(row.name, target, seed, joined(common, own_train, typed), epoch=epoch, test=test)


def _source(name: str, suite: Suite) -> str:
    if suite.sources and name not in suite.sources:
        raise UsageError(f"suite.sources does not say what replaces {name}", key="suite.sources")
    return suite.sources.get(name, name)


def _replaced(overrides: Iterable[str], suite: Suite) -> list[str]:
    return [new for old in overrides for new in suite.replace.get(old, (old,))]


def joined(*groups: Iterable[str]) -> tuple[str, ...]:
    """Concatenate overrides, keeping only the last one of each key.

    >>> joined(["method=crane_plus", "guide=mini"], ["guide=none", "seed=1"])
    ('method=crane_plus', 'guide=none', 'seed=1')

    Raises:
        UsageError: One is not an override.
    """
    last: dict[str, str] = {}
    for override in (one for group in groups for one in group):
        key = key_of(override)
        last.pop(key, None)
        last[key] = override
    return tuple(last.values())


def split(text: str, key: str) -> tuple[str, ...]:
    """Split overrides typed as one text at its spaces, and check each.

    Args:
        text: The overrides.
        key: The key that holds them.

    Raises:
        UsageError: A quotation mark is not closed, or an override is refused.
    """
    try:
        return tuple(map(check_override, shlex.split(text)))
    except ValueError as error:
        raise UsageError(f"{key}: {error}", key=key) from error


MB_PER_EPOCH = 0.2
"""A prompt file: 43,008 numbers of 4 bytes for ViT-L/14."""
MB_PER_RUN = 2.0
"""Results, record and pictures of a run, and a training's state to resume from."""


@dataclass(eq=False)
class Setting:
    """A configuration that several runs share, without their seed."""

    config: DictConfig
    """The composed configuration; of `crane test`, with every target of the plan."""
    name: str
    """Its name: see `crane.identity.setting_of`."""
    weights: tuple[str, ...]
    """The weight files it needs."""
    missing: tuple[Missing, ...]
    """Those that were not here when it was composed."""

    @cached_property
    def _without_targets(self) -> DictConfig:
        config = self.config.copy()
        with open_dict(config):
            config.targets = {}
        return config

    def of(self, seed: int, dataset: str | None = None) -> DictConfig:
        """Copy the configuration for one seed, and for one target if it is a test's."""
        config = self._without_targets.copy()  # the targets take most of the time
        with open_dict(config):
            config.seed = seed
            if dataset is not None:
                config.targets = {dataset: self.config.targets[dataset]}
        return config


@dataclass(eq=False)
class Training:
    """One training; several tests may use its prompts."""

    overrides: tuple[str, ...]
    seed: int
    setting: Setting
    sources: tuple[DataSet, ...]

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.setting.name}-{self.seed}"

    @property
    def num_epochs(self) -> int:
        """Epochs it trains."""
        return int(self.setting.config.trainer.max_epochs)

    @property
    def missing(self) -> tuple[Missing, ...]:
        """What is missing for it."""
        return *(one.missing for one in self.sources if one.missing), *self.setting.missing

    @property
    def num_images(self) -> int:
        """Images trained on in all epochs, without data sets of unknown size."""
        data = self.setting.config.data
        each = [
            data.k_shot * one.num_classes if data.k_shot else round(data.portion * one.num_images)
            for one in self.sources
            if one.num_images is not None
        ]
        return self.num_epochs * sum(each)


@dataclass(eq=False)
class Test:
    """One test of one checkpoint on one data set."""

    overrides: tuple[str, ...]
    seed: int
    setting: Setting
    """Without the checkpoint's model."""
    dataset: DataSet
    training: Training | None
    """Whose prompts are tested; None for a checkpoint of the authors, and for methods that train
    nothing."""
    epoch: int
    checkpoint: Path | None
    """A checkpoint of the authors; None if one is trained here, and for methods that train
    nothing."""

    def learned(self, folder: Path | None) -> Path | None:
        """The file of what is tested, with the folder of its training if there is one."""
        return self.checkpoint if folder is None else prompts_of(folder, self.epoch)

    @property
    def missing(self) -> tuple[Missing, ...]:
        """What is missing for it and its training."""
        checkpoint = None if self.checkpoint is None else missing_checkpoint(self.checkpoint)
        training = () if self.training is None else self.training.missing
        own = filter(None, (self.dataset.missing, checkpoint))
        return distinct([*training, *own, *self.setting.missing])

    @property
    def num_images(self) -> int:
        """Images tested; 0 if unknown."""
        return self.dataset.num_images or 0


def prompts_of(folder: Path, epoch: int) -> Path:
    """The prompts of an epoch in a training's folder."""
    return folder / "prompts" / f"epoch_{epoch}.safetensors"


@dataclass
class Plan:
    """Every cell with its test; cells share tests, and tests share trainings."""

    cells: Mapping[str, Sequence[Cell]]
    """Recipe to its cells."""
    tests: dict[tuple[str, Cell], Test] = field(default_factory=dict)
    """Recipe and cell to the test, without excluded cells."""

    @property
    def distinct_tests(self) -> list[Test]:
        """Each test once, in the order of the cells."""
        return list(dict.fromkeys(self.tests.values()))

    @property
    def trainings(self) -> list[Training]:
        """Each training once, in the order of the cells."""
        return trainings_of(self.distinct_tests)

    def labels(self) -> dict[Test, str]:
        """Test to the first cell that it fills, in words."""
        found: dict[Test, str] = {}
        for (recipe, cell), test in self.tests.items():
            text = f"{recipe}, {cell.row}, on {cell.dataset}, seed {cell.seed}"
            found.setdefault(test, text)
        return found

    def missing(self) -> tuple[Missing, ...]:
        """Everything that is missing."""
        return distinct(one for test in self.distinct_tests for one in test.missing)

    def check_metrics(self, recipe: Recipe) -> None:
        """Refuse metrics of a recipe that its tests do not measure.

        Raises:
            UsageError: Names the nearest metric.
        """
        settings = {test.setting for (name, _), test in self.tests.items() if name == recipe.name}
        for setting in settings:
            metrics = setting.config.metrics
            groups = (metrics.get(name) or () for name in ("image_measures", "pixel_measures"))
            measured = [str(name) for group in groups for name in group]
            for metric in recipe.metrics:
                one_of(metric, measured, "metric", f"metrics in {recipe.path}")


def trainings_of(tests: Iterable[Test]) -> list[Training]:
    """The trainings of some tests, each once."""
    return list(dict.fromkeys(test.training for test in tests if test.training is not None))


class Cost(NamedTuple):
    """Estimated cost of some runs."""

    num_images: int
    """Images through the towers: a training processes its images once per epoch."""
    seconds: float
    """Time."""
    megabytes: float
    """Disk space of what runs write, without data, weights and cached features."""

    @property
    def time(self) -> str:
        """The time in a suitable unit.

        >>> [Cost(0, seconds, 0).time for seconds in (40, 400, 40000)]
        ['40 s', '7 min', '11.1 h']
        """
        if self.seconds < 120:
            return f"{self.seconds:.0f} s"
        minutes = self.seconds / 60
        return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def estimate(
    trainings: Sequence[Training], tests: Sequence[Test], suite: Suite, device: str
) -> Cost:
    """Estimate the cost of distinct trainings and tests on a device, `cpu` or `gpu`."""
    num_images = sum(run.num_images for run in trainings) + sum(run.num_images for run in tests)
    num_runs = len(trainings) + len(tests)
    seconds = num_images * suite.seconds_per_image[device] + num_runs * suite.seconds_per_run
    num_epochs = sum(training.num_epochs for training in trainings)
    return Cost(num_images, seconds, num_epochs * MB_PER_EPOCH + num_runs * MB_PER_RUN)


class Planner:
    """Makes plans; composes each configuration and looks up each file once.

    Args:
        places: `datasets_dir`, `weights_dir` and `allow_download` of every run.
        checkpoints_dir: The authors' checkpoints.
    """

    def __init__(self, places: Mapping[str, Any], checkpoints_dir: Path) -> None:
        self.places, self.checkpoints_dir = places, checkpoints_dir
        self.resources = Resources(places["weights_dir"], allow_download=places["allow_download"])
        self._settings: dict[tuple[str, ...], Setting] = {}
        self._trainings: dict[tuple[str, int], Training] = {}
        self._tests: dict[tuple[object, ...], Test] = {}

    def plan(self, cells: Mapping[str, Sequence[Cell]]) -> Plan:
        """Compose the configuration of each cell, and look up what it needs.

        Args:
            cells: Recipe to its cells.

        Raises:
            UsageError: An override does not fit the configuration, or an epoch is not trained.
        """
        plan = Plan(cells)
        targets = list(dict.fromkeys(cell.dataset for own in cells.values() for cell in own))
        for recipe, own in cells.items():
            for cell in own:
                if cell.excluded is not None:
                    continue
                try:
                    plan.tests[recipe, cell] = self._test(cell, targets)
                except (UsageError, HydraException, OmegaConfBaseException) as error:
                    raise UsageError(f"row {cell.row!r} of {recipe}: {error}") from error
        return plan

    def _test(self, cell: Cell, targets: Sequence[str]) -> Test:
        training = None if cell.train is None else self._training(cell.train, cell.seed)
        setting = self._setting("test", [*cell.test, f"dataset@targets=[{','.join(targets)}]"])
        path = None if cell.checkpoint is None else self.checkpoints_dir / cell.checkpoint
        epoch = cell.epoch or (0 if training is None else training.num_epochs)
        if training is not None and epoch > training.num_epochs:
            raise UsageError(f"must be at most {training.num_epochs}, not {epoch}", key="epoch")
        trained = path if training is None else training.name
        key = (trained, epoch, setting.name, cell.dataset, cell.seed)
        if key not in self._tests:
            node, strict = setting.config.targets[cell.dataset], setting.config.data.strict
            dataset = self.resources.data_set(cell.dataset, node, strict=strict)
            typed = (*cell.test, f"dataset@targets=[{cell.dataset}]", f"seed={cell.seed}")
            self._tests[key] = Test(typed, cell.seed, setting, dataset, training, epoch, path)
        return self._tests[key]

    def _training(self, overrides: tuple[str, ...], seed: int) -> Training:
        setting = self._setting("train", [*overrides, "dataset@targets=[]"])
        key = (setting.name, seed)
        if key not in self._trainings:
            strict = setting.config.data.strict
            sources = tuple(
                self.resources.data_set(str(name), node, strict=strict)
                for name, node in setting.config.source.items()
            )
            typed = (*overrides, "dataset@targets=[]", f"seed={seed}")
            self._trainings[key] = Training(typed, seed, setting, sources)
        return self._trainings[key]

    def _setting(self, command: str, overrides: Sequence[str]) -> Setting:
        key = (command, *overrides)
        if key not in self._settings:
            config = compose(command, overrides)
            with open_dict(config):
                config.update(self.places)
            trainer = config.trainer
            check_value(trainer.max_epochs, PositiveInt, "trainer.max_epochs")
            if trainer.devices != 1 or trainer.num_nodes != 1:
                raise UsageError("must be 1; runs are small and run in turn", key="trainer.devices")
            content = plain(config)
            weights = tuple(weights_needed(content))
            missing = tuple(self.resources.missing_weights(weights))
            name = setting_of(content, command)
            self._settings[key] = Setting(config, name, weights, missing)
        return self._settings[key]

"""What a reproduction will do: which runs, which of them are finished, what is missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig, open_dict
from omegaconf.errors import OmegaConfBaseException

from crane.config import compose, plain
from crane.errors import UsageError
from crane.identity import setting_of
from crane.reproduce.cells import Cell
from crane.reproduce.resources import DataSet, Lack, Resources, checkpoint_lack


@dataclass(frozen=True)
class Places:
    """Where things are looked for and kept."""

    datasets_dir: str
    weights_dir: str
    checkpoints_dir: Path
    """Checkpoints of someone else's."""
    allow_download: bool


@dataclass(eq=False)
class Composed:
    """A configuration that several runs share: all but the seed, and the targets of tests."""

    config: DictConfig
    """With every target of the plan, where it is of `crane test`."""
    setting: str
    """What names it: see `crane.runs.setting_of`."""
    lacks: tuple[Lack, ...]
    """Missing weights."""

    def of(self, seed: int, dataset: str | None = None) -> DictConfig:
        """A copy for one seed, and of tests for one data set."""
        config = self.config.copy()
        with open_dict(config):
            config.seed = seed
            if dataset is not None:
                config.targets = {dataset: config.targets[dataset]}
        return config


@dataclass(eq=False)
class Training:
    """One training; several tests may be of its prompts."""

    overrides: tuple[str, ...]
    seed: int
    composed: Composed
    sources: tuple[DataSet, ...]

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.composed.setting}-{self.seed}"

    @property
    def num_epochs(self) -> int:
        """How many it trains."""
        return int(self.composed.config.trainer.max_epochs)

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """What is missing for it."""
        return *(one.lack for one in self.sources if one.lack is not None), *self.composed.lacks

    @property
    def num_images(self) -> int:
        """Images trained on in all epochs; those of data sets of unknown size are not counted."""
        data = self.composed.config.data
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
    composed: Composed
    """The checkpoint's model is not yet in it."""
    dataset: DataSet
    training: Training | None
    """Whose prompts are tested; None where the checkpoint is someone else's."""
    epoch: int
    checkpoint: Path | None
    """A checkpoint of someone else's."""

    @property
    def lacks(self) -> tuple[Lack, ...]:
        """What is missing for it and its training, each thing once."""
        own = [one for one in (self.dataset.lack, _checkpoint_lack(self.checkpoint)) if one]
        training = () if self.training is None else self.training.lacks
        each = (*training, *own, *self.composed.lacks)
        return tuple({(lack.kind, lack.name): lack for lack in each}.values())

    @property
    def num_images(self) -> int:
        """Images tested; 0 where their number is not known."""
        return self.dataset.num_images or 0


@dataclass
class Plan:
    """Every cell with the test behind it, tests and trainings that cells share being one."""

    cells: Mapping[str, Sequence[Cell]]
    """Recipe to its cells."""
    tests: dict[tuple[str, Cell], Test] = field(default_factory=dict)
    """Recipe and cell to the test, for the cells that are not excluded."""

    @property
    def distinct_tests(self) -> list[Test]:
        """Each test once, in the order of the cells."""
        return list(dict.fromkeys(self.tests.values()))

    @property
    def trainings(self) -> list[Training]:
        """Each training once, in the order of the cells."""
        found = (test.training for test in self.distinct_tests if test.training is not None)
        return list(dict.fromkeys(found))

    def labels(self) -> dict[Test, str]:
        """What each test is called: the first cell that it fills."""
        found: dict[Test, str] = {}
        for (recipe, cell), test in self.tests.items():
            text = f"{recipe}, {cell.row}, on {cell.dataset}, seed {cell.seed}"
            found.setdefault(test, text)
        return found

    def lacks(self) -> list[Lack]:
        """Everything that is missing, once."""
        each = [lack for test in self.distinct_tests for lack in test.lacks]
        return list({(lack.kind, lack.name): lack for lack in each}.values())


def missing(lacks: Iterable[Lack]) -> str | None:
    """Why a cell cannot be filled, in one line; None if it can, be it after a download.

    >>> visa, clip = Lack("data", "visa", ""), Lack("weights", "clip", "", can_be_fetched=True)
    >>> missing([visa, clip]), missing([clip])
    ('data visa, weights clip', None)
    """
    found = list(lacks)
    if all(lack.can_be_fetched for lack in found):
        return None
    kinds = dict.fromkeys(lack.kind for lack in found)
    named = {kind: [lack.name for lack in found if lack.kind == kind] for kind in kinds}
    return ", ".join(f"{kind} {' + '.join(names)}" for kind, names in named.items())


class Planner:
    """Makes plans, looking each thing up once.

    Args:
        places: Where things are.
    """

    def __init__(self, places: Places) -> None:
        self.places = places
        self.resources = Resources(places.weights_dir, allow_download=places.allow_download)
        self._composed: dict[tuple[str, ...], Composed] = {}
        self._trainings: dict[tuple[str, int], Training] = {}
        self._tests: dict[tuple[object, ...], Test] = {}

    def plan(self, cells: Mapping[str, Sequence[Cell]]) -> Plan:
        """Compose and look up what each cell needs.

        Args:
            cells: Recipe to its cells.

        Raises:
            UsageError: An override is no key of the configuration, or an epoch is not trained.
        """
        plan = Plan(cells)
        targets = list(dict.fromkeys(cell.dataset for own in cells.values() for cell in own))
        for recipe, own in cells.items():
            for cell in own:
                if cell.excluded is None:
                    try:
                        plan.tests[recipe, cell] = self._test(cell, targets)
                    except (UsageError, HydraException, OmegaConfBaseException) as error:
                        wanted = f"row {cell.row!r} of {recipe} to be configured"
                        raise UsageError(wanted, str(error)) from error
        return plan

    def _test(self, cell: Cell, targets: Sequence[str]) -> Test:
        training = None if cell.train is None else self._training(cell.train, cell.seed)
        composed = self._compose("test", [*cell.test, f"dataset@targets=[{','.join(targets)}]"])
        path = None if cell.checkpoint is None else self.places.checkpoints_dir / cell.checkpoint
        epoch = cell.epoch or (0 if training is None else training.num_epochs)
        if training is not None and epoch > training.num_epochs:
            raise UsageError(f"an epoch up to {training.num_epochs}", epoch, key="epoch")
        trained = path if training is None else training.name
        key = (trained, epoch, composed.setting, cell.dataset, cell.seed)
        if key not in self._tests:
            node, strict = composed.config.targets[cell.dataset], composed.config.data.strict
            dataset = self.resources.data_set(cell.dataset, node, strict=strict)
            overrides = (*cell.test, f"dataset@targets=[{cell.dataset}]", f"seed={cell.seed}")
            self._tests[key] = Test(
                *(overrides, cell.seed, composed, dataset, training, epoch, path)
            )
        return self._tests[key]

    def _training(self, overrides: tuple[str, ...], seed: int) -> Training:
        composed = self._compose("train", [*overrides, "dataset@targets=[]"])
        key = (composed.setting, seed)
        if key not in self._trainings:
            strict = composed.config.data.strict
            sources = [
                self.resources.data_set(str(name), node, strict=strict)
                for name, node in composed.config.source.items()
            ]
            typed = (*overrides, "dataset@targets=[]", f"seed={seed}")
            self._trainings[key] = Training(typed, seed, composed, tuple(sources))
        return self._trainings[key]

    def _compose(self, command: str, overrides: Sequence[str]) -> Composed:
        key = (command, *overrides)
        if key not in self._composed:
            config = compose(command, overrides)
            with open_dict(config):
                config.datasets_dir = self.places.datasets_dir
                config.weights_dir = self.places.weights_dir
                config.allow_download = self.places.allow_download
            num_epochs = config.trainer.max_epochs
            if type(num_epochs) is not int or num_epochs < 1:
                raise UsageError(
                    "a number of epochs from 1 on", num_epochs, key="trainer.max_epochs"
                )
            if config.trainer.devices != 1 or config.trainer.num_nodes != 1:
                wanted = "one device, as runs are small and follow one another"
                raise UsageError(wanted, config.trainer.devices, key="trainer.devices")
            lacks = tuple(self.resources.lacking_weights(config))
            self._composed[key] = Composed(config, setting(config, command), lacks)
        return self._composed[key]


def _checkpoint_lack(path: Path | None) -> Lack | None:
    return None if path is None else checkpoint_lack(path)


def setting(config: DictConfig, command: str) -> str:
    """Name what a run computes apart from its seed: see `crane.identity.setting_of`.

    Args:
        config: As it is run; `checkpoint` is the sha256 of the file.
        command: `train` or `test`.
    """
    return setting_of(plain(config), command)

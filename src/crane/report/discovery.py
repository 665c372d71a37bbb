"""Find runs below folders, read what they hold, and name their settings.

Runs that differ only in their seed are repetitions of one setting.
"""

import json
import logging
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import yaml

from crane.checks import check_value, existing_folder
from crane.config import flat
from crane.errors import UsageError
from crane.files import sha256
from crane.identity import DECIDES, MODEL_KEYS, Effect, decisive, effect_of
from crane.pictures import CURVES
from crane.runs import MEAN, DatasetResult, read_results_json
from crane.runs.record import JOB_FILE, SKIPPED, STARTED, JobOutcome, read_outcome
from crane.runs.store import FAILED, stored_folder

logger = logging.getLogger(__name__)

RESULTS, RECORD, CONFIG = "results.json", "record.json", "config.yaml"
FILES = (RESULTS, RECORD, JOB_FILE)
"""Files whose folder is that of a run, or of a job that may have failed before it was one."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""PyYAML's parser in C, if it has one, is ten times as fast."""
MAX_NAMED = 5
"""Most files or runs that a message names."""
WANTED = "folders of runs, or folders that hold some"
RECORD_TYPES: Mapping[str, Any] = {
    "seed": int | None,
    "data": dict[str, str],
    "weights": dict[str, str],
    "dirty": bool | None,
    **dict.fromkeys(("command", "device", "started", "ended", "commit"), str | None),
}
"""The keys of `record.json` that reports use, with their types."""
CURVE_TYPES: Mapping[str, Any] = {
    **{"x": list[float], "y": list[float]},
    **{"x_name": str, "y_name": str},
}
"""The keys of a curve in `curves.json`, with their types."""
UNREADABLE = (
    *(OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError),
    yaml.YAMLError,
)
"""What reading a damaged or foreign file may raise; `UsageError` is a ValueError."""


@dataclass(frozen=True)
class Run:
    """One tested run."""

    folder: Path
    results: tuple[DatasetResult, ...]
    """One entry for each target."""
    config: Mapping[str, Any]
    """Its resolved configuration; empty if it kept none."""
    record: Mapping[str, Any]
    """The content of `record.json`; empty if there is none."""
    training: "Run | None" = None
    """For a test, the training of its prompts; None if unknown."""

    @property
    def seed(self) -> int | None:
        """The seed, for a test that of its training; None if unknown."""
        return self._own_seed if self.training is None else self.training.seed

    @property
    def repetition(self) -> tuple[int | None, ...]:
        """All its seeds, which tell it from other runs of its setting."""
        return self._own_seed, self.seed

    @property
    def _own_seed(self) -> int | None:
        return self.record.get("seed", self.config.get("seed"))

    @cached_property
    def curves(self) -> Mapping[str, Any]:
        """Data set to kind to class to curve; empty if the run kept none, or with a warning."""
        path = self.folder / CURVES
        if not path.is_file():
            return {}
        try:
            with reading(path):
                return _checked_curves(json.loads(path.read_text(encoding="utf-8")))
        except UsageError as error:
            logger.warning("no curves of %s: %s", self.folder, error)
            return {}


class LeftOut(NamedTuple):
    """A run that a report cannot show."""

    folder: Path
    reason: str


def find_runs(paths: Sequence[str | Path]) -> tuple[list[Run], list[LeftOut]]:
    """Read every run at or below some folders.

    Args:
        paths: The folders.

    Returns:
        Runs with results, the earliest first, and those left out: unfinished, failed or damaged.
        Finished trainings without targets are in neither list. A skipped job of a multirun is
        replaced by the earlier run that it was skipped for.

    Raises:
        UsageError: A path is not a folder, or no run has results.
    """
    reader = _Reader()
    for path in paths:
        top = existing_folder(path, "paths", WANTED)
        for folder in sorted({file.parent for name in FILES for file in top.rglob(name)}):
            reader.visit(folder)
    left_out = [LeftOut(*one) for one in reader.left_out.items() if one[0] not in reader.runs]
    if not reader.runs:
        named = [f"{one.folder}: {one.reason}" for one in left_out[:MAX_NAMED]]
        where, why = ", ".join(map(str, paths)), "; ".join(named or [f"give {WANTED}"])
        raise UsageError(f"found no {RESULTS} to show in {where}; {why}", key="paths")
    runs = reader.runs.values()
    return sorted(runs, key=lambda run: (run.record.get("started") or "", run.folder)), left_out


def first_runs(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Run]:
    """The first run of each setting: the one whose curves and pictures are shown."""
    first: dict[str, Run] = {}
    for run, label in zip(runs, labels, strict=True):
        first.setdefault(label, run)
    return first


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong while a run's file is read into one error.

    Raises:
        UsageError: The file is damaged, or crane did not write it.
    """
    try:
        yield
    except UNREADABLE as error:
        if isinstance(error, UsageError) and path.name in str(error):
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{path.name} is damaged or not written by crane ({reason})") from error


class _Reader:
    """Reads each run, and each training whose prompts were tested, once."""

    def __init__(self) -> None:
        self.runs: dict[Path, Run] = {}
        self.left_out: dict[Path, str] = {}
        self._trainings: dict[Path, Run] = {}

    def visit(self, folder: Path) -> None:
        """Read the run in a folder, or note why there is nothing to show."""
        try:
            reason = self._read(folder)
        except UsageError as error:
            reason = str(error)
        if reason is not None:
            self.left_out.setdefault(folder.resolve(), reason)

    def _read(self, folder: Path) -> str | None:
        """Read a run; if there are no results, say why, or None if none are expected."""
        if (folder / RESULTS).is_file():
            self._add(folder)
            return None
        job = None
        if (folder / JOB_FILE).is_file():
            with reading(folder / JOB_FILE):
                job = read_outcome(folder / JOB_FILE)
        if job is not None and job.status == SKIPPED:
            return self._add_earlier(folder, job)
        if job is not None and job.status == FAILED:
            return f"failed: {job.error or 'see its log'}".splitlines()[0]
        if job is not None and job.status == STARTED:
            return "under way or killed"
        if not (folder / RECORD).is_file() or _has_no_tests(folder):
            return None
        return "under way, interrupted or failed"

    def _add(self, folder: Path) -> None:
        if folder.resolve() not in self.runs:
            with reading(folder / RESULTS):
                results = read_results_json(folder / RESULTS)
            if any(MEAN in result.class_names for result in results):
                raise UsageError(f"a class is named {MEAN}, as the mean over classes is; rename it")
            config, record = _facts(folder)
            training = self._training(folder, config, record)
            self.runs[folder.resolve()] = Run(folder, results, config, record, training)

    def _add_earlier(self, folder: Path, job: JobOutcome) -> str | None:
        """Read the run that a job was skipped for, which the results store knows."""
        store = _mapping(folder / "hydra" / "config.yaml").get("results_store")
        earlier = None
        if isinstance(store, str) and job.run_id is not None:
            with reading(Path(store)):
                earlier = stored_folder(_from_start(folder, store), job.run_id)
        if earlier is None:
            return "skipped, and the results store no longer has the run finished before"
        if (earlier / RESULTS).is_file():
            self._add(earlier)
            return None
        if _has_no_tests(earlier):
            return None
        return f"skipped, and the run finished before is no longer in {earlier}"

    def _training(
        self, folder: Path, config: Mapping[str, Any], record: Mapping[str, Any]
    ) -> Run | None:
        """The training whose prompts were tested, if they still lie unchanged in its folder."""
        name, digest = config.get("checkpoint"), record.get("weights", {}).get("prompts")
        if not isinstance(name, str) or digest is None:
            return None
        with reading(Path(name)):
            path = _from_start(folder, name)
            top = path.parent.parent  # TRAINING/prompts/epoch_5.safetensors
            if not path.is_file() or not (top / CONFIG).is_file() or sha256(path) != digest:
                return None
        if top not in self._trainings:
            self._trainings[top] = Run(top, (), *_facts(top))
        return self._trainings[top]


def _facts(folder: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The configuration and the record of a run."""
    config, record = _mapping(folder / CONFIG), _mapping(folder / RECORD)
    with reading(folder / CONFIG):
        check_value(config.get("seed"), int | None, "seed")
        flat(config)  # fails if a YAML alias contains itself
    with reading(folder / RECORD):
        shlex.split(record.get("command") or "")
    return config, record


def _checked_curves(content: Any) -> Mapping[str, Any]:
    curves = [c for kinds in content.values() for kind in kinds.values() for c in kind.values()]
    for curve in curves:
        for name, kind in CURVE_TYPES.items():
            check_value(curve[name], kind, name)
        if len(curve["x"]) != len(curve["y"]):
            raise ValueError("a curve's x and y differ in length")
    return dict(content)


def _has_no_tests(folder: Path) -> bool:
    """Whether a run has ended well and was to test nothing."""
    record = _mapping(folder / RECORD)
    if record.get("ended") is None:
        return False
    has_targets = any(name.startswith("targets.") for name in record.get("data", {}))
    return not has_targets or _mapping(folder / CONFIG).get("test") is False


def _from_start(folder: Path, name: str) -> Path:
    """A path in a run's configuration, which may be relative to where the run was started."""
    hydra = _mapping(folder / "hydra" / "hydra.yaml")
    try:
        start = Path(hydra["hydra"]["runtime"]["cwd"])
    except (KeyError, TypeError):  # made by another command, with absolute paths
        start = Path.cwd()
    return start / Path(name).expanduser()


def _mapping(path: Path) -> dict[str, Any]:
    """The content of a JSON or YAML file; empty if there is none.

    Raises:
        UsageError: It is damaged, or something else.
    """
    if not path.is_file():
        return {}
    with reading(path):
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if path.suffix == ".json" else yaml.load(text, LOADER)
        content = {} if content is None else dict(content)
        for key, value in content.items() if path.name == RECORD else ():
            if key in RECORD_TYPES:
                check_value(value, RECORD_TYPES[key], key)
    return content


DEFAULT = "default"
"""What a label says of a key that was typed for other settings only."""
ONLY = "all runs"
"""The label if all runs share one setting without a name."""
MAX_LENGTH = 60
"""Characters of a label."""
DIGITS = 12
"""Digits shown of a checksum."""


def settings(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The setting of each run: the keys that decide its numbers, with their values.

    They are the keys that make a setting in the results store, and the checksums of data and
    weights. Targets count only if different ones have the same name.
    """
    targets = [_targets(run) for run in runs]
    variants: dict[str, set[str]] = {}
    for one in targets:
        for name, facts in one.items():
            variants.setdefault(name, set()).add(_code(facts))
    found = []
    for run, one in zip(runs, targets, strict=True):
        ambiguous = [facts for name, facts in one.items() if len(variants[name]) > 1]
        found.append(_setting(run) | {k: v for facts in ambiguous for k, v in facts.items()})
    return found


def differing_keys(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The keys in which settings differ, each with the value of every run as text.

    >>> from pathlib import Path
    >>> runs = [Run(Path("a"), (), {"seed": s, "prompt": {"depth": d}}, {})
    ...         for s, d in ((1, 9), (2, 3))]
    >>> differing_keys(runs)
    {'prompt.depth': ['9', '3']}
    """
    return _differing(settings(runs))


def _differing(each: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    keys = dict.fromkeys(key for one in each for key in one)
    columns = {key: [one.get(key, "-") for one in each] for key in keys}
    different = {k: column for k, column in columns.items() if len({*map(_code, column)}) > 1}
    return {key: [*map(_text, column)] for key, column in different.items()}


def label_runs(runs: Sequence[Run]) -> list[str]:
    """A short name for the setting of each run.

    Names are the first of these that tell the settings apart: the overrides typed that differ, the
    methods, the keys of the configuration that differ, the folder of each setting's first run.
    """
    each = settings(runs)
    columns = {_short(key): column for key, column in _differing(each).items()}
    groups: dict[str, list[Run]] = {}
    values: dict[str, dict[str, str]] = {}
    codes = [*map(_code, each)]
    for place, code in enumerate(codes):
        groups.setdefault(code, []).append(runs[place])
        values[code] = {key: column[place] for key, column in columns.items()}
    names = dict(zip(groups, _names([*groups.values()], [*values.values()]), strict=True))
    return [names[code] for code in codes]


def _names(groups: Sequence[Sequence[Run]], values: Sequence[Mapping[str, str]]) -> list[str]:
    """The names of settings, from the runs and the differing values of each."""
    methods = [_method(runs[0]) for runs in groups]
    if len(groups) == 1:
        return [methods[0] or ONLY]
    by_target = any(key.startswith("targets.") for key in values[0])
    candidates = (
        _pairs([[_typed(run, by_target) for run in runs] for runs in groups]),
        methods,
        _pairs([[one] for one in values]),
        [_folder_name(runs) for runs in groups],
    )
    for names in candidates:
        if len(set(names)) == len(groups) and all(0 < len(name) <= MAX_LENGTH for name in names):
            return names
    return [str(runs[0].folder) for runs in groups]


def _pairs(groups: Sequence[Sequence[Mapping[str, str]]]) -> list[str]:
    """KEY=VALUE of each group, for the keys that differ between groups and not within one."""
    keys = dict.fromkeys(key for group in groups for one in group for key in one)
    parts: list[list[str]] = [[] for _ in groups]
    for key in keys:
        column = [{one.get(key, DEFAULT) for one in group} for group in groups]
        if all(len(values) == 1 for values in column) and len(set.union(*column)) > 1:
            for own, (value,) in zip(parts, column, strict=True):
                own.append(f"{key}={value}")
    return [", ".join(own) for own in parts]


def _typed(run: Run, by_target: bool) -> dict[str, str]:
    """The overrides that make a run's setting, on its command line and on its training's."""
    own = {} if run.training is None else _typed(run.training, by_target)
    for word in shlex.split(run.record.get("command") or ""):
        key, is_override, value = word.lstrip("+").removeprefix("dataset@").partition("=")
        try:
            is_wanted = effect_of(key) in DECIDES or (by_target and key.startswith("targets."))
        except UsageError:  # a group, such as scoring
            is_wanted = not key.startswith("hydra")
        if is_override and is_wanted and not (key == "checkpoint" and run.training):
            own[key] = value.strip("[]'\"")
    return own


def _method(run: Run) -> str:
    method = run.config.get("method")
    return str(method.get("name") or "") if isinstance(method, Mapping) else ""


def _folder_name(runs: Sequence[Run]) -> str:
    """The name of the first folder, without the seed if there are others."""
    name = runs[0].folder.name
    return name.removesuffix(f"-{runs[0].seed}") if len(runs) > 1 else name


def _setting(run: Run, effects: Iterable[Effect] = DECIDES) -> dict[str, Any]:
    own = decisive(run.config, effects)
    own |= _checksums(run, "data", "source.") | _checksums(run, "weights")
    prompts = own.pop("weights.prompts", None)
    if run.training is None:
        return own | {"checkpoint": prompts} if prompts and "checkpoint" in own else own
    own["checkpoint"] = PurePath(own["checkpoint"]).name  # its folder names the training's seed
    for key, value in _setting(run.training, (Effect.PROMPTS, Effect.LENGTH)).items():
        if key.partition(".")[0] not in (*MODEL_KEYS, "weights") or own.get(key) != value:
            own[f"training.{key}"] = value
    return own


def _targets(run: Run) -> dict[str, dict[str, Any]]:
    """How each target was read, and the checksum of its files, by its name."""
    checksums = _checksums(run, "data", "targets.")
    found: dict[str, dict[str, Any]] = {}
    for key, value in (decisive(run.config, [Effect.SCOPE]) | checksums).items():
        group, _, rest = key.partition(".")
        name = rest.partition(".")[0]
        is_place = rest == f"{name}.root" and f"targets.{name}.files" in checksums
        if group == "targets" and not is_place:
            found.setdefault(name, {})[key] = value
    return found


def _checksums(run: Run, kind: str, start: str = "") -> dict[str, str]:
    """What `record.json` says of the content of data or weights."""
    content: Mapping[str, str] = run.record.get(kind, {})
    form = "weights.{}" if kind == "weights" else "{}.files"
    return {
        form.format(name): digest if digest.startswith("random") else digest[:DIGITS]
        for name, digest in content.items()
        if name.startswith(start)
    }


def _code(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _text(value: object) -> str:
    if isinstance(value, list) and all(isinstance(one, (str, int, float)) for one in value):
        return "+".join(map(str, value))
    return str(value)


def _short(key: str) -> str:
    return ".".join(part for part in key.split(".") if not part.startswith("_"))

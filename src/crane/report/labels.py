"""Settings and their names: runs that differ only in their seed are repetitions of one setting."""

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from crane.errors import UsageError
from crane.identity import DECIDES, MODEL_KEYS, Effect, decisive, effect_of
from crane.report.discovery import Run

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

"""What tells runs apart: repetitions with other seeds are one setting."""

import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from crane.errors import UsageError
from crane.identity import DECIDES, MODEL_KEYS, Effect, decisive, effect_of
from crane.report.runs import Run

DEFAULT = "default"
"""What a setting that was not typed has."""
ONLY = "all runs"
"""The label where all runs share one setting."""


def differences(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The keys of the configuration that differ, each with the value of every run.

    >>> from pathlib import Path
    >>> runs = [Run(Path("a"), (), {"seed": s, "prompt": {"depth": d}}, {})
    ...         for s, d in ((1, 9), (2, 3))]
    >>> differences(runs)
    {'prompt.depth': ['9', '3']}
    """
    leaves = _settings(runs)
    keys = dict.fromkeys(key for one in leaves for key in one)
    columns = {key: [one.get(key, "-") for one in leaves] for key in keys}
    return {key: values for key, values in columns.items() if len(set(values)) > 1}


def first_runs(runs: Sequence[Run], labels: Sequence[str]) -> dict[str, Run]:
    """The first run of each setting: the one whose curves and pictures are shown."""
    first: dict[str, Run] = {}
    for run, label in zip(runs, labels, strict=True):
        first.setdefault(label, run)
    return first


def label_runs(runs: Sequence[Run]) -> list[str]:
    """A short name for the setting of each run; runs that differ in nothing but a seed share it.

    It is what was typed and differs (`attention=vv`), of targets only if the rest does not tell
    settings apart; else the names of the methods; else the keys of the configuration that differ;
    and where these are many, the name of the folder of the setting's first run.
    """
    settings = [json.dumps(setting, sort_keys=True) for setting in _settings(runs)]
    methods = [_method(run) for run in runs]
    if len(set(settings)) == 1:
        return [methods[0] or ONLY] * len(runs)
    typed = _differing([_typed(run) for run in runs], DEFAULT)
    targeted = _differing([_typed(run, with_targets=True) for run in runs], DEFAULT)
    found = differences(runs)
    keyed = [
        ", ".join(f"{_short(key)}={values[place]}" for key, values in found.items())
        for place in range(len(runs))
    ]
    for labels in (typed, targeted, methods, keyed, _folders(runs, settings)):
        if _tells_apart(labels, settings) and all(0 < len(label) <= 60 for label in labels):
            return labels
    first: dict[str, str] = {}
    for run, setting in zip(runs, settings, strict=True):
        first.setdefault(setting, str(run.folder))
    return [first[setting] for setting in settings]


def _method(run: Run) -> str:
    method = run.config.get("method")
    return str(method.get("name") or "") if isinstance(method, Mapping) else ""


def _folders(runs: Sequence[Run], settings: Sequence[str]) -> list[str]:
    """The name of each setting's first folder, without the seed that others of it do not have."""
    number, first = Counter(settings), dict[str, str]()
    for run, setting in zip(runs, settings, strict=True):
        name = run.folder.name
        if number[setting] > 1:
            name = name.removesuffix(f"-{run.seed}")
        first.setdefault(setting, name)
    return [first[setting] for setting in settings]


def _tells_apart(labels: Sequence[str], settings: Sequence[str]) -> bool:
    """Whether each setting has one label, and each label one setting."""
    pairs = set(zip(labels, settings, strict=True))
    return len(pairs) == len(set(labels)) == len(set(settings))


def _differing(each: Sequence[Mapping[str, str]], absent: str) -> list[str]:
    keys = dict.fromkeys(key for one in each for key in one)
    used = [key for key in keys if len({one.get(key, absent) for one in each}) > 1]
    return [", ".join(f"{key}={one.get(key, absent)}" for key in used) for one in each]


def _typed(run: Run, *, with_targets: bool = False) -> dict[str, str]:
    """The overrides of a run's command line, and of its training's, that make its setting."""
    words = shlex.split(str(run.record.get("command", "")))
    pairs = (word.lstrip("+").partition("=") for word in words if "=" in word)
    own = {
        name: value.strip("[]'\"")
        for key, _, value in pairs
        if "hydra" not in (name := key.removeprefix("dataset@"))
        and (not _is_apart(name) or (with_targets and name.startswith("targets.")))
    }
    if run.training is None:
        return own
    own.pop("checkpoint", None)
    return _typed(run.training, with_targets=with_targets) | own


def _settings(runs: Sequence[Run]) -> list[dict[str, str]]:
    """The setting of each run: what it is made of, and targets of one name that differ."""
    settings, targets = [_setting(run) for run in runs], [_digests(run, "targets.") for run in runs]
    different = {
        name
        for name in {name for one in targets for name in one}
        if len({one[name] for one in targets if name in one}) > 1
    }
    for setting, digests in zip(settings, targets, strict=True):
        setting |= {name: digest for name, digest in digests.items() if name in different}
    return settings


def _setting(run: Run) -> dict[str, str]:
    own = {key: _text(value) for key, value in decisive(run.config).items()}
    own |= _digests(run, "source.") | _weights(run)
    if run.training is None:
        return own
    own["checkpoint"] = Path(own["checkpoint"]).name  # its folder has a seed of its own
    for key, value in _setting(run.training).items():
        group = key.partition(".")[0]
        is_same = group in (*MODEL_KEYS, "weights") and own.get(key) == value
        if _decides_prompts(key) and not is_same:
            own[f"training.{key}"] = value
    return own


def _digests(run: Run, group: str) -> dict[str, str]:
    """What the data sets of a group hold."""
    data: Mapping[str, object] = run.record.get("data") or {}
    return {f"{name}.files": str(d)[:12] for name, d in data.items() if name.startswith(group)}


def _weights(run: Run) -> dict[str, str]:
    """What is in the weight files, but for the prompts: these have their training's seed."""
    weights: Mapping[str, object] = run.record.get("weights") or {}
    shown = {name: str(d) for name, d in weights.items() if name != "prompts"}
    return {f"weights.{n}": d if d.startswith("random") else d[:12] for n, d in shown.items()}


def _decides_prompts(key: str) -> bool:
    if key.startswith(("source.", "weights.", "training.")):
        return True
    return effect_of(key) in (Effect.PROMPTS, Effect.LENGTH)


def _is_apart(key: str) -> bool:
    """Whether a typed key, or group, makes no other setting."""
    try:
        return effect_of(key) not in DECIDES
    except UsageError:  # a group, such as scoring: as its keys
        return False


def _text(value: object) -> str:
    if isinstance(value, list) and all(isinstance(one, (str, int, float)) for one in value):
        return "+".join(map(str, value))
    return str(value)


def _short(key: str) -> str:
    return ".".join(part for part in key.split(".") if not part.startswith("_"))

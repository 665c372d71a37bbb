"""What each configuration key decides: the one table from which every notion of "the same" follows.

Which finished jobs a sweep skips, which runs a report averages as seeds of one setting, what a
resumed training must not change and what a checkpoint carries are all read from `KEYS`.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from enum import Enum
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import PurePath
from typing import Any, NamedTuple

from crane.config import flat
from crane.errors import UsageError


class Effect(Enum):
    """What a key decides."""

    PROMPTS = "the learned prompts, and through them every number"
    LENGTH = "how long a training lasts; a resumed one may change it"
    NUMBERS = "the numbers measured with given prompts"
    SCOPE = "which data sets are tested"
    SEED = "which repetition it is"
    PLACE = "where files lie; their content is compared by checksums and fingerprints"
    DISPLAY = "what is printed, drawn or logged, and how fast it runs"
    COPY = "nothing of its own: the value of another key"


class Key(NamedTuple):
    """A row of the table."""

    pattern: str
    """A key, or a pattern of keys such as `overlay.*`; the first row that matches counts."""
    effect: Effect
    """What the key decides."""
    in_checkpoint: bool = False
    """Whether a checkpoint carries its group."""
    in_store: bool = False
    """Whether its group has a column in the results store, and a tag in W&B."""


def _rows(effect: Effect, *patterns: str, **more: bool) -> list[Key]:
    return [Key(pattern, effect, **more) for pattern in patterns]


KEYS: tuple[Key, ...] = (
    # Everywhere in the tree: where files lie.
    *_rows(Effect.PLACE, "datasets_dir", "*.datasets_dir", "weights_dir", "*.weights_dir"),
    *_rows(Effect.PLACE, "allow_download", "*.allow_download", "run_dir", "*.repo_dir"),
    *_rows(Effect.PLACE, "results_store", "resume", "input", "output", "checkpoints_dir"),
    *_rows(Effect.PLACE, "archive", "write_images", "published", "calibration.input"),
    *_rows(Effect.PLACE, "cache.folder", "folder", "logger.save_dir", "trainer.default_root_dir"),
    # Texts about data sets, whose content is compared by fingerprints.
    *_rows(Effect.DISPLAY, "*.card.*", "*.fetch"),
    # The model.
    *_rows(Effect.PROMPTS, "image_size", in_checkpoint=True),
    *_rows(Effect.DISPLAY, "method.checkpoints"),
    *_rows(
        Effect.PROMPTS,
        *("method.*", "backbone.*", "guide.*", "attention", "attention.*"),
        *("prompt", "prompt.*", "scoring"),
        *("scoring.temperature", "scoring.fusion_weight"),
        in_checkpoint=True,
        in_store=True,
    ),
    *_rows(Effect.NUMBERS, "scoring.*", "views.*", in_checkpoint=True, in_store=True),
    *_rows(Effect.PROMPTS, "checkpoint"),
    # The training.
    *_rows(Effect.PROMPTS, "loss", "loss.*", in_store=True),
    *_rows(Effect.PROMPTS, "optimizer.*", "source", "source.*"),
    *_rows(Effect.PROMPTS, "scheduler", "scheduler.*", "callbacks", "callbacks.*"),
    *_rows(Effect.COPY, "data.source", "data.source.*", "data.targets", "data.targets.*"),
    *_rows(Effect.COPY, "data.image_size"),
    *_rows(Effect.SEED, "seed", "data.seed"),
    *_rows(Effect.DISPLAY, "data.num_workers", "num_workers", "data.strict"),
    *_rows(Effect.NUMBERS, "data.test_batch_size"),
    *_rows(Effect.PROMPTS, "data.*"),
    *_rows(Effect.LENGTH, "trainer.max_epochs", "trainer.max_steps"),
    *_rows(Effect.NUMBERS, "epoch", "monitor"),
    # The test.
    *_rows(Effect.SCOPE, "targets", "targets.*", "test"),
    *_rows(Effect.NUMBERS, "metrics.*", "cache.dtype", "compile", "precision", "batch_size"),
    *_rows(Effect.NUMBERS, "trainer.deterministic", "trainer.limit_test_batches"),
    *_rows(Effect.NUMBERS, "trainer.num_sanity_val_steps"),
    *_rows(Effect.NUMBERS, "threshold", "calibration.*", "white_level", "class_name"),
    *_rows(Effect.NUMBERS, "format", "size"),
    # How it runs and what is shown.
    *_rows(Effect.DISPLAY, "trainer._target_", "trainer.accelerator", "trainer.devices"),
    *_rows(Effect.DISPLAY, "trainer.num_nodes", "trainer.strategy", "trainer.enable_*"),
    *_rows(Effect.DISPLAY, "trainer.log_every_n_steps", "trainer.use_distributed_sampler"),
    *_rows(Effect.PROMPTS, "trainer.*"),
    *_rows(Effect.DISPLAY, "cache.source", "cache.targets", "logger", "logger.*", "overlay.*"),
    *_rows(Effect.DISPLAY, "table_columns", "skip_finished", "baseline", "objective"),
    *_rows(Effect.DISPLAY, "engine", "part_size", "scores", "on_error", "overwrite"),
    *_rows(Effect.DISPLAY, "maps", "overlays", "accelerator", "max_megapixels"),
    *_rows(Effect.DISPLAY, "watch", "poll_seconds", "give_up_seconds", "on_verdict"),
    *_rows(Effect.DISPLAY, "host", "port", "devices", "workers_per_device", "max_batch_size"),
    *_rows(Effect.DISPLAY, "batch_timeout", "max_queue", "timeout", "max_body_mb", "max_pixels"),
    *_rows(Effect.DISPLAY, "checkpoints", "attentions", "share", "max_images"),
    # Commands that measure nothing: data, cache, report, reproduce, workspace, demo.
    *_rows(Effect.DISPLAY, "action", "fast", "entries", "unused_days", "max_gb", "dtype"),
    *_rows(Effect.DISPLAY, "paths", "title", "columns", "max_pictures", "figures"),
    *_rows(Effect.DISPLAY, "experiments", "plan_only", "seeds", "overrides", "train", "suite.*"),
    *_rows(Effect.DISPLAY, "entity", "project", "name", "datasets", "panels", "methods.*"),
)
"""Every key of `conf/`, classified; a test holds that none is missing and no row is idle."""

WHOLE = {"_target_": "crane.views.Whole", "resolution": "model"}
"""The view of configurations that have none: those of version 0.2 and before."""

DECIDES = frozenset({Effect.PROMPTS, Effect.LENGTH, Effect.NUMBERS})
"""What makes two runs different settings, whichever data sets they are tested on."""


def _groups(is_wanted: Mapping[str, bool]) -> tuple[str, ...]:
    return tuple(name for name, wanted in is_wanted.items() if wanted)


MODEL_KEYS = _groups(
    {k.pattern.partition(".")[0]: k.in_checkpoint for k in KEYS if k.in_checkpoint}
)
"""The keys of a configuration that say what a model is; checkpoints carry them."""

OPTIONS = _groups({k.pattern.partition(".")[0]: k.in_store for k in KEYS if k.in_store})
"""The configuration groups whose chosen option is a column of the store and a tag in W&B."""


@lru_cache(maxsize=1 << 14)
def effect_of(key: str) -> Effect:
    """What a key decides.

    Args:
        key: A full key, such as `scoring.blur_sigma`.

    Raises:
        UsageError: It is not classified; a key that only someone's own configuration has counts
            as one that decides numbers instead, see `decisive`.

    >>> effect_of("scoring.blur_sigma"), effect_of("guide.features.weights_dir")
    (<Effect.NUMBERS: ...>, <Effect.PLACE: ...>)
    """
    for row in KEYS:
        if fnmatchcase(key, row.pattern):
            return row.effect
    raise UsageError(f"the key {key} is not classified in crane/identity.py")


def is_place(key: str) -> bool:
    """Whether a key says where files lie, so that its value is text however it looks.

    >>> is_place("input"), is_place("targets.folder.root"), is_place("seed")
    (True, True, False)
    """
    if key.rpartition(".")[2] == "allow_download":  # decides where files come from, true or false
        return False
    if key.rpartition(".")[2] == "root" or key == "checkpoint":
        return True
    with suppress(UsageError):
        return effect_of(key) is Effect.PLACE
    return False


def decisive(config: Mapping[str, Any], effects: Iterable[Effect] = DECIDES) -> dict[str, Any]:
    """The keys of a configuration that decide something, with their values.

    Args:
        config: The resolved configuration in plain dictionaries.
        effects: What the keys kept decide.

    Returns:
        Full key to value. A data set's folder below `datasets_dir` is named from there, and
        `data.seed` is kept where it is not the run's seed.

    >>> decisive({"scoring": {"blur_sigma": 4.0}, "run_dir": "a", "seed": 1})
    {'scoring.blur_sigma': 4.0}
    """
    wanted, top = frozenset(effects), config.get("datasets_dir")
    kept = {}
    for key, value in flat(config).items():
        try:
            effect = effect_of(key)
        except UsageError:
            effect = Effect.NUMBERS
        if key == "data.seed" and value != config.get("seed"):
            effect = Effect.PROMPTS
        if effect not in wanted or (key in ("scheduler", "callbacks") and not value):
            continue  # none of these is what configurations without the key meant
        if key.startswith("views.") and WHOLE.get(key.partition(".")[2]) == value:
            continue
        if key.endswith(".root") and isinstance(value, str) and isinstance(top, str):
            with suppress(ValueError):
                value = PurePath(value).relative_to(top).as_posix()
        kept[key] = value
    return kept


def setting_of(config: Mapping[str, Any], command: str) -> str:
    """Name what a run computes, apart from its seed and from where and how fast it runs.

    Args:
        config: The resolved configuration in plain dictionaries.
        command: The command it is for.

    Returns:
        16 hexadecimal digits, the same for configurations that lead to the same numbers on the
        same data sets.

    >>> one = {"image_size": 56, "run_dir": "a", "trainer": {"devices": 1, "max_epochs": 1}}
    >>> two = {"image_size": 56, "run_dir": "b", "trainer": {"devices": 2, "max_epochs": 1}}
    >>> setting_of(one, "train") == setting_of(two, "train") != setting_of(one, "test")
    True
    """
    content = decisive(config, {*DECIDES, Effect.SCOPE})
    text = json.dumps({"command": command, "config": content}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

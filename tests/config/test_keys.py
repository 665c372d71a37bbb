"""Every key of `conf/` has a declared type, and a declared effect on what a run computes."""

from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from compositions import composed, compositions, every_key
from crane import schema
from crane.config import compose, flat, plain
from crane.gate import TARGET
from crane.identity import (
    KEYS,
    MODEL_KEYS,
    OPTIONS,
    Effect,
    decisive,
    effect_of,
    is_place,
    setting_of,
)
from crane.report.discovery import Run, settings
from crane.training.run import training_facts

FILLED = (
    "source",
    "targets",
    "guide",
    "attention",
    "logger",
    "methods",
    "prompt",
    "scoring",
    "loss",
)
"""Keys that hold what a group puts there, or nothing."""


@pytest.mark.long
def test_every_key_is_classified():
    for key in every_key():
        effect_of(key)


@pytest.mark.long
def test_every_row_of_the_table_classifies_a_key():
    first = {
        next(row.pattern for row in KEYS if fnmatchcase(key, row.pattern)) for key in every_key()
    }
    assert {row.pattern for row in KEYS} - first == set()


def has_constructor(key: str, nodes: set[str]) -> bool:
    parts = key.split(".")
    return any(".".join(parts[:n]) in nodes for n in range(1, len(parts)))


@pytest.mark.long
def test_every_key_has_a_type_or_a_constructor():
    for command, row in compositions():
        keys = flat(plain(composed(command, row), resolve=False))
        nodes = {key.removesuffix(f".{TARGET}") for key in keys if key.endswith(f".{TARGET}")}
        for key in keys:
            is_filled = key.partition(".")[0] in FILLED
            declared = schema.declared(command, key) is not None
            assert declared or is_filled or has_constructor(key, nodes), f"{command}: {key}"


@pytest.mark.long
def test_every_declared_type_is_that_of_a_key():
    keys = every_key()
    for pattern in schema.TYPES:
        assert any(fnmatchcase(key, pattern) for key in keys), pattern


@pytest.mark.long
def test_every_default_fits_its_type():
    for command, row in compositions():
        values = flat(plain(composed(command, row), resolve=False))
        known = {key: v for key, v in values.items() if "???" not in str(v) and "${" not in str(v)}
        schema.check(command, known)


def test_the_model_and_the_columns_are_groups_of_the_table():
    train = compose("train")
    assert set(MODEL_KEYS) <= set(train)
    assert set(OPTIONS) <= set(train)
    assert {"backbone", "guide", "attention", "prompt", "scoring", "image_size"} <= set(MODEL_KEYS)
    assert set(OPTIONS) - {"loss"} == set(MODEL_KEYS) - {"image_size"}


def changed(config: dict, key: str) -> dict:
    """The configuration with another value at one key, and the values that copy it."""
    *parents, last = key.split(".")
    copy = {
        name: value.copy() if isinstance(value, dict) else value for name, value in config.items()
    }
    node = copy
    for parent in parents:
        node[parent] = dict(node[parent])
        node = node[parent]
    node[last] = f"not {node[last]}"
    if key == "seed":
        copy["data"]["seed"] = node[last]
    return copy


TRAIN = plain(compose("train", ["method=crane_plus", "cache=all"]))


@pytest.mark.parametrize("key", flat(TRAIN))
def test_what_makes_another_setting_is_the_same_for_the_store_and_the_report(key):
    """Skipping finished jobs and averaging over seeds must not disagree."""
    other = changed(TRAIN, key)
    one, two = (Run(Path("run"), (), config, {}) for config in (TRAIN, other))
    is_another = setting_of(TRAIN, "train") != setting_of(other, "train")
    first, second = settings([one, two])
    assert (first != second or effect_of(key) is Effect.SCOPE) == is_another


@pytest.mark.parametrize("key", ["objective", "compile", "trainer.deterministic", "cache.dtype"])
def test_the_keys_about_which_store_and_report_disagreed(key):
    is_another = setting_of(TRAIN, "train") != setting_of(changed(TRAIN, key), "train")
    assert is_another == (key != "objective")


def test_resuming_compares_what_decides_the_prompts():
    config = compose("train")
    facts = training_facts(config, {"source.mvtec": "digest"})
    assert facts["source"] == {"source.mvtec": "digest"}
    assert {"seed", "optimizer.lr", "prompt.depth", "data.batch_size", "loss.dice_weight"} <= {
        *facts
    }
    free = {"trainer.max_epochs", "scoring.blur_sigma", "run_dir", "data.num_workers", "objective"}
    assert not free & {*facts}
    assert not any(key.startswith("source.") for key in facts)


def test_paths_below_datasets_dir_are_named_from_there():
    here, there = (
        decisive({"datasets_dir": top, "source": {"a": {"root": f"{top}/a"}}}) for top in "xy"
    )
    assert here == there == {"source.a.root": "a"}
    elsewhere = decisive({"datasets_dir": "x", "source": {"a": {"root": "/y/a"}}})
    assert elsewhere == {"source.a.root": "/y/a"}


def test_the_seed_of_the_data_counts_if_it_is_another_than_the_runs():
    assert decisive({"seed": 1, "data": {"seed": 1}}) == {}
    assert decisive({"seed": 1, "data": {"seed": 2}}) == {"data.seed": 2}


def test_keys_of_ones_own_decide_numbers():
    assert decisive({"own": {"key": 1}}) == {"own.key": 1}


@pytest.mark.parametrize("key", ["input", "checkpoint", "targets.folder.root", "run_dir", "resume"])
def test_places_are_text(key):
    assert is_place(key)
    assert not is_place("seed")
    assert not is_place("own.key")

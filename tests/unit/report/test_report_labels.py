import copy
from pathlib import Path

import pytest

from crane.config import compose, flat, plain
from crane.identity import Effect, effect_of, setting_of
from crane.report import Run, differing_keys, first_runs, label_runs
from crane.report.discovery import settings


def run(config=None, typed="", folder="runs/a", **record):
    return Run(Path(folder), (), config or {}, {"command": f"crane train {typed}", **record})


def test_seeds_targets_and_places_make_no_other_setting():
    runs = [
        run(
            {
                "seed": seed,
                "run_dir": f"runs/{seed}",
                "targets": {f"t{seed}": 1},
                "data": {"seed": seed, "num_workers": seed},
                "trainer": {"accelerator": f"x{seed}", "max_epochs": 5},
                "method": {"name": "Crane"},
            }
        )
        for seed in (1, 2)
    ]
    assert differing_keys(runs) == {}
    assert label_runs(runs) == ["Crane", "Crane"]


def test_the_length_of_training_does():
    runs = [run({"trainer": {"max_epochs": epochs}}) for epochs in (1, 5)]
    assert differing_keys(runs) == {"trainer.max_epochs": ["1", "5"]}


def test_place_and_speed_of_a_real_configuration_make_no_other_setting():
    typed = ("weights_dir=w", "datasets_dir=d", "trainer=cpu", "results_store=null", "run_dir=x")
    runs = [
        run(plain(compose("train", ["backbone=tiny", "dataset@source=[mvtec]", *more])))
        for more in (["run_dir=a"], typed)
    ]
    assert differing_keys(runs) == {}


def test_the_same_data_elsewhere_make_no_other_setting():
    typed = ["backbone=tiny", "dataset@source=[embedded_parts]"]
    runs = [
        run(plain(compose("train", [*typed, *more])), data={"source.embedded_parts": "f" * 64})
        for more in ([], ["datasets_dir=/elsewhere", "overlay.num_normal=3"])
    ]
    assert differing_keys(runs) == {}


def changed(config, key):
    """A configuration with another value of one key."""
    *parents, last = key.split(".")
    config = node = copy.deepcopy(config)
    for name in parents:
        node = node[name]
    value = node[last]
    if isinstance(value, bool):
        node[last] = not value
    elif isinstance(value, (int, float)):
        node[last] = value + 1
    else:
        node[last] = f"not {value}"
    return config


def test_a_key_makes_another_setting_here_exactly_if_it_does_in_the_store():
    """Both are read from one table; keys of targets count where the numbers are compared."""
    data = ["dataset@source=[embedded_parts]", "dataset@targets=[btad]"]
    config = plain(compose("train", ["method=crane_plus", "backbone=tiny", *data]))
    others = {key: changed(config, key) for key in flat(config)}
    first, *each = settings([run(one) for one in (config, *others.values())])
    verdicts = set()
    for (key, other), setting in zip(others.items(), each, strict=True):
        in_store = setting_of(other, "train") != setting_of(config, "train")
        if effect_of(key) is not Effect.SCOPE or key.startswith("targets."):
            assert (setting != first) == in_store, key
        verdicts.add(in_store)
    assert verdicts == {True, False}


@pytest.mark.parametrize(("one", "other"), [(1, 1.5), (1, "1"), (None, "None"), ([1, 2], "1+2")])
def test_values_that_look_alike_are_told_apart(one, other):
    runs = [run({"prompt": {"depth": value}}, folder=repr(value)) for value in (one, other)]
    assert list(differing_keys(runs)) == ["prompt.depth"]
    assert len(set(label_runs(runs))) == 2


@pytest.mark.parametrize(
    ("key", "values"), [("mask_threshold", (0, 127)), ("classes", (None, ["a"]))]
)
def test_targets_of_one_name_that_are_read_differently_are_told_apart(key, values):
    runs = [
        run(
            {"targets": {"mine": {"root": "a", key: value}}, "seed": seed},
            f"targets.mine.{key}={value}",
            data={"targets.mine": "1" * 64},
        )
        for value in values
        for seed in (1, 2)
    ]
    first, _, second, _ = label_runs(runs)
    assert label_runs(runs) == [first, first, second, second]
    assert first != second
    assert list(differing_keys(runs)) == [f"targets.mine.{key}"]


def test_other_data_and_weights_do():
    runs = [
        run(data={"source.a": digest}, weights={"clip": "w" + digest, "prompts": digest})
        for digest in ("1" * 64, "2" * 64)
    ]
    assert differing_keys(runs) == {
        "source.a.files": ["1" * 12, "2" * 12],
        "weights.clip": ["w" + "1" * 11, "w" + "2" * 11],
    }


def test_folders_of_a_sources_own_are_settings():
    runs = [
        run({"source": {"mine": {"root": root}}}, f"source.mine.root={root}") for root in ("a", "b")
    ]
    assert label_runs(runs) == ["source.mine.root=a", "source.mine.root=b"]


def test_targets_of_one_name_that_differ_are_told_apart():
    runs = [
        run({"targets": {name: {"root": root}}}, typed, data={f"targets.{name}": digest})
        for name, root, typed, digest in (
            ("mine", "a", "targets.mine.root=a", "1" * 64),
            ("mine", "b", "targets.mine.root=b", "2" * 64),
            ("mine", "c/b", "targets.mine.root=c/b", "2" * 64),
            ("theirs", "d", "", "3" * 64),
        )
    ]
    assert differing_keys(runs[1:]) == {}
    assert differing_keys(runs[:2]) == {"targets.mine.files": ["1" * 12, "2" * 12]}
    assert label_runs(runs[:2]) == ["targets.mine.root=a", "targets.mine.root=b"]


def test_a_checkpoint_is_told_by_its_content_wherever_it_lies():
    runs = [
        run({"checkpoint": f"{place}/epoch_1.safetensors"}, weights={"prompts": digest * 64})
        for place, digest in (("a", "1"), ("b", "1"), ("c", "2"))
    ]
    assert differing_keys(runs) == {"checkpoint": ["1" * 12, "1" * 12, "2" * 12]}


def test_an_override_that_varies_within_a_setting_is_no_part_of_its_name():
    configs = [{"attention": {"of": name}} for name in ("vv", "vv", "qq")]
    typed = ("attention=vv trainer=cpu", "attention=vv trainer=gpu", "attention=qq trainer=cpu")
    runs = [run(config, words) for config, words in zip(configs, typed, strict=True)]
    assert label_runs(runs) == ["attention=vv", "attention=vv", "attention=qq"]


def test_what_is_measured_makes_a_setting():
    edges = ("[2,7]", "[3,9]")
    runs = [
        run(plain(compose("train", ["backbone=tiny", key])), key)
        for key in (f"metrics.pixels.size_edges={one}" for one in edges)
    ]
    assert differing_keys(runs) == {"metrics.pixels.size_edges": ["2+7", "3+9"]}
    assert label_runs(runs) == [f"metrics.pixels.size_edges={one[1:-1]}" for one in edges]


def test_labels_are_what_was_typed_and_differs():
    runs = [
        run({"attention": {"of": ["v"]}, "seed": 1}, "attention=vv seed=1 trainer=cpu"),
        run({"attention": {"of": ["v"]}, "seed": 2}, "attention=vv seed=2 trainer=cpu"),
        run({"attention": {"of": ["q", "k"]}, "seed": 1}, "attention=qq+kk seed=1 trainer=cpu"),
        run({"attention": {"of": None}, "seed": 1}, "seed=1 trainer=cpu"),
    ]
    assert label_runs(runs) == [
        *["attention=vv"] * 2,
        "attention=qq+kk",
        "attention=default",
    ]


def test_sources_are_named_without_brackets():
    runs = [
        run({"source": {name: {}}}, f"'dataset@source=[{name}]' 'hydra.run.dir=x{name}'")
        for name in ("visa", "mvtec")
    ]
    assert label_runs(runs) == ["source=visa", "source=mvtec"]


def test_where_nothing_was_typed_the_keys_that_differ_are_the_label():
    runs = [run({"prompt": {"depth": depth, "_target_": "x"}}) for depth in (3, 9)]
    assert label_runs(runs) == ["prompt.depth=3", "prompt.depth=9"]


def test_typing_a_default_does_not_make_another_setting():
    runs = [run({"depth": 9}, "depth=9"), run({"depth": 9}), run({"depth": 3}, "depth=3")]
    assert label_runs(runs) == ["depth=9", "depth=9", "depth=3"]


def test_where_much_differs_the_folder_is_the_label():
    runs = [
        run({f"key_{n}": f"{name}_{n}" for n in range(9)}, folder=f"{name}/run")
        for name in ("one", "two")
    ]
    assert label_runs(runs) == ["one/run", "two/run"]
    assert label_runs([run(r.config, folder=f"x/{n}") for n, r in enumerate(runs)]) == ["0", "1"]


def test_seeds_of_a_setting_share_the_name_of_its_first_folder():
    """As `crane reproduce` names its folders: where much differs, and all is typed in one line."""
    runs = [
        Run(
            Path(f"tests/{name}-{seed}"),
            *((), {f"key_{n}": f"{name}_{n}" for n in range(9)}, {"seed": seed}),
        )
        for name in ("one", "two")
        for seed in (1, 2)
    ]
    assert label_runs(runs) == ["one", "one", "two", "two"]
    assert label_runs(runs[1:]) == ["one-2", "two", "two"]


def test_the_names_of_methods_are_labels_where_they_tell_settings_apart():
    runs = [
        run({"method": {"name": name}, **{f"key_{n}": f"{name}_{n}" for n in range(9)}})
        for name in ("Crane", "Crane+", "Crane")
    ]
    assert label_runs(runs) == ["Crane", "Crane+", "Crane"]


@pytest.mark.parametrize("method", [{}, {"name": None}, None])
def test_runs_of_one_setting_without_a_name(method):
    assert label_runs([run({"method": method})] * 2) == ["all runs"] * 2


def test_the_first_run_of_each_setting_is_shown():
    runs = [run(folder=name) for name in "abc"]
    assert first_runs(runs, ["x", "y", "x"]) == {"x": runs[0], "y": runs[1]}

"""Reading recipes: what is said is kept, what recipes do not say is refused."""

from pathlib import Path

import pytest
import yaml

from crane.errors import UsageError
from crane.reproduce import Suite, read_recipe
from crane.reproduce.plan import split
from crane.reproduce.recipe import Case, case_of

NULL = "null"
"""A key without a value; with None a key is left out."""

SMALL = {
    "title": "A table",
    "shows": "what it shows",
    "metrics": ["image_auroc"],
    "source": ["mvtec"],
    "targets": ["visa"],
    "seeds": [1, 2],
    "differs": "why",
    "cost": {"images": 1, "gpu_hours": 0.1},
    "rows": [{"name": "one", "overrides": ["method=crane"], "suites": {"mini": "too large"}}],
}


@pytest.fixture
def recipe_of(tmp_path):
    def read(**changes):
        given = {k: v for k, v in (SMALL | changes).items() if v is not None}
        content = {k: None if v == NULL else v for k, v in given.items()}
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
        return read_recipe(tmp_path)

    return read


def test_what_is_said_is_kept(recipe_of, tmp_path):
    recipe = recipe_of(protocol=[{"targets": ["visa"], "epoch": 1, "test": ["scoring=x"]}])
    assert (recipe.name, recipe.path) == (tmp_path.name, tmp_path / "recipe.yaml")
    assert (recipe.seeds, recipe.metrics) == ((1, 2), ("image_auroc",))
    assert recipe.rows[0].suites == {"mini": "too large"}
    assert recipe.protocol == (Case(("visa",), epoch=1, test=("scoring=x",)),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ["mvtec"]}, "sources is not a key of recipes"),
        ({"seeds": None}, "seeds is missing"),
        ({"baseline": "two"}, "baseline: unknown row 'two'; choose one of one"),
        ({"published": "published.csv"}, "published.csv"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "rows: 'a' is listed twice"),
        ({"rows": [{"name": "a", "seed": 1}]}, r"rows\.0\.seed is not a key"),
        ({"rows": [{"name": "a", "checkpoint": "x.pth"}]}, r"rows\.0: .* needs an epoch"),
        ({"rows": None}, "rows is missing"),
        ({"rows": []}, "rows: .* at least 1 item"),
        ({"seeds": []}, "seeds: .* at least 1 item"),
    ],
)
def test_mistakes_are_named(recipe_of, changes, message):
    with pytest.raises(UsageError, match=message):
        recipe_of(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Types.
        ({"metrics": "aupro"}, "metrics: it should be a valid array, not 'aupro'"),
        ({"targets": "visa"}, "targets: it should be a valid array, not 'visa'"),
        ({"seeds": 111}, "seeds: it should be a valid array, not 111"),
        ({"seeds": [1.5]}, r"seeds\.0: it should be a valid integer, not 1\.5"),
        ({"seeds": [True]}, r"seeds\.0: it should be a valid integer, not true"),
        ({"differs": NULL}, "differs: it should be a valid string, not null"),
        ({"title": 2025}, "title: it should be a valid string, not 2025; put it in quotes"),
        ({"rows": NULL}, "rows: it should be a valid array, not null"),
        ({"rows": ["a"]}, r"rows\.0: it should be an object, not 'a'"),
        ({"rows": [{"name": 0.07}]}, r"rows\.0\.name: .* not 0\.07; put it in quotes"),
        ({"rows": [{"name": "a", "overrides": "method=crane"}]}, r"rows\.0\.overrides: "),
        ({"rows": [{"name": "a", "overrides": [{"method": "crane"}]}]}, r"rows\.0\.overrides\.0: "),
        ({"rows": [{"name": "a", "suites": ["mini"]}]}, r"rows\.0\.suites: "),
        ({"rows": [{"name": "a", "suites": {"mini": 1}}]}, r"rows\.0\.suites\.mini: .* not 1"),
        ({"rows": [{"name": "a", "protocol": [{"targets": "visa"}]}]},
         r"rows\.0\.protocol\.0\.targets: "),
        ({"protocol": ["visa"]}, r"protocol\.0: "),
        ({"tolerance": float("nan")}, "tolerance: it should be a finite number, not nan"),
        ({"tolerance": "2"}, "tolerance: it should be a valid number, not '2'"),
        ({"folder": "elsewhere"}, "no folder"),
        # What is said exists, stands there once, and has an effect.
        ({"cost": {}}, r"cost\.images is missing"),
        ({"cost": {"images": 1, "hours": 2}}, r"cost\.gpu_hours is missing"),
        ({"cost": {"images": 1, "gpu_hours": 0, "hours": 2}}, r"cost\.hours is not a key"),
        ({"metrics": []}, "metrics: .* at least 1 item"),
        ({"metrics": ["aupro", "aupro"]}, "metrics: 'aupro' is listed twice"),
        ({"targets": ["visa", "visa"]}, "targets: 'visa' is listed twice"),
        ({"source": []}, "source: .* at least 1 item"),
        ({"seeds": [1, 1]}, "seeds: 1 is listed twice"),
        ({"seeds": [-1]}, r"seeds\.0: .* greater than or equal to 0, not -1"),
        ({"seeds": [2**32]}, r"seeds\.0: .* less than 4294967296"),
        ({"tolerance": -1}, "tolerance: .* greater than or equal to 0, not -1"),
        ({"published": "nope.csv", "tolerance": 1}, r"nope\.csv"),
        ({"rows": [{"name": "a", "published": "Crane"}]}, "row 'a'.*published is not set"),
        ({"protocol": [{"targets": ["embedded_fotos"]}]},
         "targets of a protocol: unknown target 'embedded_fotos'; did you mean embedded_photos"),
        ({"protocol": [{"targets": ["visa"], "epoch": 0}]}, r"protocol\.0\.epoch: .* not 0"),
        ({"protocol": [{"targets": ["visa"], "test": ["seed=1"]}]},
         r"protocol\.0\.test\.0: seed=1 has no effect here; seeds="),
        ({"rows": [{"name": "a", "suites": {"papr": "why"}}]},
         "suites of row 'a': unknown suite 'papr'; did you mean paper"),
        ({"rows": [{"name": "a", "suites": {"mini": ["a='b"]}}]},
         r"rows\.0\.suites\.mini\.0: .*KEY=VALUE"),
        ({"rows": [{"name": "a", "overrides": ["seed=5"]}]},
         r"rows\.0\.overrides\.0: seed=5 has no effect here; seeds=\["),
        ({"rows": [{"name": "a", "train": ["oh"]}]}, r"rows\.0\.train\.0: .*KEY=VALUE"),
        ({"rows": [{"name": "a", "epoch": 0}]}, r"rows\.0\.epoch: .* equal to 1, not 0"),
        ({"rows": [{"name": "a", "source": []}]}, r"rows\.0\.source: .* at least 1 item"),
        ({"rows": [{"name": "a", "checkpoint": "{Source}", "epoch": 1}]},
         r"rows\.0\.checkpoint: '{Source}' must be a path"),
        ({"rows": [{"name": "a", "checkpoint": "{", "epoch": 1}]}, r"rows\.0\.checkpoint: "),
    ],
)  # fmt: skip
def test_mistakes_are_named_with_file_and_key(recipe_of, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        recipe_of(**changes)
    assert "recipe.yaml" in str(caught.value)


def test_a_key_that_is_no_text(recipe_of, tmp_path):
    recipe_of()
    with (tmp_path / "recipe.yaml").open("a") as file:
        file.write("1: one\nmore: x\n")
    with pytest.raises(UsageError, match="1 is not a key of recipes"):
        read_recipe(tmp_path)


def test_a_method_that_is_not_published_is_named(recipe_of, tmp_path):
    text = "level,metric,dataset,method,percent\nimage,auroc,visa,Crane,80\n"
    (tmp_path / "published.csv").write_text(text)
    facts = {"published": "published.csv"}
    with pytest.raises(UsageError, match="tolerance is missing for row 'one'"):
        recipe_of(**facts)
    facts["tolerance"] = 1
    assert recipe_of(**facts, rows=[{"name": "a", "published": "Crane"}])
    with pytest.raises(UsageError, match=r"yaml: .*row 'a': unknown method 'Crane\+'.* Crane$"):
        recipe_of(**facts, rows=[{"name": "a", "published": "Crane+"}])


def test_protocols_may_be_about_the_targets_of_any_suite(recipe_of):
    assert recipe_of(protocol=[{"targets": ["embedded_photos"], "test": ["scoring=x"]}])


def test_a_folder_has_a_name_however_it_is_written(recipe_of, tmp_path, monkeypatch):
    recipe_of()
    monkeypatch.chdir(tmp_path)
    assert read_recipe(Path()).name == tmp_path.name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a='b", "overrides: No closing quotation"),
        ("seed=5", r"seed=5 has no effect here; seeds=\["),
        ("+seed=5", "overrides: .*no effect"),
        ("dataset@targets=[visa]", "targets of a recipe"),
        ("datasets_dir=/data", "a word of its own"),
        ("hydra.verbose=true", "a word of its own"),
        ("a", "KEY=VALUE"),
    ],
)
def test_overrides_that_cannot_count_are_refused(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        split(text, "overrides")
    assert caught.value.key == "overrides"


def test_overrides_are_split_at_spaces():
    assert split("trainer=gpu 'a=b c'", "overrides") == ("trainer=gpu", "a=b c")
    assert split("", "overrides") == ()


def test_a_suite_lists_what_it_tests():
    facts = ("a", "A", "results_a.csv", {"cpu": 1.0}, 1.0, "a guess")
    for wrong in ("embedded_boards", []):
        with pytest.raises(UsageError, match="targets must be a non-empty list"):
            Suite(*facts, targets=wrong)


def test_a_folder_without_recipe(tmp_path):
    with pytest.raises(UsageError, match=r"experiments: .* has no recipe\.yaml"):
        read_recipe(tmp_path)


def test_a_key_that_stands_twice_is_refused(recipe_of, tmp_path):
    recipe_of()
    with (tmp_path / "recipe.yaml").open("a") as file:
        file.write("seeds: [5]\n")
    with pytest.raises(UsageError, match="duplicate key seeds"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("text", [b"rows: [", b"- a list", b"title: \xff"])
def test_what_is_no_recipe(tmp_path, text):
    (tmp_path / "recipe.yaml").write_bytes(text)
    with pytest.raises(UsageError):
        read_recipe(tmp_path)


def test_later_protocols_come_first_and_tests_add_up():
    early = [Case(("a", "b"), source=("x",), epoch=5, train=("t=0",), test=("one=1",))]
    late = [Case(("b",), epoch=1, test=("two=2",))]
    assert case_of("a", early, late) == Case(("a",), ("x",), 5, ("t=0",), ("one=1",))
    assert case_of("b", early, late) == Case(("b",), ("x",), 1, ("t=0",), ("one=1", "two=2"))
    assert case_of("c", early, late) == Case(("c",))

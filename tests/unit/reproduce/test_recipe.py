"""Reading recipes: what is said is kept, what recipes do not say is refused."""

from pathlib import Path

import pytest
import yaml

from crane.errors import UsageError
from crane.reproduce import Suite, read_recipe
from crane.reproduce.overrides import split
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
        ({"sources": ["mvtec"]}, "keys out of .*source.*sources"),
        ({"seeds": None}, "the keys .*seeds"),
        ({"baseline": "two"}, "a row out of one.*two"),
        ({"published": "published.csv"}, "a tolerance for every row"),
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "each row once"),
        ({"rows": [{"name": "a", "seed": 1}]}, "row 1 in"),
        ({"rows": [{"name": "a", "checkpoint": "x.pth"}]}, "an epoch and no overrides"),
        ({"rows": None}, "rows"),
        ({"rows": []}, "at least one row"),
        ({"seeds": []}, "at least one seed"),
    ],
)
def test_mistakes_are_named(recipe_of, changes, message):
    with pytest.raises(UsageError, match=message):
        recipe_of(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Types.
        ({"metrics": "aupro"}, "a list of texts, but got 'aupro' .change metrics in"),
        ({"targets": "visa"}, "a list of texts.*targets in"),
        ({"seeds": 111}, "a list of whole numbers, but got 111 .change seeds in"),
        ({"seeds": [1.5]}, "a whole number, but got 1.5"),
        ({"seeds": [True]}, "a whole number"),
        ({"differs": NULL}, "text, but got None .change differs in"),
        ({"title": 2025}, "text, but got 2025 .*in quotes"),
        ({"rows": NULL}, "a list of keys and values.*rows in"),
        ({"rows": ["a"]}, "keys and values, but got 'a' .change row 1 in"),
        ({"rows": [{"name": 0.07}]}, "text, but got 0.07 .change name of row 1 in"),
        ({"rows": [{"name": "a", "overrides": "method=crane"}]}, "overrides of row 1 in"),
        ({"rows": [{"name": "a", "overrides": [{"method": "crane"}]}]}, "overrides of row 1 in"),
        ({"rows": [{"name": "a", "suites": ["mini"]}]}, "keys and values.*suites of row 1"),
        ({"rows": [{"name": "a", "suites": {"mini": 1}}]}, "suites.mini of row 1"),
        ({"rows": [{"name": "a", "protocol": [{"targets": "visa"}]}]},
         "targets of protocol 1 of row 1 in"),
        ({"protocol": ["visa"]}, "protocol 1 in"),
        ({"tolerance": float("nan")}, "a number, but got nan"),
        ({"tolerance": "2"}, "a number.*tolerance in"),
        ({"folder": "elsewhere"}, "keys out of .*folder"),
        # What is said is there, once, and counts.
        ({"cost": {}}, r"images and gpu_hours, but got \[\] .change cost in"),
        ({"cost": {"images": 1, "hours": 2}}, "cost in"),
        ({"metrics": []}, "at least one metric"),
        ({"metrics": ["aupro", "aupro"]}, "each metric once"),
        ({"targets": ["visa", "visa"]}, "each target once"),
        ({"source": []}, "at least one source"),
        ({"seeds": [1, 1]}, "each seed once"),
        ({"seeds": [-1]}, "seeds in"),
        ({"tolerance": -1}, "points from 0 on"),
        ({"published": "nope.csv", "tolerance": 1}, "nope.csv' .change published in"),
        ({"rows": [{"name": "a", "published": "Crane"}]}, "names no published table.*row 'a'"),
        ({"protocol": [{"targets": ["embedded_fotos"]}]}, "embedded_fotos.*targets of protocol 1"),
        ({"protocol": [{"targets": ["visa"], "epoch": 0}]}, "from 1 on.*epoch of protocol 1 in"),
        ({"protocol": [{"targets": ["visa"], "test": ["seed=1"]}]}, "test of protocol 1 in"),
        ({"rows": [{"name": "a", "suites": {"papr": "why"}}]}, "mini, paper, .*papr.*row 'a'"),
        ({"rows": [{"name": "a", "suites": {"mini": ["a='b"]}}]}, "suites.mini of row 'a'"),
        ({"rows": [{"name": "a", "overrides": ["seed=5"]}]}, r"seed=5.*seeds=\["),
        ({"rows": [{"name": "a", "train": ["oh"]}]}, "KEY=VALUE.*train of row 'a' in"),
        ({"rows": [{"name": "a", "epoch": 0}]}, "from 1 on, but got 0 .change epoch of row 1 in"),
        ({"rows": [{"name": "a", "source": []}]}, "at least one source.*source of row 1 in"),
        ({"rows": [{"name": "a", "checkpoint": "{Source}", "epoch": 1}]},
         "a path in which .*checkpoint of row 'a' in"),
        ({"rows": [{"name": "a", "checkpoint": "{", "epoch": 1}]}, "checkpoint of row 'a' in"),
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
    with pytest.raises(UsageError, match=r"keys out of .*1, more"):
        read_recipe(tmp_path)


def test_a_method_that_is_not_published_is_named(recipe_of, tmp_path):
    text = "level,metric,dataset,method,percent\nimage,auroc,visa,Crane,80\n"
    (tmp_path / "published.csv").write_text(text)
    facts = {"published": "published.csv", "tolerance": 1}
    assert recipe_of(**facts, rows=[{"name": "a", "published": "Crane"}])
    with pytest.raises(UsageError, match=r"out of Crane, but got 'Crane\+'.*row 'a' in .*yaml"):
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
        ("a='b", "separated by spaces.*no closing quotation"),
        ("seed=5", r"seed=5.*seeds=\["),
        ("+seed=5", "change overrides"),
        ("dataset@targets=[visa]", "targets in a recipe"),
        ("datasets_dir=/data", "a word of its own"),
        ("hydra.verbose=true", "a word of its own"),
        ("a", "KEY=VALUE"),
        (["a=1"], "in one text"),
    ],
)
def test_overrides_that_cannot_count_are_refused(text, message):
    with pytest.raises(UsageError, match=message) as caught:
        split(text, "overrides")
    assert caught.value.key == "overrides"


def test_overrides_are_split_at_spaces():
    assert split("trainer=gpu 'a=b c'", "overrides") == ("trainer=gpu", "a=b c")
    assert split(None, "overrides") == split("", "overrides") == ()


def test_a_suite_lists_what_it_tests():
    facts = ("a", "A", "results_a.csv", {"cpu": 1.0}, 1.0, "a guess")
    for wrong in ("embedded_boards", []):
        with pytest.raises(UsageError, match=r"suite\.targets"):
            Suite(*facts, targets=wrong)


def test_a_folder_without_recipe(tmp_path):
    with pytest.raises(UsageError, match=r"recipe.yaml.*\(change experiments\)"):
        read_recipe(tmp_path)


def test_a_key_that_stands_twice_is_refused(recipe_of, tmp_path):
    recipe_of()
    with (tmp_path / "recipe.yaml").open("a") as file:
        file.write("seeds: [5]\n")
    with pytest.raises(UsageError, match="the key seeds stands twice"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("text", [b"rows: [", b"- a list", b"title: \xff"])
def test_what_is_no_recipe(tmp_path, text):
    (tmp_path / "recipe.yaml").write_bytes(text)
    with pytest.raises(UsageError):
        read_recipe(tmp_path)


def test_later_protocols_come_first_and_tests_add_up():
    early = [Case(("a", "b"), source=("x",), epoch=5, test=("one=1",))]
    late = [Case(("b",), epoch=1, test=("two=2",))]
    assert case_of("a", early, late) == Case(("a",), ("x",), 5, ("one=1",))
    assert case_of("b", early, late) == Case(("b",), ("x",), 1, ("one=1", "two=2"))
    assert case_of("c", early, late) == Case(("c",))

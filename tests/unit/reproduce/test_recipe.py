"""Reading recipes: what is said is kept, what recipes do not say is refused."""

import pytest
import yaml

from crane.errors import UsageError
from crane.reproduce import read_recipe
from crane.reproduce.recipe import Case, case_of

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
        content = {k: v for k, v in (SMALL | changes).items() if v is not None}
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
        ({"rows": [{"name": "a"}, {"name": "a"}]}, "a name of its own"),
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


def test_a_folder_without_recipe(tmp_path):
    with pytest.raises(UsageError, match=r"recipe.yaml.*\(change experiments\)"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("text", ["rows: [", "- a list"])
def test_what_is_no_recipe(tmp_path, text):
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(UsageError):
        read_recipe(tmp_path)


def test_later_protocols_come_first_and_tests_add_up():
    early = [Case(("a", "b"), source=("x",), epoch=5, test=("one=1",))]
    late = [Case(("b",), epoch=1, test=("two=2",))]
    assert case_of("a", early, late) == Case(("a",), ("x",), 5, ("one=1",))
    assert case_of("b", early, late) == Case(("b",), ("x",), 1, ("one=1", "two=2"))
    assert case_of("c", early, late) == Case(("c",))

"""The README of an experiment: nothing blank, differences, notes."""

import re
from dataclasses import replace
from itertools import product

import pytest
from PIL import Image

from crane.reproduce import Number, Suite, SuiteResults, read_recipe, readme
from crane.reproduce.numbers import (
    FAILED,
    LEFT_OUT,
    MEASURED,
    MISSING,
    OUTSIDE,
    UNDEFINED,
    WITHIN,
)
from crane.reproduce.recipe import Case, RecipeRow
from reproductions import EXPERIMENTS

SUITE = Suite("paper", "The paper's data", "results.csv", {"cpu": 1.0}, 1.0, "a guess")
ABC = {"runs": [{"commit": "abc", "device": "cpu"}], "data": {}, "weights": {}}
TEMPERATURES = read_recipe(EXPERIMENTS / "ablation_temperature")
TABLE = read_recipe(EXPERIMENTS / "table1_zero_shot")


def results(numbers):
    return SuiteResults(SUITE, numbers, ABC)


def lines_of(page):
    return [line for line in page.splitlines() if line.startswith("|")]


def test_published_ours_and_difference_stand_side_by_side():
    row = "Crane, trained here"
    numbers = [
        Number(row, "btad", "image_auroc", WITHIN, 94.1, None, "111", 94.4, -0.3),
        Number(row, "btad", "image_ap", OUTSIDE, 90.0, 1.25, "1 2", 95.9, -5.9),
        Number(row, "btad", "pixel_auroc", MISSING, published=96.6, reason="data btad, weights x"),
        Number(row, "average_industrial", "image_auroc", MISSING, published=92.6,
               reason="6 of 7 data sets"),
    ]  # fmt: skip
    page = readme(TABLE, [results(numbers)])
    assert "| btad | 94.4 | 94.1 | -0.3 | 95.9 | 90.0 ± 1.2 | **-5.9** |" in page
    assert "| btad | 96.6 | missing: data, weights (" in page
    assert "| average industrial | 92.6 | missing: 6 of 7 data sets (" in page
    assert ") missing: data btad, weights x" in page
    assert "of more than 2 points are outside tolerance" in page
    assert not re.search(r"\| *\|", page)
    assert "4 numbers: 1 within tolerance, 1 outside tolerance, 2 missing" in page


def test_rows_stand_beside_the_baseline():
    def number(row, dataset, percent, to_baseline=None, state=MEASURED, reason=""):
        return Number(row, dataset, "image_auroc", state, percent, to_baseline=to_baseline,
                      reason=reason)  # fmt: skip

    numbers = [
        number("0.07", "visa", 80.0),
        number("0.07", "btad", 90.0),
        number("0.2", "visa", 82.0, 2.0),
        number("0.2", "btad", 86.0, -4.0),
        number("0.03", "visa", None, state=LEFT_OUT, reason="why not"),
        number("0.03", "btad", None, state=LEFT_OUT, reason="why not"),
        number("0.01", "visa", 70.0, -10.0),
        number("0.01", "btad", None, state=UNDEFINED, reason="no normal images"),
    ]
    recipe = replace(TEMPERATURES, metrics=("image_auroc",))
    page = readme(recipe, [results(numbers)])
    means, of_visa, of_btad = re.split(r"\| (?:all data sets|visa|btad) \|", page)[1:]
    assert "| 0.07 | 85.0 |" in means
    assert "| 0.2 | 84.0 (-1.0) |" in means
    assert "| 0.01 | 70.0 (-10.0) |" in means
    assert "| 0.03 | left out (1) |" in means
    assert "| 0.2 | 82.0 (+2.0) |" in of_visa
    assert "| 0.01 | not defined (" in of_btad
    assert "Commit `abc`, on cpu." in page


def test_a_row_without_any_value_tells_every_reason():
    numbers = [
        Number("0.07", name, "image_auroc", MISSING, reason=f"data {name}") for name in ("a", "b")
    ]
    rows = tuple(row for row in TEMPERATURES.rows if row.name == "0.07")
    recipe = replace(TEMPERATURES, metrics=("image_auroc",), rows=rows)
    page = readme(recipe, [results(numbers)])
    assert "| 0.07 | missing: data (1) |" in page
    assert "(1) missing: data a; data b" in page


def test_the_value_of_fewer_seeds_says_so():
    numbers = [
        Number("0.07", "a", "image_auroc", MEASURED, 60.0),
        Number("0.07", "b", "image_auroc", FAILED, 70.0, 1.0, reason="seed 3 failed: no memory"),
        Number("0.2", "a", "image_auroc", MEASURED, 50.0, to_baseline=-10.0),
        Number("0.2", "b", "image_auroc", MISSING, 75.0, to_baseline=5.0,
               reason="seed 2 missing: data b"),
    ]  # fmt: skip
    rows = tuple(row for row in TEMPERATURES.rows if row.name in ("0.07", "0.2"))
    recipe = replace(TEMPERATURES, metrics=("image_auroc",), rows=rows)
    page = readme(recipe, [results(numbers)])
    means, _, of_b = re.split(r"\| (?:all data sets|a|b) \|", page)[1:]
    assert "| 0.07 | 65.0, a seed failed (1) |" in means
    assert "| 0.07 | 70.0 ± 1.0, a seed failed (3) |" in of_b
    assert "| 0.2 | 75.0 (+5.0), a seed missing (4) |" in of_b
    assert "(1) b: seed 3 failed: no memory" in page
    assert "(3) seed 3 failed: no memory" in page
    assert "4 numbers: 2 measured, 1 failed, 1 missing" in page


def test_every_part_of_a_protocol_is_told():
    case = Case(("visa",), source=("btad",), epoch=2, test=("scoring=x|y",))
    rows = (RecipeRow("a|b", protocol=(case,)),)
    recipe = replace(TEMPERATURES, baseline=None, protocol=(case,), rows=rows)
    page = readme(recipe, [])
    assert "Exceptions: `visa`: trained on `btad`, epoch 2, `scoring=x|y`." in page
    assert "| a\\|b | on visa: trained on `btad`, epoch 2, `scoring=x\\|y` |" in page


def test_other_seeds_than_the_recipe_says_are_told():
    number = Number("0.07", "visa", "image_auroc", MEASURED, 80.0, seeds="1 2")
    page = readme(TEMPERATURES, [results([number])])
    assert "Seeds 1, 2, other than the recipe's. Commit `abc`" in page
    page = readme(replace(TEMPERATURES, seeds=(1, 2)), [results([number])])
    assert "other than the recipe's" not in page


def test_what_a_recipe_gained_since_its_results_is_not_run():
    """Results of one suite are read again whenever the other is run."""
    numbers = [Number("0.07", name, "image_auroc", MEASURED, 80.0) for name in ("a", "b")]
    page = readme(TEMPERATURES, [results(numbers)])
    means = page.split("| all data sets |")[1]
    assert "| 0.07 | 80.0 | not run (1) |" in means
    assert "| 0.2 | not run (1) | not run (1) |" in means
    assert "(1) not run: added to the recipe after these results" in page


def test_what_a_recipe_with_published_values_gained_is_not_run():
    row = "Crane, trained here"
    numbers = [Number(row, "btad", "image_auroc", WITHIN, 94.1, None, "111", 94.4, -0.3)]
    page = readme(replace(TABLE, metrics=(*TABLE.metrics, "mine")), [results(numbers)])
    assert "| btad | 94.4 | 94.1 | -0.3 | - | not run (1) | - |" in page
    assert "### Crane+, trained here\n\nNot run (1)." in page
    assert "mine: published" not in page  # which no table has


@pytest.mark.parametrize("recipe", [TEMPERATURES, TABLE], ids=lambda recipe: recipe.name)
def test_a_recipe_that_was_never_run_has_a_page(recipe):
    page = readme(recipe, [])
    assert page.startswith("<!-- Written by crane reproduce")
    assert f"crane reproduce experiments/{recipe.name} plan_only=true" in page
    assert f"{recipe.cost.images:,} images" in page
    assert len([line for line in lines_of(page) if not line.startswith("| ---")]) == 1 + len(
        recipe.rows
    )


def test_recipes_of_region_sizes_draw_them(tmp_path):
    sizes = ("aupro_small", "aupro_medium", "aupro_large")
    numbers = [
        Number(row, dataset, metric, MEASURED, 10.0 + 5 * place)
        for place, (row, dataset, metric) in enumerate(
            product(("Crane", "VAND"), ("visa", "btad"), ("aupro", *sizes))
        )
    ]
    numbers.append(Number("WinCLIP", "visa", sizes[0], MISSING, reason="data visa"))
    recipe = read_recipe(EXPERIMENTS / "ablation_region_size")
    found = results(numbers)
    found.draw_sizes(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["sizes.png"]
    with Image.open(tmp_path / "sizes.png") as picture:
        assert picture.height > picture.width / 2, "a plot for each data set"
    assert "![AUPRO by region size](sizes.png)" in readme(recipe, [found])
    without = results([one for one in numbers if one.metric != sizes[2]])
    without.draw_sizes(tmp_path / "no folder")
    assert "![AUPRO" not in readme(recipe, [without])


def test_a_picture_stands_beside_every_page_that_shows_one():
    for page in EXPERIMENTS.glob("*/README.md"):
        for name in re.findall(r"!\[.*?\]\((.*?)\)", page.read_text()):
            assert (page.parent / name).is_file(), f"{page}: {name}"

"""From runs to numbers: published values, tolerance, averages, spread, reasons."""

import math
from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from crane.errors import UsageError
from crane.report import read_published
from crane.reproduce import Plan, collect, read_numbers, read_recipe, write_results
from crane.reproduce.numbers import (
    FAILED,
    LEFT_OUT,
    MEASURED,
    MISSING,
    OUTSIDE,
    UNDEFINED,
    WITHIN,
    Number,
    read_provenance,
)
from crane.reproduce.plan import Cell, Setting
from crane.reproduce.plan import Test as PlannedTest
from crane.reproduce.recipe import Recipe, RecipeRow, StatedCost
from crane.reproduce.resources import DataSet
from crane.reproduce.runner import Outcomes
from crane.runs import DatasetResult, StoredRun, store_run
from reproductions import EXPERIMENTS

TABLE = EXPERIMENTS / "table1_zero_shot"
IN_TABLE = {
    "ksdd_anomalyclip": "ksdd",
    "cvc_colondb": "cvc-colondb",
    "cvc_clinicdb": "cvc-clinicdb",
}


def a_test(dataset, seed, in_tables=((), "")):
    about = DataSet(dataset, 1, 1, "f" * 64, None, *in_tables)
    setting = Setting(OmegaConf.create(), "setting", (), ())
    return PlannedTest((), seed, setting, about, None, 5, None)


class World:
    """A recipe whose tests have measured what they are told."""

    def __init__(self, recipe, store, names=None):
        self.recipe, self.store, self.names = recipe, store, names or {}
        self.cells, self.tests, self.outcomes = [], {}, Outcomes()
        self.weights = {"clip": "0" * 64}

    def add(self, row, dataset, seed=111, excluded=None, **ends):
        """A cell; `values` are its means, or `missing` or `failed` says why there are none."""
        cell = Cell(row, dataset, seed, train=(), excluded=excluded)
        self.cells.append(cell)
        if excluded is not None:
            return
        test = self.tests[self.recipe.name, cell] = a_test(
            dataset, seed, self.names.get(dataset, ((), ""))
        )
        for state in ("missing", "failed"):
            if state in ends:
                getattr(self.outcomes, state)[test] = ends[state]
                return
        means = ends["values"]
        result = DatasetResult(
            dataset=dataset,
            class_names=("one",),
            values={metric: (value,) for metric, value in means.items()},
            means=means,
            num_normal=(1,),
            num_anomalous=(1,),
            reasons={(m, "one"): f"no {m} here" for m, v in means.items() if math.isnan(v)},
        )
        run = StoredRun(
            *("setting", "test", "finished", "folder", seed, (), (), {}),
            **{"commit": "abc", "dirty": True, "device": "cpu"},
            data={f"targets.{dataset}": "f" * 64},
            weights=self.weights,
        )
        store_run(self.store, run, [result])
        self.outcomes.done[test] = run.run_id

    def numbers(self):
        plan = Plan({self.recipe.name: self.cells}, self.tests)
        found, self.provenance = collect(self.recipe, plan, self.outcomes, self.store)
        return {(n.row, n.dataset, n.metric): n for n in found}


@pytest.fixture
def table1(tmp_path):
    """Table 1, Crane and Crane+ having measured exactly what is published."""
    whole = read_recipe(TABLE)
    ours = ("Crane, trained here", "Crane+, trained here")
    recipe = replace(
        whole,
        rows=tuple(row for row in whole.rows if row.name in ours),
        metrics=tuple(metric for metric in whole.metrics if metric != "aupro"),  # not published
    )
    medical = recipe.targets[recipe.targets.index("headct") :]
    names = {
        name: (
            (IN_TABLE.get(name, name),),
            "average_medical" if name in medical else "average_industrial",
        )
        for name in recipe.targets
    }
    published = read_published(TABLE / "published.csv").values
    world = World(recipe, tmp_path / "store", names)
    for row in recipe.rows:
        for name in recipe.targets:
            known = published[row.published, IN_TABLE.get(name, name)]
            world.add(row.name, name, values={m: known.get(m, math.nan) for m in recipe.metrics})
    return world


def test_published_values_are_within_tolerance_and_so_are_their_averages(table1):
    numbers = table1.numbers()
    assert len(numbers) == 2 * 3 * (10 + 11 + 4)
    assert {number.state for number in numbers.values()} == {WITHIN}
    for (_, dataset, _), number in numbers.items():
        # The paper's averages are those of its own lines, but for rounding.
        assert abs(number.difference) < (0.1 if "average" in dataset else 1e-6)
    assert ("Crane, trained here", "isic", "image_auroc") not in numbers  # not in the table
    one = numbers["Crane+, trained here", "ksdd_anomalyclip", "pixel_auroc"]
    assert (one.percent, one.published) == (pytest.approx(99.2), 99.2)
    assert table1.provenance == {
        "runs": [{"commit": "abc+", "device": "cpu", "versions": {}}],
        "data": {name: ["f" * 64] for name in table1.recipe.targets},
        "weights": {row.name: ["clip:000000000000"] for row in table1.recipe.rows},
    }


@pytest.mark.parametrize(
    ("off", "state"), [(2.04, WITHIN), (-2.04, WITHIN), (2.1, OUTSIDE), (-2.1, OUTSIDE)]
)
def test_what_differs_by_more_than_the_tolerance_is_outside(table1, off, state):
    first = next(iter(table1.tests))[1]
    table1.outcomes.done.pop(table1.tests[table1.recipe.name, first])
    table1.cells.remove(first)
    published = 93.8  # image AUROC of Crane on MVTec AD
    values = dict.fromkeys(table1.recipe.metrics, math.nan) | {
        "image_auroc": (published + off) / 100
    }
    table1.add(first.row, first.dataset, values=values)
    number = table1.numbers()[first.row, "mvtec", "image_auroc"]
    assert number.published == published
    assert (number.state, number.difference) == (state, pytest.approx(off))


def test_an_average_needs_every_data_set(table1):
    cell = next(c for c in table1.cells if (c.row, c.dataset) == ("Crane, trained here", "btad"))
    table1.outcomes.done.pop(table1.tests[table1.recipe.name, cell])
    table1.outcomes.missing[table1.tests[table1.recipe.name, cell]] = "data btad"
    numbers = table1.numbers()
    average = numbers["Crane, trained here", "average_industrial", "image_auroc"]
    assert (average.state, average.reason) == (MISSING, "1 of 7 data sets")
    assert average.text == "missing: 1 of 7 data sets"
    assert numbers["Crane, trained here", "average_medical", "image_auroc"].state == WITHIN
    assert numbers["Crane+, trained here", "average_industrial", "image_auroc"].state == WITHIN


def small(tmp_path, **changes):
    facts = {"title": "t", "shows": "s", "differs": "d", "cost": StatedCost(0, 0.0)}
    rows = (RecipeRow("base"), RecipeRow("other"))
    return Recipe(
        folder=tmp_path / "small",
        metrics=("image_auroc", "aupro"),
        source=("mvtec",),
        targets=("visa",),
        rows=rows,
        seeds=(1, 2),
        **{**facts, "baseline": "base", **changes},
    )


def test_seeds_have_a_spread_and_are_paired_with_the_baseline(tmp_path):
    world = World(small(tmp_path), tmp_path / "store")
    for seed, base, other in ((1, 0.5, 0.6), (2, 0.7, 0.9)):
        world.add("base", "visa", seed, values={"image_auroc": base, "aupro": 0.1})
        world.add("other", "visa", seed, values={"image_auroc": other, "aupro": math.nan})
    world.add("other", "visa", 3, values={"image_auroc": 0.1, "aupro": math.nan})  # no partner
    numbers = world.numbers()
    base, other = (numbers[row, "visa", "image_auroc"] for row in ("base", "other"))
    assert (base.percent, base.spread) == (pytest.approx(60), pytest.approx(14.142, abs=1e-3))
    assert (base.state, base.to_baseline, base.seeds) == (MEASURED, None, "1 2")
    assert other.to_baseline == pytest.approx((10 + 20) / 2)
    assert other.percent == pytest.approx(160 / 3)
    undefined = numbers["other", "visa", "aupro"]
    assert (undefined.state, undefined.reason) == (UNDEFINED, "no aupro here")


def test_every_reason_is_told(tmp_path):
    world = World(small(tmp_path), tmp_path / "store")
    world.add("base", "visa", missing="data visa")
    world.add("other", "visa", failed="RuntimeError: out of memory")
    world.add("other", "btad", excluded="too large")
    numbers = world.numbers()
    texts = {key[:2]: number.text for key, number in numbers.items()}
    assert texts == {
        ("base", "visa"): "missing: data visa",
        ("other", "visa"): "failed: RuntimeError: out of memory",
        ("other", "btad"): "left out: too large",
    }
    assert {n.state for n in numbers.values()} == {MISSING, FAILED, LEFT_OUT}


def test_numbers_come_back_from_their_file(table1, tmp_path):
    numbers, path = list(table1.numbers().values()), tmp_path / "results.csv"
    write_results(path, numbers, table1.provenance)
    found = read_numbers(path)
    assert [replace(n, percent=None, difference=None) for n in found] == [
        replace(n, percent=None, difference=None) for n in numbers
    ]
    for ours, theirs in zip(numbers, found, strict=True):
        assert theirs.percent == pytest.approx(ours.percent, abs=1e-4)
    assert read_provenance(path) == table1.provenance


def test_the_same_numbers_from_elsewhere_make_the_same_file(table1, tmp_path):
    """Commit, machine and weights stand in the file beside it."""
    numbers, path = list(table1.numbers().values()), tmp_path / "results.csv"
    write_results(path, numbers, table1.provenance)
    before = path.read_bytes()
    other = {"runs": [{"commit": "def", "device": "gpu"}], "data": {}, "weights": {}}
    write_results(path, numbers, other)
    assert path.read_bytes() == before
    assert b"abc" not in before
    assert read_provenance(path) == other
    write_results(path, numbers, {"runs": [], "data": {}, "weights": {}})  # nothing was measured
    assert sorted(tmp_path.iterdir()) == [path, tmp_path / "store"]


def test_results_of_earlier_versions_can_be_read(tmp_path):
    """They have the provenance in every row."""
    head = "row,dataset,metric,state,percent,spread,seeds,published,difference,to_baseline,reason"
    line = "Crane,visa,aupro,measured,61.2345,,111,,,,"
    (tmp_path / "results.csv").write_text(
        f"{head},commit,device,data,weights\n{line},abc,cpu,{'f' * 64},clip:000000000000\n"
    )
    (number,) = read_numbers(tmp_path / "results.csv")
    assert number == Number("Crane", "visa", "aupro", MEASURED, 61.2345, seeds="111")
    assert read_provenance(tmp_path / "results.csv") == {}


def test_what_is_no_result_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="is not a results file of crane reproduce"):
        read_numbers(path)
    (tmp_path / "results.provenance.json").write_text("<<<<<<< HEAD")
    with pytest.raises(UsageError, match=r"results\.provenance\.json is damaged"):
        read_provenance(path)


def test_an_unknown_method_is_named(table1):
    rows = (replace(table1.recipe.rows[0], published="Crane++"),)
    with pytest.raises(UsageError, match="unknown method 'Crane\\+\\+'; did you mean Crane"):
        replace(table1.recipe, rows=rows)


def test_a_metric_that_no_run_has_is_missing(tmp_path):
    world = World(small(tmp_path), tmp_path / "store")
    world.add("base", "visa", values={"image_auroc": 0.5})
    number = world.numbers()["base", "visa", "aupro"]
    assert number.text == "missing: not among the metrics of its test"


@pytest.mark.parametrize(("end", "state"), [("failed", FAILED), ("missing", MISSING)])
def test_a_seed_that_is_lost_is_told_beside_the_value_of_the_others(tmp_path, end, state):
    world = World(small(tmp_path), tmp_path / "store")
    for seed in (1, 2):
        world.add("base", "visa", seed, values={"image_auroc": seed / 4, "aupro": math.nan})
    world.add("base", "visa", 3, **{end: "why not"})
    numbers = world.numbers()
    number = numbers["base", "visa", "image_auroc"]
    assert (number.state, number.percent, number.seeds) == (state, pytest.approx(37.5), "1 2")
    assert number.reason == f"seed 3 {state}: why not"
    # A value that is defined nowhere does not hide that a run was lost either.
    other = numbers["base", "visa", "aupro"]
    assert (other.state, other.percent) == (state, None)
    assert other.reason == f"seeds 1, 2 not defined: no aupro here; seed 3 {state}: why not"


def test_a_seed_without_a_defined_value_is_told_and_is_no_failure(tmp_path):
    world = World(small(tmp_path), tmp_path / "store")
    for seed, value in ((1, 0.5), (2, math.nan)):
        world.add("base", "visa", seed, values={"image_auroc": value, "aupro": 0.5})
    number = world.numbers()["base", "visa", "image_auroc"]
    assert (number.state, number.seeds) == (MEASURED, "1")
    assert number.reason == "seed 2 not defined: no image_auroc here"


def test_what_lies_outside_without_a_seed_is_told_as_such(table1):
    first = next(iter(table1.tests))[1]
    table1.outcomes.done.pop(table1.tests[table1.recipe.name, first])
    table1.cells.remove(first)
    table1.add(first.row, first.dataset, 1, values=dict.fromkeys(table1.recipe.metrics, 0.1))
    table1.add(first.row, first.dataset, 2, missing="data mvtec")
    number = table1.numbers()[first.row, "mvtec", "image_auroc"]
    assert (number.state, number.reason) == (OUTSIDE, "seed 2 missing: data mvtec")


def test_an_average_tells_the_seeds_that_a_data_set_lost(table1):
    """Of other seeds than all data sets have there is no average, and none is missing elsewhere."""
    lost = ("Crane, trained here", "btad")
    for (_, cell), test in list(table1.tests.items()):
        if (cell.row, cell.dataset) == lost:
            table1.outcomes.failed[test] = "RuntimeError: no memory"
            del table1.outcomes.done[test]
    published = read_published(TABLE / "published.csv").values
    for cell in list(table1.cells):
        known = published["Crane", IN_TABLE.get(cell.dataset, cell.dataset)]
        values = {m: known.get(m, math.nan) for m in table1.recipe.metrics}
        if cell.row == lost[0]:
            table1.add(cell.row, cell.dataset, 2, values=values)
    numbers = table1.numbers()
    average = numbers[lost[0], "average_industrial", "image_auroc"]
    assert (average.state, average.seeds) == (FAILED, "2")
    assert average.reason == "seed 111 failed: 1 of 7 data sets"
    assert average.percent == pytest.approx(average.published, abs=0.1)
    assert numbers[lost[0], "average_medical", "image_auroc"].seeds == "111 2"


def test_a_published_average_of_other_data_sets_is_no_measure(table1):
    """Of two of seven data sets the mean is another one, and not outside its tolerance."""
    few = ("mvtec", "visa", "headct", "brainmri")
    table1.cells = [cell for cell in table1.cells if cell.dataset in few]
    numbers = table1.numbers()
    averages = [n for (_, dataset, _), n in numbers.items() if dataset == "average_industrial"]
    assert {n.text for n in averages} == {"left out: the published mean is over other data sets"}
    assert {n.state for (_, name, _), n in numbers.items() if name in few} == {WITHIN}


def test_the_average_of_a_row_that_is_left_out_is_left_out(table1):
    """Or the exit code would say that something is missing."""
    row = table1.recipe.rows[0].name
    table1.cells = [cell for cell in table1.cells if cell.row != row]
    for dataset in table1.recipe.targets:
        table1.add(row, dataset, excluded="too large")
    states = {n.state for (name, _, _), n in table1.numbers().items() if name == row}
    assert states == {LEFT_OUT}


def test_random_weights_are_named_whole(tmp_path):
    world = World(small(tmp_path), tmp_path / "store")
    world.weights = {"clip": "0" * 64, "guide": "random, seed 111"}
    world.add("base", "visa", values={"image_auroc": 0.5, "aupro": 0.5})
    world.numbers()
    assert world.provenance["weights"] == {"base": ["clip:000000000000", "guide:random, seed 111"]}

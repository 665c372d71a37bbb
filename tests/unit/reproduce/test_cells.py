"""From recipes to cells: the published protocol, suites, seeds."""

from dataclasses import replace
from pathlib import Path

import pytest

from crane.errors import UsageError
from crane.reproduce import Changes, expand, read_recipe, suites
from crane.reproduce.plan import joined

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
MEDICAL = ("headct", "brainmri", "br35h", "isic", "cvc_colondb", "cvc_clinicdb", "tn3k")


def suite(name):
    return suites()[name]


@pytest.fixture(scope="module")
def table():
    return read_recipe(EXPERIMENTS / "table1_zero_shot")


@pytest.fixture(scope="module")
def paper_cells(table):
    return {(cell.row, cell.dataset): cell for cell in expand(table, suite("paper"))}


def test_table_1_has_every_cell(table, paper_cells):
    assert len(table.targets) == 14
    assert len(paper_cells) == len(table.rows) * 14
    assert all(cell.excluded is None for cell in paper_cells.values())


@pytest.mark.parametrize("row", ["Crane, trained here", "Crane+, trained here"])
def test_mvtec_takes_prompts_of_visa_all_others_of_mvtec(paper_cells, row):
    for (name, dataset), cell in paper_cells.items():
        if name == row:
            source = "visa" if dataset == "mvtec" else "mvtec"
            assert f"dataset@source=[{source}]" in cell.train, dataset


def test_crane_plus_is_tested_as_published(paper_cells):
    for kind in ("trained here", "official checkpoints"):
        for dataset in ("visa", "mvtec", "btad"):
            cell = paper_cells[f"Crane+, {kind}", dataset]
            assert cell.epoch in (None, 5)
            assert not any(one.startswith("scoring=") for one in cell.test)
        assert paper_cells[f"Crane+, {kind}", "dagm"].epoch in (None, 5)
        assert "scoring=mean_of_softmax" in paper_cells[f"Crane+, {kind}", "dagm"].test
        for dataset in MEDICAL:
            cell = paper_cells[f"Crane+, {kind}", dataset]
            assert cell.epoch == 1, dataset
            assert "scoring=mean_of_softmax" in cell.test
            assert not any(one.startswith("scoring=") for one in cell.train or ())


def test_crane_is_tested_at_epoch_5_everywhere(paper_cells):
    for (row, _), cell in paper_cells.items():
        if row.startswith("Crane,"):
            assert cell.epoch in (None, 5)
            assert "method=crane" in cell.test


def test_official_checkpoints_are_those_of_the_source_and_epoch(table, paper_cells):
    found = {key: cell.checkpoint for key, cell in paper_cells.items() if cell.checkpoint}
    official = [row for row in table.rows if row.checkpoint]
    assert len(found) == len(official) * 14
    row = "Crane+, official checkpoints"
    assert found[row, "isic"] == "trained_on_mvtec_cranep/epoch_1.pth"
    assert found[row, "mpdd"] == "trained_on_mvtec_cranep/epoch_5.pth"
    assert found[row, "mvtec"] == "trained_on_visa_cranep/epoch_5.pth"
    assert found["Crane, official checkpoints", "tn3k"] == "trained_on_mvtec_crane/epoch_5.pth"


def test_the_mini_suite_swaps_data_guide_and_says_what_it_cannot(table):
    cells = {(cell.row, cell.dataset): cell for cell in expand(table, suite("mini"))}
    cell = cells["Crane+, trained here", "embedded_boards"]
    assert {"backbone=mini", "guide=mini", "cache=all"} <= set(cell.train) & set(cell.test)
    assert "dataset@source=[embedded_parts]" in cell.train
    assert "ViT-L/14" in cells["Crane, official checkpoints", "embedded_boards"].excluded


def test_a_row_without_guide_stays_without_in_the_mini_suite():
    recipe = read_recipe(EXPERIMENTS / "ablation_components")
    rows = {cell.row: cell for cell in expand(recipe, suite("mini"))}
    assert "guide=none" in rows["no D-Attn"].train
    assert "guide=mini" not in rows["no D-Attn"].train
    assert "guide=mini" in rows["no fusion"].train


def test_what_is_trained_on_is_not_tested():
    cells = expand(read_recipe(EXPERIMENTS / "ablation_source_set"), suite("mini"))
    excluded = {cell.row for cell in cells if cell.excluded == "it is trained on"}
    assert excluded == {"Crane on VisA", "Crane on both", "Crane+ on VisA", "Crane+ on both"}
    both = next(c for c in cells if c.row == "Crane on both" and c.excluded is None)
    assert "dataset@source=[embedded_parts,embedded_fabrics]" in both.train


def test_changes_come_last_and_seeds_are_an_axis(table):
    changes = Changes(seeds=(1, 2), overrides=("trainer=gpu",), train=("trainer.max_epochs=9",))
    cells = expand(table, suite("paper"), changes)
    trained = [c for c in cells if c.train is not None]
    assert {cell.seed for cell in trained} == {1, 2}
    assert all("trainer=gpu" in c.train and "trainer=gpu" in c.test for c in trained)
    assert all("trainer.max_epochs=9" in c.train for c in trained)
    assert not any("trainer.max_epochs=9" in c.test for c in cells)
    # Prompts that are not trained here are tested once.
    untrained = [row for row in table.rows if row.checkpoint or not row.trains]
    assert len([c for c in cells if c.train is None]) == len(untrained) * 14


def test_sources_without_stand_in_are_refused(table):
    lacking = replace(
        suite("mini"), sources={"mvtec": "embedded_parts", "cvc_colondb": "embedded_parts"}
    )
    recipe = read_recipe(EXPERIMENTS / "ablation_source_set")
    with pytest.raises(UsageError, match="does not say what replaces visa"):
        expand(recipe, lacking)
    assert expand(table, lacking)  # its targets here need no VisA


def test_the_last_override_of_a_key_counts():
    assert joined(["a=1", "b=2"], ["a=3"]) == ("b=2", "a=3")
    with pytest.raises(UsageError, match="KEY=VALUE"):
        joined(["a"])

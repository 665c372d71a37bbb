"""Every row of every recipe composes and builds, in both suites; stated costs are the plan's."""

import json
from functools import cache
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf
from open_clip import get_model_config

from crane.config import compose, plain
from crane.gate import build
from crane.methods import build_model, model_config
from crane.reproduce import (
    Plan,
    Planner,
    estimate,
    expand,
    read_recipe,
    read_results,
    readme,
    suites,
)
from crane.reproduce.resources import Resources

pytestmark = pytest.mark.long

EXPERIMENTS = Path(__file__).resolve().parents[3] / "experiments"
FOLDERS = sorted(
    path.parent
    for path in EXPERIMENTS.glob("*/recipe.yaml")
    if path.parent.name != "mini_pretraining"  # a recipe of another kind
)
BLOCKS = {"ViT-B-16": 12, "ViT-H-14": 32}
"""Vision blocks of the backbones that do not have 24."""
each_recipe = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


@pytest.fixture(scope="module")
def plan_of(tmp_path_factory):
    """The plan of a recipe in a suite; composed configurations are shared by all."""
    empty = str(tmp_path_factory.mktemp("data"))
    places = {"datasets_dir": empty, "weights_dir": empty, "allow_download": False}
    planner = Planner(places, Path("none"))
    # Embedded domains would be drawn to be counted.
    planner.resources = _WithoutDrawing(empty, allow_download=False)

    @cache
    def plan(folder: Path, name: str) -> Plan:
        return planner.plan({folder.name: expand(read_recipe(folder), suites()[name])})

    return plan


class _WithoutDrawing(Resources):
    def data_set(self, name, node, *, strict):
        if name.startswith("embedded_"):
            node = OmegaConf.create({**compose("train").source.mvtec, "folders": ["none"]})
        return super().data_set(name, node, strict=strict)


def test_every_recipe_is_listed_and_has_results_and_a_page():
    listed = (EXPERIMENTS / "README.md").read_text()
    for folder in FOLDERS:
        assert f"]({folder.name})" in listed
        results = read_results(read_recipe(folder))
        assert [one.suite.name for one in results] == list(suites())
        assert readme(read_recipe(folder), results) == (folder / "README.md").read_text()


def test_the_page_of_costs_is_what_its_command_writes(plan_of):
    from benchmarks.cost import PAGE, page

    plan = plan_of(EXPERIMENTS / "table1_zero_shot", "paper")
    assert page(plan) == PAGE.read_text(), "python -m benchmarks cost"


@pytest.fixture(scope="module")
def built():
    """The configurations that have been built: recipes share rows."""
    return set()


@pytest.mark.parametrize("name", ["paper", pytest.param("mini", marks=pytest.mark.slow)])
@each_recipe
def test_every_row_composes_and_builds(folder, name, plan_of, built):
    plan = plan_of(folder, name)
    settings = {run.setting for run in (*plan.distinct_tests, *plan.trainings)}
    for setting in settings:
        key = json.dumps([name, model_config(setting.config)], default=str)
        if key not in built:
            config = setting.config.copy()
            build_model(narrow(config) if name == "paper" else config)
            built.add(key)
    for training in plan.trainings:
        build(training.setting.config.loss, "loss")
        build(training.setting.config.optimizer, "optimizer")
    rows: dict[object, set[str]] = {}
    for (_, cell), test in plan.tests.items():
        training = test.training and test.training.setting.name
        rows.setdefault((test.setting.name, training, test.checkpoint), set()).add(cell.row)
    assert all(len(alike) == 1 for alike in rows.values()), "two rows are one setting"


@cache
def tiny_guide() -> DictConfig:
    return compose("train", ["guide=tiny"]).guide.features


def narrow(config: DictConfig) -> DictConfig:
    """The same configuration on a backbone of as many blocks, of patches as large and next to no
    width, and with a small guide."""
    blocks = BLOCKS.get(config.backbone.model.architecture, 24)
    patch = get_model_config(config.backbone.model.architecture)["vision_cfg"]["patch_size"]
    config.backbone.model.architecture = {
        "embed_dim": 8,
        "vision_cfg": {
            **{"image_size": 2 * patch, "patch_size": patch, "layers": blocks},
            **{"width": 8, "head_width": 8},
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 8,
            "heads": 1,
            "layers": 9,
        },
    }
    config.backbone.model.weights = "random"
    if config.guide.features is not None:
        config.guide.features = tiny_guide()
    return config


@each_recipe
def test_stated_costs_are_those_of_the_plan(folder, plan_of):
    plan, recipe = plan_of(folder, "paper"), read_recipe(folder)
    cost = estimate(plan.trainings, plan.distinct_tests, suites()["paper"], "gpu")
    assert recipe.cost.images == cost.num_images
    assert recipe.cost.gpu_hours == pytest.approx(cost.seconds / 3600, abs=0.05)


def test_one_training_serves_rows_that_differ_in_testing(plan_of):
    plan = plan_of(EXPERIMENTS / "ablation_prompts", "paper")
    assert (len(plan.trainings), len(plan.distinct_tests)) == (5, 9 * 4)
    table = plan_of(EXPERIMENTS / "table1_zero_shot", "paper")
    rows = read_recipe(EXPERIMENTS / "table1_zero_shot").rows
    num_trained = len([row for row in rows if row.trains and not row.checkpoint])
    assert len(table.trainings) == 2 * num_trained, "one for each source"
    assert len(table.distinct_tests) == 14 * len(rows)


@each_recipe
def test_metrics_are_measured(folder, plan_of):
    test = plan_of(folder, "paper").distinct_tests[0]
    metrics = plain(test.setting.config.metrics)
    known = {*metrics["image_measures"], *metrics["pixel_measures"]}
    assert set(read_recipe(folder).metrics) <= known

"""Every option of every group composes with every command that has the group."""

import pytest
from omegaconf import OmegaConf

from compositions import composed, compositions, places
from crane.cli.main import COMMANDS
from crane.cli.validation import groups, options
from crane.config import compose, conf_dir, plain


def test_the_commands_have_the_groups_they_need():
    model = {"method", "backbone", "guide", "attention", "prompt", "scoring"}
    run = {"data", "metrics", "trainer", "logger", "dataset@targets"}
    assert {"optimizer", "loss", "dataset@source", *model, *run} <= {*places("train")}
    assert model | run <= {*places("test")}
    assert model | {"overlay"} <= {*places("predict")}
    assert model <= {*places("weights")}
    assert {*places("demo")} == {*places("train")}
    used = {place.partition("@")[0] for command in COMMANDS for place in places(command)}
    assert used == {*groups()}


@pytest.mark.parametrize(
    ("command", "row"),
    [
        pytest.param(*one, marks=pytest.mark.long if one[0] == "demo" else ())  # train's groups
        for one in compositions()
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_option_composes(command, row):
    config = composed(command, row).copy()
    for place in places(command):
        node = place.partition("@")[2]
        for data_set in config[node].values() if node else ():
            if OmegaConf.is_missing(data_set, "root"):
                data_set.root = "/data"  # the user's to give
    assert plain(config)["run_dir"] == "."
    for choice in row:
        place, _, _ = choice.partition("=")
        if "@" in place:
            every = options(conf_dir() / "dataset")
            assert list(config[place.partition("@")[2]]) == (
                [] if choice.endswith("=[]") else every
            )


@pytest.mark.parametrize("method", ["crane", "crane_plus"])
def test_a_method_chooses_unless_the_command_line_does(method):
    own = compose("train", [f"method={method}"])
    is_plus = method == "crane_plus"
    assert own.method.name == ("Crane+" if is_plus else "Crane")
    assert (own.guide.features is not None) == is_plus
    assert own.loss.local_copies == (1 if is_plus else 4)
    wanted = "softmax_of_mean_logits" if is_plus else "mean_of_softmax_maps"
    assert own.scoring.aggregate._target_ == f"crane.scoring.{wanted}"
    typed = compose("train", [f"method={method}", "scoring=mean_of_softmax", "guide=tiny"])
    assert typed.scoring.aggregate._target_ == "crane.scoring.mean_of_softmax_maps"
    assert typed.guide.features.architecture == "vit_tiny_patch16_224"


def test_published_values_stand_at_their_keys():
    config = compose("train")
    published = {
        "seed": 111,
        "image_size": 518,
        "attention.num_blocks": 19,
        "prompt.num_words": 12,
        "prompt.num_deep": 4,
        "prompt.depth": 9,
        "prompt.context_in_training": 1.0,
        "prompt.context_in_testing": False,
        "scoring.temperature": 0.07,
        "scoring.fusion_weight": 0.5,
        "scoring.blur_sigma": 4.0,
        "loss.focal_weight": 2.0,
        "loss.dice_weight": 2.0,
        "loss.image_weight": 0.2,
        "loss.image_temperature": 0.01,
        "optimizer.lr": 1e-3,
        "optimizer.betas": [0.6, 0.999],
        "trainer.max_epochs": 5,
        "trainer.precision": "32-true",
        "data.batch_size": 8,
        "epoch": "last",
    }
    assert {key: OmegaConf.select(config, key) for key in published} == published
    plus = compose("train", ["method=crane_plus"]).guide.attention
    assert (plus.beta, plus.gamma, plus.mean) == (1.2, 3.0, "image")

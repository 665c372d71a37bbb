import logging
from itertools import pairwise

import pytest
import torch
from hydra.utils import instantiate

from crane.config import compose
from crane.errors import UsageError
from crane.methods import build_model, model_config, read_checkpoint
from crane.training import CraneModule


def module(*overrides, seed=111):
    config = compose("train", ["backbone=tiny", "image_size=56", *overrides])
    return CraneModule(
        build_model(config),
        instantiate(config.loss),
        instantiate(config.optimizer, _convert_="all"),
        instantiate(config.metrics),
        seed=seed,
        config=model_config(config),
    )


def draws(made, num_steps, monkeypatch):
    steps = iter(range(num_steps))
    monkeypatch.setattr(CraneModule, "global_step", property(lambda self: next(steps)))
    return [made.model.uses_context(made._generator()) for _ in range(num_steps)]


@pytest.mark.parametrize("probability", [0.0, 0.25, 0.8, 1.0])
def test_context_is_used_as_often_as_asked(probability, monkeypatch):
    made = module(f"prompt.context_in_training={probability}")
    used = draws(made, 2000, monkeypatch)
    spread = (probability * (1 - probability) / 2000) ** 0.5
    assert abs(sum(used) / 2000 - probability) <= 4 * spread


def test_whether_context_is_used_follows_from_seed_and_step_alone(monkeypatch):
    made = module("prompt.context_in_training=0.5")
    first = draws(made, 64, monkeypatch)
    torch.manual_seed(12345)
    torch.rand(7)
    state = torch.get_rng_state()
    assert draws(made, 64, monkeypatch) == first
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    assert draws(module("prompt.context_in_training=0.5", seed=112), 64, monkeypatch) != first
    # Neighbouring steps and seeds decide independently of each other.
    assert 16 < sum(a == b for a, b in pairwise(first)) < 48


def test_only_prompts_are_trained():
    made = module("guide=tiny")
    optimizer = made.configure_optimizers()
    optimized = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert optimized == {id(p) for p in made.model.prompts.parameters()}
    trainable = {name for name, p in made.named_parameters() if p.requires_grad}
    assert all(name.startswith("model.prompts.") for name in trainable)
    made.train()
    assert not made.model.vision.training


def test_a_module_that_only_tests_cannot_train():
    config = compose("train", ["backbone=tiny"])
    made = CraneModule(
        build_model(config), None, None, instantiate(config.metrics), seed=1, config={}
    )
    with pytest.raises(UsageError, match="training needs an optimizer"):
        made.configure_optimizers()
    with pytest.raises(UsageError, match="training needs a loss"):
        made.training_step({}, 0)


def test_without_masks_only_the_image_loss_trains(trained, logged, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        trained("run", "test=false", source="plain")
    assert "the source has no masks: the focal and Dice losses are off" in caplog.text
    folder = tmp_path / "run"
    assert set(logged(folder, "train/focal").values()) == {0.0}
    assert set(logged(folder, "train/dice").values()) == {0.0}
    image, loss = logged(folder, "train/image"), logged(folder, "train/loss")
    assert loss == pytest.approx({step: 0.2 * value for step, value in image.items()})
    prompts = read_checkpoint(folder / "prompts" / "epoch_1.safetensors").prompts
    assert all(torch.isfinite(value).all() for value in prompts.values())


def test_a_loss_of_masks_alone_refuses_a_source_without(trained):
    with pytest.raises(UsageError, match="the source has no masks, and this loss has no term"):
        trained("run", "test=false", "method=vand", source="plain")


@pytest.mark.parametrize("method", ["vand", "adaclip", "anomalyclip"])
def test_a_batch_without_masks_has_gradients(method):
    """Of 0 in losses of pixels, so that a step after it, or of another process, goes on."""
    made = module(f"method={method}")
    features = made.model.encode(torch.rand(2, 3, 56, 56))
    truth = {
        "mask": torch.zeros(2, 56, 56, dtype=torch.int32),
        "has_mask": torch.tensor([False, False]),
        "label": torch.tensor([0, 1]),
        "class_id": torch.tensor([0, 0]),
    }
    text = made.model.training_text(["bolt"])
    losses = made.model.losses(made.loss, features, text, truth, torch.Generator())
    losses.total.backward()
    assert (losses.focal, losses.dice, losses.dice_normal) == (0.0, 0.0, 0.0)
    for name, parameter in made.model.trained.named_parameters():
        assert (parameter.grad is None) != parameter.requires_grad, name


def test_with_masks_nothing_is_warned_of(trained, logged, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        trained("run", "test=false")
    assert "losses are off" not in caplog.text
    assert min(logged(tmp_path / "run", "train/dice").values()) > 0


def test_the_loss_is_the_weighted_sum_of_its_parts(trained, logged, tmp_path):
    trained("run", "test=false", "guide=tiny")
    read = {k: logged(tmp_path / "run", f"train/{k}") for k in ("loss", "focal", "dice", "image")}
    for step, loss in read["loss"].items():
        parts = read["focal"][step] + read["dice"][step] + 0.2 * read["image"][step]
        assert loss == pytest.approx(parts, rel=1e-5)


def test_a_last_batch_of_one_image_trains(trained, logged, tmp_path):
    trained("run", "test=false", "data.batch_size=11", "prompt.context_in_training=0.5")
    losses = logged(tmp_path / "run", "train/loss")
    assert sorted(losses) == [0, 1]
    assert all(0 < loss < 100 for loss in losses.values())


def test_training_lowers_the_loss(trained, logged, tmp_path):
    trained("run", "test=false", "trainer.max_epochs=6", "data.batch_size=12")
    losses = logged(tmp_path / "run", "train/loss")
    assert losses[5] < 0.95 * losses[0]

"""An epoch is chosen on the held-out part of the source; targets are not looked at."""

from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

from crane.config import compose
from crane.methods import read_checkpoint

CHOSEN = ("data.validation_fraction=0.34", "epoch=best", "trainer.max_epochs=2")


@pytest.mark.long
def test_nothing_of_a_target_is_read_before_the_choice_is_made(trained, data_sets, tmp_path):
    broken = tmp_path / "broken"
    for image in (data_sets / "gamma").rglob("*.png"):
        copy = broken / image.relative_to(data_sets / "gamma")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(b"not an image")
    sound = trained("sound", *CHOSEN, "test=false")
    blind = trained("blind", *CHOSEN, "test=false", f"targets.gamma.root={broken}")
    one, other = read_checkpoint(sound.checkpoint), read_checkpoint(blind.checkpoint)
    assert sound.checkpoint.name == blind.checkpoint.name
    assert one.info == other.info
    assert all(torch.equal(one.prompts[name], other.prompts[name]) for name in one.prompts)


def test_held_out_images_are_the_sources_and_not_trained_on(tiny, use):
    overrides = [*tiny, *CHOSEN, *use("source", "alpha"), *use("targets", "gamma")]
    data = instantiate(compose("train", overrides).data)
    samples = data.source["alpha"].samples
    held = {i for batch in data.val_dataloader()[0] for i in batch["index"].tolist()}
    learned = {i for batch in data.train_dataloader() for i in batch["index"].tolist()}
    assert held
    assert held | learned == set(range(len(samples)))
    assert not held & learned
    assert len({(samples[i].class_name, samples[i].label) for i in held}) == 4


def test_best_is_what_validation_says(trained, logged, tmp_path):
    summary = trained("run", *CHOSEN, "trainer.max_epochs=3", "optimizer.lr=0.05", "test=false")
    values = logged(tmp_path / "run", "val/mean", by="epoch")
    best = 1 + max(values, key=lambda epoch: (values[epoch], -epoch))
    assert summary.checkpoint == Path(tmp_path / "run" / "prompts" / f"epoch_{best}.safetensors")
    kept = [
        read_checkpoint(summary.checkpoint.with_name(f"epoch_{n}.safetensors")).info["validation"]
        for n in (1, 2, 3)
    ]
    assert [info["val/mean"] for info in kept] == [values[epoch] for epoch in (0, 1, 2)]
    for info in kept:
        mean = (info["val/image_auroc"] + info["val/aupro"]) / 2
        assert abs(info["val/mean"] - mean) < 1e-6

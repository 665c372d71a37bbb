import math
from unittest.mock import Mock

import pytest
import torch
from lightning import LightningModule, Trainer
from PIL import Image

from crane.config import compose
from crane.data import Index
from crane.errors import UsageError
from crane.gate import build
from crane.pictures import Gallery
from crane.training import CraneModule, KeepPrompts, WriteTestResults, callbacks
from crane.types import HostCopy, Sample


@pytest.fixture
def keep(tmp_path):
    return KeepPrompts(tmp_path, "val/mean", {})


def test_last_and_numbered_epochs(keep, tmp_path):
    assert keep.choose("last", last=5) == tmp_path / "epoch_5.safetensors"
    assert keep.choose(2, last=5) == tmp_path / "epoch_2.safetensors"


def test_best_is_the_earliest_of_the_highest(keep, tmp_path):
    keep.values = {1: 0.5, 2: math.nan, 3: 0.7, 4: 0.7, 5: 0.6}
    assert keep.choose("best", last=5) == tmp_path / "epoch_3.safetensors"


def test_best_without_a_value_is_refused(keep):
    keep.values = {1: math.nan}
    with pytest.raises(UsageError, match=r"needs a value of val/mean, which no epoch has"):
        keep.choose("best", last=1)


def test_a_training_without_a_whole_epoch_has_no_prompts(keep):
    with pytest.raises(UsageError, match=r"no epoch was completed.*trainer\.limit_train_batches"):
        keep.choose("last", last=0)


@pytest.mark.parametrize("epoch", ["last", 1, 5])
def test_choices_that_can_be_met(keep, epoch):
    keep.check_choice(epoch, 5, num_validation=0)


def test_best_needs_images_held_out(keep):
    keep.check_choice("best", 5, num_validation=3)
    with pytest.raises(UsageError, match=r"epoch=best needs .*; set data\.validation_fraction"):
        keep.check_choice("best", 5, num_validation=0)


@pytest.mark.parametrize("epoch", [0, 6, -1, "first", "5"])
def test_choices_that_cannot_be_met(keep, epoch):
    with pytest.raises(UsageError, match="epoch must be last, best or a number from 1 to 5"):
        keep.check_choice(epoch, 5, num_validation=3)


def test_a_resumed_choice_knows_earlier_epochs(keep, tmp_path):
    keep.values = {1: 0.9, 2: 0.1}
    resumed = KeepPrompts(tmp_path / "new", "val/mean", {})
    resumed.load_state_dict(keep.state_dict())
    resumed.values[3] = 0.5
    assert resumed.choose("best", last=3).name == "epoch_1.safetensors"
    assert keep.values == {1: 0.9, 2: 0.1}


def test_every_epoch_is_kept_with_where_it_came_from(trained, tmp_path):
    from crane.methods import read_checkpoint

    summary = trained("run", "trainer.max_epochs=2", "data.validation_fraction=0.34", "test=false")
    assert summary.checkpoint == tmp_path / "run" / "prompts" / "epoch_2.safetensors"
    first, second = (
        read_checkpoint(tmp_path / "run" / "prompts" / f"epoch_{number}.safetensors")
        for number in (1, 2)
    )
    assert not (first.prompts["deep"] == second.prompts["deep"]).all()
    assert (first.info["epoch"], second.info["epoch"]) == (1, 2)
    assert second.info["step"] == 2 * first.info["step"] == 4
    assert len(second.info["sources"]["source.alpha"]) == 64
    assert 0 <= second.info["validation"]["val/mean"] <= 1


def test_a_misspelt_monitor_ends_the_first_epoch_not_the_last(trained):
    with pytest.raises(UsageError, match=r"monitor: unknown .* 'val/aupr'; did you mean val/aupro"):
        trained("run", "monitor=val/aupr", "data.validation_fraction=0.34", "trainer.max_epochs=9")


def make_batch(indices):
    num = len(indices)
    truth = {"index": torch.tensor(indices), "has_mask": torch.tensor([True] * num)}
    outputs = {"score": torch.tensor([0.1 * i for i in indices]), "map": torch.rand(num, 8, 8)}
    return outputs, {**truth, "mask": torch.zeros(num, 8, 8, dtype=torch.int32)}


@pytest.fixture
def parts(tmp_path):
    """A data set of six images, three of them anomalous."""
    samples = []
    for number in range(6):
        path = tmp_path / "data" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (9 * number, 0, 0)).save(path)
        samples.append(Sample(path, number % 2, "nut", "bent" if number % 2 else "good"))
    return Index("parts", tmp_path, tuple(samples), mask_threshold=0)


def test_one_copy_a_batch_and_one_look_at_each_image(parts, tmp_path, monkeypatch):
    options = build(compose("train", []).overlay, "overlay")
    write = WriteTestResults(tmp_path / "run", {"parts": parts}, options)
    copies, seen = [], []
    monkeypatch.setattr(callbacks, "HostCopy", lambda *t: copies.append(t) or HostCopy(*t))
    monkeypatch.setattr(
        Gallery, "add", lambda _, sample, score, *__: seen.append((sample.image.stem, score))
    )
    trainer, module = Mock(spec=Trainer, is_global_zero=True), Mock(spec=LightningModule)
    for number, indices in enumerate(([4, 2, 0], [1, 3], [5])):
        write.on_test_batch_end(trainer, module, *make_batch(indices), number)
        assert len(seen) == [0, 3, 5][number], "a batch is looked at when the next has been started"
    write.on_test_epoch_end(trainer, module)
    assert len(copies) == 3
    assert [name for name, _ in seen] == ["4", "2", "0", "1", "3", "5"]
    assert [score for _, score in seen] == pytest.approx([0.4, 0.2, 0.0, 0.1, 0.3, 0.5])


def test_numbers_are_written_before_pictures(trained, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no picture can be drawn")

    monkeypatch.setattr(Gallery, "write", broken)
    with pytest.raises(RuntimeError, match="no picture can be drawn"):
        trained("run")
    for name in ("results.csv", "results.json", "curves.json", "scores.csv"):
        assert (tmp_path / "run" / name).is_file()


def test_results_are_written_before_anything_else(trained, tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("no curve can be computed")

    monkeypatch.setattr(CraneModule, "curves", broken)
    with pytest.raises(RuntimeError, match="no curve"):
        trained("run")
    assert (tmp_path / "run" / "results.csv").is_file()

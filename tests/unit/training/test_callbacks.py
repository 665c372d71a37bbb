import math

import pytest

from crane.errors import UsageError
from crane.training import KeepPrompts


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
    with pytest.raises(UsageError, match=r"val/mean .*change monitor"):
        keep.choose("best", last=1)


def test_a_training_without_a_whole_epoch_has_no_prompts(keep):
    with pytest.raises(UsageError, match=r"change trainer\.limit_train_batches"):
        keep.choose("last", last=0)


@pytest.mark.parametrize("epoch", ["last", 1, 5])
def test_choices_that_can_be_met(keep, epoch):
    keep.check_choice(epoch, 5, num_validation=0)


def test_best_needs_images_held_out(keep):
    keep.check_choice("best", 5, num_validation=3)
    with pytest.raises(UsageError, match=r"change data\.validation_fraction or epoch"):
        keep.check_choice("best", 5, num_validation=0)


@pytest.mark.parametrize("epoch", [0, 6, -1, "first", "5"])
def test_choices_that_cannot_be_met(keep, epoch):
    with pytest.raises(UsageError, match="last, best or an epoch from 1 to 5"):
        keep.check_choice(epoch, 5, num_validation=3)


def test_without_epochs_there_is_nothing_to_choose(keep):
    with pytest.raises(UsageError, match=r"trainer\.max_epochs"):
        keep.check_choice("last", 0, num_validation=3)


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
    with pytest.raises(UsageError, match=r"val/aupro.* but got 'val/aupr' .change monitor"):
        trained("run", "monitor=val/aupr", "data.validation_fraction=0.34", "trainer.max_epochs=9")

import pytest
import torch

from crane.data import ImageDataset
from crane.data.dataset import SourceDataset
from crane.data.loader import auto_num_workers, image_loader
from crane.data.mosaics import TrainingDataset
from crane.data.samplers import EpochSampler, UnevenSampler
from crane.errors import UsageError


def training_loader(index, num_workers=0, batch_size=3):
    source = SourceDataset({"mvtec": index}, 8)
    images = TrainingDataset(
        source, range(len(source)), mosaic_rate=0.5, mosaic_anomalous_rate=0.5, seed=1
    )
    return image_loader(
        images,
        EpochSampler(images, 1, 0, 1),
        batch_size=batch_size,
        num_workers=num_workers,
        seed=1,
        drop_last=False,
        is_kept=True,
    )


def plain_loader(index, num_workers=0):
    return image_loader(
        ImageDataset(index, 8),
        UnevenSampler(len(index.samples), 1, 0),
        batch_size=5,
        num_workers=num_workers,
        seed=1,
        drop_last=False,
        is_kept=False,
    )


def contents(batches):
    return [(batch["index"].tolist(), float(batch["image"].sum())) for batch in batches]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_in_order_with_a_smaller_last_one(mvtec, num_workers):
    loader = plain_loader(mvtec, num_workers)
    assert [len(batch["label"]) for batch in loader] == [5, 5, 5, 1]
    assert [i for indices, _ in contents(loader) for i in indices] == list(range(16))
    assert len(loader) == 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_users_mistake_arrives_as_such(mvtec, num_workers):
    mvtec.samples[7].image.write_bytes(b"no image")
    batches = iter(plain_loader(mvtec, num_workers))
    next(batches)
    with pytest.raises(UsageError, match=r"readable image file.*003\.png"):
        next(batches)


def test_workers_see_the_epoch(mvtec):
    alone, helped = training_loader(mvtec), training_loader(mvtec, num_workers=2)
    epochs = []
    for epoch in range(3):
        alone.sampler.set_epoch(epoch)
        # Lightning makes the iterator first and tells the epoch afterwards.
        batches = iter(helped)
        helped.sampler.set_epoch(epoch)
        epochs.append(contents(batches))
        assert epochs[-1] == contents(alone)
    assert epochs[0] != epochs[1] != epochs[2]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_seen", [0, 2, 6])
def test_continues_after_the_last_batch_handed_out(mvtec, num_workers, num_seen):
    loader = training_loader(mvtec, num_workers)
    loader.sampler.set_epoch(4)
    whole = contents(loader)
    assert len(whole) == 6
    batches = iter(loader)
    seen = contents(next(batches) for _ in range(num_seen))
    state = loader.state_dict() if num_seen else {"epoch": 4, "num_served": 0}
    assert state == {"epoch": 4, "num_served": num_seen}

    resumed = training_loader(mvtec, num_workers)
    resumed.load_state_dict(state)
    batches = iter(resumed)
    resumed.sampler.set_epoch(4)
    assert seen + contents(batches) == whole
    assert contents(resumed) == whole, "only the first pass is a continued one"
    assert resumed.state_dict() == {"epoch": 4, "num_served": 6}


def test_another_epoch_than_the_stored_one_is_whole(mvtec):
    loader = training_loader(mvtec)
    loader.sampler.set_epoch(1)
    whole = contents(loader)
    loader.load_state_dict({"epoch": 0, "num_served": 6})
    assert contents(loader) == whole


def test_this_process_keeps_its_random_state(mvtec):
    torch.manual_seed(0)
    wanted = torch.rand(1)
    torch.manual_seed(0)
    list(plain_loader(mvtec))
    torch.testing.assert_close(torch.rand(1), wanted, rtol=0, atol=0)


def test_automatic_workers_share_the_cores():
    one, many = auto_num_workers(1), auto_num_workers(10_000)
    assert 0 <= many <= one <= 8
    assert many == 0

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from crane.data.dataset import Draw, IndexDataset, SourceDataset, TrainingDataset
from crane.data.loader import (
    EpochSampler,
    UnevenSampler,
    auto_num_workers,
    image_loader,
    world,
)
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
        IndexDataset(index, 8),
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
    with pytest.raises(UsageError, match=r"cannot read image .*003\.png"):
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


def order(num, replicas=1, rank=0, seed=111, epoch=0):
    sampler = EpochSampler(range(num), replicas, rank, seed)
    sampler.set_epoch(epoch)
    draws = list(sampler)
    assert len(draws) == len(sampler)
    assert {draw.epoch for draw in draws} == {epoch}
    return [draw.position for draw in draws]


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(1, 9))
def test_every_image_goes_to_one_process_exactly(num, replicas):
    shares = [list(UnevenSampler(num, replicas, rank)) for rank in range(replicas)]
    assert sorted(i for share in shares for i in share) == list(range(num))
    assert [len(UnevenSampler(num, replicas, r)) for r in range(replicas)] == [
        len(share) for share in shares
    ]


def test_a_process_may_get_nothing():
    assert list(UnevenSampler(2, 3, 2)) == []


def test_training_order_is_fixed_by_seed_and_epoch():
    assert order(20) == order(20)
    assert order(20, epoch=1) != order(20) != order(20, seed=1)
    assert sorted(order(20, epoch=3)) == list(range(20))


@pytest.mark.parametrize("num", [8, 9, 3])
def test_processes_share_the_order_as_torch_does(num):
    shares = [order(num, 4, rank, epoch=2) for rank in range(4)]
    for rank, share in enumerate(shares):
        wanted = DistributedSampler(range(num), 4, rank, shuffle=True, seed=111)
        wanted.set_epoch(2)
        assert share == list(wanted)
    assert {position for share in shares for position in share} == set(range(num))


def test_skipping_continues_the_order():
    sampler = EpochSampler(range(10), 1, 0, 5)
    whole = list(sampler)
    sampler.num_skipped = 4
    assert list(sampler) == whole[4:]
    assert whole[0] == Draw(0, whole[0].position)


def test_world_outside_of_any_process_group():
    assert world() == (1, 0)

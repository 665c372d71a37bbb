import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DistributedSampler

from crane.data.mosaics import Draw
from crane.data.samplers import EpochSampler, UnevenSampler, world


def order(num, replicas=1, rank=0, seed=111, epoch=0):
    sampler = EpochSampler(range(num), replicas, rank, seed)
    sampler.set_epoch(epoch)
    draws = list(sampler)
    assert len(draws) == len(sampler)
    assert {draw.epoch for draw in draws} == {epoch}
    return [draw.position for draw in draws]


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
    assert world(None, None) == (1, 0)
    assert world(4, 3) == (4, 3)

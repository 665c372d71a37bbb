import copy
import pickle

import numpy as np
import pytest
import torch

from crane.data.images import label_regions
from crane.errors import UsageError
from crane.metrics import BinnedPixels, ExactPixels, ScoreScale
from crane.metrics.pixels import Maps

SCALE = ScoreScale(octave_bits=6, linear_bits=8)
EDGES = (3, 9)


def batch(num_images=12, num_classes=3, size=16):
    rng = np.random.default_rng(1)
    masks = rng.random((num_images, size, size)) > 0.8
    masks[::4] = False
    return (
        torch.from_numpy(rng.random((num_images, size, size), dtype=np.float32)),
        torch.from_numpy(np.stack([label_regions(mask) for mask in masks])),
        torch.from_numpy(rng.integers(0, num_classes, num_images)),
    )


def states():
    return BinnedPixels(3, SCALE, EDGES), ExactPixels(3, EDGES)


@pytest.mark.parametrize("which", [0, 1])
def test_counts_are_those_of_each_class(which):
    maps, masks, class_id = batch()
    state = states()[which]
    state.update(maps, masks, class_id)
    for number, counts in enumerate(state.compute()):
        own = masks[class_id == number]
        assert counts.positives.sum() == (own > 0).sum()
        assert counts.negatives.sum() == (own == 0).sum()
        areas = torch.cat([mask.flatten().bincount()[1:] for mask in own])
        sizes = np.bincount(np.digitize(areas, EDGES), minlength=3)
        assert counts.num_regions.tolist() == sizes.tolist()
        np.testing.assert_allclose(counts.regions.sum(axis=1), sizes)
        assert (np.diff(counts.lower) < 0).all()
        assert (counts.lower <= counts.upper).all()


@pytest.mark.parametrize("which", [0, 1])
def test_images_without_masks_are_left_out(which):
    maps, masks, class_id = batch()
    has_mask = torch.arange(len(maps)) % 3 > 0
    one, two = states()[which], states()[which]
    one.update(maps, masks, class_id, has_mask)
    two.update(maps[has_mask], masks[has_mask], class_id[has_mask])
    for left, right in zip(one.compute(), two.compute(), strict=True):
        for a, b in zip(left[:-1], right[:-1], strict=True):
            np.testing.assert_array_equal(a, b)


def test_the_way_of_an_accelerator_counts_the_same():
    maps, masks, class_id = batch()
    has_mask = torch.arange(len(maps)) % 3 > 0
    one, two = states()[0], states()[0]
    one.update(maps, masks, class_id, has_mask)
    ends = torch.zeros(len(maps))
    two._count_batch(Maps(maps, masks, class_id, has_mask, ends, ends))
    for name in ("total", "positives", "regions", "num_regions"):
        torch.testing.assert_close(getattr(one, name), getattr(two, name), rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_counts_the_same_and_refuses_broken_maps_at_compute():
    maps, masks, class_id = batch()
    has_mask = torch.arange(len(maps)) % 3 > 0
    one, two = states()[0], states()[0].cuda()
    one.update(maps, masks, class_id, has_mask)
    two.update(maps.cuda(), masks.cuda(), class_id.cuda(), has_mask.cuda())
    for name in one._defaults:
        torch.testing.assert_close(getattr(one, name), getattr(two, name).cpu(), rtol=1e-12, atol=0)
    maps[5, 0, 0] = torch.nan
    two.update(maps.cuda(), masks.cuda(), class_id.cuda())
    with pytest.raises(UsageError, match="image 5"):
        two.compute()


def test_the_state_does_not_grow():
    state = states()[0]
    state.update(*batch(4))
    before = [getattr(state, name).numel() for name in state._defaults]
    state.update(*batch(40))
    assert [getattr(state, name).numel() for name in state._defaults] == before


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_not_finite_maps_name_the_image(which, value):
    maps, masks, class_id = batch()
    maps[3, 2, 2] = value
    state = states()[which]
    state.names = [f"{i}.png" for i in range(200)]
    with pytest.raises(UsageError, match=r"map of image 103 \(103.png\)"):
        state.update(maps, masks, class_id, index=torch.arange(100, 112))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float32])
def test_masks_of_zero_and_one_count_as_their_regions(which, kind):
    maps, masks, class_id = batch()
    one, two = states()[which], states()[which]
    one.update(maps, masks, class_id, labelled=True)
    two.update(maps, (masks > 0).to(kind), class_id)
    for left, right in zip(one.compute(), two.compute(), strict=True):
        for a, b in zip(left[:-1], right[:-1], strict=True):
            np.testing.assert_array_equal(a, b)


def test_unknown_classes_are_refused():
    maps, masks, class_id = batch()
    with pytest.raises(UsageError, match="class ids must be from 0 to 2"):
        states()[0].update(maps, masks, class_id + 3)
    with pytest.raises(UsageError, match=r"^num_classes must be an integer of at least 1, not 0$"):
        ExactPixels(0)


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ((5, 5), r"metrics\.pixels\.size_edges must increase, but are \[5, 5\]"),
        ((9, 3), r"metrics\.pixels\.size_edges must increase, but are \[9, 3\]"),
        ((0, 5), "size_edges must be a list, each entry an integer of at least 1"),
        ((-1,), "size_edges must be a list, each entry an integer of at least 1"),
    ],
)
def test_edges_must_be_increasing_areas(edges, message):
    for build in (BinnedPixels, ExactPixels):
        scale = {"scale": SCALE} if build is BinnedPixels else {}
        with pytest.raises(UsageError, match=message):
            build(1, size_edges=edges, **scale)


@pytest.mark.parametrize("which", [0, 1])
def test_any_integers_will_do(which):
    maps, masks, class_id = batch()
    one, two = states()[which], states()[which]
    one.update(maps, masks, class_id, index=torch.arange(12))
    two.update(maps, masks.to(torch.uint8), class_id.int(), index=torch.arange(12).int())
    for left, right in zip(one.compute(), two.compute(), strict=True):
        for a, b in zip(left[:-1], right[:-1], strict=True):
            np.testing.assert_array_equal(a, b)


def test_an_empty_batch_changes_nothing():
    state = states()[0]
    maps, masks, class_id = batch()
    state.update(maps[:0], masks[:0], class_id[:0])
    assert state.total.sum() == 0


def test_copies_and_reset():
    state = states()[0]
    state.update(*batch())
    total = state.total.clone()
    for twin in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        assert torch.equal(twin.total, total)
    state.reset()
    assert state.total.sum() == 0
    assert state.lowest.isinf().all()
    state.update(*batch())
    assert torch.equal(state.total, total)
    assert not state.state_dict()

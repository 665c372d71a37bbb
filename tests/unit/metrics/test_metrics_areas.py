import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crane.data.images import label_regions
from crane.errors import UsageError
from crane.metrics import quantile_edges
from crane.metrics.region import anomalous_pixels, pixel_areas


@settings(deadline=None, max_examples=40)
@given(arrays(bool, (2, 5, 7), elements=st.booleans()))
def test_pixels_know_the_area_of_their_region(masks):
    labelled = np.stack([label_regions(mask) for mask in masks])
    wanted = np.stack([[(one == r).sum() * (r > 0) for r in one.flat] for one in labelled])
    areas = pixel_areas(torch.from_numpy(labelled)).flatten(1)
    assert areas.tolist() == wanted.tolist()
    for one, own in zip(labelled, areas, strict=True):
        where, area = anomalous_pixels(torch.from_numpy(one))
        assert where.tolist() == np.flatnonzero(one).tolist()
        assert area.tolist() == own[where].tolist()


def test_quantile_edges_split_evenly_and_merge_equal_areas():
    areas = np.arange(1, 101)
    edges = quantile_edges(areas, 4)
    assert np.bincount(np.digitize(areas, edges)).tolist() == [25, 25, 25, 25]
    assert quantile_edges([5, 5, 5, 5, 9], 4) == ()
    assert quantile_edges([3, 4], 1) == ()


@pytest.mark.parametrize(
    ("areas", "num_bins", "message"),
    [([], 2, "at least one region"), ([1], 0, "num_bins must be an integer of at least 1")],
)
def test_quantile_edges_need_areas_and_bins(areas, num_bins, message):
    with pytest.raises(UsageError, match=message):
        quantile_edges(areas, num_bins)

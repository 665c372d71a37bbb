import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from crane.data.regions import label_regions
from reference.aupro import regions


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.booleans()))
def test_regions_are_those_of_a_flood_fill(mask):
    labelled = label_regions(mask)
    assert labelled.dtype == np.int32
    found = {
        frozenset(map(tuple, np.argwhere(labelled == r))) for r in range(1, labelled.max() + 1)
    }
    assert found == {frozenset(region) for region in regions(mask)}


def test_diagonal_neighbours_are_one_region_across_borders_are_not():
    mask = np.eye(4, dtype=bool)
    mask[0, 3] = True  # touches the border, far from the diagonal
    labelled = label_regions(mask)
    assert labelled.max() == 2
    assert len(set(labelled[np.eye(4, dtype=bool)])) == 1

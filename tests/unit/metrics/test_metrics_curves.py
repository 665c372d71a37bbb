import numpy as np
import pytest
from sklearn import metrics as sklearn

from crane.metrics import group_scores, pr_curve, pro_curve, roc_curve


@pytest.fixture
def scores():
    rng = np.random.default_rng(0)
    labels = rng.random(400) > 0.7
    return np.round(rng.normal(labels, 1), 1), labels


def test_curves_are_those_of_scikit_learn(scores):
    counts, _ = group_scores(*scores, unit="image")
    fpr, recall, thresholds = sklearn.roc_curve(scores[1], scores[0], drop_intermediate=False)
    roc = roc_curve(counts)
    for ours, theirs in ((roc.x, fpr), (roc.y, recall), (roc.threshold, thresholds)):
        np.testing.assert_allclose(ours, theirs)
    precision, recall, _ = sklearn.precision_recall_curve(scores[1], scores[0])
    np.testing.assert_allclose(pr_curve(counts).x, recall[::-1])
    np.testing.assert_allclose(pr_curve(counts).y, precision[::-1])


def test_a_curve_that_is_not_defined_has_no_points():
    counts, _ = group_scores(np.array([0.5]), np.array([True]), unit="image")
    for curve in (roc_curve, pr_curve, pro_curve):
        assert [len(axis) for axis in curve(counts)[2:]] == [0, 0, 0]


def test_thinning_keeps_the_ends_and_the_shape(scores):
    counts, _ = group_scores(np.linspace(0, 1, 400), scores[1], unit="image")
    curve = roc_curve(counts)
    thin = curve.thinned(50)
    assert 40 < len(thin.x) <= 51
    assert (thin.x[0], thin.y[0], thin.x[-1], thin.y[-1]) == (0, 0, 1, 1)
    assert np.abs(np.interp(curve.x, thin.x, thin.y) - curve.y).max() < 0.06
    assert curve.thinned(401) is curve

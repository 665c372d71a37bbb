import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from crane.metrics import auroc, average_precision, f1_max, group_scores, iou_max

scored = st.lists(
    st.tuples(
        st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32)), st.booleans()
    ),
    min_size=2,
    max_size=60,
)


def counts_of(pairs):
    scores, labels = np.array([s for s, _ in pairs]), np.array([a for _, a in pairs])
    return group_scores(scores, labels, unit="image")[0], scores, labels


@settings(deadline=None, max_examples=40)
@given(scored)
def test_agrees_with_scikit_learn(pairs):
    counts, scores, labels = counts_of(pairs)
    assume(labels.any() and not labels.all())
    precision, recall, thresholds = sklearn.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert auroc(counts).value == pytest.approx(sklearn.roc_auc_score(labels, scores), abs=1e-12)
    ap = sklearn.average_precision_score(labels, scores)
    assert average_precision(counts).value == pytest.approx(ap, abs=1e-12)
    found = f1_max(counts)
    assert found.value == pytest.approx(f1.max(), abs=1e-12)
    assert sklearn.f1_score(labels, scores >= found.threshold) == pytest.approx(f1.max(), abs=1e-12)
    iou = max(sklearn.jaccard_score(labels, scores >= t) for t in thresholds)
    assert iou_max(counts).value == pytest.approx(iou, abs=1e-12)


@given(scored)
def test_groups_of_one_score_leave_no_room_for_error(pairs):
    counts, _, labels = counts_of(pairs)
    assume(labels.any() and not labels.all())
    assert all(
        measure(counts).error == 0 for measure in (auroc, average_precision, f1_max, iou_max)
    )


@pytest.mark.parametrize("measure", [auroc, average_precision, f1_max, iou_max])
@pytest.mark.parametrize(
    ("labels", "reason"),
    [([], "no image"), ([True, True], "no normal image"), ([False], "no anomalous image")],
)
def test_one_label_gives_nan_and_the_reason(measure, labels, reason):
    scores = np.linspace(0, 1, len(labels))
    counts, _ = group_scores(scores, np.array(labels, dtype=bool), unit="image")
    value = measure(counts)
    assert math.isnan(value.value)
    assert math.isnan(value.error)
    assert value.reason == reason

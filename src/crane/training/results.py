"""From what the metrics say to what is reported."""

from collections import Counter

from crane.data import Index
from crane.metrics import Results
from crane.runs import DatasetResult
from crane.types import ANOMALOUS, NORMAL


def dataset_result(name: str, index: Index, results: Results) -> DatasetResult:
    """One target's results with its class names and counts.

    Args:
        name: The target's name.
        index: Its images.
        results: What its metrics came to, classes in the order of `index.class_names`.
    """
    counts = Counter((sample.class_name, sample.label) for sample in index.samples)
    names = index.class_names
    return DatasetResult.from_metrics(
        name,
        names,
        results,
        num_normal=[counts[n, NORMAL] for n in names],
        num_anomalous=[counts[n, ANOMALOUS] for n in names],
    )

"""Exported files give what PyTorch gives, whatever runs them."""

import numpy as np
import pytest

from crane.errors import UsageError
from crane.prediction import Threshold
from crane.prediction.exporting import Exported
from exports import tiny_detector

RNG = np.random.default_rng(3)
SHAPES = [(1, 70, 110, 3), (3, 30, 20, 3), (2, 56, 56, 3), (1, 1, 1, 3), (1, 300, 7, 3)]
METHODS = {
    "crane": ["prompt.context_in_testing=true", "prompt.depth=2"],
    "crane_plus": ["guide=tiny", "prompt.depth=2"],
    "anomalyclip": ["prompt.depth=2"],
    **dict.fromkeys(("vand", "winclip", "clip"), ()),
}


@pytest.fixture(scope="module")
def detector():
    found = tiny_detector("crane", "prompt.depth=2")
    found.threshold = Threshold(0.3, pixel_value=0.2)
    return found


def agree(detector, path, shapes, *, within):
    """The file's outputs equal PyTorch's for batches of images of several sizes."""
    exported = Exported(path)
    for shape in shapes:
        images = RNG.integers(0, 256, shape, dtype=np.uint8)
        score, map, *decided = exported(images)
        results = detector.predict(images)
        np.testing.assert_allclose(score, [one.score for one in results], atol=within)
        np.testing.assert_allclose(map, np.stack([one.map for one in results]), atol=within)
        if decided:
            is_anomalous, mask = decided
            for one, verdict, own, known in zip(results, is_anomalous, mask, map, strict=True):
                sure = np.abs(known - one.pixel_threshold) > within
                assert (own == one.mask)[sure].all()
                if abs(one.score - one.threshold.value) > within:
                    assert verdict == one.is_anomalous


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_the_same_in_onnx_runtime(method, tmp_path):
    detector = tiny_detector(method, *METHODS[method])
    path = detector.export(tmp_path / "model.onnx")
    agree(detector, path, SHAPES[:2], within=1e-5)


@pytest.mark.parametrize(
    ("method", "why", "more"),
    [("adaclip", "k-means", ["method.detector.depth=2"]), ("anovl", "gradient", [])],
)
def test_methods_that_are_not_one_graph_say_why(method, why, more, tmp_path):
    with pytest.raises(UsageError, match=f"cannot be exported: .*{why}"):
        tiny_detector(method, *more).export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "within"), [("m.onnx", 1e-5), ("m.pt2", 1e-5), ("m.xml", 1e-3)])
def test_each_format_gives_the_same_for_every_size(detector, name, within, tmp_path):
    agree(detector, detector.export(tmp_path / name), SHAPES, within=within)

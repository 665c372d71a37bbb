"""`crane_runtime` without PyTorch gives what `crane.load` gives."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

import crane_runtime
from crane.errors import UsageError
from crane.prediction import Threshold
from exports import tiny_detector

pytestmark = pytest.mark.long

SCRIPT = """
import json, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ALLOWED:
            return None
        if path is None and name not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

ALLOWED = {"numpy", "PIL", "onnxruntime", "crane", "crane_runtime", "google", "coloredlogs"}
sys.meta_path.insert(0, Absent())
try:
    import torch
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("torch can be imported")

import numpy as np
import crane_runtime

model = crane_runtime.load(sys.argv[1])
for number, result in enumerate(model.predict(iter(sys.argv[3:]))):
    np.save(f"{sys.argv[2]}/{number}.npy", result.map)
    regions = [[list(one.box), one.area, one.peak] for one in result.regions]
    print(json.dumps([result.score, bool(result.is_anomalous), int(result.mask.sum()), regions]))
"""


@pytest.fixture(scope="module")
def detector():
    found = tiny_detector("crane", "prompt.depth=2")
    found.threshold = Threshold(0.3, pixel_value=0.5)
    return found


@pytest.fixture(scope="module")
def model(detector, tmp_path_factory):
    return detector.export(tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Files of several sizes and modes: RGB, grey, RGBA, palette, 16 bit, turned by EXIF."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(8)
    colour = rng.integers(0, 256, (70, 110, 4), dtype=np.uint8)
    deep = rng.integers(0, 65536, (40, 90), dtype=np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(colour[..., :3]).save(folder / "rgb.png")
    Image.fromarray(colour[..., 0]).save(folder / "grey.png")
    Image.fromarray(colour).save(folder / "alpha.png")
    Image.fromarray(colour[..., :3]).quantize(16).save(folder / "palette.png")
    Image.fromarray(deep).save(folder / "deep.png")
    Image.fromarray(colour[:30, :, :3]).save(folder / "turned.jpg", exif=exif)
    Image.fromarray(colour[:1, :1, :3]).save(folder / "one.png")
    return sorted(folder.iterdir())


@pytest.mark.long
def test_without_pytorch_results_are_the_same(detector, model, photos, tmp_path):
    typed = [sys.executable, "-c", SCRIPT, model, tmp_path, *photos]
    done = subprocess.run(typed, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(photos)
    for number, (photo, row) in enumerate(zip(photos, rows, strict=True)):
        score, is_anomalous, area, regions = row
        wanted = detector.predict(photo)
        map = np.load(tmp_path / f"{number}.npy")
        assert (map.shape, map.dtype) == (wanted.map.shape, np.float32)
        np.testing.assert_allclose(map, wanted.map, atol=1e-4)
        assert score == pytest.approx(wanted.score, abs=1e-4)
        assert is_anomalous == wanted.is_anomalous
        assert area == (map >= wanted.pixel_threshold).sum() == sum(one[1] for one in regions)
        if (np.abs(wanted.map - wanted.pixel_threshold) > 1e-4).all():
            assert [one[:2] for one in regions] == [[[*r.box], r.area] for r in wanted.regions]


@pytest.mark.long
def test_images_in_memory_give_the_same_in_batches_and_alone(detector, model, photos):
    loaded = crane_runtime.load(model, threshold=0.5)
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in photos]
    together = loaded.predict([*pixels, pixels[0], Image.fromarray(pixels[0])], batch_size=2)
    for image, one in zip([*pixels, pixels[0], pixels[0]], together, strict=True):
        alone = loaded(image)
        np.testing.assert_allclose(one.map, alone.map, atol=1e-5)
        assert one.score == pytest.approx(detector.predict(image).score, abs=1e-4)
        assert one.threshold == crane_runtime.Threshold(0.5)
    floats = loaded.predict((pixels[0] / 255).astype(np.float32))
    assert floats.score == pytest.approx(together[0].score, abs=1e-6)


@pytest.mark.long
def test_the_file_says_what_it_is(detector, model):
    facts = crane_runtime.load(model).facts
    assert facts["method"] == "Crane"
    assert (facts["image_size"], facts["precision"]) == ("56", "fp32")
    assert json.loads(facts["threshold"]) == asdict(detector.threshold)
    assert {"crane", "torch", "class_name"} <= set(facts)


@pytest.mark.long
@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 3, 5), np.uint8), r"shape \(H, W, 3\)"),
        (np.full((4, 4), 7.0), "floats from 7 to 7"),
        ("absent.png", "there is no image absent.png"),
        (7, "images must be paths"),
        ([object()], "image 1 must be a path"),
    ],
)
def test_what_is_no_image_is_refused_in_one_sentence(model, images, message):
    with pytest.raises(UsageError, match=message):
        crane_runtime.load(model).predict(images)


def test_what_is_no_model_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(UsageError, match="there is no model file"):
        crane_runtime.load(tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match="cannot be loaded by onnxruntime"):
        crane_runtime.load(tmp_path / "bad.onnx")


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (37, 53)])
def test_regions_equal_those_of_scipy(density, shape):
    from scipy import ndimage

    rng = np.random.default_rng(5)
    map = np.where(rng.random(shape) < density, 0.5 + rng.random(shape) / 2, 0.1)
    map = map.astype(np.float32)
    labels, number = ndimage.label(map >= 0.5, structure=np.ones((3, 3)))
    wanted = set()
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels == label
        box = (columns.start, rows.start, columns.stop, rows.stop)
        wanted.add((box, int(inside.sum()), float(map[inside].max())))
    found = crane_runtime.find_regions(map, 0.5)
    assert {(one.box, one.area, one.peak) for one in found} == wanted
    assert len(found) == number
    assert [one.peak for one in found] == sorted((one.peak for one in found), reverse=True)

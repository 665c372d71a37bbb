"""Exported files give what PyTorch gives, whatever runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import crane_runtime
from crane import load
from crane.config import compose
from crane.data.images import RESIZERS, image_to_tensor
from crane.drawn import embedded_domain
from crane.drawn.scene import render
from crane.errors import UsageError
from crane.prediction import AnomalyDetector, DetectorOptions, Threshold
from crane.prediction.exporting import Exported, differences, resized_like
from exports import tiny_detector

pytestmark = pytest.mark.long

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


@pytest.mark.parametrize("name", ["m.onnx", "m.pt2"])
@pytest.mark.parametrize(("method", "more"), [*METHODS.items(), ("vand", ["guide=tiny"])])
def test_each_method_gives_the_same_in_each_format(method, more, name, tmp_path):
    detector = tiny_detector(method, *more)
    agree(detector, detector.export(tmp_path / name), SHAPES[:2], within=1e-5)


def test_each_method_gives_the_same_in_openvino(tmp_path):
    """In a process of its own: OpenVINO closes the standard error that pytest captures."""
    script = f"""if True:
        from pathlib import Path
        import test_export
        from exports import tiny_detector

        for method, more in test_export.METHODS.items():
            detector = tiny_detector(method, *more)
            path = detector.export(Path({str(tmp_path)!r}) / f"{{method}}.xml")
            test_export.agree(detector, path, test_export.SHAPES[:2], within=1e-3)
            print(method, "agrees")
    """
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])},
    )
    assert done.stdout.splitlines() == [f"{method} agrees" for method in METHODS], done.stderr


@pytest.mark.parametrize(
    ("method", "why", "more"),
    [("adaclip", "k-means", ["method.detector.depth=2"]), ("anovl", "gradient", [])],
)
def test_methods_that_are_not_one_graph_say_why(method, why, more, tmp_path):
    with pytest.raises(UsageError, match=f"cannot be exported: .*{why}"):
        tiny_detector(method, *more).export(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "within"), [("m.onnx", 1e-5), ("m.pt2", 1e-5)])
def test_each_format_gives_the_same_for_every_size(detector, name, within, tmp_path):
    agree(detector, detector.export(tmp_path / name), SHAPES, within=within)


@pytest.mark.parametrize("resizer", RESIZERS)
@pytest.mark.parametrize("shape", [(56, 56), (70, 110), (300, 7), (1, 1), (57, 55)])
def test_the_graph_resizes_as_files_are_resized(resizer, shape):
    image = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    wanted = image_to_tensor(Image.fromarray(image), 56, resizer) * 255
    own = resized_like(resizer, torch.from_numpy(image).permute(2, 0, 1)[None], 56)[0]
    # Torch itself rounds otherwise on processors without AVX2.
    assert (own - wanted).abs().max() < (1.5 if resizer == "torch" else 1e-3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("model.bin", {}, "must end in .onnx, .pt2 or .xml"),
        ("model.pt2", {"precision": "int8"}, "int8 needs format=onnx"),
        ("model.onnx", {"precision": "bf16"}, "precision must be"),
        ("model.onnx", {"size": [480]}, "size must be a list of height and width"),
        ("model.onnx", {"size": [480, 0]}, "size"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_work(
    detector, name, options, message, tmp_path
):
    with pytest.raises(UsageError, match=message):
        detector.export(tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("precision", "within"), [("fp16", 5e-3), ("int8", 0.1)])
def test_lower_precisions_stay_close(precision, within, tmp_path):
    # Random weights and noise leave int8 nothing to keep: drawn photographs, pretrained weights.
    detector, domain = load("mini", device="cpu"), embedded_domain("photos")
    images = [render(domain, one).image for one in domain.pictures()[::40]]
    path = detector.export(tmp_path / "m.onnx", precision=precision)
    found = differences(detector, path, images)
    assert max(found) < within
    assert found.mean_map < within / 10


def test_the_command_writes_a_file_and_compares_it(tmp_path):
    typed = ("export", "checkpoint=mini", "threshold=0.4", "size=[60,80]", "precision=fp16")
    done = subprocess.run(
        [sys.executable, "-m", "crane", *typed, f"run_dir={tmp_path / 'run'}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "scores differ by at most" in done.stdout
    model = crane_runtime.load(tmp_path / "run" / "model.onnx")
    assert model.threshold == crane_runtime.Threshold(0.4)
    assert (model.facts["checkpoint"], model.facts["precision"]) == ("mini", "fp16")
    assert len(model.facts["checkpoint_sha256"]) == 64
    with pytest.raises(UsageError, match="takes images of 60 x 80 pixels"):
        model.predict(np.zeros((50, 80, 3), np.uint8))


def test_the_command_writes_openvino(tmp_path):
    typed = ("export", "checkpoint=mini", "format=openvino", f"run_dir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-m", "crane", *typed], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    score, pixel = re.search(r"at most (\S+), maps by (\S+),", done.stdout).groups()
    assert max(float(score), float(pixel)) < 1e-3


def test_the_command_refuses_a_name_of_another_format(crane):
    outcome = crane("export", "checkpoint=mini", "output=model.onnx", "format=openvino")
    assert outcome.code == 2
    assert "model.onnx must end in .xml for format=openvino" in outcome.err


@pytest.mark.slow
def test_aotinductor_compiles_what_torch_export_wrote(tmp_path):
    detector = tiny_detector("crane", "prompt.depth=2")
    program = torch.export.load(detector.export(tmp_path / "m.pt2", size=[40, 60]))
    package = torch._inductor.aoti_compile_and_package(program, package_path=f"{tmp_path}/aoti.pt2")
    compiled = torch._inductor.aoti_load_package(package)
    images = RNG.integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    found = compiled(torch.from_numpy(images))
    wanted = detector.predict(images)
    np.testing.assert_allclose(found["score"], [one.score for one in wanted], atol=1e-5)
    np.testing.assert_allclose(found["map"], np.stack([one.map for one in wanted]), atol=1e-5)


@pytest.mark.slow
def test_the_full_size_gives_the_same(tmp_path):
    backbone = ["backbone=clip_vit_l14_336", "backbone.model.weights=random"]
    options = DetectorOptions(torch.device("cpu"), "32-true", "none")
    config = compose("predict", [*backbone, "method=crane", "input=none"])
    detector = AnomalyDetector.from_config(config, None, options)
    agree(detector, detector.export(tmp_path / "m.onnx"), [(1, 480, 640, 3)], within=1e-4)

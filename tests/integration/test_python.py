"""`crane.load` and what it gives, as someone with images of their own would use it."""

import json
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import crane
from crane.data.images import read_rgb
from crane.errors import UsageError
from crane.named_prompts import published_files
from crane.pictures import read_map
from crane.weights import described_prompts, find_weights

RNG = np.random.default_rng(5)


@pytest.fixture(scope="module")
def detector():
    return crane.load("mini", device="cpu")


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A file that is no square, with values that a JPEG would change."""
    path = tmp_path_factory.mktemp("photos") / "one.png"
    Image.fromarray(RNG.integers(0, 256, (70, 110, 3), dtype=np.uint8)).save(path)
    return path


def same(one, other):
    np.testing.assert_allclose(one.map, other.map, atol=1e-6)
    return one.score == pytest.approx(other.score, abs=1e-6)


def test_every_form_of_an_image_gives_the_same(detector, photo):
    wanted = detector.predict(photo)
    assert wanted.map.shape == (70, 110)
    assert wanted.map.dtype == np.float32
    pixels = np.asarray(read_rgb(photo))
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    channels_first = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for form in (
        *(str(photo), read_rgb(photo), pixels, pixels / 255, (pixels / 255).astype(np.float32)),
        *(alpha, channels_first, channels_first / 255, (channels_first / 255).to(torch.float64)),
    ):
        assert same(detector(form), wanted), type(form)
    grey = pixels[..., 0]
    assert same(detector(grey), detector(np.dstack([grey] * 3)))
    assert same(detector(grey[..., None]), detector(torch.from_numpy(grey.copy())[None]))
    assert same(detector(grey.astype(np.uint16) * 257), detector(grey))


def test_several_images_keep_their_order_and_are_read_lazily(detector, photo, tmp_path):
    images = [RNG.integers(0, 256, (40 + n, 50, 3), dtype=np.uint8) for n in range(5)]
    one_by_one = [detector(image) for image in images]
    results = detector.predict(images, batch_size=2)
    assert isinstance(results, list)
    assert all(same(*pair) for pair in zip(results, one_by_one, strict=True))
    stack = np.stack([image[:40] for image in images])
    assert len(detector.predict(stack)) == 5

    taken = []
    stream = detector.predict((taken.append(n) or images[n] for n in range(5)), batch_size=2)
    assert taken == []
    assert same(next(stream), one_by_one[0])
    assert taken == [0, 1], "no more than a batch is read ahead"

    for place, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{place}.png")
    (tmp_path / "list.txt").write_text("3.png\n1.png\n")
    assert [result.path[-5:] for result in detector(tmp_path)] == [f"{n}.png" for n in range(5)]
    listed = list(detector(tmp_path / "list.txt"))
    assert same(listed[0], one_by_one[3])
    assert same(next(detector(f"{tmp_path}/4*.png")), one_by_one[4])
    assert list(detector.predict([])) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (np.zeros((9, 9, 3)) + 200.0, r"floats from 200 to 200, not from 0 to 1; divide by 255"),
        (np.zeros((9, 9, 3)) - 1.0, r"floats from -1 to -1, .*normalisation"),
        (np.full((9, 9), np.nan), "floats from nan to nan"),
        (np.zeros((9, 9, 2), np.uint8), r"shape \(H, W, 3\) or \(H, W\), not \(9, 9, 2\)"),
        (np.zeros((0, 9, 3), np.uint8), "must have the shape"),
        (np.zeros((9, 9), np.int64), "must hold uint8, uint16 or floats from 0 to 1, not int64"),
        (np.zeros((9, 9), bool), "not bool"),
        (torch.zeros(9, 9, 3), r"must be a tensor \(3, H, W\), not \(9, 9, 3\); an array"),
        (7, "must be paths, PIL images, arrays or tensors, not int"),
        ([None], "image 1 must be a path, .* not NoneType"),
        ("nothing.png", "there is no file or folder nothing.png"),
        (["nothing.png"], "there is no image nothing.png"),
    ],
)
def test_what_is_no_image_is_told_in_one_sentence(detector, wrong, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        detector.predict(wrong)
    assert "\n" not in str(caught.value)


def test_results_say_where_and_how_sure(detector, photo, tmp_path):
    detector.threshold = None
    open_result = detector(photo)
    assert open_result.is_anomalous is None
    assert "no threshold" in repr(open_result)
    pixels = np.asarray(read_rgb(photo))
    normals = [np.roll(pixels, 7 * n, axis=1) for n in range(6)]
    threshold = detector.calibrate(normals, false_alarm_rate=0.2)
    assert sum(detector(image).is_anomalous for image in normals) <= 1
    assert sum(bool(detector(image).regions) for image in normals) <= 1
    result = detector(np.where(np.arange(110)[None, :, None] < 40, 255 - pixels, pixels))
    assert result.threshold == threshold
    np.testing.assert_array_equal(result.mask, result.map >= threshold.pixel_value)
    assert sum(region.area for region in result.regions) == result.mask.sum()
    for region in result.regions:
        left, top, right, bottom = region.box
        assert result.map[top:bottom, left:right].max() == region.peak
    assert result.plot().width >= 110
    facts = json.loads(result.save(tmp_path, "odd").read_text())
    assert facts["score"] == result.score
    assert len(facts["regions"]) == len(result.regions)
    np.testing.assert_allclose(read_map(tmp_path / "odd.map.png"), result.map, atol=1e-5)
    assert result._repr_png_().startswith(b"\x89PNG")

    saved = detector.save(tmp_path / "mine.safetensors")
    again = crane.load(saved, device="cpu")
    assert again.threshold == threshold
    assert same(again(photo), open_result)
    with pytest.raises(UsageError, match=r"must end in \.safetensors"):
        detector.save(tmp_path / "mine.pt")


def test_threads_share_a_detector(detector):
    images = [RNG.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(8)]
    wanted, found = [detector(image).score for image in images], {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: detector(images[n]).score}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(8)] == pytest.approx(wanted, abs=1e-6)


def test_a_checkpoint_by_file_by_folder_and_by_command_gives_the_same(crane_typed, photo, tmp_path):
    prompts = find_weights("mini", tmp_path, allow_download=False)
    run = tmp_path / "run"
    (run / "prompts").mkdir(parents=True)
    for epoch in (2, 10):
        (run / "prompts" / f"epoch_{epoch}.safetensors").write_bytes(prompts.read_bytes())
    (run / "prompts" / "epoch_2.safetensors").write_text("not the last")
    wanted = crane.load("mini", device="cpu")(photo)
    assert same(crane.load(run, device="cpu")(photo), wanted)
    assert same(crane.load(prompts, device="cpu")(photo), wanted)
    for spec in ("mini", run, prompts):
        output = tmp_path / f"out_{len(str(spec))}"
        typed = ("predict", f"checkpoint={spec}", f"input={photo}", f"output={output}")
        outcome = crane_typed(*typed, "num_workers=0", "maps=npy", "accelerator=cpu")
        assert outcome.code == 0, outcome.err
        np.testing.assert_allclose(read_map(output / "maps/one.png.npy"), wanted.map, atol=1e-6)


@pytest.fixture
def crane_typed(crane):
    return crane


def test_names_of_checkpoints(crane_typed, tmp_path):
    """Each published name is either there or told with its address, its sum and its place."""
    for name in published_files():
        entry = described_prompts(name)
        assert entry is not None
        with pytest.raises(UsageError) as caught:
            crane.load(name, overrides=["allow_download=false", f"weights_dir={tmp_path}"])
        said = str(caught.value)
        assert str(entry.sha256) in said
        assert str(tmp_path / entry.files[0]) in said
        assert entry.source.startswith("https://raw.githubusercontent.com/")
        method, source = name.partition("@")[0].rsplit("_", 1)
        is_plus = "cranep/" in entry.files[0]
        assert (method == "crane_plus") == is_plus
        assert f"trained_on_{source}" in entry.files[0]
    with pytest.raises(UsageError, match=r"'crane_mvtek'; did you mean crane_mvtec\?"):
        crane.load("crane_mvtek")
    with pytest.raises(UsageError, match="crane_mvtec has the epochs 1 to 5, not 9"):
        crane.load("crane_mvtec@9")
    typed = ("predict", "input=.", "allow_download=false", f"weights_dir={tmp_path}")
    outcome = crane_typed(*typed)
    assert outcome.code == 2
    assert "crane_mvtec@5 are missing" in outcome.err
    assert "crane_plus_mvtec@5" in crane_typed(*typed, "method=crane_plus").err
    wrong = tmp_path / "trained_on_mvtec_crane" / "epoch_5.pth"
    wrong.parent.mkdir()
    wrong.write_bytes(b"something else")
    outcome = crane_typed(*typed)
    assert "is not the published crane_mvtec@5" in outcome.err


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"device": "tpu"}, "accelerator must be auto, cpu, gpu, cuda or mps, not 'tpu'"),
        ({"precision": "16"}, "precision must be 32-true"),
        ({"threshold": 50}, "threshold must be a number from 0 to 1"),
        ({"image_size": 0}, "image_size must be an integer of at least 1"),
        ({"checkpoint": "nothing.safetensors"}, "there is no checkpoint file nothing"),
    ],
)
def test_wrong_arguments_are_told_in_one_sentence(values, sentence):
    with pytest.raises(UsageError, match=sentence):
        crane.load(**{"checkpoint": "mini", **values})


def test_methods_that_train_nothing_need_no_checkpoint(photo):
    typed = ["method=clip", "backbone=mini", "method.detector.ensemble=clip"]
    assert 0 <= crane.load(overrides=typed, device="cpu")(photo).score <= 1

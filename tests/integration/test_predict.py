"""`crane predict`, typed."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image

from crane import training
from crane.config import compose
from crane.data.images import image_to_tensor, read_rgb
from crane.methods import load_model
from crane.pictures import read_map


@pytest.fixture
def photos(tmp_path):
    """Images of all modes and sizes, and one that is none."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (50, 70, 4), dtype=np.uint8)
    Image.fromarray(noise[..., :3]).save(folder / "rgb.png")
    Image.fromarray(noise[..., :3]).save(folder / "more" / "small.jpg")
    Image.fromarray(noise[..., 0]).resize((33, 90)).save(folder / "grey.png")
    Image.fromarray(noise).save(folder / "alpha.png")
    Image.fromarray(noise[..., :3]).quantize(16).save(folder / "palette.png")
    Image.fromarray(noise).convert("RGB").convert("CMYK").save(folder / "cmyk.jpg")
    deep = (noise[..., 0].astype(np.uint16) << 8) + noise[..., 1]
    Image.fromarray(deep).save(folder / "deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise[..., :3]).save(folder / "turned.jpg", exif=exif)
    (folder / "broken.png").write_bytes(b"not an image")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tiny, use, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    data = [*use("source", "alpha"), *use("targets")]
    chosen = [*tiny, *data, "method=crane_plus", "guide=tiny"]
    return training.train(compose("train", [*chosen, f"run_dir={folder}"])).checkpoint


def test_images_of_all_modes(crane, photos, checkpoint, scores_of, tmp_path):
    typed = ("predict", f"checkpoint={checkpoint}", f"input={photos}", "num_workers=0")
    for size in (1, 8):
        output = tmp_path / f"out_{size}"
        outcome = crane(*typed, f"batch_size={size}", f"output={output}", "maps=npy")
        assert outcome.code == 0, outcome.err
        assert "broken.png" in outcome.out
        assert "8 of 9 images scored" in outcome.out
    one, eight = scores_of(tmp_path / "out_1"), scores_of(tmp_path / "out_8")
    assert one.keys() == eight.keys()
    assert len(one) == 9
    assert one["broken.png"]["score"] == ""
    assert one["broken.png"]["error"]
    del one["broken.png"]
    model = load_model(checkpoint)
    for name, row in one.items():
        assert float(row["score"]) == pytest.approx(float(eight[name]["score"]), abs=1e-5)
        maps = [read_map(tmp_path / f"out_{size}" / row["map"]) for size in (1, 8)]
        np.testing.assert_allclose(*maps, atol=1e-5)
        image = read_rgb(photos / row["image"])
        assert maps[0].shape == (image.height, image.width)
        with Image.open(tmp_path / "out_1" / row["overlay"]) as overlay:
            assert overlay.height > image.height, "the verdict stands below"
        with torch.inference_mode():
            wanted = model(image_to_tensor(image, 56)[None]).score.item()
        assert float(row["score"]) == pytest.approx(wanted, abs=1e-6)
    assert maps[0].shape == (70, 50), "the last, turned.jpg, is turned upright"
    summary = json.loads((tmp_path / "out_1" / "scores.json").read_text())
    assert summary
    assert (tmp_path / "out_1" / "overlays_scale.png").is_file()


def test_thresholds(crane, data_sets, checkpoint, tmp_path):
    bolt = data_sets / "alpha" / "bolt" / "test"
    typed = ("predict", f"checkpoint={checkpoint}", "num_workers=0", "overlays=none", "maps=none")
    calibrated = ("calibration.false_alarm_rate=0.34", f"calibration.input={bolt / 'good'}")
    outcome = crane(*typed, f"input={bolt}/*/*.png", f"output={tmp_path / 'a'}", *calibrated)
    assert outcome.code == 0, outcome.err
    with (tmp_path / "a" / "scores.csv").open() as file:
        decided = [int(row["anomalous"]) for row in csv.DictReader(file)]
    assert len(decided) == 6
    assert f"{sum(decided)} called anomalous" in outcome.out
    assert sum(decided[:3]) <= 1, "at most a third of the normal images"

    outcome = crane(*typed, f"input={bolt}", f"output={tmp_path / 'b'}", "threshold=0.0")
    assert "6 called anomalous" in outcome.out
    refusal = crane(*typed, f"input={bolt}", "threshold=0.5", *calibrated)
    assert refusal.code == 2
    assert "give either threshold or calibration.input, not both" in refusal.err


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("input=nothing_here", "input: nothing_here does not exist"),
        ("input=null", "input must be a path or a list of paths, not null"),
        ("output=null", "output must be a path, not null"),
        ("accelerator=tpu", "accelerator"),
        ("on_error=ignore", "on_error must be skip or fail, not 'ignore'"),
        ("maps=gif", "maps must be png, npy or none, not 'gif'"),
        ("batch_size=1.5", "batch_size must be an integer of at least 1, not 1.5"),
        ("part_size=2.5", "part_size must be an integer of at least 1, not 2.5"),
        ("num_workers=banana", "num_workers must be an integer of at least 0 or auto"),
        ("threshold=banana", "threshold must be a number from 0 to 1, or null, not 'banana'"),
        ("threshold=nan", "threshold must be a number from 0 to 1, or null, not nan"),
        ("image_size=[112,224]", "image_size must be an integer of at least 1, not [112, 224]"),
        (
            "calibration.false_alarm_rate=nan",
            "calibration.false_alarm_rate must be a finite number",
        ),
        ("calibration.false_alarm_rate=1", "calibration.false_alarm_rate must be a number above 0"),
        ("overlay.alpha=nan", "overlay.alpha must be a number from 0 to 1, not nan"),
        ("overlay.alpha=1.5", "overlay.alpha must be a number from 0 to 1, not 1.5"),
        ("overlay.num_normal=-1", "overlay.num_normal must be an integer of at least 0, not -1"),
        ("overwrite=perhaps", "overwrite must be true or false, not 'perhaps'"),
        ("scores=xlsx", "scores must be csv or parquet, not 'xlsx'"),
        ("precision=64", "precision must be 32-true, bf16-mixed or 16-mixed, not 64"),
        ("precision=16-mixed", "precision=16-mixed needs a GPU"),
        ("shard=0/2", "unknown key shard; torchrun and srun share the images"),
        ("prompt.num_words=3", "checkpoint"),
    ],
)
def test_mistakes_end_in_one_sentence_that_names_the_key(
    crane, photos, checkpoint, override, sentence, tmp_path
):
    typed = ("predict", f"checkpoint={checkpoint}", "num_workers=0", f"input={photos}")
    typed = [o for o in typed if o.split("=")[0] != override.split("=")[0]]
    if not override.startswith("accelerator"):
        typed.append("accelerator=cpu")
    outcome = crane(*typed, override)
    assert outcome.code == 2
    assert sentence in outcome.err
    assert outcome.err.startswith("crane: ")
    assert "Traceback" not in outcome.err
    assert not list(tmp_path.glob("**/scores*"))


def test_an_unreadable_image_can_end_it(crane, photos, checkpoint):
    typed = ("predict", f"checkpoint={checkpoint}", "num_workers=0", f"input={photos}")
    outcome = crane(*typed, "on_error=fail")
    assert outcome.code == 2
    assert "broken.png" in outcome.err

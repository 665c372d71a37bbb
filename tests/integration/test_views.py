"""`views=…` in whole commands: test, predict and the cache, for every method."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from crane.backbones import VisionTower
from crane.metrics import Evaluation
from crane.pictures import read_map

pytestmark = pytest.mark.long

VIEWS = ("views=tiles", "views=scales")


@pytest.fixture
def seen(monkeypatch):
    """The sides of all images that pass the vision tower."""
    sides = []
    embed = VisionTower.embed

    def noted(self, images):
        sides.extend([images.shape[-1]] * len(images))
        return embed(self, images)

    monkeypatch.setattr(VisionTower, "embed", noted)
    return sides


@pytest.fixture
def compared(monkeypatch):
    """The shapes of maps and masks that metrics compare."""
    shapes = []
    update = Evaluation.update

    def noted(self, score, map, label, mask, *more, **options):
        shapes.append((tuple(map.shape), tuple(mask.shape)))
        return update(self, score, map, label, mask, *more, **options)

    monkeypatch.setattr(Evaluation, "update", noted)
    return shapes


@pytest.fixture
def tested(crane, use, results_of, tmp_path):
    """Test the embedded prompts on a small data set at 24 px; gives the results."""

    def run(*overrides, targets=("gamma",)):
        folder = tmp_path / f"run_{len(list(tmp_path.iterdir()))}"
        outcome = crane(
            *("test", "checkpoint=mini", *use("targets", *targets), "image_size=24"),
            *("trainer=cpu", "data.num_workers=0", "trainer.enable_progress_bar=false"),
            *(f"cache.folder={tmp_path / 'features'}", "results_store=null"),
            *("overlay.num_anomalous=1", *overrides, f"run_dir={folder}"),
        )
        assert outcome.code == 0, outcome.err
        return results_of(folder), folder

    return run


def close(one, other):
    """Whether results agree, thresholds at bins' edges aside."""
    assert one.keys() == other.keys()
    for name in one:
        assert one[name]["means"].keys() == other[name]["means"].keys()
        for metric, value in one[name]["means"].items():
            wanted = other[name]["means"][metric]
            assert value == pytest.approx(wanted, abs=1e-3, nan_ok=True), metric


def test_tiles_in_a_test(tested, seen, compared):
    plain, folder = tested("views=tiles")
    images = 7  # of 40 x 40 pixels: one whole and 3 x 3 tiles of 24 px each, half overlapping
    assert seen == [24] * (10 * images)
    assert compared == [((1, 40, 40), (1, 40, 40))] * images
    assert json.loads((folder / "record.json").read_text())
    assert "crane.views.OverlappingTiles" in (folder / "config.yaml").read_text()
    seen.clear()
    close(tested("views=tiles", "cache=all", "data.test_batch_size=3")[0], plain)
    assert len(seen) == 10 * images
    seen.clear()
    close(tested("views=tiles", "cache=all")[0], plain)
    close(
        tested("views=tiles", "cache=all", "views.share=1", "data.test_batch_size=1")[0],
        tested("views=tiles", "views.share=1")[0],
    )
    assert len(seen) == 10 * images, "only the run without the cache"


def test_scales_share_the_cache_of_whole_images(tested, seen, compared):
    plain, _ = tested("views=scales")
    assert sorted(seen) == [24] * 7 + [48] * 7
    assert set(compared) == {((1, 24, 24), (1, 24, 24))}
    tested("cache=all")
    seen.clear()
    close(tested("views=scales", "cache=all")[0], plain)
    assert seen == [48] * 7


def test_whole_images_at_their_own_resolution(tested, compared):
    own, _ = tested("views.resolution=own")
    model, _ = tested()
    assert compared[:7] == [((1, 40, 40), (1, 40, 40))] * 7
    for metric in ("image_auroc", "image_ap"):
        assert own["gamma"]["means"][metric] == model["gamma"]["means"][metric]


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate([(130, 90), (60, 60), (112, 250)]):
        pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"not an image")
    return folder


@pytest.fixture
def predicted(crane, photos, scores_of, tmp_path):
    def run(name, *overrides):
        output = tmp_path / name
        outcome = crane(
            *("predict", "checkpoint=mini", f"input={photos}", f"output={output}", "maps=npy"),
            *("overlays=none", "accelerator=cpu", *overrides),
        )
        assert outcome.code == 0, outcome.err
        rows = scores_of(output)
        return {n: (r, r["map"] and read_map(output / r["map"])) for n, r in rows.items()}

    return run


def same_predictions(one, other):
    assert one.keys() == other.keys()
    for name, (row, map) in one.items():
        again, other_map = other[name]
        assert bool(row["error"]) == bool(again["error"]) == (name == "broken.png")
        if not row["error"]:
            assert float(row["score"]) == pytest.approx(float(again["score"]), abs=1e-5)
            np.testing.assert_allclose(map, other_map, atol=1e-5)
            assert map.shape == (int(row["height"]), int(row["width"]))


@pytest.mark.parametrize("view", VIEWS)
def test_prediction_is_that_of_python(predicted, photos, view):
    import crane

    found = predicted("out", view, "num_workers=0")
    same_predictions(found, predicted("more", view, "batch_size=3", "num_workers=1"))
    detector = crane.load("mini", device="cpu", overrides=[view])
    for name, (row, map) in found.items():
        if not row["error"]:
            result = detector.predict(photos / name)
            assert result.score == pytest.approx(float(row["score"]), abs=1e-5)
            np.testing.assert_allclose(result.map, map, atol=1e-5)


def test_ray_predicts_the_same(predicted):
    pytest.importorskip("ray")
    local = predicted("local", "views=tiles", "part_size=2", "num_workers=0")
    same_predictions(local, predicted("ray", "views=tiles", "part_size=2", "engine=ray"))


@pytest.mark.parametrize("view", [("views=tiles", "views.tile=28"), ("views=scales",)])
@pytest.mark.parametrize(
    "method", ["clip", "winclip", "anovl", "vand", "anomalyclip", "adaclip", "crane_plus"]
)
def test_every_method_looks_through_every_view(crane, use, method, view, tmp_path):
    more = ["guide=tiny"] if method == "crane_plus" else []
    trained = method in ("vand", "anomalyclip", "adaclip", "crane_plus")
    command = "train" if trained else "test"
    learned = [*use("source", "alpha"), "trainer.max_epochs=1"] if trained else []
    outcome = crane(
        *(command, f"method={method}", "backbone=tiny", *more, *use("targets", "gamma"), *learned),
        *("image_size=42", "trainer=cpu", "data.num_workers=0", *view, "cache=all"),
        *("trainer.enable_progress_bar=false", "results_store=null"),
        *(f"cache.folder={tmp_path / 'features'}", f"run_dir={tmp_path / 'run'}"),
    )
    assert outcome.code == 0, outcome.err


MEMORY = """
import resource, sys
import numpy as np
from PIL import Image
import crane

def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

side = int(sys.argv[1])
detector = crane.load("mini", device="cpu", overrides=["views=tiles", "views.tile=1250"])
rng = np.random.default_rng(0)
detector.predict(Image.fromarray(rng.integers(0, 256, (1600, 1600, 3), dtype=np.uint8)))
before = peak()
tile = rng.integers(0, 256, (500, 500, 3), dtype=np.uint8)
Image.fromarray(np.tile(tile, (side // 500, side // 500, 1))).save(sys.argv[2])
del tile
result = detector.predict(sys.argv[2])
assert result.map.shape == (side, side)
print((peak() - before) / side**2)
"""


@pytest.mark.parametrize("side", [10_000])
def test_memory_of_100_megapixels_follows_the_image(tmp_path, side):
    """Bytes for each pixel: three of the image, four of its map, and what PIL holds of it."""
    file = tmp_path / "large.png"
    command = [sys.executable, "-c", MEMORY, str(side), str(file)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    assert float(found.stdout.split()[-1]) < 24

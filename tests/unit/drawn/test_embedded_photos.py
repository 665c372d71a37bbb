import shutil
from pathlib import Path

import numpy as np
import pytest
import skimage
from PIL import Image

from crane.drawn import photos
from crane.errors import UsageError

GENERATORS = (photos.brick, photos.gravel, photos.grass, photos.tissue)


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A copy of scikit-image's photographs that may be spoilt."""
    (tmp_path / "data").mkdir()
    for name in photos._SHA256:
        shutil.copy(Path(skimage.__file__).parent / "data" / name, tmp_path / "data")
    monkeypatch.setattr(photos.resources, "files", lambda package: tmp_path)
    photos._photograph.cache_clear()
    yield tmp_path / "data"
    photos._photograph.cache_clear()


@pytest.mark.parametrize("generator", GENERATORS)
def test_a_missing_photograph_is_named(generator, elsewhere):
    shutil.rmtree(elsewhere)
    with pytest.raises(UsageError, match=r"photograph \w+\.png.*reinstall scikit-image"):
        generator(np.random.default_rng(0))


def test_another_picture_in_its_place_is_refused(elsewhere):
    Image.new("L", (512, 512)).save(elsewhere / "brick.png")
    with pytest.raises(UsageError, match=r"brick\.png with sha256 7966caf"):
        photos.brick(np.random.default_rng(0))


def test_views_stay_inside_the_photograph():
    for seed in range(40):
        x, y = photos._view(np.random.default_rng(seed), tilt=np.pi, closest=0.55, widest=1.05)
        assert min(x.min(), y.min()) >= 0.0
        assert max(x.max(), y.max()) <= 511.0


def test_a_crop_shows_the_photograph():
    """Undo the view: the crop's brightness follows the file's."""
    photograph = np.asarray(Image.open(Path(skimage.__file__).parent / "data" / "gravel.png"))
    rng = np.random.default_rng(3)
    x, y = photos._view(np.random.default_rng(3), tilt=np.pi, closest=0.55, widest=0.95)
    looked_at = photograph[y.round().astype(int), x.round().astype(int)]
    drawn = photos.gravel(rng).rgb.mean(axis=-1)
    assert np.corrcoef(looked_at.ravel(), drawn.ravel())[0, 1] > 0.95

import hashlib
from importlib import resources

import numpy as np
from PIL import Image

from crane.drawn import photos

PHOTOGRAPHS = resources.files("crane.drawn") / "photographs"


SHA256 = {
    "brick": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "grass": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "gravel": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    "tissue": "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
}
"""The photographs as scikit-image 0.24 to 0.26 carry them."""


def test_the_photographs_are_those_of_scikit_image():
    assert {path.stem for path in PHOTOGRAPHS.iterdir() if path.suffix == ".png"} == set(SHA256)
    for name, digest in SHA256.items():
        content = (PHOTOGRAPHS / f"{name}.png").read_bytes()
        assert hashlib.sha256(content).hexdigest() == digest


def test_views_stay_inside_the_photograph():
    for seed in range(40):
        x, y = photos._view(np.random.default_rng(seed), tilt=np.pi, closest=0.55, widest=1.05)
        assert min(x.min(), y.min()) >= 0.0
        assert max(x.max(), y.max()) <= 511.0


def test_a_crop_shows_the_photograph():
    """Undo the view: the crop's brightness follows the file's."""
    photograph = np.asarray(Image.open(PHOTOGRAPHS / "gravel.png"))
    rng = np.random.default_rng(3)
    x, y = photos._view(np.random.default_rng(3), tilt=np.pi, closest=0.55, widest=0.95)
    looked_at = photograph[y.round().astype(int), x.round().astype(int)]
    drawn = photos.gravel(rng).rgb.mean(axis=-1)
    assert np.corrcoef(looked_at.ravel(), drawn.ravel())[0, 1] > 0.95

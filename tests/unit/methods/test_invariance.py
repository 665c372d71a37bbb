"""What every method promises: an image's result depends on nothing but the image and its class."""

import copy

import pytest
import torch

from crane.cli.validation import options
from crane.config import compose, conf_dir
from crane.errors import UsageError
from crane.methods import build_model

pytestmark = pytest.mark.long

METHODS = options(conf_dir() / "method")
GUIDED = ["adaclip", "anomalyclip", "anovl", "clip", "crane_plus", "vand"]
"""Methods with patch features, which take a guide; it has a grid of its own here."""
CLASSES = ["bottle", "metal nut"]
SMALL = ["backbone=tiny", "image_size=56"]
OTHER_GRID = ["guide=tiny", "guide.features.options.patch_size=8"]  # 7 x 7; the backbone's is 4 x 4


def build(method, *more):
    config = compose("train", [*SMALL, f"method={method}", *more])
    if "ensemble" in (config.method.get("detector") or {}):
        config.method.detector.ensemble = "clip"  # two sentences instead of hundreds
    made = build_model(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # away from zero, where some methods start
        for parameter in made.trained.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return made


@pytest.fixture(
    scope="module",
    params=[
        *(one for one in METHODS if one != "crane_plus"),
        *(f"{one} guided" for one in GUIDED),
    ],
)
def model(request):
    method, _, guided = request.param.partition(" ")
    return build(method, *(OTHER_GRID if guided else ()))


@pytest.fixture(scope="module")
def images():
    return torch.rand(5, 3, 56, 56, generator=torch.Generator().manual_seed(0))


CLASS_ID = torch.tensor([0, 1, 1, 0, 1])


@torch.no_grad()
def predicted(model, images, class_id, *, stored=False):
    features = model.encode(images)
    if stored:
        global_, planes = model.to_arrays(features)
        assert (len(global_), len(planes)) == (len(images), len(images))
        features = model.from_arrays(global_.clone(), planes.clone(), (56, 56))
    prediction = model.predict(features, model.encode_classes(CLASSES), class_id, (56, 56))
    assert prediction.score.shape == (len(images),)
    assert prediction.map.shape == (len(images), 56, 56)
    return prediction


def close(one, other):
    torch.testing.assert_close(one.score, other.score, rtol=0, atol=5e-6)
    torch.testing.assert_close(one.map, other.map, rtol=0, atol=5e-6)


def test_batch_mates_size_and_order_change_nothing(model, images):
    model, images = copy.deepcopy(model).double(), images.double()  # float32 rounds by 5e-6
    whole = predicted(model, images, CLASS_ID)
    for rows in ([0], [1], [4, 3, 2], [2, 0]):
        alone = predicted(model, images[rows], CLASS_ID[rows])
        for one, other in zip(alone, whole, strict=True):
            torch.testing.assert_close(one, other[rows], rtol=0, atol=1e-9)


def test_features_that_were_stored_serve_as_well(model, images):
    computed = predicted(model, images, CLASS_ID)
    stored = predicted(model, images, CLASS_ID, stored=True)
    assert torch.equal(computed.score, stored.score)
    assert torch.equal(computed.map, stored.map)


def test_images_and_what_is_learned_decide(model, images):
    """The promises above would hold for a constant, too."""
    prediction = predicted(model, images, CLASS_ID)
    assert prediction.score.unique().numel() == len(images)
    assert all(one.std() > 0 for one in prediction.map)


@pytest.mark.parametrize("method", sorted({*METHODS} - {"crane", "crane_plus"}))
def test_a_guide_changes_maps_and_no_score_of_its_own(method, images):
    """Scores depend on the guide only where patches enter them."""
    if method not in GUIDED:
        with pytest.raises(UsageError, match=r"takes no guide: .* windows, .*; use guide=none"):
            build(method, "guide=tiny")
        return
    plain, guided = (predicted(build(method, *more), images, CLASS_ID) for more in ([], OTHER_GRID))
    assert (plain.map - guided.map).abs().amax((1, 2)).min() > 1e-4
    if method != "adaclip":
        close(guided._replace(map=plain.map), plain)


@pytest.mark.parametrize("method", ["adaclip", "anovl", "vand"])
def test_a_guide_that_finds_no_two_patches_alike_changes_nothing(method, images):
    """On the backbone's own grid R is then the identity: averages are the patches themselves."""
    without_noise = ["method.detector.num_steps=0"] if method == "anovl" else []
    alone = ["guide=tiny", "guide.attention.beta=1e4"]
    plain, guided = (
        predicted(build(method, *without_noise, *more), images, CLASS_ID) for more in ([], alone)
    )
    close(guided, plain)

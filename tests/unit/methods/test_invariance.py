"""What every method promises: an image's result depends on nothing but the image and its class."""

import pytest
import torch

from crane.cli.validation import options
from crane.config import compose, conf_dir
from crane.methods import build_model

pytestmark = pytest.mark.long

METHODS = options(conf_dir() / "method")
CLASSES = ["bottle", "metal nut"]


@pytest.fixture(scope="module", params=METHODS)
def model(request):
    chosen = ["backbone=tiny", "image_size=56", f"method={request.param}"]
    chosen += ["guide=tiny"] if request.param == "crane_plus" else []
    made = build_model(compose("train", chosen))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():  # away from zero, where some methods start
        for parameter in made.trained.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    return made


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
    whole = predicted(model, images, CLASS_ID)
    for rows in ([0], [1], [4, 3, 2], [2, 0]):
        close(
            predicted(model, images[rows], CLASS_ID[rows]),
            type(whole)(whole.score[rows], whole.map[rows]),
        )


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

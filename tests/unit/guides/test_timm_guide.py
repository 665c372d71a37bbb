import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from crane.errors import UsageError
from crane.guides import TimmGuide

SMALL = {"embed_dim": 32, "depth": 2, "num_heads": 2}
DYNAMIC = {**SMALL, "dynamic_img_size": True}
PLAIN = {"image_size": None, "fit": "resize", "mean": [0.0] * 3, "std": [1.0] * 3}
DINOV2, DINOV3 = "vit_base_patch14_reg4_dinov2", "vit_base_patch16_dinov3"
DINO, SAM = "vit_base_patch8_224", "samvit_base_patch16"
SMALL_SAM = {**SMALL, "img_size": 64, "neck_chans": 16, "global_attn_indexes": (1,)}


def build(architecture=DINOV2, options=DYNAMIC, weights="random", seed=0, **overrides):
    places = {"weights_dir": "nowhere", "allow_download": False}
    given = {**PLAIN, **places, **overrides}
    return TimmGuide(
        architecture=architecture, options=options, weights=weights, seed=seed, **given
    )


@pytest.mark.parametrize(
    ("architecture", "options", "size", "shape"),
    [
        (DINOV2, DYNAMIC, (56, 70), (32, 4, 5)),
        (DINO, DYNAMIC, (32, 40), (32, 4, 5)),
        (DINOV3, SMALL, (64, 80), (32, 4, 5)),
        (SAM, SMALL_SAM, (64, 64), (16, 4, 4)),
    ],
)
def test_features_are_the_last_layers_on_the_patch_grid(architecture, options, size, shape):
    guide = build(architecture, options)
    images = torch.rand(2, 3, *size)
    features = guide(images)
    assert features.shape == (2, *shape)
    tokens = guide.model.forward_features(images)
    if architecture != SAM:  # SAM's already are a grid, after its neck
        tokens = tokens[:, guide.model.num_prefix_tokens :].transpose(1, 2).unflatten(2, shape[1:])
    torch.testing.assert_close(features, tokens)


def test_features_are_normalised_by_the_final_layer_norm():
    guide = build()
    guide.model.norm.weight.data.uniform_(0.5, 2)
    captured = []
    guide.model.blocks[-1].register_forward_hook(lambda *call: captured.append(call[2]))
    features = guide(torch.rand(1, 3, 56, 56))
    norm = guide.model.norm
    expected = F.layer_norm(captured[0][:, 5:], (32,), norm.weight, norm.bias, norm.eps)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), expected)


def test_random_weights_follow_the_seed_and_leave_the_global_generator():
    images = torch.rand(1, 3, 56, 56)
    before = torch.get_rng_state()
    first, again, other = build(seed=3), build(seed=3), build(seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(first(images), again(images))
    assert not torch.equal(first(images), other(images))


def test_guides_are_frozen():
    guide = build()
    assert not guide.training
    assert not any(p.requires_grad for p in guide.parameters())


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_a_local_file_is_loaded(tmp_path, suffix):
    source = build(seed=5)
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(source.model.state_dict(), path)
    images = torch.rand(1, 3, 56, 56)
    assert torch.equal(build(weights=path)(images), source(images))


def test_a_published_name_is_loaded_from_the_weights_folder(tmp_path):
    source = build(seed=5)
    folder = tmp_path / "vit_base_patch14_reg4_dinov2.lvd142m"
    folder.mkdir()
    save_file(source.model.state_dict(), folder / "model.safetensors")
    loaded = build(weights="timm/vit_base_patch14_reg4_dinov2.lvd142m", weights_dir=tmp_path)
    images = torch.rand(1, 3, 56, 56)
    assert torch.equal(loaded(images), source(images))


def test_metas_own_file_of_dinov2_is_converted(tmp_path):
    """Meta's file adds the class token's position to it only when run, and has a mask token."""
    source = build(seed=5)
    theirs = source.model.state_dict()
    position = torch.randn(1, 1, 32)
    theirs["cls_token"] = theirs["cls_token"] - position
    theirs["pos_embed"] = torch.cat([position, theirs["pos_embed"]], dim=1)
    theirs["register_tokens"] = theirs.pop("reg_token")
    theirs["mask_token"] = torch.zeros(1, 32)
    torch.save(theirs, tmp_path / "dinov2.pth")
    images = torch.rand(1, 3, 56, 56)
    torch.testing.assert_close(build(weights=tmp_path / "dinov2.pth")(images), source(images))


def test_metas_own_file_of_sam_is_converted(tmp_path):
    source = build(SAM, SMALL_SAM, seed=5)
    theirs = {
        f"image_encoder.{name.replace('mlp.fc', 'mlp.lin')}": value
        for name, value in source.model.state_dict().items()
    }
    torch.save({**theirs, "mask_decoder.x": torch.zeros(1)}, tmp_path / "sam.pth")
    images = torch.rand(1, 3, 64, 64)
    loaded = build(SAM, SMALL_SAM, weights=tmp_path / "sam.pth")
    torch.testing.assert_close(loaded(images), source(images))


def test_missing_weights_are_named_and_nothing_is_fetched(tmp_path):
    with pytest.raises(UsageError) as caught:
        build(DINO, weights="timm/vit_base_patch8_224.dino", weights_dir=tmp_path)
    message = str(caught.value)
    place = str(tmp_path / "vit_base_patch8_224.dino" / "model.safetensors")
    for part in (place, "huggingface.co/timm/vit_base_patch8_224.dino", "guide.features.weights"):
        assert part in message


@pytest.mark.parametrize(
    ("architecture", "options", "said"),
    [
        (
            "vit_base_patch14_dino2",
            {},
            "has no model 'vit_base_patch14_dino2'; close names are .*vit_base_patch14_dinov2",
        ),
        (DINOV2, {"embed_dims": 3}, r"embed_dims.*guide\.features\.options"),
        ("resnet18", {}, "a timm vision transformer .*'resnet18'"),
    ],
)
def test_mistakes_are_said(architecture, options, said):
    with pytest.raises(UsageError, match=said):
        build(architecture, options)


def test_weights_of_another_geometry_are_refused(tmp_path):
    torch.save(build().model.state_dict(), tmp_path / "w.pth")
    with pytest.raises(
        UsageError, match=r"w\.pth with options .* does not fit.*guide\.features\.weights"
    ):
        build(options={**DYNAMIC, "depth": 3}, weights=tmp_path / "w.pth")


def test_timm_is_new_enough_for_every_shipped_guide():
    assert all(timm.is_model(name) for name in (DINOV2, DINOV3, DINO, SAM))


@pytest.mark.parametrize("name", ["pretrained", "checkpoint_path", "pretrained_cfg_overlay"])
def test_options_load_no_weights(name):
    with pytest.raises(UsageError, match=rf"guide\.features\.options: {name} is not taken here"):
        build(options={**DYNAMIC, name: True})


def published_small(tmp_path, tag, architecture="vit_small_patch16_224", **overrides):
    """A guide with weights that are published, as far as their name goes."""
    name = f"timm/{architecture}.{tag}"
    folder = tmp_path / f"{architecture}.{tag}"
    folder.mkdir()
    source = timm.create_model(architecture, num_classes=0, **DYNAMIC)
    save_file(source.state_dict(), folder / "model.safetensors")
    return build(architecture, weights=name, weights_dir=tmp_path, **overrides)


@pytest.mark.parametrize(
    ("tag", "mean"),
    [("augreg_in21k_ft_in1k", [0.5, 0.5, 0.5]), ("dino", [0.485, 0.456, 0.406])],
)
def test_mean_and_std_are_timms_own_for_the_weights(tmp_path, caplog, tag, mean):
    guide = published_small(tmp_path, tag, mean=None, std=None)
    torch.testing.assert_close(guide.mean.flatten(), torch.tensor(mean))
    assert guide.std.min() > 0
    assert caplog.text == ""


def test_another_mean_than_the_weights_were_trained_with_is_warned_of(tmp_path, caplog):
    imagenet = [0.485, 0.456, 0.406]
    guide = published_small(tmp_path, "augreg_in21k_ft_in1k", mean=imagenet, std=[0.5] * 3)
    torch.testing.assert_close(guide.mean.flatten(), torch.tensor(imagenet))
    assert "guide.features.mean is [0.485, 0.456, 0.406], but timm/vit_small" in caplog.text
    assert "features.std" not in caplog.text

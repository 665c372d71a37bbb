import copy
import logging

import open_clip
import pytest
import torch
from open_clip.model import build_model_from_openai_state_dict
from safetensors.torch import save_file

from crane.errors import UsageError
from crane.weights import load_open_clip, open_clip_from_state_dict, openai_geometry

SMALL = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 42, "patch_size": 14, "layers": 3, "width": 128, "head_width": 64},
    "text_cfg": {"context_length": 20, "vocab_size": 60, "width": 64, "heads": 1, "layers": 2},
}


def build(architecture=SMALL, weights="random", quick_gelu=True, seed=0, **overrides):
    arguments = {"weights_dir": "nowhere", "allow_download": False, **overrides}
    return load_open_clip(architecture, weights, quick_gelu=quick_gelu, seed=seed, **arguments)


@pytest.fixture(scope="module")
def model():
    return build(seed=1)


@pytest.fixture(scope="module")
def inputs():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 42, 42, generator=generator)
    return images, torch.randint(0, 60, (2, 20), generator=generator)


def assert_same_outputs(a, b, inputs, atol=0.0):
    images, text = inputs
    torch.testing.assert_close(a.encode_image(images), b.encode_image(images), atol=atol, rtol=0)
    torch.testing.assert_close(a.encode_text(text), b.encode_text(text), atol=atol, rtol=0)


def test_random_weights_follow_the_seed_and_leave_the_global_generator(inputs):
    before = torch.get_rng_state()
    first, again, other = build(seed=3), build(seed=3), build(seed=4)
    assert torch.equal(before, torch.get_rng_state())
    assert_same_outputs(first, again, inputs)
    assert not torch.equal(first.encode_image(inputs[0]), other.encode_image(inputs[0]))


def test_models_are_frozen_float32_in_evaluation_mode(model):
    assert not model.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_building_neither_configures_logging_nor_warns(caplog):
    root = logging.getLogger()
    before = list(root.handlers), list(root.filters)
    build()
    assert (list(root.handlers), list(root.filters)) == before
    assert caplog.text == ""


def test_configuration_is_left_as_it_was():
    config = copy.deepcopy(SMALL)
    build(config, quick_gelu=True)
    assert config == SMALL
    assert "local-dir" not in str(open_clip.list_models())


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_activation_is_the_one_asked_for(quick_gelu):
    kind = open_clip.transformer.QuickGELU if quick_gelu else torch.nn.GELU
    model = build(quick_gelu=quick_gelu)
    for tower in (model.visual.transformer, model.transformer):
        assert all(isinstance(block.mlp.gelu, kind) for block in tower.resblocks)


def test_a_name_and_a_tag_give_open_clips_model_and_weights(monkeypatch, tmp_path):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        theirs = open_clip.create_model("ViT-S-32-alt").eval()
    seeded = build("ViT-S-32-alt", seed=5, quick_gelu=False)
    assert type(seeded) is type(theirs)

    tag = {"hf_hub": "somebody/SmallCLIP/"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "ViT-S-32-alt", {"test": tag})
    (tmp_path / "SmallCLIP").mkdir()
    save_file(theirs.state_dict(), tmp_path / "SmallCLIP" / "open_clip_model.safetensors")
    loaded = build("ViT-S-32-alt", "test", quick_gelu=False, weights_dir=tmp_path, seed=8)
    for name, value in theirs.state_dict().items():
        assert torch.equal(seeded.state_dict()[name], value), name
        assert torch.equal(loaded.state_dict()[name], value), name


def halved(model):
    """The weights as OpenAI stores them: matrices in half precision."""
    copied = copy.deepcopy(model)
    open_clip.model.convert_weights_to_fp16(copied)
    return copied


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace")
def test_openai_archive(model, inputs, tmp_path):
    archive = copy.deepcopy(model)
    for name in ("input_resolution", "context_length", "vocab_size"):
        archive.__dict__.pop(name, None)
        archive.register_buffer(name, torch.tensor(1))
    traced = torch.jit.trace_module(archive, {"encode_image": inputs[0]})
    traced.half().save(tmp_path / "ViT.pt")
    loaded = build(weights=tmp_path / "ViT.pt")
    assert loaded.visual.conv1.weight.dtype == torch.float32
    assert_same_outputs(loaded, copy.deepcopy(model).half().float(), inputs)
    with pytest.raises(UsageError, match=r"backbone\.model\.quick_gelu must be true"):
        build(weights=tmp_path / "ViT.pt", quick_gelu=False)


def test_openai_named_state_dict_file(model, inputs, tmp_path):
    extras = {"input_resolution": 42, "context_length": 20, "vocab_size": 60}
    published = {**halved(model).state_dict(), **{k: torch.tensor(v) for k, v in extras.items()}}
    torch.save(published, tmp_path / "clip.pth")
    assert_same_outputs(build(weights=tmp_path / "clip.pth"), halved(model).float(), inputs)


def test_open_clip_training_checkpoint(model, inputs, tmp_path):
    parallel = {f"module.{name}": value for name, value in model.state_dict().items()}
    parallel["module.logit_scale"] = parallel["module.logit_scale"].reshape(1)
    torch.save({"epoch": 2, "state_dict": parallel, "optimizer": {}}, tmp_path / "epoch_2.pt")
    assert_same_outputs(build(weights=tmp_path / "epoch_2.pt"), model, inputs)


def test_safetensors_by_its_name_in_the_weights_folder(model, inputs, tmp_path):
    save_file(model.state_dict(), tmp_path / "mine.safetensors")
    loaded = build(weights="mine.safetensors", weights_dir=tmp_path)
    assert_same_outputs(loaded, model, inputs)


def test_a_text_tower_of_its_own_takes_openai_names(model, inputs, tmp_path):
    torch.save(model.state_dict(), tmp_path / "w.pt")
    custom = build({**SMALL, "custom_text": True}, tmp_path / "w.pt")
    assert isinstance(custom, open_clip.CustomTextCLIP)
    assert_same_outputs(custom, model, inputs)


@pytest.mark.parametrize("quick_gelu", [True, False])
def test_any_geometry_from_its_state_dict(model, inputs, quick_gelu):
    built = open_clip_from_state_dict(model.state_dict(), quick_gelu=quick_gelu)
    assert openai_geometry(built.state_dict()) == SMALL
    reference = build(quick_gelu=quick_gelu)
    reference.load_state_dict(model.state_dict())
    assert_same_outputs(built, reference, inputs)
    theirs = build_model_from_openai_state_dict(
        dict(model.state_dict()), quick_gelu=quick_gelu, cast_dtype=None
    ).float()
    assert_same_outputs(built, theirs, inputs, atol=5e-2)  # theirs passes through half precision


@pytest.mark.parametrize(
    ("architecture", "weights", "quick_gelu", "said"),
    [
        ("ViT-L-14-336", "openai", False, "quick_gelu must be true: ViT-L-14-336/openai"),
        ("ViT-H-14", "laion2b_s32b_b79k", True, "quick_gelu must be false: ViT-H-14/laion2b"),
        ("ViT-L-14-quickgelu", "random", False, "quick_gelu must be true"),
        ({**SMALL, "quick_gelu": True}, "random", False, "quick_gelu must be true"),
        ("ViT-L14-336", "random", True, r"unknown open_clip model 'ViT-L14-336'.*ViT-L-14-336"),
        ("hf-hub:a/b", "random", True, "unknown open_clip model"),
        ("local-dir:x", "random", True, "unknown open_clip model"),
        ("roberta-ViT-B-32", "random", False, "text tower of Hugging Face"),
        ("ViT-B-16-SigLIP", "random", False, "vision tower of timm"),
        ("coca_ViT-B-32", "random", False, "writes captions; a contrastive model"),
        ({"embed_dim": 3}, "random", True, "lacks vision_cfg, text_cfg"),
        ({**SMALL, "vision_cfg": 3}, "random", True, "lacks vision_cfg"),
        ({**SMALL, "text_cfg": {"widht": 3}}, "random", True, "widht"),
        ("ViT-B-16", "opena", True, "opena is neither.*random, openai, laion400m_e31"),
        ("ViT-B-16", "openai", True, r"ViT-B-16\.pt"),
    ],
)
def test_mistakes_are_said(architecture, weights, quick_gelu, said):
    with pytest.raises(UsageError, match=said) as caught:
        build(architecture, weights, quick_gelu)
    assert "backbone.model." in str(caught.value)


def test_weights_of_another_geometry_name_the_tensors(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "w.pt")
    wider = {**SMALL, "embed_dim": 48}
    with pytest.raises(UsageError, match=r"visual\.proj of shape \(128, 32\) for \(128, 48\)"):
        build(wider, tmp_path / "w.pt")
    deeper = {**SMALL, "text_cfg": {**SMALL["text_cfg"], "layers": 4}}
    with pytest.raises(UsageError, match=r"no transformer\.resblocks\.2.*and 20 more"):
        build(deeper, tmp_path / "w.pt")
    without = {k: v for k, v in model.state_dict().items() if k != "ln_final.bias"}
    with pytest.raises(UsageError, match=r"no ln_final\.bias"):
        open_clip_from_state_dict(without)
    with pytest.raises(UsageError, match="head, which the model lacks"):
        open_clip_from_state_dict({**model.state_dict(), "head": torch.zeros(2)})

import json
import pickle
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import crane.backbones
from crane.config import compose
from crane.errors import UsageError
from crane.identity import MODEL_KEYS
from crane.methods import (
    adopt_config,
    build_model,
    load_model,
    model_config,
    prompts_from_official,
    read_checkpoint,
    save_prompts,
)

CHOSEN = (
    "backbone=tiny",
    "method=crane_plus",
    "guide=tiny",
    "attention=vv",
    "attention.num_blocks=2",
    "prompt=pad_prefix",
    "prompt.num_words=5",
    "prompt.context_in_testing=true",
    "scoring.blur_sigma=1.5",
    "guide.attention.beta=1.1",
    "image_size=56",
)


@pytest.fixture(scope="module")
def config():
    return compose("train", CHOSEN)


@pytest.fixture(scope="module")
def model(config):
    """A model whose prompts are not the ones that its seed gives."""
    model = build_model(config)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.prompts.parameters():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="module")
def saved(model, config, tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "deeper" / "epoch_3.safetensors"
    save_prompts(path, model, model_config(config), {"epoch": 3, "sources": {"source.a": "ff"}})
    return path


def predicted(model):
    with torch.no_grad():
        return model(torch.rand(3, 3, 56, 56, generator=torch.Generator().manual_seed(1)))


def test_a_checkpoint_restores_the_model_from_its_own_configuration(saved, model):
    wanted, restored = predicted(model), predicted(load_model(saved))
    assert torch.equal(wanted.score, restored.score)
    assert torch.equal(wanted.map, restored.map)


def test_a_checkpoint_holds_prompts_and_configuration_only(saved, config):
    assert set(load_file(saved)) == {"words.normal", "words.anomalous", "deep"}
    checkpoint = read_checkpoint(saved)
    assert set(checkpoint.config) == set(MODEL_KEYS)
    assert checkpoint.info == {"epoch": 3, "sources": {"source.a": "ff"}}
    assert checkpoint.config["image_size"] == 56
    assert checkpoint.config["attention"]["num_blocks"] == 2
    assert checkpoint.config["backbone"]["model"]["weights_dir"] == "${weights_dir}"
    assert not list(saved.parent.glob("*.unfinished"))


def test_equal_prompts_give_equal_bytes_and_any_reader_reads_them(model, config, tmp_path):
    """The library's own order of metadata changes from call to call."""
    info = {f"fact {number}": number for number in range(20)}
    copies = [tmp_path / f"{number}.safetensors" for number in range(8)]
    for path in copies:
        save_prompts(path, model, model_config(config), info)
    assert len({path.read_bytes() for path in copies}) == 1
    for name, value in load_file(copies[0]).items():
        assert torch.equal(value, model.prompts.state_dict()[name].cpu())
    assert read_checkpoint(copies[0]).info == info


def test_at_the_size_of_the_paper_it_is_smaller_than_a_megabyte(tmp_path, monkeypatch):
    load = crane.backbones.load_open_clip

    def without_numbers(*args, **kwargs):
        with torch.device("meta"):
            return load(*args, **kwargs)

    monkeypatch.setattr(crane.backbones, "load_open_clip", without_numbers)
    config = compose("train", ["backbone.model.weights=random"])
    model = build_model(config)
    save_prompts(tmp_path / "a.safetensors", model, model_config(config), {})
    assert sum(value.numel() for value in load_file(tmp_path / "a.safetensors").values()) == 43_008
    assert (tmp_path / "a.safetensors").stat().st_size < 200_000


def test_prompts_of_other_sizes_are_refused(saved):
    with pytest.raises(UsageError, match="checkpoint's prompts have the shapes"):
        load_model(saved, ["prompt.num_words=6"])


def test_load_model_takes_overrides(saved, model):
    changed = load_model(saved, ["scoring.blur_sigma=3.0", "attention=qq"])
    assert changed.scoring.blur_sigma == 3.0
    assert changed.vision.stream.num_blocks == 6
    assert not torch.equal(predicted(changed).map, predicted(model).map)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (torch.rand(1, 3, 112, 112), "must be 56 x 56 pixels, not 112 x 112"),
        (torch.rand(1, 1, 56, 56), "must be RGB of shape"),
        (torch.zeros(1, 3, 56, 56, dtype=torch.uint8), "divide by 255"),
        (255 * torch.rand(1, 3, 56, 56), "divide by 255"),
        (torch.full((1, 3, 56, 56), torch.nan), "must have values from 0 to 1"),
    ],
)
def test_a_loaded_model_refuses_what_it_was_not_made_for(saved, images, said):
    with pytest.raises(UsageError, match=said):
        load_model(saved)(images)


def test_another_size_is_taken_if_it_is_typed(saved):
    assert load_model(saved, ["image_size=112"])(torch.rand(1, 3, 112, 112)).map.shape[-1] == 112


class Evil:
    """A pickle of this would create a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"prompt_learner": Evil(tmp_path / "touched")}, path)
    with pytest.raises(UsageError, match="refused because it could run code") as caught:
        read_checkpoint(path)
    assert "weights_only" not in str(caught.value), "torch's advice to load unsafely"
    path.write_bytes(pickle.dumps(Evil(tmp_path / "touched")))
    with pytest.raises(UsageError, match="refused because it could run code"):
        read_checkpoint(path)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.pth", "folder"])
def test_what_is_not_there_is_refused(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="there is no checkpoint file "):
        read_checkpoint(tmp_path / name)


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.pth"])
@pytest.mark.parametrize("content", [b"", b"garbage" * 40, b"\x00" * 9])
def test_garbage_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=f"{name} "):
        read_checkpoint(tmp_path / name)


def test_half_a_file_is_refused(saved, tmp_path):
    half = tmp_path / "half.safetensors"
    half.write_bytes(saved.read_bytes()[:-100])
    with pytest.raises(UsageError, match="is not a whole safetensors file"):
        read_checkpoint(half)


def test_other_formats_are_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"deep": torch.zeros(1)}, path)
    with pytest.raises(UsageError, match="is not stated; only crane-prompts-1 is read"):
        read_checkpoint(path)
    save_file({"deep": torch.zeros(1)}, path, metadata={"format": "crane-prompts-99"})
    with pytest.raises(UsageError, match="is crane-prompts-99; only crane-prompts-1 is read"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [{"state_dict": {}}, {"visual.proj": torch.zeros(1)}, [1], 3])
def test_files_without_prompts_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UsageError, match="holds no prompts of crane"):
        read_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "metadata", [{}, {"config": "{"}, {"config": "[]"}, {"config": '{"image_size": 56}'}]
)
def test_our_format_without_its_configuration_is_refused(tmp_path, metadata):
    path = tmp_path / "a.safetensors"
    save_file({"deep": torch.zeros(1)}, path, metadata={"format": "crane-prompts-1", **metadata})
    with pytest.raises(UsageError, match=r"damaged, or was not written by crane|lacks"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "content", [{"crane": 1}, {"crane": {"config": "{}"}, "state_dict": {}}, {"crane": {}}]
)
def test_lightnings_format_with_something_else_in_it_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(UsageError, match=r"damaged, or was not written by crane|lacks"):
        read_checkpoint(tmp_path / "a.ckpt")


def test_official_names_with_something_else_below_are_refused():
    with pytest.raises(UsageError, match="no tensor of real numbers under ctx_pos, ctx_neg"):
        prompts_from_official({"prompt_learner": {"ctx_pos": 1, "ctx_neg": 2}})


def test_official_checkpoints_have_no_configuration(tmp_path):
    words = {f"ctx_{which}": torch.zeros(1, 1, 12, 128) for which in ("pos", "neg")}
    official = {"prompt_learner": words}
    torch.save(official, tmp_path / "epoch_5.pth")
    checkpoint = read_checkpoint(tmp_path / "epoch_5.pth")
    assert checkpoint.config is None
    config = compose("test", ["checkpoint=a.pth", "method=crane_plus"])
    assert adopt_config(config, checkpoint, ["method=crane_plus"]) is config


def adopted(saved, *overrides):
    config = compose("test", ["checkpoint=a", *overrides])
    before = config.copy()
    result = adopt_config(config, read_checkpoint(saved), ["checkpoint=a", *overrides])
    assert config == before, "the command's own configuration is left alone"
    return result


def test_the_checkpoints_model_is_adopted_and_nothing_else(saved, config):
    result = adopted(saved, "seed=3")
    for key in MODEL_KEYS:
        assert result[key] == config[key], key
    assert result.method.name == "Crane+"
    assert result.seed == 3
    assert list(result.targets) == ["visa"]


def test_a_typed_group_stands(saved):
    result = adopted(saved, "attention=qq", "guide=none")
    assert list(result.attention.correlation.of) == ["q"]
    assert result.guide.features is None
    assert result.prompt.num_words == 5
    assert result.attention.num_blocks == 6, "of the checkpoint's backbone"


def test_a_typed_value_stands_inside_the_checkpoints_group(saved):
    result = adopted(saved, "scoring.blur_sigma=2.5", "attention.num_blocks=3")
    assert (result.scoring.blur_sigma, result.attention.num_blocks) == (2.5, 3)
    assert result.scoring.aggregate._target_.endswith("softmax_of_mean_logits")
    assert list(result.attention.correlation.of) == ["v"]
    assert adopted(saved, "image_size=112").image_size == 112


def test_a_typed_method_chooses_its_guide_and_scoring(saved):
    result = adopted(saved, "method=crane")
    assert result.method.name == "Crane"
    assert result.guide.features is None
    assert result.scoring.aggregate._target_.endswith("mean_of_softmax_maps")
    assert result.scoring.blur_sigma == 4.0
    assert list(result.attention.correlation.of) == ["v"]


def test_folders_are_those_of_whoever_reads_the_checkpoint(saved):
    assert adopted(saved, "weights_dir=/mine").backbone.model.weights_dir == "/mine"


def test_a_model_keeps_its_prompts_whatever_the_seed(saved, model):
    config = adopted(saved, "seed=7")
    restored = build_model(config)
    assert not torch.equal(restored.prompts.deep, model.prompts.deep)
    restored.load_learned(read_checkpoint(saved).prompts)
    assert torch.equal(restored.prompts.deep, model.prompts.deep)


def test_metadata_is_json(saved):
    with safe_open(saved, "pt") as file:
        metadata = file.metadata()
    assert json.loads(metadata["config"]) == read_checkpoint(saved).config
    OmegaConf.create(json.loads(metadata["config"]))

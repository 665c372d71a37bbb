"""Files made to do harm, or damaged by chance: refused in one sentence, and nothing is run."""

import copy
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from crane.config import compose
from crane.errors import UsageError
from crane.methods import (
    adopt_config,
    build_model,
    load_model,
    model_config,
    read_checkpoint,
    save_prompts,
)
from crane.methods.checkpoint import FORMAT, LEARNED
from crane.weights import HUB_REPOS, load_open_clip

CHOSEN = ("backbone=tiny", "method=crane_plus", "guide=tiny", "image_size=56")
Write = Callable[[dict[str, Any]], Path]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return model_config(compose("train", CHOSEN))


@pytest.fixture(scope="module")
def model():
    return build_model(compose("train", CHOSEN))


@pytest.fixture
def saved(model, config, tmp_path) -> Path:
    save_prompts(tmp_path / "epoch_1.safetensors", model, config, {"epoch": 1})
    return tmp_path / "epoch_1.safetensors"


@pytest.fixture(params=[".safetensors", ".ckpt"])
def write(request, model, tmp_path) -> Write:
    """Write a checkpoint with any configuration, and without a checksum, as a stranger may."""
    prompts = {name: value.clone() for name, value in model.prompts.state_dict().items()}

    def written(config: dict[str, Any], prompts: dict[str, Any] = prompts) -> Path:
        path, text = tmp_path / f"hostile{request.param}", json.dumps(config)
        if request.param == ".safetensors":
            save_file(prompts, path, metadata={"format": FORMAT, "config": text})
        else:
            state = {LEARNED[0] + name: value for name, value in prompts.items()}
            torch.save({"crane": {"config": text}, "state_dict": state}, path)
        return path

    return written


def changed(config: dict[str, Any], key: str, value: object) -> dict[str, Any]:
    """A configuration with one of its values replaced, or added."""
    result = copy.deepcopy(config)
    *path, last = key.split(".")
    node = result
    for name in path:
        node = node[name]
    node[last] = value
    return result


RUN = {"_target_": "torch.utils.collect_env.run", "command": "touch PWNED"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("scoring.blur_sigma", RUN),
        ("scoring.aggregate", RUN),
        ("attention.correlation", {"_target_": "os.system", "command": "touch PWNED"}),
        ("attention", {"_target_": "pandas.read_pickle", "filepath_or_buffer": "evil.pkl"}),
        ("backbone.model", RUN),
        ("guide.features.options", {"depth": RUN}),
        ("guide.features", {"_target_": "crane.guides.guide.Guide"}),
        ("prompt.words.normal", RUN),
        ("method.name", {"deep": [[{"deeper": RUN}]]}),
        ("image_size", RUN),
        ("scoring._target_", "crane.methods.load_model"),
    ],
)
def test_only_known_parts_are_built(write: Write, config, tmp_path, monkeypatch, key, value):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"hostile.* wants to build .*, which a file may not"):
        load_model(write(changed(config, key, value)))
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("special", ["_args_", "_recursive_"])
def test_keys_that_speak_to_hydra_are_refused(write: Write, config, special):
    with pytest.raises(UsageError, match=rf"hostile\.\w+ holds scoring\.{special}"):
        load_model(write(changed(config, f"scoring.{special}", [1])))


@pytest.mark.parametrize(
    "text",
    ["${oc.env:HOME}", "${oc.decode:1}", "${hydra:runtime.cwd}", "x${weights_dir}", "${seed}"],
)
def test_nothing_beyond_the_file_is_referred_to(write: Write, config, text):
    with pytest.raises(UsageError, match=r"refers to .* as method\.name, which a file may not"):
        load_model(write(changed(config, "method.name", text)))


def test_downloads_and_folders_are_those_of_the_command(write: Write, config):
    hostile = changed(config, "guide.features.allow_download", True)
    hostile = changed(hostile, "backbone.model.allow_download", True)
    hostile = changed(hostile, "backbone.model.weights_dir", "/elsewhere")
    typed = ["allow_download=false", "weights_dir=/mine"]
    adopted = adopt_config(
        compose("test", ["checkpoint=a", *typed]), read_checkpoint(write(hostile)), typed
    )
    towers = [adopted.backbone.model, adopted.guide.features]
    assert [tower.allow_download for tower in towers] == [False, False]
    assert [tower.weights_dir for tower in towers] == ["/mine", "/mine"]


def hub(**changes: object) -> dict[str, Any]:
    features = OmegaConf.to_container(compose("train", ["guide=dinov2_vitb14_reg"]).guide.features)
    assert isinstance(features, dict)
    return features | changes


@pytest.mark.parametrize(
    "change",
    [
        {"repo": "evil/dinov2:b8931f7bf91576930313be2c6d6af376033b35f0"},
        {"repo": HUB_REPOS[0].replace("b8931f7", "0000000")},
        {"source": "local", "repo_dir": "/tmp/evil"},
        {"repo_dir": "/tmp/evil"},
    ],
)
def test_guide_code_comes_from_the_catalogue_unless_typed(write: Write, config, tmp_path, change):
    checkpoint = read_checkpoint(write(changed(config, "guide.features", hub(**change))))
    with pytest.raises(UsageError, match=r"run guide code of its own choice \(guide\.features\."):
        adopt_config(compose("test", ["checkpoint=a"]), checkpoint, [])
    typed = ["guide=dinov2_vitb14_reg", "guide.features.source=local", "guide.features.repo_dir=/x"]
    config = adopt_config(compose("test", ["checkpoint=a", *typed]), checkpoint, typed)
    assert (config.guide.features.repo_dir, config.guide.features.repo) == ("/x", HUB_REPOS[0])


def test_catalogued_guide_code_may_come_from_a_file(write: Write, config):
    checkpoint = read_checkpoint(write(changed(config, "guide.features", hub())))
    adopted = adopt_config(compose("test", ["checkpoint=a"]), checkpoint, [])
    assert adopted.guide.features.repo == HUB_REPOS[0]


def test_what_is_typed_is_not_taken_from_the_file(write: Write, config):
    path = write(changed(config, "attention", {"_target_": "my.own.Attention"}))
    with pytest.raises(UsageError, match=r"type attention=… in the command"):
        load_model(path)
    assert load_model(path, ["attention=vv"]).vision.stream.num_blocks == 6


def test_timm_loads_no_weights_beside_the_configured_ones(write: Write, config):
    with pytest.raises(UsageError, match=r"pretrained is not taken here"):
        load_model(write(changed(config, "guide.features.options.pretrained", True)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(8, 4, 128, dtype=torch.int64), "under deep are int64, not real numbers"),
        (torch.full((8, 4, 128), torch.nan), "under deep hold NaN or infinity"),
    ],
)
def test_prompts_are_finite_real_numbers(write: Write, config, model, bad, message):
    path = write(config, {**model.prompts.state_dict(), "deep": bad})
    with pytest.raises(UsageError, match=message):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("image_size", "lacks image_size"),
        ("guide", "lacks guide"),
        ("backbone.model", "lacks backbone.model"),
        ("guide.features", r"guide\.features is missing from the configuration"),
        ("prompt.depth", r"prompt\.depth is required"),
        ("scoring.blur_sigma", r"scoring\.blur_sigma is required"),
        ("attention.num_blocks", r"attention\.num_blocks is required"),
        ("guide.attention.gamma", r"guide\.attention\.gamma is required"),
        ("backbone.model.seed", r"backbone\.model\.seed is required"),
    ],
)
def test_a_configuration_that_lacks_a_key_ends_in_one_sentence(write: Write, config, key, message):
    less = copy.deepcopy(config)
    *path, last = key.split(".")
    node = less
    for name in path:
        node = node[name]
    del node[last]
    with pytest.raises(UsageError, match=message) as caught:
        load_model(write(less))
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_noticed(saved):
    content = bytearray(saved.read_bytes())
    content[-1] ^= 1
    saved.write_bytes(bytes(content))
    with pytest.raises(UsageError, match="damaged: its content does not fit its checksum"):
        read_checkpoint(saved)


def test_an_altered_configuration_is_noticed(saved):
    content = saved.read_bytes()
    assert content.count(b"blur_sigma") == 1
    saved.write_bytes(content.replace(b'blur_sigma\\": 4', b'blur_sigma\\": 5'))
    assert saved.read_bytes() != content
    with pytest.raises(UsageError, match="does not fit its checksum"):
        read_checkpoint(saved)


def test_older_files_have_no_checksum_and_other_names(saved, config, model, tmp_path):
    """Version 0.1 wrote `crane.models`, and no checksum."""
    text = json.dumps(config).replace("crane.methods.", "crane.models.")
    assert "crane.models.Scoring" in text
    old, prompts = tmp_path / "old.safetensors", model.prompts.state_dict()
    save_file(prompts, old, metadata={"format": FORMAT, "config": text, "info": "{}"})
    images = torch.rand(1, 3, 56, 56)
    with torch.no_grad():
        assert torch.equal(load_model(old)(images).map, load_model(saved)(images).map)


def test_a_header_that_lies_about_its_length_is_refused(saved):
    content = saved.read_bytes()
    saved.write_bytes(struct.pack("<Q", 2**62) + content[8:])
    with pytest.raises(UsageError, match="not a whole safetensors file"):
        read_checkpoint(saved)


@pytest.mark.parametrize(
    "typed", ["backbone=mini", "backbone.model.seed=1", "backbone.model.quick_gelu=false"]
)
def test_prompts_are_of_one_backbone(saved, typed):
    with pytest.raises(
        UsageError, match=r"learned on a backbone of its own \(random\) and mean no"
    ):
        load_model(saved, [typed])


def test_the_backbone_they_were_learned_on_may_be_typed(saved, caplog):
    load_model(saved, ["backbone=tiny"])
    assert caplog.text == ""


def test_a_file_of_weights_may_be_the_same_and_is_warned_of(saved, model, tmp_path, caplog):
    architecture = compose("train", ["backbone=tiny"]).backbone.model.architecture
    given = OmegaConf.to_container(architecture)
    clip = load_open_clip(
        given, "random", quick_gelu=True, seed=0, weights_dir=".", allow_download=False
    )
    torch.save(clip.state_dict(), tmp_path / "tiny.pt")
    restored = load_model(saved, [f"backbone.model.weights={tmp_path / 'tiny.pt'}"])
    assert "make sure that" in caplog.text
    restored.load_learned(read_checkpoint(saved).prompts)

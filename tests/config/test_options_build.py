"""Every option of every group builds what its `_target_` names, with every key it states."""

import json
import math
import shutil
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from lightning.pytorch.loggers import Logger

import crane.backbones
from crane import datasets, drawn
from crane.cli.validation import options
from crane.config import compose, conf_dir
from crane.drawn import embedded_domain
from crane.errors import UsageError
from crane.gate import build
from crane.methods import build_model
from crane.pictures import Gallery

pytestmark = pytest.mark.long

SMALL = ("backbone=tiny", "guide=tiny", "image_size=56")


def of(group):
    return options(conf_dir() / group)


def predicts(model, size=56):
    with torch.no_grad():
        prediction = model(torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)))
    assert prediction.map.shape == (2, size, size)
    assert torch.isfinite(prediction.map).all()
    assert ((prediction.score > 0) & (prediction.score < 1)).all()
    return prediction


@pytest.fixture(scope="module")
def attention_models():
    return {o: build_model(compose("train", [*SMALL, f"attention={o}"])) for o in of("attention")}


@pytest.mark.parametrize("option", of("attention"))
def test_attention(option, attention_models):
    stream = attention_models[option].vision.stream
    own = predicts(attention_models[option]).map
    wanted = compose("train", [*SMALL, f"attention={option}"]).attention
    assert (stream and stream.num_blocks) == (wanted and wanted.num_blocks)
    for other, model in attention_models.items():
        assert other == option or not torch.allclose(own, predicts(model).map, atol=1e-7), other


@pytest.mark.parametrize("option", of("prompt"))
def test_prompt(option):
    if option == "fixed":  # for methods with sentences of their own
        assert compose("train", ["method=vand"]).prompt is None
        return
    model = build_model(compose("train", [*SMALL, f"prompt={option}"]))
    predicts(model)
    assert (model.prompts.context is None) == (option == "none")
    assert model.prompts.context_in_training == (option != "none")
    assert model.prompts.context_in_testing is False
    tokens = model.vision(torch.rand(2, 3, 56, 56))
    text = model.encode_prompts(tokens, with_context=option != "none")
    assert text.shape == ((1 if option == "none" else 2), 2, 128)


@pytest.mark.parametrize("option", of("scoring"))
def test_scoring(option):
    if option == "own":  # for methods that score in their own way
        assert compose("train", ["method=vand"]).scoring is None
        return
    predicts(build_model(compose("train", [*SMALL, f"scoring={option}"])))


@pytest.mark.parametrize("option", of("method"))
def test_method(option):
    chosen = ["backbone=tiny", f"method={option}", "image_size=56"]
    chosen += ["guide=tiny"] if option == "crane_plus" else []
    config = compose("train", chosen)
    model = build_model(config)
    predicts(model)
    assert (getattr(model.vision, "guide", None) is None) == (config.guide.features is None)


@pytest.mark.parametrize("option", of("loss"))
def test_loss(option):
    if option == "none":  # for methods that train nothing
        assert compose("train", ["method=winclip"]).loss is None
        return
    methods = [method for method in of("method") if method == option] or ["crane"]
    guide = ["guide=tiny"] if methods == ["crane"] else []
    chosen = ["backbone=tiny", "image_size=56", *guide, f"method={methods[0]}", f"loss={option}"]
    config = compose("train", chosen)
    model, loss = build_model(config), build(config.loss, "loss")
    truth = {
        "mask": torch.ones(2, 56, 56, dtype=torch.int32),
        "has_mask": torch.tensor([True, True]),
        "label": torch.tensor([0, 1]),
        "class_id": torch.tensor([0, 0]),
        "index": torch.tensor([0, 1]),
    }
    text = model.training_text(["part"])
    features = model.encode(torch.rand(2, 3, 56, 56))
    generator = torch.Generator().manual_seed(0)
    model.losses(loss, features, text, truth, generator).total.backward()
    unread = "text_prompts.static.0"  # published: this set of AdaCLIP's reaches no output
    for name, parameter in model.trained.named_parameters():
        if parameter.requires_grad and name != unread:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("option", of("optimizer"))
def test_optimizer(option):
    optimizer_of = build(compose("train", [f"optimizer={option}"]).optimizer, "optimizer")
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = optimizer_of([parameter])
    parameter.sum().backward()
    optimizer.step()
    assert ((parameter > 0) & (parameter < 1)).all(), "a step down"


def on_meta(call):
    """Tensors without numbers: the largest models are made, and run, in a second."""

    def made(*args, **kwargs):
        with torch.device("meta"):
            return call(*args, **kwargs)

    return made


@pytest.mark.parametrize("option", of("backbone"))
def test_backbone(option, monkeypatch):
    monkeypatch.setattr(
        crane.backbones,
        "load_open_clip",
        on_meta(crane.backbones.load_open_clip),
    )
    config = compose("train", [f"backbone={option}", "backbone.model.weights=random"])
    model, size = build_model(config).to("meta"), config.image_size
    tokens = model.vision(torch.rand(2, 3, size, size, device="meta"))
    text = model.encode_prompts(tokens, with_context=True)
    prediction = model.detect(tokens, text, (size, size))
    assert (prediction.map.shape, prediction.score.shape) == ((2, size, size), (2,))
    assert text.shape == (2, 2, model.text.width)
    assert len(model.vision.tower.blocks) * 19 // 24 == model.vision.stream.num_blocks


@pytest.mark.parametrize("option", [o for o in of("backbone") if o not in ("tiny", "mini")])
def test_published_backbones_ask_for_their_weights(option, tmp_path):
    config = compose("train", [f"backbone={option}", f"weights_dir={tmp_path}"])
    config.allow_download = False
    with pytest.raises(UsageError) as caught:
        build_model(config)
    assert str(tmp_path) in str(caught.value)
    assert config.backbone.model.weights in str(caught.value)


HUBCONF = """
import torch

class Model(torch.nn.Module):
    patch_size = 14

    def __init__(self):
        super().__init__()
        self.project = torch.nn.Conv2d(3, 768, 14, 14)

    def get_intermediate_layers(self, x, n=1, reshape=False, norm=True, **options):
        return (self.project(x),)

def {entry}(*, pretrained):
    return Model()
"""


@pytest.mark.parametrize("option", of("guide"))
def test_guide(option, monkeypatch, tmp_path):
    monkeypatch.setattr(
        crane.backbones,
        "load_open_clip",
        on_meta(crane.backbones.load_open_clip),
    )
    chosen = [f"guide={option}", "backbone.model.weights=random"]
    chosen += ["guide.features.weights=random"] if option != "none" else []
    config = compose("train", chosen)
    if config.guide.features is not None and "repo" in config.guide.features:  # or from a clone
        (tmp_path / "hubconf.py").write_text(HUBCONF.format(entry=config.guide.features.entry))
        chosen += ["guide.features.source=local", f"guide.features.repo_dir={tmp_path}"]
        config = compose("train", chosen)
    guide, grid = None, (37, 37)
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())  # no meta dtype
    if config.guide.features is not None:
        guide = on_meta(build)(config.guide.features, "guide.features")
        grid = guide(torch.rand(1, 3, 518, 518, device="meta")).shape[-2:]
    model = build_model(config, guide=guide).to("meta")
    tokens = model.vision(torch.rand(1, 3, 518, 518, device="meta"))
    assert tokens.grid == grid
    assert len(tokens.patches) == (1 if guide is None else 2)


@pytest.mark.parametrize("option", of("trainer"))
def test_trainer(option):
    config = compose("train", [f"trainer={option}"]).trainer
    needs_gpu = option in ("gpu", "ddp")
    if needs_gpu and not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no GPU found on this machine; use trainer=cpu"):
            build(config, "trainer", logger=False)
        config.accelerator = "cpu"
        config.devices = 1
    trainer = build(config, "trainer", logger=False)
    assert (trainer.max_epochs, trainer.num_sanity_val_steps) == (5, 0)
    assert trainer.precision == ("bf16-mixed" if option == "gpu" else "32-true")
    if option == "ddp":
        assert type(trainer.strategy).__name__ == "DDPStrategy"


@pytest.mark.parametrize("option", of("logger"))
def test_logger(option, tmp_path):
    config = compose("train", [f"logger={option}", f"run_dir={tmp_path / 'run'}"])
    if option == "none":
        assert config.logger is None
        return
    built = build(config.logger, "logger")
    assert isinstance(built, Logger)
    assert str(built.save_dir).startswith(str(tmp_path / "run"))


@pytest.mark.parametrize("option", of("metrics"))
def test_metrics(option):
    evaluation_of = build(compose("train", [f"metrics={option}"]).metrics, "metrics")
    evaluation = evaluation_of(class_names=["nut"], names=["a.png", "b.png"])
    maps = torch.zeros(2, 64, 64)
    maps[1, 8:24, 8:24] = 0.9
    mask = (maps > 0).to(torch.int32)
    evaluation.update(
        score=torch.tensor([0.2, 0.7]),
        map=maps,
        label=torch.tensor([0, 1]),
        mask=mask,
        has_mask=torch.tensor([True, True]),
        class_id=torch.tensor([0, 0]),
        index=torch.tensor([0, 1]),
    )
    means = evaluation.compute().means
    for name in compose("train").table_columns:
        assert means[name] == pytest.approx(1.0), name
    assert math.isnan(means["aupro_large"])
    assert means["aupro_small"] == pytest.approx(1.0)


@pytest.mark.parametrize("option", of("overlay"))
def test_overlay(option, tmp_path):
    config = compose("train", [f"overlay={option}"]).overlay
    kept = Gallery("built", build(config, "overlay"))
    assert kept.write(tmp_path, tmp_path) == ([], [])


@pytest.mark.parametrize("option", of("data"))
def test_data(option, use):
    data = [*use("source", "alpha", "plain"), *use("targets", "beta", "gamma")]
    built = build(compose("train", [f"data={option}", *data]).data, "data")
    assert tuple(built.source) == ("alpha", "plain")
    assert tuple(built.targets) == ("beta", "gamma")


OWN = ("folder", "folder_2", "folder_3", "meta_json", "table")
EMBEDDED = [option for option in of("dataset") if option.startswith("embedded_")]
PUBLISHED = [option for option in of("dataset") if option not in (*OWN, *EMBEDDED)]


@pytest.mark.parametrize("option", EMBEDDED)
def test_embedded_data_sets(option, tmp_path, monkeypatch):
    def shrunk(name):
        domain = embedded_domain(name)
        first = next(iter(domain.classes))
        classes = {first: domain.classes[first]}
        return replace(domain, classes=classes, num_train=1, num_good=1, num_per_kind=1)

    monkeypatch.setattr(drawn, "embedded_domain", shrunk)
    place = f"targets.{option}.root={tmp_path}"
    config = compose("train", [f"dataset@targets={option}", place])
    index = build(config.targets[option], f"targets.{option}")
    assert (index.name, index.num_normal) == (option, 1)
    assert index.has_masks


@pytest.mark.parametrize("option", OWN)
def test_data_sets_of_ones_own(option, data_sets, tmp_path):
    root = data_sets / "gamma"
    place = f"targets.{option}.root={root}"
    if option in ("meta_json", "table"):
        row = {"img_path": "a.png", "mask_path": "", "cls_name": "a", "anomaly": 0}
        listed = {"test": {"a": [{**row, "specie_name": "good"}]}}
        (tmp_path / "meta.json").write_text(json.dumps(listed))
        shutil.copy(root / "tile/test/good/000.png", tmp_path / "a.png")
        place = f"targets.meta_json.root={tmp_path}"
    if option == "table":
        place = f"targets.table.file={tmp_path / 'meta.json'}"
    config = compose("train", [f"dataset@targets={option}", place])
    index = build(config.targets[option], f"targets.{option}")
    assert index.num_normal == (3 if option.startswith("folder") else 1)


@pytest.mark.parametrize("option", PUBLISHED)
def test_a_published_data_set_that_is_not_there_names_the_keys_and_its_source(
    option, tmp_path, monkeypatch
):
    """With the folder there, tests/unit/data builds them in every layout they come in."""
    monkeypatch.setattr(datasets, "find_spec", lambda _: None)  # nor with a Python package
    chosen = [f"dataset@source={option}", "dataset@targets=[]", f"datasets_dir={tmp_path}"]
    config = compose("train", chosen)
    with pytest.raises(UsageError) as caught:
        build(config.data, "data")
    told = f"{caught.value.key} {caught.value}"
    for wanted in (
        f"source.{option}.root",
        "datasets_dir",
        config.source[option].get("fetch") or "",
    ):
        assert wanted in told

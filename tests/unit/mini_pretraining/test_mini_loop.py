import copy
import random
from pathlib import Path

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from crane.config import compose
from crane.errors import UsageError
from crane.methods import build_model
from crane.weights import load_open_clip
from crane.weights.catalogue import MINI_FOLDER
from experiments.mini_pretraining.evaluate import evaluate, features_drawn
from experiments.mini_pretraining.export import export
from experiments.mini_pretraining.loop import Pretraining, optimizers
from experiments.mini_pretraining.model import MiniClip, small_guide
from experiments.mini_pretraining.objective import Weights, losses
from experiments.mini_pretraining.pictures import Drawn
from tests.unit.mini_pretraining.conftest import shortened

needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch 2.9 brings Muon")


@pytest.mark.long
@needs_muon
def test_the_short_recipe_trains_exports_and_loads(recipe, tmp_path):
    save_guide(tmp_path)
    training = Pretraining(recipe, tmp_path, "cpu")
    stages = recipe["clip"]["stages"]
    totals = training.run()
    assert len(totals) == sum(stage["steps"] for stage in stages)
    assert all(total == total and total < 20 for total in totals)

    path = tmp_path / "small.safetensors"
    state = torch.load(training.checkpoint)
    assert state["stage"] == len(stages)
    first, last = (torch.load(tmp_path / f"clip_after_{n}.pt") for n in (3, 6))
    assert not torch.equal(first["visual.proj"], last["visual.proj"])
    for name, value in state["model"].items():
        torch.testing.assert_close(value, (first[name] + last[name]) / 2)
    export(state["model"], path)
    assert all(value.dtype == torch.float16 for value in load_file(path).values())
    settings = {"quick_gelu": False, "seed": 0, "weights_dir": tmp_path, "allow_download": False}
    read = load_open_clip("crane-mini", path, **settings)
    images = torch.rand(2, 3, 112, 112)
    ids = open_clip.get_tokenizer("crane-mini")(["object.", "damaged object."])
    trained = training.model.clip.eval()
    with torch.no_grad():
        torch.testing.assert_close(
            read.encode_image(images), trained.encode_image(images), atol=2e-2, rtol=2e-2
        )
        torch.testing.assert_close(
            read.encode_text(ids), trained.encode_text(ids), atol=2e-2, rtol=2e-2
        )
    config = compose("train", ["backbone=mini", f"backbone.model.weights={path}"])
    maps = build_model(config)(images[:1]).map
    assert maps.shape == (1, 112, 112)
    assert maps.isfinite().all()


@needs_muon
def test_the_next_recipe_continues_from_the_package(tmp_path):
    """With patches from all over a picture, and what was drawn in the guide's place."""
    recipe = shortened("recipe_224.yaml", 2)
    training = Pretraining(recipe, tmp_path, "cpu")
    start = load_file(MINI_FOLDER / "crane-mini.safetensors")["visual.proj"].float()
    torch.testing.assert_close(training.model.clip.visual.proj.detach(), start)
    totals = training.run()
    assert all(total == total and total < 20 for total in totals)
    trained = torch.load(training.checkpoint)["model"]["visual.proj"]
    assert 0 < (trained - start).abs().max() < 0.1


@pytest.mark.long
def test_a_repeated_batch_is_learned(recipe, tmp_path):
    recipe["clip"].update(stages=recipe["clip"]["stages"][:1], averaged=[])
    training = Pretraining(recipe, tmp_path, "cpu")
    training._seed = lambda step: 7
    totals = training.run()
    assert totals[-1] < 0.85 * totals[0]


def test_a_guided_stage_needs_the_guide(recipe, tmp_path):
    recipe["clip"].update(stages=recipe["clip"]["stages"][:1], averaged=[])
    recipe["clip"]["stages"][0]["guide"] = "mini"
    with pytest.raises(UsageError, match=r"needs .*guide\.ckpt; pretrain the guide first"):
        Pretraining(recipe, tmp_path, "cpu").run()


@pytest.mark.long
@needs_muon
def test_a_resumed_run_equals_an_uninterrupted_one(recipe, tmp_path):
    for number, stage in enumerate(recipe["clip"]["stages"]):
        stage["steps"] = 2 if number == 1 else 1
    for name in ("whole", "broken"):
        save_guide(tmp_path / name)
    whole = Pretraining(recipe, tmp_path / "whole", "cpu")
    totals = whole.run()
    broken = Pretraining(recipe, tmp_path / "broken", "cpu")
    step, taken = broken._step, []

    def until_the_third(stage):
        if len(taken) == 2:  # in the middle of the second stage
            raise KeyboardInterrupt
        taken.append(float(step(stage)["total"]))
        return {"total": torch.tensor(taken[-1])}

    broken._step = until_the_third
    with pytest.raises(KeyboardInterrupt):
        broken.run(save_every=0.0)
    rest = Pretraining(recipe, tmp_path / "broken", "cpu").run()
    assert len(rest) == len(totals) - 2
    assert taken + rest == pytest.approx(totals, rel=1e-4)


def test_each_parameter_has_one_optimizer(recipe):
    if not hasattr(torch.optim, "Muon"):
        recipe["clip"].update(stages=recipe["clip"]["stages"][:1], averaged=[])
    model = MiniClip(6, ["q", "k", "v"]).clip
    for stage in recipe["clip"]["stages"]:
        chosen = optimizers(model, recipe["clip"], stage)
        held = [p for o in chosen for group in o.param_groups for p in group["params"]]
        assert len({id(p) for p in held}) == len(held) == len(list(model.parameters()))


def test_embeddings_in_training_equal_those_of_crane(recipe):
    """Pretraining shapes exactly what `crane test` uses: plain, E-Attn and D-Attn patches."""
    settings = recipe["clip"]
    mini = MiniClip(settings["num_stream_blocks"], settings["correlation"]).eval()
    images = torch.rand(2, 3, 112, 112)
    config = compose("train", ["backbone=mini", "backbone.model.weights=random"])
    model = build_model(config)
    state = copy.deepcopy(model.vision.tower.state_dict())
    mini.tower.load_state_dict(state)
    with torch.no_grad():
        embeddings = mini.encode_images(images, torch.arange(2))
        tokens = model.vision(images)
        torch.testing.assert_close(embeddings.global_, tokens.global_, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(embeddings.stream, tokens.patches[0], atol=1e-5, rtol=1e-4)
        plain = build_model(compose("train", [*config_of_plain()])).vision
        plain.tower.load_state_dict(state)
        torch.testing.assert_close(embeddings.plain, plain(images).patches[0], atol=1e-5, rtol=1e-4)
        own = ["method=crane_plus", "guide=mini", "attention=none"]
        guided = build_model(compose("train", [*own, *config_of_towers()])).vision
        guided.tower.load_state_dict(state)
        related = guided.guided.correlations(guided.guide(images))
        by_guide = mini.encode_images(images, torch.arange(2), None, related).values
        torch.testing.assert_close(by_guide, guided(images).patches[0], atol=1e-5, rtol=1e-4)
        assert (by_guide - embeddings.values).abs().max() > 1e-3


def config_of_towers() -> list[str]:
    return ["backbone=mini", "backbone.model.weights=random"]


def config_of_plain() -> list[str]:
    return [*config_of_towers(), "attention=clip"]


def test_sentences_that_are_too_close_are_driven_apart(drawn, monkeypatch):
    """With a bound that even random towers exceed, the term lowers the cosine."""
    monkeypatch.setattr("experiments.mini_pretraining.objective.CLOSEST", -1.0)
    model = MiniClip(6, ["q", "k", "v"])

    def cosine() -> float:
        normal, damaged = model.encode_text(["object.", "damaged object."])
        return float(normal @ damaged)

    before = cosine()
    weights = Weights(0, 0, 0, 0, 0, 0, 0, found=0.2, apart=1.0)
    parts = losses(model, few(drawn), weights, random.Random(0), 0.5)
    parts["total"].backward()
    assert parts["total"] == parts["apart"] > 0
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    assert cosine() < before - 0.01


def save_guide(folder: Path) -> None:
    """Write a checkpoint like that of the guide's pretraining, with the shipped weights."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = load_file(MINI_FOLDER / "crane-mini-guide.safetensors")
    torch.save({"vit": {k: v.float() for k, v in weights.items()}}, folder / "guide.ckpt")


def few(drawn: Drawn) -> Drawn:
    """Four of the forty scenes, without and with their defects."""
    which = [*range(4), *range(40, 44)]
    facts = [drawn.facts[i] for i in which]
    return Drawn(drawn.images[which], drawn.masks[which], drawn.regions[which], facts)


def test_evaluation_names_every_set_of_drawings():
    guides = {"segments": features_drawn}
    drawings = {"image_size": 56, "scenes": 8, "visible": 0.05, "seed": 5}
    rows = evaluate(MiniClip(6, ["q", "k", "v"]), small_guide("random")[1], guides, **drawings)
    assert [row["drawings"] for row in rows] == [
        "kinds of pretraining",
        "defects held out",
        "surface and outline held out",
    ]
    for row in rows:
        assert all(0.0 <= value <= 1.0 for value in row.values() if isinstance(value, float))

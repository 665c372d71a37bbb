"""The methods of Table 1 equal what their authors' code computed.

Whatever `.npz` lies in `goldens_baselines/` is compared; tolerances are those stated with the
goldens, and each exception has its reason beside it.
"""

import json
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from crane.config import compose
from crane.data.images import image_to_tensor, resize_mask
from crane.gate import build
from crane.methods import build_model
from crane.methods.adaclip import AdaClip, from_authors
from crane.methods.anovl import AnoVl
from crane.methods.detector import Detector, Outputs
from crane.methods.winclip import window_members
from reference.build import composed, furthest
from reference.generated import generated_clip_state_dict, generated_tensor

FOLDER = Path(__file__).parent / "goldens_baselines"
LONG = ("adaclip", "anomalyclip_four_taps", "anovl", "vand")
"""Files that take seconds; of each method but AnoVL, which fits to each image, another is quick."""
MAPS, EMBEDDINGS, FIRST_LOSS = 5e-6, 1e-6, 5e-6
LATER = {"AdaCLIP": 1e-3}
"""Losses and parameters after steps, beside what Adam makes of gradients near 0 (`steps_of`)."""
COLD_SCORE = 2.5e-6
"""Scores at temperature 0.01: a last digit of an embedding (1e-7) is 2.5e-6 of a score at most."""
THROUGH_HALF = 1e-3
"""Gradients that pass through float16, relative to the largest entry."""


@dataclass(frozen=True)
class Golden:
    """One file: its configuration and its arrays."""

    name: str
    config: dict[str, Any]
    arrays: dict[str, Tensor]

    @property
    def seed(self) -> int:
        return self.config["weight_seed"]

    @property
    def geometry(self) -> dict[str, int]:
        return self.config["geometry"]

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.arrays["image"].shape[-2:]
        return height, width

    @property
    def classes(self) -> tuple[list[str], Tensor]:
        """The classes in the golden's order, and the class of each image."""
        each = self.config.get("classes", ["object"] * len(self.arrays["image"]))
        names = self.config.get("class_order") or list(dict.fromkeys(each))
        return names, torch.tensor([names.index(one) for one in each])

    def clip(self) -> dict[str, Tensor]:
        renamed = {"joint": "joint", "patch": "patch", "grid": "grid"}
        sizes = {renamed.get(name, name): value for name, value in self.geometry.items()}
        return generated_clip_state_dict(self.seed, **sizes)

    def detector(self, *overrides: str, learned: dict[str, Tensor] | None = None) -> Any:
        gelu = self.config.get("activation", "QuickGELU") == "GELU"
        model = build_model(
            composed(*overrides, f"backbone.model.quick_gelu={str(not gelu).lower()}"),
            clip_state_dict=self.clip(),
            prompt_state_dict=learned,
        )
        tower = getattr(model.vision, "tower", model.vision)
        tower.mean.zero_()
        tower.std.fill_(1.0)
        return model

    def compare(self, name: str, ours: Tensor, tolerance: float) -> None:
        wanted = self.arrays[name]
        assert tuple(ours.shape) == tuple(wanted.shape), name
        assert furthest(ours, wanted) <= tolerance, f"{self.name}: {name}"


@lru_cache(maxsize=16)
def read(path: Path) -> Golden:
    with np.load(path) as file:
        config = json.loads(str(file["config_json"]))
        arrays = {
            name: torch.from_numpy(file[name]) for name in file.files if name != "config_json"
        }
    return Golden(path.stem, config, arrays)


def goldens(method: str) -> list[Any]:
    paths = sorted(FOLDER.glob("*.npz"))
    return [
        pytest.param(path, id=path.stem, marks=[pytest.mark.long] if path.stem in LONG else [])
        for path in paths
        if read(path).config["method"] == method
    ]


def draw(name: str, shape: tuple[int, ...], std: float, seed: int) -> Tensor:
    return generated_tensor(name, shape, std, seed=seed)


def loss_of(golden: Golden, option: str, outputs: Outputs, images: slice = slice(None)) -> Any:
    loss = build(composed(f"method={option}").loss, "loss")
    masks = golden.arrays["mask"][images].int()
    return loss(
        outputs,
        mask=masks,
        has_mask=torch.ones(len(masks), dtype=torch.bool),
        label=golden.arrays["label"][images],
    )


def compare_gradients(golden: Golden, gradients: dict[str, Tensor]) -> None:
    wanted = {n.removeprefix("grad."): v for n, v in golden.arrays.items() if n.startswith("grad.")}
    assert wanted
    for name, values in wanted.items():
        off = (gradients[name].reshape(values.shape) - values).abs().max() / values.abs().max()
        assert off <= gradient_bound(golden, name), name


def gradient_bound(golden: Golden, name: str) -> float:
    """Of the largest entry."""
    if any(part in name for part in ("compound", "static_prompts", "generator")):
        return THROUGH_HALF
    return 2e-5 if golden.config["method"] == "AdaCLIP" else 1e-5


def steps_of(golden: Golden, detector: Detector, option: str, once: Any, names: Any) -> None:
    """Train as the golden did: losses of each step, gradients of the first, parameters at last."""
    parameters = {names(name): value for name, value in detector.learned.named_parameters()}
    optimizer = build(composed(f"method={option}").optimizer, "optimizer")(parameters.values())
    later = LATER.get(golden.config["method"], 2e-5)
    unsure = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for step, wanted in enumerate(golden.arrays["losses"]):
        parts = once(step)
        total = parts[-1]
        for ours, value in zip(parts, wanted, strict=True):
            scale = max(1.0, abs(float(value)))
            assert abs(float(ours.detach()) - float(value)) <= scale * (
                later if step else FIRST_LOSS
            )
        optimizer.zero_grad()
        total.backward()
        if step == 0:
            compare_gradients(golden, {n: p.grad for n, p in parameters.items()})
        for name, value in parameters.items():
            if value.grad is None:
                continue
            size = value.grad.abs()
            unsure[name] += (gradient_bound(golden, name) * size.max() / size).clamp(max=1)
        optimizer.step()
    rate = optimizer.param_groups[0]["lr"]
    for name, value in golden.arrays.items():
        if name.startswith("after."):
            short = name.removeprefix("after.")
            off = (parameters[short].detach() - value).abs()
            # Adam's step has the size of the rate whatever the gradient's: what may differ in a
            # gradient is that share of a step, and the sign of one that is 0 but for rounding all.
            assert (off <= later + rate * unsure[short]).all(), name


@pytest.mark.parametrize("path", goldens("VAND"))
def test_vand(path: Path) -> None:
    golden = read(path)
    taps, sizes = golden.config["taps"], golden.geometry
    shape = (sizes["joint"], sizes["vision_width"])
    learned: dict[str, Tensor] = {}
    for i in range(len(taps)):
        learned[f"{i}.weight"] = draw(f"fc.{i}.weight", shape, shape[1] ** -0.5, golden.seed)
        learned[f"{i}.bias"] = draw(f"fc.{i}.bias", shape[:1], 0.02, golden.seed)
    model = golden.detector("method=vand", f"method.detector.taps={taps}", learned=learned)
    names, class_id = golden.classes
    features, text = model.encode(golden.arrays["image"]), model.encode_classes(names)
    golden.compare("cls", features.global_, EMBEDDINGS)
    golden.compare("text", text, EMBEDDINGS)
    golden.compare("patches", model.patches(features), EMBEDDINGS)
    positions = model.vision.positions_for(features.grid, "bicubic_antialias")
    golden.compare("positions", positions, EMBEDDINGS)
    with torch.no_grad():
        prediction = model.predict(features, text, class_id, golden.size)
    # The published map is the sum over taps; ours is their mean, so that it stays within [0, 1].
    golden.compare("map", prediction.map * len(taps), MAPS)
    golden.compare("score", prediction.score, COLD_SCORE)

    def once(step: int) -> list[Tensor]:
        outputs = model.training_outputs(features, text, class_id, golden.size)
        losses = loss_of(golden, "vand", outputs)
        return [losses.focal, losses.dice, losses.total]

    steps_of(golden, model, "vand", once, lambda name: f"fc.{name}")


@pytest.mark.parametrize("path", goldens("AnomalyCLIP"))
def test_anomalyclip(path: Path) -> None:
    golden = read(path)
    config, sizes = golden.config, golden.geometry
    asked, depth = config["taps"], sizes["vision_layers"]
    # The code of 2024 keeps views of one tensor: as many equal taps as it asks for.
    are_views = config["code"].endswith("2b70f77")
    taps = [depth] if are_views else asked
    copies = len(asked) // len(taps)
    width, words, length = sizes["text_width"], config["words"], config["deep_length"]
    learned = {
        name: draw(name, (1, 1, words, width), 0.02, golden.seed).half().float()
        for name in ("ctx_pos", "ctx_neg")
    }
    for j in range(config["depth"] - 1):
        name = f"compound_prompts_text.{j}"
        learned[name] = draw(name, (length, width), 0.02, golden.seed).half().float()
    model = golden.detector(
        *("method=anomalyclip", f"method.detector.taps={taps}"),
        *("attention.num_blocks=19", f"prompt.num_words={words}"),
        *(f"prompt.depth={config['depth']}", f"prompt.num_deep={length}"),
        learned=learned,
    )
    names, class_id = ["object"], torch.zeros(len(golden.arrays["image"]), dtype=torch.int64)
    features, text = model.encode(golden.arrays["image"]), model.encode_classes(names)
    golden.compare("cls", features.global_, EMBEDDINGS)
    golden.compare("text", text[0], EMBEDDINGS)
    golden.compare("patches", features.patches.repeat(copies, 1, 1, 1), EMBEDDINGS)
    with torch.no_grad():
        prediction = model.predict(features, text, class_id, golden.size)
    golden.compare("blurred", prediction.map * len(asked), MAPS)  # theirs is the sum over taps
    golden.compare("score", prediction.score, EMBEDDINGS)

    # The code of 2025 weighs the parts by 4; that of 2024 adds them up over its equal taps.
    weight = float(copies if are_views else 4)

    def once(step: int) -> list[Tensor]:
        outputs = model.training_outputs(features, text, class_id, golden.size)
        losses = loss_of(golden, "anomalyclip", outputs)
        pixels = [losses.focal, losses.dice, losses.dice_normal]
        total = losses.total + (weight - 4) * sum(pixels)  # the configuration's weights are 4
        return [*(copies * one for one in pixels), losses.image, total]

    def theirs(name: str) -> str:
        return {"words.normal": "ctx_pos", "words.anomalous": "ctx_neg"}.get(name, name)

    parameters = {theirs(n): p for n, p in model.learned.named_parameters()}
    optimizer = build(composed("method=anomalyclip").optimizer, "optimizer")(parameters.values())
    for step, wanted in enumerate(golden.arrays["losses"]):
        parts = once(step)
        for ours, value in zip(parts, wanted, strict=True):
            scale = max(1.0, abs(float(value)))
            assert abs(float(ours.detach()) - float(value)) <= scale * (
                2e-5 if step else FIRST_LOSS
            )
        optimizer.zero_grad()
        parts[-1].backward()
        if step == 0:
            gradients = {n: p.grad for n, p in parameters.items() if n != "deep"}
            for j, one in enumerate(parameters["deep"].grad):
                gradients[f"compound_prompts_text.{j}"] = one
            compare_gradients(golden, gradients)
        optimizer.step()
    for name, value in golden.arrays.items():
        if name.startswith("after."):
            short = name.removeprefix("after.")
            number = short.rpartition(".")[2]
            ours = parameters["deep"][int(number)] if "compound" in short else parameters[short]
            assert furthest(ours, value) <= 2e-5, name


@pytest.mark.parametrize("path", goldens("WinCLIP"))
def test_winclip(path: Path) -> None:
    golden = read(path)
    model = golden.detector("method=winclip", "method.detector.window_batch=64")
    names, class_id = golden.classes
    features, text = model.encode(golden.arrays["image"]), model.encode_classes(names)
    golden.compare("cls", features.global_, EMBEDDINGS)
    golden.compare("text", text[class_id], EMBEDDINGS)
    first = 0
    for scale in (2, 3):
        members = window_members(features.grid, scale)
        golden.compare(f"members_{scale}", members, 0)
        windows = features.windows[:, first : first + len(members)]
        golden.compare(f"windows_{scale}", windows, EMBEDDINGS)
        first += len(members)
    prediction = model.predict(features, text, class_id, golden.size)
    golden.compare("map", prediction.map, MAPS)
    golden.compare("score", prediction.score, EMBEDDINGS)
    if "anomalib_map" in golden.arrays:
        golden.compare("anomalib_map", prediction.map, MAPS)
        golden.compare("anomalib_score", prediction.score, EMBEDDINGS)


@pytest.mark.parametrize("path", goldens("AnoVL"))
def test_anovl(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = read(path)
    model = golden.detector("method=anovl", "method.detector.carry_optimizer=true")
    losses: list[float] = []

    def first_weights(self: AnoVl, sentences: Tensor, generator: Any, number: int) -> Any:
        std = (3 * sentences.shape[1]) ** -0.5
        weight = draw(f"ad.weight.{number}", tuple(sentences.shape), std, golden.seed)
        return weight, draw(f"ad.bias.{number}", (len(sentences),), std, golden.seed)

    def noise(self: AnoVl, patches: Tensor, generator: Any, number: int, step: int) -> Tensor:
        shape = (1, *features.grid, patches.shape[1])
        return draw(f"noise.{number}.{step}", shape, 0.055, golden.seed).flatten(0, 2)

    monkeypatch.setattr(AnoVl, "first_weights", first_weights)
    monkeypatch.setattr(AnoVl, "noise", noise)
    monkeypatch.setattr(AnoVl, "note_loss", lambda self, loss: losses.append(float(loss)))
    names, class_id = golden.classes
    features, text = model.encode(golden.arrays["image"]), model.encode_classes(names)
    golden.compare("aug_cls", features.views, EMBEDDINGS)
    longest = float(golden.arrays["tokens"].abs().max())  # these are not of unit length
    golden.compare("tokens", features.patches, EMBEDDINGS * max(1.0, longest))
    golden.compare("text", text.pairs, EMBEDDINGS)
    half = text.sentences.shape[1] // 2
    means = torch.stack([text.sentences[:, :half].mean(1), text.sentences[:, half:].mean(1)], 1)
    golden.compare("text_list_mean", means, EMBEDDINGS)
    with torch.inference_mode():
        prediction = model.predict(features, text, class_id, golden.size)
    golden.compare("map", prediction.map, EMBEDDINGS)  # maps span 0.01 only
    golden.compare("score", prediction.score, EMBEDDINGS)
    golden.compare("tta_losses", torch.tensor(losses).view(len(class_id), -1), FIRST_LOSS)


@pytest.mark.parametrize("path", goldens("AdaCLIP"))
def test_adaclip(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = read(path)
    config = golden.config
    keys = ("taps", "length", "depth", "branch", "kind")
    overrides = [f"method.detector.{key}={config[key]}" for key in keys]
    clusters = config["clusters"] if config["hsf"] else 0
    model = golden.detector(
        "method=adaclip",
        *overrides,
        f"method.detector.num_clusters={clusters}",
        learned=adaclip_parts(golden),
    )
    labels: list[Tensor] = []
    monkeypatch.setattr(AdaClip, "cluster", lambda self, rows, number: labels[number].long())
    names, class_id = golden.classes
    features, text = model.encode(golden.arrays["image"]), model.encode_classes(names)
    with torch.no_grad():
        judged = model.judge(features, text, class_id)
        golden.compare(
            "positions", model.vision.positions_for(features.grid, "bicubic"), EMBEDDINGS
        )
        flips = 1.0
        for branch, part in (("visual", "vision_prompts"), ("text", "text_prompts")):
            if f"dynamic_{branch}" in golden.arrays:
                dynamic = model.learned[part].dynamic(features.global_)
                golden.compare(f"dynamic_{branch}", dynamic, 5e-6)
                # A last digit of these decides which way the published rounding to float16 goes.
                flips = 10.0
        golden.compare("cls", judged.global_, EMBEDDINGS * flips)
        golden.compare("patches", judged.patches, EMBEDDINGS * flips)
        golden.compare("text", judged.text, EMBEDDINGS * flips)
        labels[:] = golden.arrays.get("hsf_labels", torch.empty(0))
        prediction = model.predict(features, text, class_id, golden.size)
    golden.compare("blurred", prediction.map, MAPS * (4 if flips > 1 else 1))
    golden.compare("score", prediction.score, COLD_SCORE * (4 if flips > 1 else 1))

    def once(step: int) -> list[Tensor]:
        image = slice(config["train_order"][step], config["train_order"][step] + 1)
        labels[:] = golden.arrays.get("train_hsf_labels", torch.empty(0))[step : step + 1]
        one = type(features)(features.global_[image], features.tokens[image], features.grid)
        outputs = model.training_outputs(one, text, class_id[image], golden.size)
        losses = loss_of(golden, "adaclip", outputs, image)
        return [losses.image, losses.focal, losses.dice, losses.dice_normal, losses.total]

    nothing = torch.empty(0)
    theirs = {o: name for name in adaclip_parts(golden) for o in from_authors({name: nothing})}
    steps_of(golden, model, "adaclip", once, lambda name: theirs.get(name, name))


def adaclip_parts(golden: Golden) -> dict[str, Tensor]:
    """Learned tensors under the authors' names, as the goldens' rule draws them."""
    config, sizes = golden.config, golden.geometry
    joint, text_width, vision_width = sizes["joint"], sizes["text_width"], sizes["vision_width"]
    out: dict[str, Tensor] = {}

    def linear(name: str, rows: int, columns: int) -> None:
        out[f"{name}.weight"] = draw(f"{name}.weight", (rows, columns), columns**-0.5, golden.seed)
        out[f"{name}.bias"] = draw(f"{name}.bias", (rows,), 0.02, golden.seed)

    for letter, which, width in (("L", "text", text_width), ("V", "visual", vision_width)):
        if letter in config["branch"] and "S" in config["kind"]:
            for j in range(config["depth"]):
                name = f"{which}_prompter.static_prompts.{j}"
                shape = (config["length"], width)
                out[name] = draw(name, shape, 0.02, golden.seed).half().float()
        if "D" in config["kind"]:  # of both towers, whichever has prompts
            for j in range(config["length"]):
                linear(f"dynamic_{which}_prompt_generator.head.{j}", width, joint)
    for i in range(len(config["taps"])):
        linear(f"patch_token_layer.head.{i}", joint, vision_width)
    linear("cls_token_layer.head.0", joint, joint)
    return out


@pytest.mark.parametrize(("method", "name"), [("vand", "bicubic"), ("anovl", "bilinear_anovl")])
def test_preprocessing_equals_the_published_transforms(method: str, name: str) -> None:
    """One image as `crane test method=…` reads it, and its mask."""
    golden = read(FOLDER / "preprocessing.npz")
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    size, pixels = golden.config["image_size"], golden.arrays["rgb"].numpy()
    resizer = compose("test", [f"method={method}"]).data.resizer
    ours = image_to_tensor(Image.fromarray(pixels), size, resizer)
    assert furthest((ours - mean) / std, golden.arrays[name]) < 1e-6
    mask = resize_mask(golden.arrays["mask_pixels"].numpy() > 0, size, size)
    assert torch.equal(torch.from_numpy(mask), golden.arrays["mask"][0] > 0.5)


def test_every_golden_has_a_test() -> None:
    methods = {read(path).config["method"] for path in FOLDER.glob("*.npz")}
    assert methods <= {"VAND", "AnomalyCLIP", "WinCLIP", "AnoVL", "AdaCLIP", "preprocessing"}
    assert zlib.crc32(b"visual.proj")  # the rule's checksum is the standard library's

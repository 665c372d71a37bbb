"""The slow reference equals what the official implementation computed (the golden files).

Whoever compares with the reference therefore compares with the publication, on any geometry.
"""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from reference import crane_slow, scoring_slow
from reference.generated import generated_clip_state_dict, generated_prompts

GOLDENS = Path(__file__).parent / "goldens"
TRAINING = sorted(GOLDENS.glob("training_*.npz"))
RUNS = sorted(set(GOLDENS.glob("*.npz")) - set(TRAINING))
FLOAT32_NOISE = 1e-5
"""The golden files are float32, the reference float64; another CPU moves them by about 2e-6."""
GRADIENT_NOISE = 2e-5
"""Relative to the largest entry: the official code itself, run on another CPU, moves by 1.3e-5."""
FLOAT16_NOISE = 5e-4
"""The same for deep prompts, whose gradients the official code rounds to float16."""


def name_of(path: Path) -> str:
    return path.stem


def holds_a_step(path: Path) -> bool:
    with np.load(path) as file:
        return "loss.total" in file


def same(ours: Tensor, golden: Tensor, name: str, rtol: float = 0.0) -> None:
    torch.testing.assert_close(
        ours, golden, atol=FLOAT32_NOISE, rtol=rtol, msg=lambda message: f"{name}: {message}"
    )


@lru_cache(maxsize=2)
def weights(seed: int) -> crane_slow.State:
    return crane_slow.in_double(generated_clip_state_dict(seed))


def prompts(seed: int) -> crane_slow.State:
    return crane_slow.in_double(generated_prompts(seed))


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    with np.load(path) as file:
        config = json.loads(str(file["config_json"]))
        arrays = {name: file[name] for name in file.files if name != "config_json"}
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return config, {
        name: tensor.double() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def see(config: dict, images: Tensor, features: Tensor | None, mean: str) -> crane_slow.Vision:
    return crane_slow.vision(
        weights(config["weight_seed"]),
        images,
        features,
        variant=config.get("attention", "qq+kk+vv"),
        e_attn=config.get("both_e_and_d", True),
        beta=config.get("beta", 1.2),
        mean=mean,
    )


def read_text(config: dict, prompts: crane_slow.State, context: Tensor) -> Tensor:
    return crane_slow.text(
        weights(config["weight_seed"]),
        prompts,
        context if config.get("context", True) else None,
        config["prompt_mode"],
    )


def taps(config: dict) -> int:
    """How often the official Crane holds the same embedding: one tensor tapped after each block."""
    return len(config["official_features_list"])


@pytest.mark.parametrize("path", RUNS, ids=name_of)
def test_reference_repeats_a_run(path: Path) -> None:
    config, golden = read(path)
    mean = config.get("d_attn_mean", "image")  # the golden runs took one image at a time
    seen = see(config, golden["image"], golden.get("vfm_features"), mean)
    text = read_text(config, prompts(config["weight_seed"]), seen.global_)
    logits = scoring_slow.patch_logits(seen.patches, text)
    size = (config["image_size"], config["image_size"])
    g = scoring_slow.fuse(seen.global_, seen.patches, logits) if config["fusion"] else seen.global_
    ours = {
        "cls": seen.global_,
        "patches": seen.patches.repeat(taps(config), 1, 1, 1),
        "text": text.expand(len(g), -1, -1),
        "map": scoring_slow.anomaly_map(logits, seen.grid, size, config["aggregate"]),
        "score": crane_slow.softmax(scoring_slow.image_logits(g, text))[:, 1],
        "fused": g,
    }
    for name, value in ours.items():
        same(value, golden[name], name)


@pytest.mark.parametrize("path", [path for path in RUNS if holds_a_step(path)], ids=name_of)
def test_reference_repeats_a_training_step(path: Path) -> None:
    config, golden = read(path)
    learned = {
        name: value.requires_grad_() for name, value in prompts(config["weight_seed"]).items()
    }
    losses = losses_of(
        config,
        learned,
        golden["image"],
        golden.get("vfm_features"),
        golden["label"],
        golden["mask"],
    )
    for name, value in losses._asdict().items():
        same(value.detach(), golden[f"loss.{name}"], name, rtol=1e-5)
    losses.total.backward()
    for name, wanted in golden.items():
        if name.startswith("grad."):
            ours = name[len("grad.") :].replace("deep.", "compound_prompts_text.")
            tolerance = FLOAT16_NOISE if "deep" in name else GRADIENT_NOISE
            difference = (learned[ours].grad - wanted).abs().max() / wanted.abs().max()
            assert difference < tolerance, name


@pytest.mark.long
@pytest.mark.parametrize("path", TRAINING, ids=name_of)
def test_reference_repeats_a_training(path: Path) -> None:
    config, golden = read(path)

    def step(i: int) -> Callable[[crane_slow.State], scoring_slow.Losses]:
        batch = [golden[name][i] for name in ("images", "labels", "masks")]
        features = golden["vfm_features"][i] if "vfm_features" in golden else None
        return lambda learned: losses_of(config, learned, batch[0], features, *batch[1:])

    steps = [step(i) for i in range(len(golden["images"]))]
    history, final = scoring_slow.adam_steps(prompts(config["weight_seed"]), steps)
    ours = torch.stack([torch.stack(losses) for losses in history])
    torch.testing.assert_close(ours, golden["losses"], atol=1e-4, rtol=1e-4)
    for name, wanted in golden.items():
        if name.startswith("final_"):
            value = final[name[len("final_") :].replace("deep_", "compound_prompts_text.")]
            same(value, wanted, name)


def losses_of(
    config: dict,
    learned: crane_slow.State,
    images: Tensor,
    features: Tensor | None,
    labels: Tensor,
    masks: Tensor,
) -> scoring_slow.Losses:
    with torch.no_grad():
        seen = see(config, images, features, mean="batch")
    text = read_text(config, learned, seen.global_)
    return scoring_slow.training_losses(
        seen, text, labels, masks, config.get("fusion", True), taps(config)
    )

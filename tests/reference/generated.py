"""Weights that are generated, not stored: every tensor is drawn from a seed of its own name.

The rule, its standard deviations and the default geometry are those of the golden files in
`tests/parity/goldens`; the geometry is free here so that other tests can use smaller models.
"""

import math
import zlib
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

VOCABULARY = 49_408
HEAD_WIDTH = 64


def generated_tensor(
    name: str, shape: tuple[int, ...], std: float, mean: float = 0.0, seed: int = 0
) -> Tensor:
    """The float32 tensor that a name and a seed stand for."""
    state = np.random.RandomState((zlib.crc32(name.encode()) + seed) & 0xFFFFFFFF)
    return torch.from_numpy((state.standard_normal(shape) * std + mean).astype(np.float32))


def generated_clip_state_dict(
    seed: int = 0,
    vision_layers: int = 24,
    vision_width: int = 128,
    patch: int = 14,
    grid: int = 5,
    text_layers: int = 12,
    text_width: int = 128,
    joint: int = 128,
    positions: int = 77,
    vocabulary: int = VOCABULARY,
) -> dict[str, Tensor]:
    """A CLIP state dict under OpenAI's names; widths are multiples of 64, the width of a head."""
    geometry = (vision_layers, vision_width, patch, grid, text_layers, text_width, joint, positions)
    state = {name: tensor.clone() for name, tensor in _towers(seed, *geometry).items()}
    state["token_embedding.weight"] = _token_embedding(seed, vocabulary, text_width).clone()
    state["logit_scale"] = torch.tensor(math.log(1 / 0.07))
    return state


def generated_prompts(
    seed: int = 0,
    text_width: int = 128,
    num_words: int = 12,
    num_deep: int = 8,
    deep_length: int = 4,
) -> dict[str, Tensor]:
    """Learned prompts under the official checkpoints' names, rounded to float16 and back."""
    shapes = dict.fromkeys(("ctx_pos", "ctx_neg"), (1, 1, num_words, text_width))
    shapes |= {f"compound_prompts_text.{j}": (deep_length, text_width) for j in range(num_deep)}
    return {
        name: generated_tensor(name, shape, 0.02, seed=seed).half().float()
        for name, shape in shapes.items()
    }


@lru_cache(maxsize=4)
def _token_embedding(seed: int, vocabulary: int, width: int) -> Tensor:
    return generated_tensor("token_embedding.weight", (vocabulary, width), 0.02, seed=seed)


@lru_cache(maxsize=8)
def _towers(
    seed: int,
    vision_layers: int,
    vision_width: int,
    patch: int,
    grid: int,
    text_layers: int,
    text_width: int,
    joint: int,
    positions: int,
) -> dict[str, Tensor]:
    assert vision_width % HEAD_WIDTH == 0, "OpenAI's heads are 64 wide"
    assert text_width % HEAD_WIDTH == 0, "OpenAI's heads are 64 wide"
    rows: dict[str, tuple[tuple[int, ...], float, float]] = {
        "visual.class_embedding": ((vision_width,), vision_width**-0.5, 0),
        "visual.positional_embedding": ((grid**2 + 1, vision_width), vision_width**-0.5, 0),
        "visual.proj": ((vision_width, joint), vision_width**-0.5, 0),
        "visual.conv1.weight": ((vision_width, 3, patch, patch), 0.02, 0),
        "positional_embedding": ((positions, text_width), 0.01, 0),
        "text_projection": ((text_width, joint), text_width**-0.5, 0),
    }
    for norm, width in [
        ("visual.ln_pre", vision_width),
        ("visual.ln_post", vision_width),
        ("ln_final", text_width),
    ]:
        rows |= _layer_norm(norm, width)
    for prefix, layers, width in [
        ("visual.transformer.resblocks", vision_layers, vision_width),
        ("transformer.resblocks", text_layers, text_width),
    ]:
        for block in range(layers):
            rows |= dict(_block(f"{prefix}.{block}", layers, width))
    return {name: generated_tensor(name, *row, seed=seed) for name, row in rows.items()}


def _block(
    name: str, layers: int, width: int
) -> Iterator[tuple[str, tuple[tuple[int, ...], float, float]]]:
    into_stream = width**-0.5 * (2 * layers) ** -0.5
    for part, rows, columns, std in [
        ("attn.in_proj_", 3 * width, width, width**-0.5),
        ("attn.out_proj.", width, width, into_stream),
        ("mlp.c_fc.", 4 * width, width, (2 * width) ** -0.5),
        ("mlp.c_proj.", width, 4 * width, into_stream),
    ]:
        yield f"{name}.{part}weight", ((rows, columns), std, 0)
        yield f"{name}.{part}bias", ((rows,), 0.02, 0)
    for norm in ("ln_1", "ln_2"):
        yield from _layer_norm(f"{name}.{norm}", width).items()


def _layer_norm(name: str, width: int) -> dict[str, tuple[tuple[int, ...], float, float]]:
    return {f"{name}.weight": ((width,), 0.05, 1), f"{name}.bias": ((width,), 0.02, 0)}

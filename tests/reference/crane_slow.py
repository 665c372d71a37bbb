"""The towers of Crane and Crane+ once more, written from the method's description alone.

Slow and independent: nothing is shared with `crane`. One image, one head and one sentence at a
time, every N x N attention in memory, resizing by explicit matrices, sentences at all 77 positions.
The precision is the weights' (give a float64 state dict for a float64 answer). State dicts carry
OpenAI's names, prompts the official checkpoints' names.

Letters: B images, N = h x w patches, M local embeddings, D vision width, E joint width, W text
width.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

State = dict[str, Tensor]
Grid = tuple[int, int]

START, END = 49406, 49407
OBJECT, DAMAGED, STOP = 14115, 13568, 269
AFTER_WORDS = {"ctx_pos": (OBJECT, STOP), "ctx_neg": (DAMAGED, OBJECT, STOP)}
HEAD_WIDTH = 64

VARIANTS = ("qq", "kk", "vv", "qq+kk", "qq+kk+vv", "(q+k+v)^2")
CONTEXT_MODES = ("none", "replace_prefix", "replace_suffix", "pad_prefix", "pad_suffix")


def in_double(state: State) -> State:
    return {name: tensor.double() for name, tensor in state.items()}


# --- arithmetic ------------------------------------------------------------------------------


def unit(x: Tensor) -> Tensor:
    return x / (x * x).sum(-1, keepdim=True).sqrt()


def softmax(x: Tensor) -> Tensor:
    e = (x - x.max(dim=-1, keepdim=True).values).exp()
    return e / e.sum(-1, keepdim=True)


def quick_gelu(x: Tensor) -> Tensor:
    return x / (1 + (-1.702 * x).exp())


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def norm(state: State, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred / (variance + 1e-5).sqrt() * state[f"{name}.weight"] + state[f"{name}.bias"]


def bilinear_matrix(rows_out: int, rows_in: int) -> np.ndarray:
    """Weights of linear interpolation, pixel centres at half integers, no antialiasing."""
    matrix = np.zeros((rows_out, rows_in))
    for i in range(rows_out):
        at = max((i + 0.5) * rows_in / rows_out - 0.5, 0.0)
        low = min(int(at), rows_in - 1)
        high = min(low + 1, rows_in - 1)
        matrix[i, low] += 1 - (at - low)
        matrix[i, high] += at - low
    return matrix


def resize(
    x: Tensor, old: Grid, new: Grid, matrix: Callable[[int, int], np.ndarray] = bilinear_matrix
) -> Tensor:
    """Rows of a flat grid (h*w, C) on another grid (h'*w', C)."""
    down = torch.from_numpy(matrix(new[0], old[0])).to(x)
    across = torch.from_numpy(matrix(new[1], old[1])).to(x)
    square = x.reshape(*old, -1)
    return torch.einsum("yr,xc,rcd->yxd", down, across, square).reshape(new[0] * new[1], -1)


# --- a transformer block, for one sequence (T, width) ------------------------------------------


def heads(state: State, block: str, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """(q, k, v) of every head for x = LN1 of the stream."""
    weight, bias = state[f"{block}.attn.in_proj_weight"], state[f"{block}.attn.in_proj_bias"]
    width = x.shape[-1]
    result = []
    for start in range(0, width, HEAD_WIDTH):
        rows = [slice(part * width + start, part * width + start + HEAD_WIDTH) for part in range(3)]
        q, k, v = (x @ weight[r].T + bias[r] for r in rows)
        result.append((q, k, v))
    return result


def project(state: State, block: str, outputs: Sequence[Tensor]) -> Tensor:
    joined = torch.cat(list(outputs), -1)
    return joined @ state[f"{block}.attn.out_proj.weight"].T + state[f"{block}.attn.out_proj.bias"]


def feed_forward(state: State, block: str, x: Tensor, activation: Callable) -> Tensor:
    inner = norm(state, f"{block}.ln_2", x) @ state[f"{block}.mlp.c_fc.weight"].T
    inner = activation(inner + state[f"{block}.mlp.c_fc.bias"])
    return inner @ state[f"{block}.mlp.c_proj.weight"].T + state[f"{block}.mlp.c_proj.bias"]


def self_affinity(t: Tensor) -> Tensor:
    """A(t): rows of softmax(t t' / sqrt(width of t))."""
    return softmax(t @ t.T / math.sqrt(t.shape[-1]))


def e_attn_weights(variant: str, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    if variant == "(q+k+v)^2":
        return self_affinity(torch.cat([q, k, v], -1))
    named = {"qq": q, "kk": k, "vv": v}
    return sum(self_affinity(named[term]) for term in variant.split("+"))


# --- vision ------------------------------------------------------------------------------------


class Streams(NamedTuple):
    """What one image leaves behind in the vision tower, each (1 + N, D)."""

    h: Tensor
    """The ordinary stream after the last block."""
    z: Tensor
    """The second stream after the last block; h itself where it never began."""
    before_last: Tensor
    """The ordinary stream before the last block."""
    after_attention: Tensor
    """The same after the last block's attention residual, before its MLP."""


class Vision(NamedTuple):
    """Unit-norm embeddings of images."""

    global_: Tensor
    """(B, E)"""
    patches: Tensor
    """(M, B, N, E), D before Z."""
    grid: Grid


def embed_image(
    state: State,
    image: Tensor,
    matrix: Callable[[int, int], np.ndarray] = bilinear_matrix,
) -> tuple[Tensor, Grid]:
    """Tokens (1 + N, D) of an image (3, H, W) before the first block, and the grid of patches."""
    kernel = state["visual.conv1.weight"]
    size = kernel.shape[-1]
    grid = image.shape[1] // size, image.shape[2] // size
    rows = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            window = image[:, y * size : (y + 1) * size, x * size : (x + 1) * size]
            rows.append(kernel.flatten(1) @ window.flatten())
    positions = state["visual.positional_embedding"]
    side = math.isqrt(len(positions) - 1)
    positions = torch.cat([positions[:1], resize(positions[1:], (side, side), grid, matrix)])
    tokens = torch.stack([state["visual.class_embedding"], *rows]) + positions
    return norm(state, "visual.ln_pre", tokens), grid


def vision_streams(
    state: State,
    tokens: Tensor,
    variant: str = "qq+kk+vv",
    num_blocks: int = 19,
    activation: Callable = quick_gelu,
) -> Streams:
    """Both streams of one image; the second runs through the last `num_blocks` blocks."""
    prefix = "visual.transformer.resblocks"
    num_layers = sum(name.startswith(prefix) and name.endswith("ln_1.weight") for name in state)
    h, z, before, after = tokens, None, tokens, tokens
    for layer in range(num_layers):
        block = f"{prefix}.{layer}"
        qkv = heads(state, block, norm(state, f"{block}.ln_1", h))
        if layer >= num_layers - num_blocks:
            own = [e_attn_weights(variant, q, k, v) @ v for q, k, v in qkv]
            z = (h if z is None else z) + project(state, block, own)
        ordinary = [softmax(q @ k.T / math.sqrt(HEAD_WIDTH)) @ v for q, k, v in qkv]
        before, after = h, h + project(state, block, ordinary)
        h = after + feed_forward(state, block, after, activation)
    return Streams(h, h if z is None else z, before, after)


def guide_similarity(features: Tensor, beta: float = 1.2, mean: str = "image") -> Tensor:
    """S - beta * mean(S) of each image, (B, N, N), for guide features (B, C, h, w).

    The published mean runs over the batch ("batch"), ours over the image ("image").
    """
    similarities = []
    for one in features:
        patches = one.flatten(1).T
        lengths = (patches * patches).sum(-1, keepdim=True).sqrt().clamp(min=1e-12)
        similarities.append((patches / lengths) @ (patches / lengths).T)
    s = torch.stack(similarities)
    return s - beta * (s.mean() if mean == "batch" else s.mean(dim=(1, 2), keepdim=True))


def guide_attention(
    features: Tensor, beta: float = 1.2, gamma: float = 3.0, mean: str = "image"
) -> Tensor:
    """R of each image, (B, N, N): row by row the softmax over what stays at or above zero.

    A row whose every entry is below zero keeps its diagonal alone.
    """
    shifted = gamma * guide_similarity(features, beta, mean)
    rows = torch.zeros_like(shifted)
    for b in range(shifted.shape[0]):
        for i in range(shifted.shape[1]):
            kept = shifted[b, i] >= 0
            kept[i] = True
            rows[b, i, kept] = softmax(shifted[b, i, kept])
    return rows


def d_attn(state: State, stream: Tensor, attention: Tensor, old: Grid, new: Grid) -> Tensor:
    """Proj(R V) of one image, (h'w', D), V from `stream` (1 + N, D) at the last block."""
    prefix = "visual.transformer.resblocks"
    num_layers = sum(name.startswith(prefix) and name.endswith("ln_1.weight") for name in state)
    block = f"{prefix}.{num_layers - 1}"
    outputs = []
    for _, _, v in heads(state, block, norm(state, f"{block}.ln_1", stream)):
        values = v[1:] if old == new else resize(v[1:], old, new)
        outputs.append(attention @ values)
    return project(state, block, outputs)


def vision(
    state: State,
    images: Tensor,
    features: Tensor | None = None,
    variant: str = "qq+kk+vv",
    num_blocks: int = 19,
    e_attn: bool = True,
    beta: float = 1.2,
    gamma: float = 3.0,
    mean: str = "image",
    value_input: str = "after_attention",
    activation: Callable = quick_gelu,
) -> Vision:
    """Embeddings of normalised images (B, 3, H, W).

    Without `features` there is {Z} alone, with them {D, Z}, and {D} alone where `e_attn` is off.
    """

    def finish(x: Tensor) -> Tensor:
        return unit(norm(state, "visual.ln_post", x) @ state["visual.proj"])

    attention = None if features is None else guide_attention(features, beta, gamma, mean)
    global_, local, grid = [], [], (0, 0)
    for b, image in enumerate(images):
        tokens, own_grid = embed_image(state, image)
        streams = vision_streams(state, tokens, variant, num_blocks, activation)
        grid = own_grid if features is None else (features.shape[2], features.shape[3])
        found = []
        if attention is not None:
            u = streams.after_attention
            u = streams.before_last if value_input == "block_input" else u
            found.append(finish(d_attn(state, u, attention[b], own_grid, grid)))
        if e_attn or attention is None:
            z = streams.z[1:]
            found.append(finish(z if grid == own_grid else resize(z, own_grid, grid)))
        local.append(torch.stack(found))
        global_.append(finish(streams.h[0]))
    return Vision(torch.stack(global_), torch.stack(local, 1), grid)


# --- text --------------------------------------------------------------------------------------


def sentence(
    state: State, prompts: State, which: str, context: Tensor | None, mode: str
) -> tuple[Tensor, int]:
    """Token rows of a sentence (77, W), no positions added, and the place of its end token."""
    embedding = state["token_embedding.weight"]
    words = list(prompts[which].reshape(-1, embedding.shape[1]))
    if context is not None and mode == "replace_prefix":
        words = [context, *words[1:]]
    elif context is not None and mode == "replace_suffix":
        words = [*words[:-1], context]
    elif context is not None and mode == "pad_prefix":
        words = [context, *words]
    elif context is not None and mode == "pad_suffix":
        words = [*words, context]
    rows = [embedding[START], *words, *(embedding[i] for i in AFTER_WORDS[which]), embedding[END]]
    end = len(rows) - 1
    rows += [embedding[0]] * (len(state["positional_embedding"]) - len(rows))
    return torch.stack(rows), end


def encode_sentence(
    state: State,
    rows: Tensor,
    end: int,
    deep: Sequence[Tensor],
    round_deep: bool = True,
    activation: Callable = quick_gelu,
) -> Tensor:
    """Unit-norm embedding (E,) of one sentence; deep[j] enters before block j + 1 (from 0)."""
    return unit(raw_sentence(state, rows, end, deep, round_deep, activation))


def raw_sentence(
    state: State,
    rows: Tensor,
    end: int,
    deep: Sequence[Tensor],
    round_deep: bool,
    activation: Callable,
) -> Tensor:
    """The same before it is brought to unit length."""
    length = len(rows)
    future = torch.ones(length, length, dtype=torch.bool).triu(1)
    x = rows + state["positional_embedding"][:length]
    prefix = "transformer.resblocks"
    num_layers = sum(name.startswith(prefix) and name.endswith("ln_1.weight") for name in state)
    for layer in range(num_layers):
        if 0 <= layer - 1 < len(deep):
            words = deep[layer - 1]
            words = words.half().to(x.dtype) if round_deep else words
            x = torch.cat([x[:1], words, x[1 + len(words) :]])
        block = f"{prefix}.{layer}"
        outputs = []
        for q, k, v in heads(state, block, norm(state, f"{block}.ln_1", x)):
            scores = (q @ k.T / math.sqrt(HEAD_WIDTH)).masked_fill(future, -math.inf)
            outputs.append(softmax(scores) @ v)
        x = x + project(state, block, outputs)
        x = x + feed_forward(state, block, x, activation)
    return norm(state, "ln_final", x[end]) @ state["text_projection"]


def text(
    state: State,
    prompts: State,
    context: Tensor | None = None,
    mode: str = "pad_suffix",
    round_deep: bool = True,
    activation: Callable = quick_gelu,
) -> Tensor:
    """(B, 2, E), normal before anomalous; B = 1 without context (B, W)."""
    num_deep = sum(name.startswith("compound_prompts_text.") for name in prompts)
    deep = [prompts[f"compound_prompts_text.{j}"] for j in range(num_deep)]
    images = []
    for one in [None] if context is None else context:
        pair = []
        for which in ("ctx_pos", "ctx_neg"):
            rows, end = sentence(state, prompts, which, one, mode)
            pair.append(encode_sentence(state, rows, end, deep, round_deep, activation))
        images.append(torch.stack(pair))
    return torch.stack(images)

"""The other methods of Table 1 once more, from their descriptions alone, one image at a time.

The rules and letters of `crane_slow`; nothing is shared with `crane`, and every N x N attention,
window, pixel of a view and step of an optimiser is written out. Images are normalised.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer
from torch import Tensor

from reference.crane_slow import (
    HEAD_WIDTH,
    Grid,
    State,
    bilinear_matrix,
    embed_image,
    feed_forward,
    heads,
    norm,
    project,
    raw_sentence,
    resize,
    self_affinity,
    softmax,
    unit,
)

VISUAL = "visual.transformer.resblocks"
TOKENS = SimpleTokenizer()


class Seen(NamedTuple):
    """A method's embeddings of one image."""

    global_: Tensor
    """(E,) of unit length."""
    patches: Tensor
    """(M, N, E) of unit length."""
    text: Tensor
    """(2, E) of unit length: t_n, t_a."""
    grid: Grid


# --- resizing ----------------------------------------------------------------------------------


def cubic(x: float, a: float) -> float:
    x = abs(x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def bicubic_matrix(rows_out: int, rows_in: int) -> np.ndarray:
    """Four neighbours whatever the scale, a = -0.75, borders repeated."""
    matrix = np.zeros((rows_out, rows_in))
    for i in range(rows_out):
        at = (i + 0.5) * rows_in / rows_out - 0.5
        for j in range(math.floor(at) - 1, math.floor(at) + 3):
            matrix[i, min(max(j, 0), rows_in - 1)] += cubic(at - j, -0.75)
    return matrix


def bicubic_antialias_matrix(rows_out: int, rows_in: int) -> np.ndarray:
    """A kernel as wide as the scale, a = -0.5, cut at borders, rows adding up to 1."""
    matrix, scale = np.zeros((rows_out, rows_in)), rows_in / rows_out
    for i in range(rows_out):
        for j in range(rows_in):
            away = (j + 0.5 - (i + 0.5) * scale) / max(scale, 1.0)
            matrix[i, j] = cubic(away, -0.5)
    return matrix / matrix.sum(axis=1, keepdims=True)


def corners_matrix(rows_out: int, rows_in: int) -> np.ndarray:
    """Linear interpolation in which the outermost centres fall on each other."""
    matrix = np.zeros((rows_out, rows_in))
    for i in range(rows_out):
        at = i * (rows_in - 1) / (rows_out - 1) if rows_out > 1 else 0.0
        low = min(math.floor(at), rows_in - 1)
        matrix[i, low] += 1 - (at - low)
        matrix[i, min(low + 1, rows_in - 1)] += at - low
    return matrix


RESIZES = {
    "bilinear": bilinear_matrix,
    "bicubic": bicubic_matrix,
    "bicubic_antialias": bicubic_antialias_matrix,
}


# --- towers ------------------------------------------------------------------------------------


def streams(
    state: State,
    tokens: Tensor,
    activation: Callable,
    first_vv: int | None = None,
    prompts: Sequence[Tensor] = (),
) -> list[tuple[Tensor, Tensor]]:
    """(h, z) after each block; z is h up to block `first_vv` (from 0), where it leaves.

    prompts[j] (K, D) stand behind the tokens in the input of block j, and run on after the last.
    """
    num_blocks = sum(n.startswith(VISUAL) and n.endswith("ln_1.weight") for n in state)
    h, z, found = tokens, None, []
    for layer in range(num_blocks):
        if layer < len(prompts):
            h = torch.cat([h[: len(tokens)], prompts[layer]])
        block = f"{VISUAL}.{layer}"
        qkv = heads(state, block, norm(state, f"{block}.ln_1", h))
        if first_vv is not None and layer >= first_vv:
            own = project(state, block, [self_affinity(v) @ v for _, _, v in qkv])
            z = (h if z is None else z) + own
        ordinary = [softmax(q @ k.T / math.sqrt(HEAD_WIDTH)) @ v for q, k, v in qkv]
        h = h + project(state, block, ordinary)
        h = h + feed_forward(state, block, h, activation)
        found.append((h[: len(tokens)], h[: len(tokens)] if z is None else z))
    return found


def to_joint(state: State, x: Tensor) -> Tensor:
    return norm(state, "visual.ln_post", x) @ state["visual.proj"]


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def sentences_of(words: Mapping[str, Any], class_name: str) -> tuple[list[str], list[str]]:
    """Normal and anomalous sentences about a class, in the published order."""
    name = words.get("class_names", {}).get(class_name, class_name)
    for old, new in words.get("replace", {}).items():
        name = name.replace(old, new)
    templates = words.get("templates")
    if templates is None:
        texture = class_name in words["textures"]
        templates = words["templates_texture" if texture else "templates_object"]
    result: tuple[list[str], list[str]] = ([], [])
    for state, found in zip(("normal", "anomalous"), result, strict=True):
        states = [one.replace("{}", name) for one in words[state]]
        if words["order"] == "templates outer, states inner":
            found += [t.replace("{}", s) for t in templates for s in states]
        else:
            found += [t.replace("{}", s) for s in states for t in templates]
    return result


def embed_sentences(
    state: State, sentences: Sequence[str], activation: Callable, deep: Sequence[Tensor] = ()
) -> Tensor:
    """(S, E), not of unit length; deep[j] (K, W) overwrite words before block j + 1."""
    embedding, found = state["token_embedding.weight"], []
    for sentence in sentences:
        ids = TOKENS(sentence)[0][: len(state["positional_embedding"])]
        end = int(ids.argmax())
        found.append(raw_sentence(state, embedding[ids], end, deep, False, activation))
    return torch.stack(found)


def text_pair(
    state: State,
    words: Mapping[str, Any],
    class_name: str,
    activation: Callable,
    mean_of: str,
    deep: Sequence[Tensor] = (),
) -> Tensor:
    """(2, E): unit(mean of the sentences), each of unit length before or not."""
    pair = []
    for sentences in sentences_of(words, class_name):
        each = embed_sentences(state, sentences, activation, deep)
        each = unit(each) if mean_of == "unit" else each
        pair.append(unit(sum(each) / len(each)))
    return torch.stack(pair)


def probability(x: Tensor, text: Tensor, temperature: float) -> Tensor:
    return softmax(x @ text.T / temperature)[..., 1]


# --- AnomalyCLIP, CLIP -------------------------------------------------------------------------


def anomalyclip(
    state: State,
    image: Tensor,
    text: Tensor,
    taps: Sequence[int],
    num_blocks: int,
    activation: Callable,
) -> Seen:
    """Taps of z; the image's embedding without LN_post."""
    tokens, grid = embed_image(state, image)
    num_layers = sum(n.startswith(VISUAL) and n.endswith("ln_1.weight") for n in state)
    found = streams(state, tokens, activation, num_layers - num_blocks)
    patches = [unit(to_joint(state, found[tap - 1][1][1:])) for tap in taps]
    return Seen(unit(found[-1][0][0] @ state["visual.proj"]), torch.stack(patches), text, grid)


def plain_clip(state: State, image: Tensor, text: Tensor, activation: Callable) -> Seen:
    """CLIP's own last patches."""
    tokens, grid = embed_image(state, image)
    h = streams(state, tokens, activation)[-1][0]
    joint = unit(to_joint(state, h))
    return Seen(joint[0], joint[None, 1:], text, grid)


def softmax_then_upsample(seen: Seen, size: Grid, temperature: float) -> Tensor:
    """(M, 2, H, W): bilinear."""
    each = [
        resize(softmax(one @ seen.text.T / temperature), seen.grid, size) for one in seen.patches
    ]
    return torch.stack(each).reshape(-1, *size, 2).permute(0, 3, 1, 2)


# --- VAND --------------------------------------------------------------------------------------


def vand(
    state: State,
    learned: State,
    image: Tensor,
    text: Tensor,
    taps: Sequence[int],
    activation: Callable,
    positions: str,
) -> Seen:
    """Raw taps through linear layers `fc.i`."""
    tokens, grid = embed_image(state, image, RESIZES[positions])
    found = streams(state, tokens, activation)
    patches = [unit(linear(learned, f"fc.{i}", found[t - 1][0][1:])) for i, t in enumerate(taps)]
    return Seen(unit(to_joint(state, found[-1][0][0])), torch.stack(patches), text, grid)


def upsample_then_softmax(seen: Seen, size: Grid, temperature: float) -> Tensor:
    """(M, 2, H, W): bilinear with aligned corners."""
    each = [
        softmax(resize(one @ seen.text.T / temperature, seen.grid, size, corners_matrix))
        for one in seen.patches
    ]
    return torch.stack(each).reshape(-1, *size, 2).permute(0, 3, 1, 2)


# --- AdaCLIP -----------------------------------------------------------------------------------


def adaclip(
    state: State,
    learned: State,
    image: Tensor,
    words: Mapping[str, Any],
    class_name: str,
    activation: Callable,
    *,
    taps: Sequence[int],
    depth: int,
    length: int,
    branch: str,
    kind: str,
    positions: str,
) -> Seen:
    """Prompts before the first `depth` blocks of both towers; `learned` under the authors' names.

    Prompts are not rounded to float16 here.
    """
    tokens, grid = embed_image(state, image, RESIZES[positions])
    g0 = to_joint(state, streams(state, tokens, activation)[-1][0][0])

    def prompts(which: str, letter: str, width: int) -> list[Tensor]:
        sets = []
        for j in range(depth if letter in branch else 0):
            one = torch.zeros(length, width).to(g0)
            if "D" in kind:
                head = f"dynamic_{which}_prompt_generator.head"
                one = one + torch.stack([linear(learned, f"{head}.{i}", g0) for i in range(length)])
            if "S" in kind:
                one = one + learned[f"{which}_prompter.static_prompts.{j}"]
            sets.append(one)
        return sets

    found = streams(state, tokens, activation, None, prompts("visual", "V", tokens.shape[1]))
    patches = [
        unit(linear(learned, f"patch_token_layer.head.{i}", found[t - 1][0][1:]))
        for i, t in enumerate(taps)
    ]
    joint = to_joint(state, found[-1][0][0])
    deep = prompts("text", "L", state["positional_embedding"].shape[1])[1:]
    text = text_pair(state, words, class_name, activation, "unit", deep)
    global_ = unit(linear(learned, "cls_token_layer.head.0", joint))
    return Seen(global_, torch.stack(patches), text, grid)


def semantic_fusion(
    seen: Seen,
    num_clusters: int,
    per_cluster: int,
    weight: float,
    temperature: float,
    cluster: Callable[[Tensor], Sequence[int]],
) -> Tensor:
    """(E,): the image's embedding moved towards the clusters of its most anomalous patches.

    Args:
        cluster: From rows (k, M * E), the most anomalous first, to their labels.
    """
    logits = sum(one @ seen.text.T for one in seen.patches) / len(seen.patches) / temperature
    order = softmax(logits)[:, 1].argsort(descending=True)
    chosen = order[: num_clusters * per_cluster].tolist()
    labels = cluster(torch.stack([torch.cat(list(seen.patches[:, i])) for i in chosen]))
    centres = []
    for label in sorted(set(labels)):
        own = [i for i, one in zip(chosen, labels, strict=True) if one == label]
        centres.append(seen.patches[:, own].reshape(-1, seen.patches.shape[-1]).mean(0))
    centre = unit(sum(centres) / len(centres))
    return unit(weight * centre + (1 - weight) * seen.global_)


def mean_logits_map(seen: Seen, size: Grid, temperature: float) -> Tensor:
    """(H, W): the mean over taps of upsampled logits, then the softmax."""
    each = [
        resize(one @ seen.text.T / temperature, seen.grid, size, corners_matrix)
        for one in seen.patches
    ]
    return softmax(sum(each) / len(each))[:, 1].reshape(size)


def dice_of_rows(soft: Tensor, mask: Tensor) -> Tensor:
    """1 - Dice of each row of pixels, smoothed by 1; the mean over all rows."""
    rows = [
        1 - (2 * (x * t).sum() + 1) / (x.sum() + t.sum() + 1)
        for one, truth in zip(soft, mask.to(soft), strict=True)
        for x, t in zip(one, truth, strict=True)
    ]
    return torch.stack(rows).mean()


# --- WinCLIP -----------------------------------------------------------------------------------


def winclip(
    state: State,
    image: Tensor,
    text: Tensor,
    scales: Sequence[int],
    activation: Callable,
    temperature: float,
) -> tuple[Tensor, Tensor, Grid]:
    """The image's score, and a value for each patch (N,)."""

    def class_token(tokens: Tensor) -> Tensor:
        return unit(to_joint(state, streams(state, tokens, activation)[-1][0][0]))

    tokens, grid = embed_image(state, image)
    score = probability(class_token(tokens), text, temperature)
    values = []
    windows: dict[int, list[tuple[set[int], Tensor]]] = {}
    for k in scales:
        windows[k] = []
        for top in range(grid[0] - k + 1):
            for left in range(grid[1] - k + 1):
                members = [(top + y) * grid[1] + left + x for y in range(k) for x in range(k)]
                cut = torch.cat([tokens[:1], tokens[[1 + i for i in members]]])
                p = probability(class_token(cut), text, temperature)
                windows[k].append((set(members), p))
    for patch in range(grid[0] * grid[1]):
        harmonic = []
        for k in scales:
            holding = [p for members, p in windows[k] if patch in members]
            harmonic.append(len(holding) / sum(1 / p for p in holding))
        values.append((len(scales) + 1) / (sum(1 / one for one in harmonic) + 1 / score))
    return score, torch.stack(values), grid


# --- AnoVL -------------------------------------------------------------------------------------


def sampled(image: Tensor, matrix: Sequence[Sequence[float]]) -> Tensor:
    """An affine view, bilinear, corners aligned; what lies outside is mirrored at pixel centres."""
    _, height, width = image.shape

    def mirrored(at: float, length: int) -> float:
        at = abs(at) % (2 * (length - 1))
        return min(at, 2 * (length - 1) - at)

    out = torch.zeros_like(image)
    for i in range(height):
        for j in range(width):
            x, y = 2 * j / (width - 1) - 1, 2 * i / (height - 1) - 1
            u, v = (row[0] * x + row[1] * y + row[2] for row in matrix)
            u = mirrored((u + 1) / 2 * (width - 1), width)
            v = mirrored((v + 1) / 2 * (height - 1), height)
            for dy in (0, 1):
                for dx in (0, 1):
                    r, c = min(int(v) + dy, height - 1), min(int(u) + dx, width - 1)
                    share = abs(1 - dy - (v - int(v))) * abs(1 - dx - (u - int(u)))
                    out[:, i, j] += share * image[:, r, c]
    return out


def turned(image: Tensor) -> Tensor:
    """A quarter turn against the clock."""
    _, height, width = image.shape
    rows = [
        torch.stack([image[:, j, width - 1 - i] for j in range(height)], 1) for i in range(width)
    ]
    return torch.stack(rows, 1)


def views(image: Tensor) -> list[Tensor]:
    """The 22 views in their order."""
    found = [image]
    for k in (-4, -3, -2, -1, 1, 2, 3, 4):
        angle = k * math.pi / 16
        found.append(
            sampled(
                image,
                [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]],
            )
        )
    for d in (0.2, 0.1):
        found += [
            sampled(image, [[1, 0, a * d], [0, 1, b * d]])
            for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1))
        ]
    found.append(torch.stack([image[:, :, -1 - j] for j in range(image.shape[2])], 2))
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    found.append(torch.stack([grey] * 3))
    for _ in range(3):
        image = turned(image)
        found.append(image)
    return found


def anovl_vision(state: State, image: Tensor, activation: Callable) -> tuple[Tensor, Tensor, Grid]:
    """Unit-norm embeddings of the views (22, E), and patches (N, E), not of unit length."""
    global_ = []
    for view in views(image):
        tokens, _ = embed_image(state, view)
        global_.append(unit(to_joint(state, streams(state, tokens, activation)[-1][0][0])))
    tokens, grid = embed_image(state, image)
    z = streams(state, tokens, activation, first_vv=0)[-1][1]
    return torch.stack(global_), to_joint(state, z)[1:], grid


class AdamWState:
    """Moments and steps of decoupled Adam, betas (0.9, 0.999)."""

    def __init__(self) -> None:
        self.steps, self.mean, self.square = 0, [0.0, 0.0], [0.0, 0.0]

    def step(
        self, values: list[Tensor], gradients: Sequence[Tensor], rate: float, decay: float
    ) -> list[Tensor]:
        self.steps += 1
        moved = []
        for i, (value, g) in enumerate(zip(values, gradients, strict=True)):
            self.mean[i] = 0.9 * self.mean[i] + 0.1 * g
            self.square[i] = 0.999 * self.square[i] + 0.001 * g * g
            mean = self.mean[i] / (1 - 0.9**self.steps)
            spread = (self.square[i] / (1 - 0.999**self.steps)) ** 0.5 + 1e-8
            moved.append(value - rate * decay * value - rate * mean / spread)
        return moved


def adapted(
    x: Tensor,
    rows: Tensor,
    text: Tensor,
    weight: Tensor,
    bias: Tensor,
    noises: Sequence[Tensor],
    optimizer: AdamWState,
    rate: float,
    decay: float,
) -> Tensor:
    """Anomalous probability of each patch (N,) after as many steps as there are noises."""

    def predict(y: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        adapted = y / 2 + torch.tanh(unit(y) @ weight.T + bias) @ rows / 2
        return softmax(unit(adapted) @ text.T)

    values = [weight, bias]
    for noise in noises:
        values = [one.detach().requires_grad_() for one in values]
        clean, noisy = predict(x, *values), predict(x + noise, *values)
        entropy = -(clean * clean.log()).sum(-1).mean()
        contrast = (-noisy[:, 1].log() - clean[:, 0].log()).mean()
        gradients = torch.autograd.grad(entropy + contrast / 2, values)
        values = optimizer.step([one.detach() for one in values], gradients, rate, decay)
    return predict(x, *values)[:, 1]


def smoothed(values: Tensor, grid: Grid) -> Tensor:
    """The mean over 3 x 3 patches, borders repeated."""
    plane, found = values.reshape(grid), []
    for i in range(grid[0]):
        for j in range(grid[1]):
            near = [
                plane[min(max(i + y, 0), grid[0] - 1), min(max(j + x, 0), grid[1] - 1)]
                for y in (-1, 0, 1)
                for x in (-1, 0, 1)
            ]
            found.append(sum(near) / 9)
    return torch.stack(found)

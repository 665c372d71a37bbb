"""Each method's forward against the plain ViT of its backbone, and what arithmetic allows."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from open_clip import get_model_config, get_tokenizer
from torch import Tensor

from benchmarks._harness import Claim, Options, Report, Work, fastest, isolated, say
from crane.backbones import Clip
from crane.config import compose, plain
from crane.methods import build_model
from crane.weights import load_open_clip

METHODS = ("clip", "crane", "anomalyclip", "vand", "adaclip", "winclip", "anovl")
"""Crane+ is Crane and a guide's forward: see `forward`."""
REPEATS = {False: 2, True: 1}
MARGIN = 1.5
"""What a method may take beyond its products: the blur of a map, softmaxes, small matrices."""


def run(options: Options) -> Report:
    """Time the methods of a backbone and its plain ViT in turns, one backbone after the other."""
    rows, claims = [], []
    for methods in (METHODS[:5], METHODS[5:]):
        seconds, wanted, place = isolated(_measure, options, methods)
        for method in methods:
            ratio, limit = seconds[method] / seconds["vit"], MARGIN * wanted[method]
            claims.append(Claim(f"forward of {method} / its plain ViT", limit, ratio, True))
            rows.append(
                [method, place, f"{seconds[method]:.3g}"]
                + [f"{value:.2f}" for value in (ratio, wanted[method], limit)]
            )
    return Report(
        title="Methods",
        text=(
            "One image, random weights, float32; the fastest of "
            f"{REPEATS[options.small]} rounds in which the methods of a backbone and open_clip's "
            "own forward took turns. Text is encoded once for a test and not timed, but for "
            "AdaCLIP, where it depends on the image. Products: multiplications of "
            "matrices in a method's forward, divided by those of the ViT's, from formulas that a "
            "test compares with torch's counter. The limit is "
            f"{MARGIN} times that: blur, softmaxes and small matrices are not in it."
        ),
        claims=claims,
        columns=["method", "backbone", "s / image", "to the ViT", "products", "limit"],
        rows=rows,
    )


def _measure(
    options: Options, methods: tuple[str, ...]
) -> tuple[dict[str, float], dict[str, float], str]:
    works: dict[str, Work] = {}
    wanted = {}
    for method in methods:
        model, image = built(method, options.small, options.device)
        works[method] = forward(model, image)
        wanted[method] = products(model, image) / vit_products(model, image)
    config = _config(methods[0])
    works = {"vit": partial(_vit, image, config, options), **works}
    say(f"{', '.join(methods)} at {image.shape[-1]} px")
    place = "tiny" if options.small else str(config.backbone.model.architecture)
    return fastest(works, REPEATS[options.small], options.device), wanted, place


@torch.no_grad()
def _vit(image: Tensor, config: Any, options: Options) -> Tensor:
    size = image.shape[-1]
    tower = _open_clip(_name(config, options.small), size).to(options.device)
    embedded: Tensor = tower.encode_image(image)
    return embedded


def _config(method: str) -> Any:
    return compose("train", [f"method={method}"])


def _name(config: Any, small: bool) -> str:
    return "tiny" if small else str(config.backbone.model.architecture)


def built(method: str, small: bool, device: str) -> tuple[Any, Tensor]:
    """A method on its published backbone (small: on the tiny one), and an image."""
    config = compose("train", [f"method={method}", *(["backbone=tiny"] if small else [])])
    size = 56 if small else config.backbone.image_size
    config.backbone.model = {
        **{"_target_": f"{__name__}.adapted", "name": _name(config, small), "size": size},
        "quick_gelu": True,
    }
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    return build_model(config).to(device), image.to(device)


def adapted(name: str, size: int, quick_gelu: bool) -> Clip:
    """Towers around the shared open_clip model; a `_target_` for `backbone.model`."""
    return Clip(_open_clip(name, size), get_tokenizer("ViT-L-14-336"))


@lru_cache(maxsize=1)
def _open_clip(name: str, size: int) -> Any:
    """An open_clip model built for this image size, so that its own forward accepts the images."""
    tiny: dict[str, Any] = plain(compose("train", ["backbone=tiny"]).backbone)["model"]
    architecture = tiny["architecture"] if name == "tiny" else get_model_config(name)
    architecture["vision_cfg"]["image_size"] = size
    model = load_open_clip(
        architecture, "random", quick_gelu=True, seed=0, weights_dir=".", allow_download=False
    )
    return model.eval().requires_grad_(False)


def forward(model: Any, image: Tensor) -> Callable[[], object]:
    """Score and map of an image; text that does not depend on it is there already."""
    text = model.encode_classes(["object"])
    class_id = torch.zeros(1, dtype=torch.int64, device=image.device)
    size = (image.shape[-2], image.shape[-1])

    def work() -> object:
        with torch.no_grad():
            return model.predict(model.encode(image), text, class_id, size)

    return work


# --- the arithmetic: a product of (a, b) and (b, c) is 2 a b c ------------------------------------


def block(tokens: int, width: int) -> int:
    """A transformer block: queries, keys, values, output; attention; an MLP four times as wide."""
    return 24 * tokens * width**2 + 4 * tokens**2 * width


def read_block(tokens: int, width: int) -> int:
    """A block of which one token is read: all keys and values, one query's attention and MLP."""
    return 6 * tokens * width**2 + 4 * tokens * width + 18 * width**2


def correlated(tokens: int, width: int) -> int:
    """A second stream's part of a block: self-correlation of one kind of head, and output."""
    return 4 * tokens**2 * width + 2 * tokens * width**2


def _sizes(model: Any, image: Tensor) -> tuple[Any, int, int, int, int]:
    """Tower, number of blocks, tokens, width, and products of the patches' convolution."""
    tower = getattr(model.vision, "tower", model.vision)
    rows, columns = tower.grid(*image.shape[-2:])
    width, patches = tower.projection.shape[0], rows * columns
    height_of, width_of = tower.patch_size
    return tower, len(tower.blocks), patches + 1, width, 6 * patches * width * height_of * width_of


def vit_products(model: Any, image: Tensor) -> int:
    """The plain ViT of a method's backbone."""
    tower, depth, tokens, width, embed = _sizes(model, image)
    return embed + depth * block(tokens, width) + 2 * width * tower.joint_width


def products(model: Any, image: Tensor) -> int:
    """A method's forward, by what its authors describe."""
    tower, depth, tokens, width, embed = _sizes(model, image)
    joint, name = tower.joint_width, type(model).__name__
    compared = 4 * (tokens - 1) * joint  # patches with two sentences
    to_joint = 2 * width * joint
    whole = embed + depth * block(tokens, width) + to_joint
    if name == "PlainClip":
        return whole + (tokens - 1) * to_joint + compared
    if name in ("Crane", "AnomalyClip"):
        stream = model.vision.stream
        kinds = len(getattr(stream.correlation, "of", "v"))
        second = stream.num_blocks * correlated(tokens, width)
        second += (kinds - 1) * stream.num_blocks * 4 * tokens**2 * width
        saved = block(tokens, width) - read_block(tokens, width)
        return whole - saved + second + (tokens - 1) * to_joint + compared
    if name == "Vand":
        return whole + len(model.taps) * ((tokens - 1) * to_joint + compared)
    if name == "AdaClip":
        length = model.learned["vision_prompts"].length
        again = depth * block(tokens + length, width) + to_joint + 2 * joint**2
        again += 2 * length * joint * (width + 2 * model.text.width)  # generators, text's twice
        taps = len(model.taps) * ((tokens - 1) * to_joint + compared)
        text = model.encode_classes(["object"])
        rows = [one for pair in text.rows for one in pair]
        return whole + again + taps + sum(_text(model, len(r), r.shape[1]) for r in rows)
    if name == "WinClip":
        rows, columns = tower.grid(*image.shape[-2:])
        windows = [(k, (rows - k + 1) * (columns - k + 1)) for k in model.scales]
        cut = [n * (depth * block(k * k + 1, width) + to_joint) for k, n in windows]
        return whole + sum(cut)
    assert name == "AnoVl", name
    sentences = 2 * len(model.ensemble.sentences("object")[0])
    adapter = 4 * (tokens - 1) * joint * sentences  # forward; as much again for its gradient
    fitted = adapter * (4 * model.num_steps + 1)
    second = depth * (correlated(tokens, width) + 6 * tokens * width**2)  # values made once more
    return 22 * whole + second + (tokens - 1) * to_joint + fitted


def _text(model: Any, rows: int, length: int) -> int:
    """Sentences through the text tower, of whose last block the end tokens are read."""
    width, depth = model.text.width, len(model.text.blocks)
    each = (depth - 1) * block(length, width) + read_block(length, width)
    return rows * (each + 2 * width * model.text.joint_width)

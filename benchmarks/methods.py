"""Each method's forward against the plain ViT of its backbone, and what arithmetic allows."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import torch
from open_clip import get_model_config, get_tokenizer
from torch import Tensor

from benchmarks._arithmetic import cost_of, sizes_of
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
        config = config_of(method, options.small)
        cost = cost_of(method, config)
        wanted[method] = (cost.encode + cost.head).flops / sizes_of(config).vit().flops
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


def config_of(method: str, small: bool) -> Any:
    """A method on its published backbone and guide, or on the tiny ones."""
    tiny = ["backbone=tiny", "image_size=56"] if small else []
    tiny += ["guide=tiny"] if small and method == "crane_plus" else []
    return compose("train", [f"method={method}", *tiny])


def _name(config: Any, small: bool) -> str:
    return "tiny" if small else str(config.backbone.model.architecture)


def built(method: str, small: bool, device: str) -> tuple[Any, Tensor]:
    """A method on the backbone of `config_of`, and an image."""
    config = config_of(method, small)
    size = int(config.image_size)
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

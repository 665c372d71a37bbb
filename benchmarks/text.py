"""Text encoding and its gradient, against computing all 77 positions."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks import _plain
from benchmarks._harness import Claim, Options, Report, Work, fastest, isolated, say
from benchmarks._models import Models, build
from benchmarks._pictures import Line, draw
from crane.types import VisionTokens

BATCHES = {False: (1, 2, 4, 8, 16), True: (1, 8)}
"""Batch sizes of the figure."""
BATCH = 8
"""The published batch size, for the claim."""
REPEATS = {False: 5, True: 1}
OURS, PLAIN = "cut to the longest row", "all 77 positions"


def run(options: Options) -> Report:
    """Time both implementations in turns in one process, at several batch sizes."""
    seconds, length, difference = isolated(_measure, options)
    lines = [
        Line(name, list(seconds), [found[name] for found in seconds.values()])
        for name in (OURS, PLAIN)
    ]
    draw(
        options.pictures / "text.png",
        x="images per batch, two sentences each",
        panels={"seconds for embeddings and gradient": lines},
    )
    rows = [
        [
            str(batch),
            *(f"{1e3 * found[name]:.0f}" for name in (OURS, PLAIN)),
            f"{_times(found):.2f}",
        ]
        for batch, found in seconds.items()
    ]
    name = "the tiny backbone's" if options.small else "ViT-L/14's"
    return Report(
        title="Text",
        text=(
            f"{name} text tower, random weights, float32, prompts with image context: embeddings "
            "of the normal and the anomalous sentence for a batch of images, and the gradient of "
            f"the learned prompts; the fastest of {REPEATS[options.small]} rounds in which both "
            f"took turns. Sentences need {length} of 77 positions. The straightforward way "
            "(`benchmarks/_plain.py`) runs open_clip's own blocks over all of them, both sentences "
            f"in one batch; its gradient differs by {difference:.1e} of its norm."
        ),
        claims=[
            Claim(
                f"text and its gradient, batch of {BATCH}: times faster than at 77 positions",
                3.5,
                _times(seconds[BATCH]),
                False,
            )
        ],
        columns=["images", f"{OURS} (ms)", f"{PLAIN} (ms)", "times faster"],
        rows=rows,
        picture="text.png",
    )


def _times(found: dict[str, float]) -> float:
    return found[PLAIN] / found[OURS]


def _measure(options: Options) -> tuple[dict[int, dict[str, float]], int, float]:
    models, device = build(options.small, options.device), options.device
    seconds = {}
    for batch in BATCHES[options.small]:
        say(f"{batch} images")
        seconds[batch] = fastest(_works(models, batch, device), REPEATS[options.small], device)
    first, second = (_gradient(models, w) for w in _works(models, BATCH, device).values())
    difference = float((first - second).norm() / second.norm())
    if difference > 1e-4:
        raise RuntimeError(f"the gradient of the plain text tower differs by {difference:.1e}")
    length = models.crane.prompts(_images(models, 1, device)).rows.shape[1]
    return seconds, length, difference


def _works(models: Models, batch: int, device: str) -> dict[str, Work]:
    image = _images(models, batch, device)
    crane = models.crane
    tokens = VisionTokens(image, image[None, :, None], (1, 1))  # prompts use g only
    ours = partial(crane.encode_prompts, tokens, with_context=True)
    plain = partial(_plain.sentences, models.clip, crane.prompts, image)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(batch, 2, image.shape[1], generator=generator).to(device)
    return {
        OURS: partial(_step, models, ours, weights),
        PLAIN: partial(_step, models, plain, weights),
    }


def _step(models: Models, encode: Callable[[], Tensor], weights: Tensor) -> None:
    """Compute embeddings, and the gradient of a randomly weighted sum of them."""
    models.crane.prompts.zero_grad()
    (encode() * weights).sum().backward()


def _gradient(models: Models, work: Work) -> Tensor:
    work()
    gradients = [p.grad for p in models.crane.prompts.parameters()]
    return torch.cat([g.flatten() for g in gradients if g is not None])


def _images(models: Models, batch: int, device: str) -> Tensor:
    """Unit-norm global embeddings."""
    generator = torch.Generator().manual_seed(0)
    width = models.crane.text.joint_width
    return F.normalize(torch.randn(batch, width, generator=generator), dim=-1).to(device)

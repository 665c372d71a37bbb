"""Crane's forward against that of a plain ViT and of a straightforward implementation."""

from functools import partial

import torch
from torch import Tensor

from benchmarks import _plain
from benchmarks._harness import (
    Claim,
    Options,
    Report,
    Work,
    fastest,
    isolated,
    peak_allocated,
    peak_memory,
    say,
    seconds_of,
)
from benchmarks._models import IMAGE_SIZE, Models, build
from benchmarks._pictures import Line, draw

ROWS = {
    "vit": "the plain ViT: open_clip's own forward",
    "crane": "Crane: both streams, prompts, map, score",
    "crane_plus": "Crane+: the same with D-Attn, without the guide's forward",
    "crane_vision": "Crane's vision side alone",
    "materialised": "the same vision side, straightforward, attention matrices in memory",
}
SIZES = {False: (224, 308, 392, 518), True: (56, 112)}
"""Image sizes of the figure, in pixels."""
REPEATS = {False: 3, True: 1}


def run(options: Options) -> Report:
    """Time all rows in turns in one process, then measure the memory of each in a new process."""
    seconds, allocated, difference, growth = isolated(_measure, options)
    resident = {row: isolated(_resident, options, row) for row in ROWS}
    say("resident above the model:", ", ".join(f"{r} {v / 1e6:.0f}" for r, v in resident.items()))
    _draw(growth, options)
    base = seconds["vit"]
    rows = [
        [
            words,
            f"{seconds[row]:.3g}",
            f"{seconds[row] / base:.2f}",
            f"{allocated[row] / 1e6:.0f}",
            f"{resident[row] / 1e6:.0f}",
        ]
        for row, words in ROWS.items()
    ]
    size = IMAGE_SIZE[options.small]
    name = "the tiny backbone" if options.small else "ViT-L/14"
    return Report(
        title="The forward",
        text=(
            f"{name} at {size} px, random weights, float32, one image; seconds are the fastest of "
            f"{REPEATS[options.small]} rounds in which the rows took turns. Activations: the peak "
            "of the bytes allocated by PyTorch during the forward, without weights and inputs; "
            "exact. Resident: growth of the peak of a separate process in its first forward at "
            "this size, buffers of libraries included. The straightforward vision side "
            "(`benchmarks/_plain.py`) gives the same embeddings: the largest difference is "
            f"{difference:.1e}. The figure shows the same rows at other sizes."
        ),
        claims=_claims(seconds, allocated, resident),
        columns=["forward", "s / image", "to the ViT", "activations (MB)", "resident (MB)"],
        rows=rows,
        picture="forward.png",
    )


def _claims(
    seconds: dict[str, float], allocated: dict[str, int], resident: dict[str, int]
) -> list[Claim]:
    plain, ours = "materialised", "crane_vision"
    return [
        Claim("Crane's forward / plain ViT's", 1.55, seconds["crane"] / seconds["vit"], True),
        Claim("Crane+'s forward / plain ViT's", 1.65, seconds["crane_plus"] / seconds["vit"], True),
        Claim(
            "times faster than materialised attention", 1.25, seconds[plain] / seconds[ours], False
        ),
        Claim(
            "activations / those of materialised attention",
            1 / 3,
            allocated[ours] / allocated[plain],
            True,
        ),
        Claim(
            "the same by resident memory",
            1 / 3,
            resident[ours] / resident[plain] if resident[plain] else None,
            True,
        ),
    ]


def _works(models: Models, images: Tensor, *, any_size: bool = False) -> dict[str, Work]:
    """The work of each row; the ViT's own forward accepts one size, otherwise its blocks run."""
    tower = models.crane.vision.tower
    normalised = (images - tower.mean) / tower.std
    blocks = models.clip.visual.transformer
    return {
        "vit": (lambda: blocks(tower.embed(images)))
        if any_size
        else partial(models.clip.visual, normalised),
        "crane": partial(models.crane, images),
        "crane_plus": partial(models.crane_plus, images),
        "crane_vision": partial(models.crane.vision, images),
        "materialised": partial(_plain.vision, models.clip, tower, images, models.num_blocks),
    }


Growth = dict[str, list[tuple[int, float, float]]]
"""Row to the points (pixels, seconds, bytes) of the figure."""


def _measure(options: Options) -> tuple[dict[str, float], dict[str, int], float, Growth]:
    models = build(options.small, options.device)
    with torch.inference_mode():
        return _measure_models(models, options)


def _measure_models(
    models: Models, options: Options
) -> tuple[dict[str, float], dict[str, int], float, Growth]:
    size, device = IMAGE_SIZE[options.small], options.device
    images = torch.rand(1, 3, size, size, device=device)
    works = _works(models, images)
    seconds = fastest(works, REPEATS[options.small], device)
    allocated = {row: peak_allocated(work, device) for row, work in works.items()}
    ours, theirs = works["crane_vision"](), works["materialised"]()
    difference = max(float((a - b).abs().max()) for a, b in zip(ours[:2], theirs[:2], strict=True))
    if difference > 1e-4:
        raise RuntimeError(f"the straightforward vision side differs by {difference:.1e}")
    return seconds, allocated, difference, _growth(models, options)


def _growth(models: Models, options: Options) -> Growth:
    growth: Growth = {row: [] for row in ("vit", "crane_vision", "materialised")}
    device = options.device
    for size in SIZES[options.small]:
        images = torch.rand(1, 3, size, size, device=device)
        works = _works(models, images, any_size=True)
        for row, found in growth.items():
            taken = min(seconds_of(works[row], device) for _ in range(2))
            found.append((size, taken, peak_allocated(works[row], device)))
        say(f"{size} px:", ", ".join(f"{row} {f[-1][1]:.3g} s" for row, f in growth.items()))
    return growth


def _resident(options: Options, row: str) -> int:
    """Growth of a process's peak memory in its first forward, in bytes, with warm libraries.

    0 on a GPU, where activations are in device memory.
    """
    if options.device != "cpu":
        return 0
    models = build(options.small, options.device)
    size = IMAGE_SIZE[options.small]
    with torch.inference_mode():
        _works(models, torch.rand(1, 3, 56, 56), any_size=True)[row]()
        work = _works(models, torch.rand(1, 3, size, size))[row]
        before = peak_memory()
        work()
        return peak_memory() - before


def _draw(growth: Growth, options: Options) -> None:
    tokens = {size: (size // 14) ** 2 + 1 for size in SIZES[options.small]}
    seconds = [
        Line(ROWS[row], [tokens[s] for s, _, _ in found], [t for _, t, _ in found])
        for row, found in growth.items()
    ]
    memory = [
        Line(ROWS[row], [tokens[s] for s, _, _ in found], [b / 1e6 for _, _, b in found])
        for row, found in growth.items()
    ]
    draw(
        options.pictures / "forward.png",
        x="tokens per image",
        panels={"seconds per image": seconds, "activations, MB": memory},
    )

"""Tests and predictions on ten to ten thousand images: linear time, constant memory."""

import tempfile
from functools import partial
from pathlib import Path

from benchmarks._harness import Claim, Options, Report, isolated, peak_memory, say
from benchmarks._pictures import Line, draw
from benchmarks._runs import QUIET, accelerator, crane, make_images, of_folder
from crane.config import compose
from crane.methods import build_model, model_config, save_prompts

NUM_IMAGES = {False: (10, 100, 1000, 10_000), True: (4,)}
"""`--small` makes no claims: so few images take no time compared with the rest of a command."""
NUM_DISTINCT = 10
SIDE, BATCH_SIZE = 56, 50
TEST, PREDICT = "crane test", "crane predict"

Found = dict[int, tuple[float, int]]
"""Number of images to seconds and peak memory in bytes."""


def run(options: Options) -> Report:
    """Run each command on each number of images in a new process."""
    found: dict[str, Found] = {TEST: {}, PREDICT: {}}
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        _save_prompts(folder / "prompts.safetensors")
        for num in NUM_IMAGES[options.small]:
            distinct = min(num, NUM_DISTINCT)
            make_images(folder / f"{num}", num, SIDE, num_distinct=distinct)
            for command, values in found.items():
                work = {TEST: _test, PREDICT: _predict}[command]
                values[num] = isolated(work, options, folder, num)
                seconds, peak = values[num]
                say(f"{command}, {num} images: {seconds:.3g} s, {peak / 1e6:.0f} MB")
    _draw(found, options)
    return Report(
        title="Many images",
        text=(
            f"The tiny backbone, images of {SIDE} px, batches of {BATCH_SIZE}, no worker "
            "processes, no pictures; each cell is a process of its own, without its start-up. "
            "Memory is the peak of the whole process, most of it Python and PyTorch. Linear: the "
            "cost of an additional image between the two largest numbers, divided by the cost "
            "below these. Constant: the peak at the largest number, divided by that at the second."
        ),
        claims=[]
        if options.small
        else [claim for command in found for claim in claims_of(command, found[command])],
        columns=["images", *(f"{c}: {what}" for c in found for what in ("s", "peak (MB)"))],
        rows=[
            [str(num), *(cell for values in found.values() for cell in _cells(values[num]))]
            for num in NUM_IMAGES[options.small]
        ],
        picture="growth.png",
    )


def _cells(value: tuple[float, int]) -> list[str]:
    return [f"{value[0]:.3g}", f"{value[1] / 1e6:.0f}"]


def claims_of(command: str, values: Found) -> list[Claim]:
    """Targets for the growth of a command's cost.

    Args:
        command: Name of the command.
        values: Measurements at three or more increasing numbers of images.

    Raises:
        RuntimeError: More images took less time, so the numbers are too small to measure.
    """
    first, second, *_ = numbers = list(values)
    before, last = numbers[-2:]
    early = (values[before][0] - values[first][0]) / (before - first)
    late = (values[last][0] - values[before][0]) / (last - before)
    if early <= 0 or late <= 0:
        raise RuntimeError(f"{command} took less time for more images: {values}")
    flat = values[last][1] / values[second][1]
    return [
        Claim(f"{command}: an additional image, late / early", 1.25, late / early, True),
        Claim(f"{command}: peak memory, most images / few", 1.1, flat, True),
    ]


def _save_prompts(path: Path) -> None:
    config = compose("train", ["backbone=tiny"])
    save_prompts(path, build_model(config), model_config(config), {})


def _test(options: Options, folder: Path, num: int) -> tuple[float, int]:
    return _typed(
        folder,
        "test",
        *of_folder("targets", folder / f"{num}"),
        *QUIET,
        accelerator(options.device),
        "data.num_workers=0",
        f"data.test_batch_size={BATCH_SIZE}",
        "results_store=null",
    )


def _predict(options: Options, folder: Path, num: int) -> tuple[float, int]:
    return _typed(
        folder,
        "predict",
        f"input={folder / f'{num}'}",
        f"accelerator={'gpu' if options.device == 'cuda' else 'cpu'}",
        "num_workers=0",
        f"batch_size={BATCH_SIZE}",
        "maps=none",
        "overlays=none",
    )


def _typed(folder: Path, command: str, *arguments: str) -> tuple[float, int]:
    checkpoint = f"checkpoint={folder / 'prompts.safetensors'}"
    typed = partial(crane, command, checkpoint, f"image_size={SIDE}", folder=folder)
    seconds = typed(*arguments, f"hydra.run.dir={tempfile.mkdtemp(dir=folder)}")
    return seconds, peak_memory()


def _draw(found: dict[str, Found], options: Options) -> None:
    panels: dict[str, list[Line]] = {"seconds": [], "peak memory, MB": []}
    for command, values in found.items():
        numbers = list(values)
        panels["seconds"].append(Line(command, numbers, [s for s, _ in values.values()]))
        peaks = [peak / 1e6 for _, peak in values.values()]
        panels["peak memory, MB"].append(Line(command, numbers, peaks))
    draw(options.pictures / "growth.png", x="images", panels=panels)

"""Training epochs with a warm feature cache, against epochs that run the towers."""

import tempfile
from pathlib import Path

from benchmarks._harness import Claim, Options, Report, isolated, say
from benchmarks._pictures import Line, draw
from benchmarks._runs import (
    EPOCH,
    FEATURES,
    crane,
    make_images,
    of_folder,
    overrides_of,
    read_clock,
    with_clock,
)

NUM_IMAGES = {False: 8, True: 4}
BATCH_SIZE = {False: 8, True: 4}
IMAGE_SIZE = {False: 518, True: 56}
NUM_EPOCHS = 5
"""As published."""


def run(options: Options) -> Report:
    """Train without the cache, with an empty one and with a warm one, each in a new process."""
    with tempfile.TemporaryDirectory() as root:
        images = make_images(
            Path(root, "images"), NUM_IMAGES[options.small], IMAGE_SIZE[options.small]
        )
        without = isolated(_train, options, images, "off", 2)[EPOCH]
        say("without the cache:", _shown(without))
        (extraction,) = isolated(_train, options, images, "source", 1)[FEATURES]
        say(f"feature extraction into the cache: {extraction:.3g} s")
        warm = isolated(_train, options, images, "source", NUM_EPOCHS)[EPOCH]
        say("with a warm cache:", _shown(warm))
    _draw(without, extraction, warm, options)
    size = IMAGE_SIZE[options.small]
    name = "The tiny backbone" if options.small else "ViT-L/14"
    best, mean = min(without), sum(warm) / len(warm)
    return Report(
        title="Training",
        text=(
            f"{name} at {size} px, {NUM_IMAGES[options.small]} images in a batch of "
            f"{BATCH_SIZE[options.small]}, `crane train` with its published loss. Without the "
            "cache: the faster of two epochs. With a warm cache: the mean of five, in a new "
            "process that reads the features from disk (float32) and verifies their checksums once."
        ),
        claims=[
            Claim("an epoch with a warm cache: times faster than without", 20, best / mean, False)
        ],
        columns=["part", "s"],
        rows=[
            ["an epoch without the cache", f"{best:.3g}"],
            ["feature extraction into the cache, once", f"{extraction:.3g}"],
            ["the first epoch with a warm cache", f"{warm[0]:.3g}"],
            ["an epoch with a warm cache", f"{mean:.3g}"],
        ],
        picture="epochs.png",
    )


def _shown(seconds: list[float]) -> str:
    return ", ".join(f"{s:.3g} s" for s in seconds)


def _train(options: Options, images: Path, cache: str, num_epochs: int) -> dict[str, list[float]]:
    """Seconds of the spans of a training."""
    with tempfile.TemporaryDirectory() as folder:
        clock = Path(folder, "clock")
        crane(
            "train",
            *overrides_of(small=options.small, device=options.device),
            *of_folder("source", images),
            *with_clock(clock),
            "dataset@targets=[]",
            f"cache={cache}",
            f"cache.folder={images.parent / 'cache'}",
            *([] if cache == "off" else ["cache.source=always"]),
            f"image_size={IMAGE_SIZE[options.small]}",
            f"data.batch_size={BATCH_SIZE[options.small]}",
            "data.num_workers=0",
            f"trainer.max_epochs={num_epochs}",
            "results_store=null",
            f"hydra.run.dir={folder}",
            folder=Path(folder),
        )
        return read_clock(clock)


def _draw(without: list[float], extraction: float, warm: list[float], options: Options) -> None:
    epochs = list(range(NUM_EPOCHS + 1))
    expected = [min(without) * number for number in epochs]
    cached = [extraction + sum(warm[:number]) for number in epochs]
    draw(
        options.pictures / "epochs.png",
        x="epochs",
        panels={
            "seconds of a training": [
                Line("with an empty cache", epochs, cached),
                Line(
                    "with a cache filled by another run", epochs, [c - extraction for c in cached]
                ),
                Line("without (one measured epoch, extrapolated)", epochs, expected, dashed=True),
            ]
        },
    )

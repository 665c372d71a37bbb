"""A sweep of twelve prompt settings with one pass of feature extraction."""

import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks._harness import Claim, Options, Report, isolated, say
from benchmarks._pictures import Line, draw
from benchmarks._runs import (
    FEATURES,
    FIT,
    QUIET,
    TEST,
    accelerator,
    crane,
    make_images,
    of_folder,
    read_clock,
    read_ends,
    with_clock,
)
from crane.methods import VisionEncoder

PROMPTS = {
    False: ("prompt=pad_suffix,pad_prefix,replace_suffix,none", "prompt.num_words=4,8,12"),
    True: ("prompt=pad_suffix,none",),
}
"""Overrides whose combinations are the settings; the first of each is the single run."""
VISION = ("attention=qq+kk+vv,vv",)
"""Overrides of the vision side, combined with the first of `PROMPTS`."""
NUM_IMAGES = {False: 48, True: 4}
"""Images of the source, and of the target."""
IMAGE_SIZE = {False: 336, True: 56}
"""42 x 42 patches for the mini backbone, so that the towers dominate a run."""


def run(options: Options) -> Report:
    """A single run, the sweep, and a sweep over the vision side, each with an empty cache."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        num, size = NUM_IMAGES[options.small], IMAGE_SIZE[options.small]
        for seed, place in enumerate(
            ("source", "target")
        ):  # equal images would share cache entries
            make_images(folder / place, num, size, seed=seed)
        prompts = PROMPTS[options.small]
        single = tuple(words.partition(",")[0] for words in prompts)
        one = isolated(_crane, options, folder, "one", single)
        many = isolated(_crane, options, folder, "many", prompts)
        both = isolated(_crane, options, folder, "both", (*VISION, prompts[0]))
    num_settings, num_vision = _num(prompts), _num(VISION)
    trainings = many["clock"][FIT][1:]
    bound = one["seconds"] + sum(trainings)
    _draw(one, many, options)
    spans = many["clock"]
    return Report(
        title="A sweep",
        text=(
            f"`crane train -m {' '.join(prompts)}` with `cache=all`: {num_settings} settings, "
            f"the {'tiny' if options.small else 'mini'} backbone at {IMAGE_SIZE[options.small]} "
            f"px, {NUM_IMAGES[options.small]} source images for 5 epochs and as many test images. "
            "The single run and the sweep start with an empty cache, each in a process of its own "
            "without its start-up. Passes: images that went through the towers, divided by the "
            f"images of both data sets; also for a sweep of `{VISION[0]} {prompts[0]}`."
        ),
        claims=[
            Claim(
                f"vision passes of a sweep of {num_settings} prompt settings",
                1,
                many["passes"],
                True,
                exactly=True,
            ),
            Claim(
                f"vision passes of a sweep over {num_vision} vision settings as well",
                num_vision,
                both["passes"],
                True,
                exactly=True,
            ),
            Claim(
                f"the sweep's time / (one run + the other {len(trainings)} prompt trainings)",
                2,
                many["seconds"] / bound,
                True,
            ),
        ],
        columns=["part", "s"],
        rows=[
            ["one run", f"{one['seconds']:.3g}"],
            ["of which feature extraction", f"{sum(one['clock'][FEATURES]):.3g}"],
            ["the sweep", f"{many['seconds']:.3g}"],
            ["of which feature extraction", f"{sum(spans[FEATURES]):.3g}"],
            [f"of which {len(spans[FIT])} prompt trainings", f"{sum(spans[FIT]):.3g}"],
            [f"of which {len(spans[TEST])} tests", f"{sum(spans[TEST]):.3g}"],
        ],
        picture="sweep.png",
    )


def _num(words: tuple[str, ...]) -> int:
    """Number of combinations of overrides."""
    num = 1
    for word in words:
        num *= len(word.split(","))
    return num


def _crane(options: Options, folder: Path, name: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """Run a command; returns its seconds, its spans, and the number of vision passes."""
    clock = folder / f"{name}.clock"
    is_many = any("," in words for words in settings)
    place = f"hydra.sweep.dir={folder / name}" if is_many else f"hydra.run.dir={folder / name}"
    passed = []
    forward = VisionEncoder.forward

    def counted(self: VisionEncoder, images: Any) -> Any:
        passed.append(len(images))
        return forward(self, images)

    start = time.perf_counter()
    with patch.object(VisionEncoder, "forward", counted):
        seconds = crane(
            "train",
            *(["-m"] if is_many else []),
            *settings,
            *QUIET,
            *of_folder("source", folder / "source"),
            *of_folder("targets", folder / "target"),
            *with_clock(clock),
            accelerator(options.device),
            f"backbone={'tiny' if options.small else 'mini'}",
            f"image_size={IMAGE_SIZE[options.small]}",
            "data.num_workers=0",
            "cache=all",
            f"cache.folder={folder / f'{name}_cache'}",
            f"results_store={folder / f'{name}_store'}",
            place,
            folder=folder,
        )
    passes = sum(passed) / (2 * NUM_IMAGES[options.small])
    say(f"{name}: {seconds:.3g} s, {passes:g} passes")
    ends = [end - start for end in read_ends(clock, TEST)]
    return {"seconds": seconds, "passes": passes, "clock": read_clock(clock), "ends": ends}


def _draw(one: dict[str, Any], many: dict[str, Any], options: Options) -> None:
    settings = list(range(len(many["ends"]) + 1))
    apart = [one["seconds"] * number for number in settings]
    draw(
        options.pictures / "sweep.png",
        x="prompt settings",
        panels={
            "seconds of a sweep": [
                Line("with cache=all", settings, [0, *many["ends"]]),
                Line("separate runs (extrapolated)", settings, apart, dashed=True),
            ]
        },
    )

"""A sweep of twelve prompt settings: the towers see the data once, the rest is prompts."""

import tempfile
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks._harness import Claim, Options, Report, isolated, say
from benchmarks._pictures import Line, draw
from benchmarks._runs import (
    FIT,
    QUIET,
    SEEING,
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
"""Overrides whose combinations are the settings; the first of each is the run to compare with."""
VISION = ("attention=qq+kk+vv,vv",)
"""The same for settings of the vision side, beside the first of these."""
NUM_IMAGES = {False: 48, True: 4}
"""Of the source, and of the target."""
IMAGE_SIZE = {False: 336, True: 56}
"""The mini backbone's 42 x 42 patches: its towers are most of a run."""


def run(options: Options) -> Report:
    """One run, then the sweep, then a sweep over vision too; each from an empty cache."""
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        num, size = NUM_IMAGES[options.small], IMAGE_SIZE[options.small]
        for seed, place in enumerate(("source", "target")):  # the cache knows equal images
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
            f"px, {NUM_IMAGES[options.small]} images to train on for 5 epochs and as many to test. "
            "One run and the sweep each begin with an empty cache in a process of their own, its "
            "start not counted. Passes: images that the towers saw, over images of both data sets; "
            f"also in a sweep of `{VISION[0]} {prompts[0]}`."
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
            ["of which the towers", f"{sum(one['clock'][SEEING]):.3g}"],
            ["the sweep", f"{many['seconds']:.3g}"],
            ["of which the towers", f"{sum(spans[SEEING]):.3g}"],
            [f"of which {len(spans[FIT])} prompt trainings", f"{sum(spans[FIT]):.3g}"],
            [f"of which {len(spans[TEST])} tests", f"{sum(spans[TEST]):.3g}"],
        ],
        picture="sweep.png",
    )


def _num(words: tuple[str, ...]) -> int:
    """How many settings overrides combine to."""
    num = 1
    for word in words:
        num *= len(word.split(","))
    return num


def _crane(options: Options, folder: Path, name: str, settings: tuple[str, ...]) -> dict[str, Any]:
    """A run, or a multirun: its seconds, what its trainer did, and passes of the vision side."""
    clock = folder / f"{name}.clock"
    is_many = any("," in words for words in settings)
    place = f"hydra.sweep.dir={folder / name}" if is_many else f"hydra.run.dir={folder / name}"
    seen = []
    forward = VisionEncoder.forward

    def counted(self: VisionEncoder, images: Any) -> Any:
        seen.append(len(images))
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
    passes = sum(seen) / (2 * NUM_IMAGES[options.small])
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
                Line("each setting a run of its own", settings, apart, dashed=True),
            ]
        },
    )

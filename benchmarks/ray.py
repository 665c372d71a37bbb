"""`crane predict engine=ray` beside the local engine on one machine, and the memory it takes."""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from benchmarks._harness import Claim, Options, Report, say
from benchmarks._runs import make_images

NUM = {False: (5_000, 20_000), True: (8, 16)}
"""Images of the comparison, and of the run whose memory is watched."""
SIDE = 64
"""Height and width of the images in pixels."""
ENGINES = ("local", "ray")
PERIOD = {False: 5.0, True: 0.5}
"""Seconds between two looks at memory; each look at Ray's many processes takes time itself."""


class Run(NamedTuple):
    """A finished prediction."""

    seconds: float
    memory: list[float]
    """Megabytes of the command and all its processes, every few seconds."""


def run(options: Options) -> Report:
    """Predict with both engines, then more images on Ray."""
    few, many = NUM[options.small]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        # Half of them are anomalous and lie in another folder.
        images = make_images(folder / "few", 2 * few, SIDE, num_distinct=4) / "good"
        runs = {engine: predicted(images, engine, options) for engine in ENGINES}
        images = make_images(folder / "many", 2 * many, SIDE, num_distinct=4) / "good"
        long = predicted(images, "ray", options, "image_size=56")
    growth = growth_of(long.memory)
    rows = [(engine, few, one) for engine, one in runs.items()] + [("ray", many, long)]
    return Report(
        title="Ray",
        text=(
            f"`crane predict checkpoint=mini` on PNGs of {SIDE} px without maps, scored at 224 px: "
            "whole commands, start-up included, with the same settings and all cores, one after "
            "the other. The long run is at 56 px, where an image takes next to nothing. "
            "Memory is that of the command and all its processes (proportional set size, every "
            f"{PERIOD[False]:g} s), its peak, and the peak of its second half over that of its "
            "first."
        ),
        claims=[
            Claim(
                f"Ray, {few:,} images on one machine: time / the local engine's",
                *(1.15, runs["ray"].seconds / runs["local"].seconds),
                at_most=True,
            ),
            Claim(f"Ray, {many:,} images: memory, second half / first", 1.1, growth, at_most=True),
        ],
        columns=["engine", "images", "s", "MB at most"],
        rows=[
            [engine, f"{num:,}", f"{one.seconds:.1f}", f"{max(one.memory):.0f}"]
            for engine, num, one in rows
        ],
    )


def growth_of(memory: list[float]) -> float:
    """Peak of the second half over the peak of the first."""
    middle = len(memory) // 2
    return max(memory[middle:]) / max(memory[:middle])


def predicted(images: Path, engine: str, options: Options, *overrides: str) -> Run:
    """Run a prediction in a process of its own."""
    output = images.parent / engine
    kind = "gpu" if options.device == "cuda" else "cpu"
    command = [sys.executable, "-m", "crane", "predict", "checkpoint=mini", f"input={images}"]
    command += [f"output={output}", f"engine={engine}", f"accelerator={kind}", "batch_size=8"]
    command += ["maps=none", "overlays=none", "overwrite=true", *overrides]
    # With one thread, as some shells ask for, the local engine would leave cores idle.
    environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    start, memory = time.monotonic(), []
    with (images.parent / f"{engine}.log").open("w") as log:
        child = subprocess.Popen(
            command, cwd=images.parent, env=environment, stdout=log, stderr=log
        )
        while child.poll() is None:
            memory.append(sum(map(size_of, family(child.pid))))
            with suppress(subprocess.TimeoutExpired):
                child.wait(PERIOD[options.small])
    seconds = time.monotonic() - start
    if child.returncode:
        raise RuntimeError((images.parent / f"{engine}.log").read_text()[-2000:])
    say(f"{engine}: {seconds:.1f} s, at most {max(memory):.0f} MB")
    return Run(seconds, memory)


def family(pid: int) -> list[int]:
    """A process and all that it has started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, new = [], [pid]
    while new:
        found += new
        new = [child for child, parent in parents.items() if parent in new]
    return found


def size_of(pid: int) -> float:
    """Megabytes of a process; memory that several share counts once for all of them."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1e3
    return 0.0

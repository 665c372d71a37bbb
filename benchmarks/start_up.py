"""How long a command takes before it answers without a model, and what imports cost."""

import os
import resource
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path

from benchmarks._harness import Claim, Options, Report, say

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "fa095b0"
"""The last commit before imports were deferred."""
LIMIT = 2.0
"""Seconds in which a command without a model must answer."""
REPEATS = {False: 3, True: 1}

COMMANDS: Mapping[str, Sequence[str]] = {
    "the help of all commands": ("--help",),
    "the list of data sets": ("data", "list"),
    "the list of cached features": ("cache", "list"),
    "an unknown option": ("train", "attention=qqq"),
    "an unknown key": ("train", "sed=1"),
    "text in place of a number": ("train", "data.batch_size=many"),
    "a missing checkpoint": ("test", "checkpoint=nowhere.safetensors"),
    "a missing input": ("predict", "checkpoint=prompts.safetensors", "input=nowhere"),
    "a missing folder of images": ("train", "source=[folder]", "source.folder.root=nowhere"),
    "a missing folder of runs": ("report", "nowhere"),
}
"""Command lines that need no model."""
IMPORTS: Mapping[str, tuple[str, str]] = {
    "the command line": ("crane.cli.main", "crane.cli.main"),
    "reading data": ("crane.data", "crane.data"),
    "the published data sets": ("crane.data.card", "crane.datasets"),
    "the feature cache": ("crane.cache", "crane.cache"),
    "metrics": ("crane.metrics", "crane.metrics"),
    "the detector": ("crane.models", "crane.methods"),
    "records and the results store": ("crane.reporting", "crane.runs"),
    "prediction": ("crane.prediction", "crane.prediction"),
    "training": ("crane.training", "crane.training"),
    "reports": ("crane.report", "crane.report"),
    "torch alone": ("torch", "torch"),
}
"""What is imported, and the names of its module before and after."""


def run(options: Options) -> Report:
    """Run every command line and import in new processes, before and after in turns."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "prompts.safetensors").touch()
        sources = {"after": ROOT}
        if (earlier := _checkout(place / "before")) is not None:
            sources = {"before": earlier, **sources}
        lines = dict(list(COMMANDS.items())[: 2 if options.small else None])
        answers = {
            what: _seconds(place, sources, dict.fromkeys(sources, _typed(words)), options)
            for what, words in lines.items()
        }
        imports = {
            what: _seconds(place, sources, {"before": _import(old), "after": _import(new)}, options)
            for what, (old, new) in IMPORTS.items()
            if not options.small
        }
    rows = [[f"`crane {' '.join(lines[what])}`", *_cells(found)] for what, found in answers.items()]
    rows += [[f"import {what} (`{IMPORTS[what][1]}`)", *_cells(f)] for what, f in imports.items()]
    return Report(
        title="Start-up",
        text=(
            "CPU seconds (user and system) of a new process, the fewest of "
            f"{REPEATS[options.small]} rounds in which both sides took turns, with one thread. "
            f"Before: commit {BEFORE}. The commands end without a model: they list something, or "
            "refuse a mistake."
        ),
        claims=[
            Claim(f"{what}: CPU seconds until the answer", LIMIT, found["after"], True)
            for what, found in answers.items()
        ],
        columns=["what", "before (s)", "after (s)"],
        rows=rows,
    )


def _checkout(folder: Path) -> Path | None:
    """The files of the commit before; None in a copy without that history."""
    packed = subprocess.run(
        ["git", "archive", BEFORE, "src", "conf"], cwd=ROOT, capture_output=True, check=False
    )
    if packed.returncode:
        return None
    with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _typed(words: Sequence[str]) -> list[str]:
    return ["-m", "crane", *words]


def _import(module: str) -> list[str]:
    return ["-c", f"import {module}"]


def _seconds(
    place: Path, sources: Mapping[str, Path], words: Mapping[str, Sequence[str]], options: Options
) -> dict[str, float]:
    """The fewest CPU seconds of each side."""
    taken: dict[str, list[float]] = {side: [] for side in sources}
    for _ in range(REPEATS[options.small]):
        for side, source in sources.items():
            taken[side].append(_cpu_seconds(place, source, words[side]))
    found = {side: min(seconds) for side, seconds in taken.items()}
    shown = ", ".join(f"{side} {seconds:.2f} s" for side, seconds in found.items())
    say(f"{' '.join(words['after'])}:", shown)
    return found


def _cpu_seconds(place: Path, source: Path, words: Sequence[str]) -> float:
    environment = os.environ | {
        "PYTHONPATH": str(source / "src"),
        "OMP_NUM_THREADS": "1",
        "CRANE_CACHE": str(place / "cache"),
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, *words], cwd=place, env=environment, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if "Traceback" in done.stderr:
        raise RuntimeError(f"{' '.join(words)}\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _cells(found: Mapping[str, float]) -> list[str]:
    return [f"{found[side]:.2f}" if side in found else "not run" for side in ("before", "after")]

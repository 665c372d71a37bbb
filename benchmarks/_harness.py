"""Shared by all benchmarks: timing, memory, isolated processes, and the format of results."""

import json
import multiprocessing
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # silences the profiler's own log

import torch
from torch.profiler import ProfilerActivity, profile

from crane.runs import begin_record

Work = Callable[[], object]
T = TypeVar("T")

NOT_RUN = "not run"


@dataclass(frozen=True)
class Options:
    """Options of the command line."""

    device: str
    """`cpu` or `cuda`."""
    small: bool
    """Use the tiny backbone and few images: checks that a benchmark runs, measures nothing."""
    output: Path
    """Folder for README.md, `results/` and `pictures/`."""
    official: Path | None = None
    """A checkout of the official implementation, for the GPU benchmark."""

    @property
    def pictures(self) -> Path:
        """Folder of the figures."""
        return self.output / "pictures"


@dataclass(frozen=True)
class Claim:
    """A target for a measured number."""

    what: str
    wanted: float
    measured: float | None
    """None if it was not run."""
    at_most: bool
    """Whether `wanted` is an upper limit; otherwise it is a lower one."""
    exactly: bool = False
    """Whether the two must be equal."""

    @property
    def reached(self) -> bool | None:
        """Whether the target was reached; None if it was not run."""
        if self.measured is None:
            return None
        if self.exactly:
            return self.measured == self.wanted
        return self.measured <= self.wanted if self.at_most else self.measured >= self.wanted

    def row(self) -> list[str]:
        """Cells: what, wanted, measured, reached."""
        words = "exactly" if self.exactly else "at most" if self.at_most else "at least"
        measured = NOT_RUN if self.measured is None else f"{self.measured:.3g}"
        reached = {True: "yes", False: "**no**", None: "-"}[self.reached]
        return [self.what, f"{words} {self.wanted:.3g}", measured, reached]


@dataclass(frozen=True)
class Report:
    """Result of a benchmark."""

    title: str
    text: str
    """What was measured and how."""
    claims: list[Claim]
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    picture: str | None = None
    """File name in `pictures/`."""


def write_result(name: str, report: Report, options: Options, seconds: float) -> Path:
    """Write a report with its provenance; returns the path of the JSON file."""
    command = f"python -m benchmarks {name} --device {options.device}"
    result = {
        "report": asdict(report),
        "provenance": provenance(command, options.device),
        "seconds": round(seconds),
    }
    path = options.output / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return path


def read_report(result: Mapping[str, Any]) -> Report:
    """The report in the content of a file written by `write_result`."""
    content = dict(result["report"])
    claims = [Claim(**claim) for claim in content.pop("claims")]
    return Report(claims=claims, **content)


def provenance(command: str, device: str = "cpu") -> str:
    """A sentence on where numbers come from: command, commit, machine."""
    record = begin_record(seed=0, device=device, data={}, weights={})
    commit = f"{record.commit or 'unknown'}{' with changes' if record.dirty else ''}"
    parts = [platform.platform(), _processor(), f"{os.cpu_count()} cores"]
    if device == "cuda":
        parts.append(torch.cuda.get_device_name())
    parts += [
        f"{torch.get_num_threads()} threads",
        f"Python {platform.python_version()}",
        f"torch {torch.__version__}",
    ]
    return f"Command: `{command}`. Commit: {commit}. Machine: {', '.join(parts)}."


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def isolated(function: Callable[..., T], options: Options, *arguments: object) -> T:
    """Call `function(options, *arguments)` in a new process, so that its memory is its own.

    With `options.small` it is called in this process, since nothing is measured.
    """
    if options.small:
        return function(options, *arguments)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, options, *arguments).result()


def say(*words: object) -> None:
    """Print a line of progress."""
    print(" ", *words, flush=True)


def seconds_of(work: Work, device: str = "cpu") -> float:
    """Seconds that `work` takes."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def fastest(works: Mapping[str, Work], repeats: int, device: str = "cpu") -> dict[str, float]:
    """The shortest time of each piece of work, in seconds.

    They take turns, so that a slow phase of the machine affects all of them. The first round is a
    warm-up. Other load can only slow a round down, so the minimum is reported.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 1):
        for name, work in works.items():
            taken[name].append(seconds_of(work, device))
        shown = ", ".join(f"{name} {found[-1]:.3g} s" for name, found in taken.items())
        say("warm-up:" if number == 0 else f"round {number} of {repeats}:", shown)
    return {name: min(found[1:]) for name, found in taken.items()}


def peak_allocated(work: Work, device: str = "cpu") -> int:
    """Peak of the bytes that `work` has allocated at once, exactly as the allocator counts.

    Earlier allocations (weights, inputs) are not counted. On the CPU, PyTorch's profiler records
    each allocation; private buffers of MKL and oneDNN are not counted.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        work()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        recorded.export_chrome_trace(str(path))
        events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    allocated = [e["args"]["Total Allocated"] for e in events if e.get("name") == "[memory]"]
    if not allocated:
        raise RuntimeError("the profiler recorded no allocation")
    return max(allocated)


def peak_memory() -> int:
    """Peak resident memory of this process in bytes."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss of a new process starts at its parent's
        lines = status.read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak

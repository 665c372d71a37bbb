"""What all benchmarks share: clocks, memory, processes of their own, and what a result is."""

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

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler talks of its own affairs otherwise

import torch
from torch.profiler import ProfilerActivity, profile

from crane.runs import begin_record

Work = Callable[[], object]
T = TypeVar("T")

NOT_RUN = "not run"


@dataclass(frozen=True)
class Options:
    """How the benchmarks are to run."""

    device: str
    """`cpu` or `cuda`."""
    small: bool
    """The tiny backbone and few images: says that a benchmark works, measures nothing."""
    output: Path
    """Folder of README.md, `results/` and `pictures/`."""
    official: Path | None = None
    """A checkout of the official implementation, for the GPU benchmark."""

    @property
    def pictures(self) -> Path:
        """Where pictures go."""
        return self.output / "pictures"


@dataclass(frozen=True)
class Claim:
    """A figure that is wanted, and the one measured."""

    what: str
    wanted: float
    measured: float | None
    """None: not run."""
    at_most: bool
    """Whether `wanted` is an upper limit; else a lower one."""
    exactly: bool = False
    """Whether only the very number will do."""

    @property
    def reached(self) -> bool | None:
        """Whether the wanted figure was reached; None if it was not run."""
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
    """What a benchmark found."""

    title: str
    text: str
    """What was measured and how, for the page."""
    claims: list[Claim]
    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    picture: str | None = None
    """File name below `pictures/`."""


def write_result(name: str, report: Report, options: Options, seconds: float) -> Path:
    """Keep a report with what it is of."""
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
    """The report in a file that `write_result` wrote."""
    content = dict(result["report"])
    claims = [Claim(**claim) for claim in content.pop("claims")]
    return Report(claims=claims, **content)


def provenance(command: str, device: str = "cpu") -> str:
    """What a page says of its figures: command, commit, machine."""
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
    """Call `function(options, *arguments)` in a new process, so that what it uses is its own.

    `options.small` calls it here: nothing is measured then.
    """
    if options.small:
        return function(options, *arguments)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, options, *arguments).result()


def say(*words: object) -> None:
    """A line of progress."""
    print(" ", *words, flush=True)


def seconds_of(work: Work, device: str = "cpu") -> float:
    """Seconds that a piece of work takes."""
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def fastest(works: Mapping[str, Work], repeats: int, device: str = "cpu") -> dict[str, float]:
    """The fewest seconds of each piece of work.

    They take turns, so that a slow minute of the machine is everybody's; the first round warms up
    and is not counted. What else a machine does only slows them, so the fastest counts.
    """
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(repeats + 1):
        for name, work in works.items():
            taken[name].append(seconds_of(work, device))
        shown = ", ".join(f"{name} {found[-1]:.3g} s" for name, found in taken.items())
        say("warm-up:" if number == 0 else f"round {number} of {repeats}:", shown)
    return {name: min(found[1:]) for name, found in taken.items()}


def peak_allocated(work: Work, device: str = "cpu") -> int:
    """Bytes that a piece of work has allocated at once, at most: exact, as the allocator counts.

    What was there before (weights, inputs) does not count. On the CPU torch's profiler is told of
    each allocation; what MKL and oneDNN keep for themselves is not torch's and not counted.
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
        raise RuntimeError("the profiler saw no allocation")
    return max(allocated)


def peak_memory() -> int:
    """Most bytes of memory that this process has had at once."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss of a new process begins at its parent's
        lines = status.read_text(encoding="utf-8").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak

"""`make gpu`: everything that needs a GPU, in at most 8 minutes, each step in its own process.

Results are written as they come, to results/on_gpu.json and gpu.md; a step that fails or is late
keeps what it has found and leaves the others alone. `--device cpu --rehearse` tries it in small.
`--official PATH`, or `make gpu CRANE_OFFICIAL=PATH`, names a checkout of the official code, whose
requirements must be installed.
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent
NEEDS = ("torch", "torchvision", "lightning", "hydra", "open_clip", "torchmetrics", "jaxtyping")
NEEDS += ("timm", "sklearn", "pytest", "beartype")
PEAK = {"float32": 67e12, "bfloat16": 989e12, "compiled": 989e12}
"""Dense FLOP/s of an H100 SXM, NVIDIA's data sheet."""
BATCHES = {False: (1, 8, 32, 64), True: (1, 2)}
OF_CLIP = 1475 / 1016
"""CLIP's rate over Crane's, by operations (docs/cost.md): the commands run CLIP."""
Found = Iterator[dict[str, Any]]


class Step(NamedTuple):
    """A part of the run."""

    name: str
    limit: int
    """Seconds after which it is stopped."""


PLAN = (
    Step("goldens float32", 70),
    Step("goldens bfloat16", 40),
    Step("pytest -m gpu", 90),
    Step("table float32", 50),
    Step("table bfloat16", 40),
    Step("table compiled", 60),
    Step("table official", 30),
    Step("loader", 20),
    Step("crane test", 40),
    Step("crane predict", 40),
)


def missing() -> list[str]:
    """Modules that crane or its tests need and that are not installed."""
    return [name for name in NEEDS if importlib.util.find_spec(name) is None]


def run(
    plan: tuple[Step, ...],
    folder: Path,
    command: Callable[[Step, Path], list[str] | None],
    head: str,
) -> dict[str, Any]:
    """Run a plan in order; after each step, write all that is known. No command leaves one out."""
    state: dict[str, Any] = {"head": head, "steps": {s.name: {"state": "not run"} for s in plan}}
    write(state, folder)
    for number, step in enumerate(plan):
        with tempfile.TemporaryDirectory() as place:
            lines, log = Path(place, "found.jsonl"), Path(place, "log")
            words = command(step, lines)
            if words is None:
                continue
            start, found = time.monotonic(), state["steps"][step.name]
            with log.open("wb") as out:
                child = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)
                try:
                    code = child.wait(step.limit)
                    found["state"] = "done" if code == 0 else f"failed ({code})"
                except subprocess.TimeoutExpired:
                    os.killpg(child.pid, 9)
                    child.wait()
                    found["state"] = f"stopped after {step.limit} s"
            found["seconds"] = round(time.monotonic() - start, 1)
            rows = lines.read_text(encoding="utf-8").splitlines() if lines.exists() else []
            found["found"] = [json.loads(row) for row in rows if row.endswith("}")]
            if step.name.startswith("pytest"):
                last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
                found["found"] = [{"tests": line.strip("= ")} for line in last]
                if found["state"] == "done" and not any("passed" in line for line in last):
                    found["state"] = "not run: every test was skipped"
            if found["state"] != "done":
                found["log"] = log.read_text(encoding="utf-8", errors="replace")[-2000:]
        write(state, folder)
        print(f"{number + 1}/{len(plan)} {step.name}: {found['state']}", flush=True)
    return state


def write(state: dict[str, Any], folder: Path) -> None:
    """Write the results and the page."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    text = json.dumps(state, indent=1) + "\n"
    (folder / "results" / "on_gpu.json").write_text(text, encoding="utf-8")
    lines = ["# On a GPU", "", state["head"], "", "| wanted | | got | reached |"]
    lines += ["| --- | --- | --- | --- |", *map(judged, targets(state["steps"])), ""]
    for name, step in state["steps"].items():
        lines += [f"## {name}", "", step["state"], ""]
        for row in step.get("found", []):
            lines.append("- " + ", ".join(f"{key}: {value}" for key, value in row.items()))
        lines.append("")
    (folder / "gpu.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


class Target(NamedTuple):
    """A number that is wanted, and what was found."""

    what: str
    wanted: float
    got: float | None
    """None where it was not run."""
    at_most: bool = False


def judged(target: Target) -> str:
    """A row of the table."""
    limit = f"at {'most' if target.at_most else 'least'} {target.wanted:.3g}"
    if target.got is None:
        return f"| {target.what} | {limit} | not run | not run |"
    is_reached = target.got <= target.wanted if target.at_most else target.got >= target.wanted
    return f"| {target.what} | {limit} | {target.got:.3g} | {'yes' if is_reached else '**no**'} |"


def targets(steps: dict[str, Any]) -> list[Target]:
    """What is wanted of a GPU, from the rows that the steps have found."""

    def numbers(step: str, key: str, batch: int | None = None) -> list[float]:
        found = steps.get(step, {}).get("found", [])
        cells = [row.get(key) for row in found if batch in (None, row.get("batch"))]
        texts = [str(cell).rstrip("%") for cell in cells if cell is not None]
        return [float(text) for text in texts if text.replace(".", "").replace("e-", "").isdigit()]

    def ratio(ours: list[float], theirs: list[float]) -> float | None:
        return max(ours) / max(theirs) if ours and theirs and max(theirs) else None

    official = {key: numbers("table official", key, 8) for key in ("images/s", "GB")}
    bf16 = {key: numbers("table bfloat16", key, 8) for key in ("images/s", "GB")}
    shares = numbers("table bfloat16", "peak") + numbers("table compiled", "peak")
    maps = numbers("goldens bfloat16", "map")
    forward = [OF_CLIP * rate for rate in numbers("table float32", "images/s", 8)]
    ends = [ratio(numbers(f"crane {name}", "images/s"), forward) for name in ("test", "predict")]
    found = [
        Target("bfloat16, batch of 8: images/s / the official code's", 5, None),
        Target("the same: memory / the official code's", 1 / 3, None, at_most=True),
        Target("share of the bfloat16 peak in the towers, %", 60, max(shares, default=None)),
        Target("largest difference of a map in bfloat16", 0.01, max(maps, default=None), True),
        *(
            Target(f"crane {name}, start-up included: images/s / the forward's", 0.8, end)
            for name, end in zip(("test", "predict"), ends, strict=True)
        ),
    ]
    found[0] = found[0]._replace(got=ratio(bf16["images/s"], official["images/s"]))
    found[1] = found[1]._replace(got=ratio(bf16["GB"], official["GB"]))
    return found


def goldens(device: str, precision: str, small: bool) -> Found:
    """Official outputs of Crane and Crane+, and every method against its own CPU in float32."""
    import torch

    sys.path.insert(0, str(HERE.parent / "tests"))
    from crane.config import compose, conf_dir
    from crane.methods import build_model
    from parity.golden import RUNS, Golden
    from parity.test_goldens import outputs

    amp = precision == "bfloat16"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    for path in RUNS[: 1 if small else None]:
        golden = Golden.read(path)
        guide = golden.arrays.get("vfm_features")
        more = ["guide.attention.mean=batch"] if golden.batch_mean else []
        model = golden.model(*more, features=None if guide is None else guide.to(device))
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=amp):
            images = golden.arrays["image"].to(device)
            ours = outputs(model.to(device), images, golden.num_taps)
        gaps = {n: float((v.cpu() - golden.arrays[n]).abs().max()) for n, v in ours.items()}
        yield {"golden": path.stem, **{n: f"{gap:.2g}" for n, gap in gaps.items()}}
    images = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    for path in sorted((conf_dir() / "method").glob("*.yaml"))[: 1 if small else None]:
        guides = ["guide=tiny"] if path.stem == "crane_plus" else []
        model = build_model(compose("test", ["backbone=tiny", f"method={path.stem}", *guides]))
        with torch.no_grad():
            wanted = model(images)
            with torch.autocast(device, torch.bfloat16, enabled=amp):
                ours = model.to(device)(images.to(device))
        score, map = (float((a.cpu() - b).abs().max()) for a, b in zip(ours, wanted, strict=True))
        yield {"method": path.stem, "score": f"{score:.2g}", "map": f"{map:.2g}"}


def table(device: str, row: str, small: bool, official: Path | None = None) -> Found:
    """Images per second, memory and the share of the GPU's peak, by batch size."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks._harness import Options, fastest
    from benchmarks._models import IMAGE_SIZE, build
    from benchmarks.gpu import _detector

    size = IMAGE_SIZE[small]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(small, device).crane.encode(torch.rand(1, 3, size, size, device=device))
    flops = counter.get_total_flops()
    detect = _detector(Options(device, small, HERE, official), row)
    peak = PEAK.get(row, PEAK["float32"])
    for batch in BATCHES[small]:
        images = torch.rand(batch, 3, size, size, device=device)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            rate = batch / fastest({row: lambda i=images: detect(i)}, 3, device)[row]
        except torch.cuda.OutOfMemoryError:
            yield {"batch": batch, "images/s": "out of memory"}
            continue
        memory = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
        share = f"{rate * flops / peak:.1%}" if device == "cuda" else "not run"
        yield {"batch": batch, "images/s": f"{rate:.3g}", "GB": f"{memory:.3g}", "peak": share}


def loader(small: bool) -> Found:
    """Images per second of the loader alone."""
    from benchmarks.loading import make_images, speed

    with tempfile.TemporaryDirectory() as place:
        index = make_images(Path(place, "images"), "PNG", 8 if small else 64)
        for workers in (0,) if small else (0, 8):
            yield {"workers": workers, "images/s": f"{speed(index, workers, 'pil'):.1f}"}


def end_to_end(command: str, device: str, small: bool) -> Found:
    """Images per second of a whole command, start-up included, and how long the GPU was idle."""
    from benchmarks._runs import make_images, of_folder, overrides_of

    with tempfile.TemporaryDirectory() as place:
        num = 4 if small else 256
        images = make_images(Path(place, "images"), num, 64 if small else 518)
        words = [*overrides_of(small=small, device=device), "method=clip"]
        words += of_folder("targets", images) if command == "test" else [f"input={images}"]
        if command == "predict":
            words = ["method=clip", *words[:1], f"input={images / 'good'}", f"output={place}/out"]
            num //= 2  # the other half lies in bad/
        start, busy = time.monotonic(), list[int]()
        child = subprocess.Popen([sys.executable, "-m", "crane", command, *words], cwd=place)
        while child.poll() is None:
            time.sleep(0.2)
            if device == "cuda":
                query = [
                    "nvidia-smi",
                    "--query-gpu=utilization.gpu",
                    "--format=csv,noheader,nounits",
                ]
                busy.append(int(subprocess.check_output(query).split()[0]))
        if child.returncode:
            sys.exit(child.returncode)
        rate = num / (time.monotonic() - start)
        idle = f"{1 - sum(busy) / len(busy) / 100:.0%}" if busy else "not run"
        yield {"images": num, "images/s": f"{rate:.3g}", "idle": idle}


def work(name: str, device: str, small: bool, official: Path | None) -> Found:
    """What a step does."""
    kind, _, row = name.partition(" ")
    if kind == "goldens":
        return goldens(device, row, small)
    if kind == "table":
        return table(device, row, small, official)
    return loader(small) if kind == "loader" else end_to_end(row, device, small)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--rehearse", action="store_true", help="in small; measures nothing")
    parser.add_argument("--output", type=Path, default=HERE)
    named = os.environ.get("CRANE_OFFICIAL")
    parser.add_argument("--official", type=Path, default=Path(named) if named else None)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--lines", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.step:
        for row in work(given.step, given.device, given.rehearse, given.official):
            with given.lines.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        return
    if given.rehearse and given.output == HERE:
        parser.error("--rehearse measures nothing; choose another --output")

    def command(step: Step, lines: Path) -> list[str] | None:
        if step.name == "table official" and given.official is None:
            return None
        if step.name == "pytest -m gpu":
            return [sys.executable, "-m", "pytest", "-q", "-m", "gpu", str(HERE.parent / "tests")]
        words = ["--device", given.device, "--step", step.name, "--lines", str(lines)]
        words += ["--official", str(given.official)] if given.official else []
        own = [sys.executable, "-m", "benchmarks.on_gpu", *words]
        return [*own, "--rehearse"] if given.rehearse else own

    absent = ", ".join(missing()) or "nothing"
    run(PLAN, given.output, command, f"Device: {given.device}. Missing modules: {absent}.")


if __name__ == "__main__":
    main()

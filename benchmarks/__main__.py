"""`python -m benchmarks [NAME …]`: run all benchmarks, or those named, and write the page."""

import argparse
import importlib
import subprocess
import sys
import time
import traceback
from pathlib import Path

import torch

from benchmarks._harness import Options, write_result
from benchmarks._page import write_page
from crane.runs import begin_record

HERE = Path(__file__).parent
NAMES = (
    "forward",
    "methods",
    "text",
    "epochs",
    "sweep",
    "growth",
    "views",
    "start_up",
    "serve",
    "export",
    "ray",
    "gpu",
)
"""Benchmarks of README.md in its order; each module has `run(options)`."""
PAGES = ("metrics", "loading", "evaluation_share", "cost")
"""Benchmarks that write a page of their own."""


def main() -> None:
    """Run the benchmarks one after the other; one that fails does not stop the rest."""
    options, names, only_missing = _parse()
    failed = []
    for name in names:
        if only_missing and _is_present(name, options.output):
            print(f"== {name}: already measured at this commit", flush=True)
            continue
        print(f"== {name}", flush=True)
        start = time.monotonic()
        try:
            if name in PAGES:
                subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
                continue
            report = importlib.import_module(f"benchmarks.{name}").run(options)
            write_result(name, report, options, time.monotonic() - start)
        except Exception:
            traceback.print_exc()
            failed.append(name)
            continue
        for claim in report.claims:
            print("  ", " | ".join(claim.row()), flush=True)
        write_page(options.output, NAMES)
    print(write_page(options.output, NAMES))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def _parse() -> tuple[Options, list[str], bool]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join((*NAMES, *PAGES)))
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--missing", action="store_true", help="skip benchmarks that have a result for this commit"
    )
    parser.add_argument(
        "--small", action="store_true", help="check that everything runs; measures nothing"
    )
    parser.add_argument(
        "--output", type=Path, default=HERE, help="folder of the page and the results"
    )
    parser.add_argument(
        "--official", type=Path, help="a checkout of the official implementation, for gpu"
    )
    given = parser.parse_args()
    unknown = set(given.names) - {*NAMES, *PAGES}
    if unknown:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}")
    if given.small and given.output == HERE:
        parser.error("--small measures nothing; choose another --output")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU on this machine")
    options = Options(given.device, given.small, given.output, given.official)
    return options, given.names or [*NAMES, *([] if given.small else PAGES)], given.missing


def _is_present(name: str, output: Path) -> bool:
    """Whether there is a result for the current commit, and no source has changed since."""
    record = begin_record(seed=0, device="", data={}, weights={})
    place = HERE / f"{name}.md" if name in PAGES else output / "results" / f"{name}.json"
    return (
        record.commit is not None
        and not record.dirty
        and place.is_file()
        and f"Commit: {record.commit}." in place.read_text(encoding="utf-8")
    )


if __name__ == "__main__":
    main()

"""`python -m benchmarks [NAME ...]`: run all benchmarks, or those named, one after the other."""

import subprocess
import sys
from pathlib import Path

NAMES = sorted(p.stem for p in Path(__file__).parent.glob("[!_]*.py"))


def main() -> None:
    """Run each benchmark in a process of its own."""
    for name in sys.argv[1:] or NAMES:
        print(f"== benchmarks/{name}.py", flush=True)
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)


if __name__ == "__main__":
    main()

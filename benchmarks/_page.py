"""Write benchmarks/README.md from the files in results/."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks._harness import read_report

HEAD = """# Benchmarks

`make bench` runs all benchmarks and rewrites this page. `python -m benchmarks NAME …` runs those
named, `--missing` those without a result for the current commit, and `--device cuda` uses a GPU.
The two sides of a ratio took turns in one process on one machine.
"""

OTHERS = """## Further pages

[metrics.md](metrics.md): our metrics against other implementations.
[loading.md](loading.md): opening and resizing images, verifying data sets.
[evaluation_share.md](evaluation_share.md): the cost of a test besides the model.
[docs/cost.md](../docs/cost.md): operations, bytes, hours and disk on paper.
"""


def write_page(output: Path, names: Sequence[str]) -> Path:
    """Write the page for all results in a folder.

    Args:
        output: Folder of the page; results are in `results/` below it.
        names: Benchmarks in the order of the page.
    """
    files = [output / "results" / f"{name}.json" for name in names]
    results = [json.loads(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
    claims = [claim.row() for result in results for claim in read_report(result).claims]
    parts = [HEAD]
    if claims:
        parts.append(table(["what", "wanted", "measured", "reached"], claims))
    parts += [_section(result) for result in results]
    output.mkdir(parents=True, exist_ok=True)
    path = output / "README.md"
    path.write_text("\n".join([*parts, OTHERS]), encoding="utf-8")
    return path


def _section(result: dict[str, Any]) -> str:
    report = read_report(result)
    lines = [f"## {report.title}", "", report.text, ""]
    if report.rows:
        lines.append(table(report.columns, report.rows))
    if report.picture is not None:
        lines += [f"![{report.title}](pictures/{report.picture})", ""]
    lines.append(f"{result['provenance']} Took {result['seconds']} s.")
    return "\n".join([*lines, ""])


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"

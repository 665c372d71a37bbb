"""`crane report`: tables and a page from any set of runs."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane.cli.commands import shown
from crane.cli.mistakes import listed
from crane.errors import UsageError
from crane.files import write_text
from crane.report import (
    csv_table,
    find_runs,
    first_runs,
    label_runs,
    latex_tables,
    markdown_tables,
    read_published,
    render_page,
    summarise,
    write_figures,
)

FIGURES = "figures"
"""The folder of the figures for papers, beside the page."""


def report(config: DictConfig) -> None:
    """Write the report, and print its tables."""
    paths = listed(config.paths, "paths", "folders such as [runs/train]")
    columns = listed(config.columns, "columns", "metrics such as [image_auroc,aupro]")
    runs, unfinished = find_runs(paths)
    labels = label_runs(runs)
    rows = summarise(runs, labels)
    if config.published is not None:
        rows = read_published(Path(config.published).expanduser()).beside(rows)
    known = {metric for row in rows for metric in row.metrics}
    if absent := [metric for metric in columns if metric not in known]:
        wanted = f"metrics out of {', '.join(sorted(known))}"
        raise UsageError(wanted, ", ".join(absent), key="columns")

    folder = Path(config.output).expanduser()
    page = render_page(
        config.title,
        runs,
        labels,
        rows,
        columns,
        max_pictures=config.max_pictures,
        unfinished=unfinished,
    )
    tables = markdown_tables(rows, columns)
    written = [
        write_text(folder / "report.html", page),
        write_text(folder / "report.md", f"# {config.title}\n\n{tables}"),
        write_text(folder / "report.csv", csv_table(rows)),
        write_text(folder / "report.tex", latex_tables(rows, columns)),
    ]
    first, figures = first_runs(runs, labels), []
    if config.figures is not None:
        figures = write_figures(rows, columns, first, folder / FIGURES, config.figures)
    console = Console(highlight=False)
    console.print(escape(tables), soft_wrap=True)
    for one in unfinished:
        text = escape(f"{shown(one.folder)}: {one.why}")
        console.print(f"[yellow]no results[/yellow] {text}", soft_wrap=True)
    console.print(f"{_number(len(runs), 'run')} of {_number(len(set(labels)), 'setting')}")
    for path in written:
        console.print(f"  {escape(shown(path))}", soft_wrap=True)
    if figures:
        console.print(f"  {escape(shown(folder / FIGURES))}: {len(figures)} figures")


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"

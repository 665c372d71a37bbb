"""`crane report`: tables, figures and a page from any set of runs."""

from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from crane.checks import one_of
from crane.errors import counted, unwritable
from crane.files import shown_path, write_text
from crane.report import (
    csv_table,
    find_runs,
    first_runs,
    label_runs,
    latex_tables,
    markdown_tables,
    read_published,
    summarise,
)

FIGURES = "figures"
"""The folder of the figures for papers, beside the page."""


def report(config: DictConfig) -> None:
    """Write the report and print its tables."""
    columns = list(config.columns)
    runs, left_out = find_runs(list(config.paths))
    labels = label_runs(runs)
    rows = summarise(runs, labels)
    if config.published is not None:
        rows = read_published(Path(config.published).expanduser()).beside(rows)
    known = sorted({metric for row in rows for metric in row.metrics})
    for column in columns:
        one_of(column, known, "metric", "columns")

    from crane.report.figures import write_figures
    from crane.report.page import render_page

    title, folder = config.title, Path(config.output).expanduser()
    page = render_page(
        title, runs, labels, rows, columns, max_pictures=config.max_pictures, left_out=left_out
    )
    tables = markdown_tables(rows, columns)
    contents = {
        "report.html": page,
        "report.md": f"# {title}\n\n{tables}",
        "report.csv": csv_table(rows),
        "report.tex": latex_tables(rows, columns),
    }
    figures = []
    try:
        written = [write_text(folder / name, text) for name, text in contents.items()]
        if config.figures is not None:
            first = first_runs(runs, labels)
            figures = write_figures(rows, columns, first, folder / FIGURES, config.figures)
    except OSError as error:
        raise unwritable(folder, error, "output") from error

    console = Console(highlight=False)
    console.print(escape(tables), soft_wrap=True)
    for one in left_out:
        text = escape(f"{shown_path(one.folder)}: {one.reason}")
        console.print(f"[yellow]left out[/yellow] {text}", soft_wrap=True)
    console.print(f"{_number(len(runs), 'run')} of {_number(len(set(labels)), 'setting')}")
    for path in written:
        console.print(f"  {escape(shown_path(path))}", soft_wrap=True)
    if figures:
        console.print(
            f"  {escape(shown_path(folder / FIGURES))}: {counted(len(figures), 'figure')}"
        )


def _number(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"

"""`crane report` and `crane workspace`: results of any runs as pages, on disk and on W&B."""

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
from crane.runs.results import HEADINGS

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
    console.print(f"{counted(len(runs), 'run')} of {counted(len(set(labels)), 'setting')}")
    for path in written:
        console.print(f"  {escape(shown_path(path))}", soft_wrap=True)
    if figures:
        console.print(
            f"  {escape(shown_path(folder / FIGURES))}: {counted(len(figures), 'figure')}"
        )


def workspace(config: DictConfig) -> None:
    """Save the workspace, and print its sections and its address.

    Raises:
        UsageError: A panel names an unknown metric.
    """
    for metric in config.panels:
        one_of(metric, HEADINGS, "metric", "panels")

    from crane.training.wandb_logging import build_workspace, save_workspace  # imports torch

    built = build_workspace(
        entity=config.entity,
        project=config.project,
        name=config.name,
        datasets=list(config.datasets),
        metrics=list(config.panels),
    )
    address = save_workspace(built)
    console = Console(highlight=False)
    for section in built.sections:
        console.print(f"  {escape(section.name)}: {counted(len(section.panels), 'panel')}")
    console.print(escape(address), soft_wrap=True)

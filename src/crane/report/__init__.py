"""Reports over any set of runs: tables, and a page that opens from disk."""

from crane.report.figures import write_figures
from crane.report.markup import csv_table, latex_tables, markdown_tables
from crane.report.published import Published, read_published
from crane.report.render import render_page
from crane.report.rows import Row, summarise
from crane.report.runs import Run, find_runs
from crane.report.settings import differences, first_runs, label_runs

__all__ = [
    "Published",
    "Row",
    "Run",
    "csv_table",
    "differences",
    "find_runs",
    "first_runs",
    "label_runs",
    "latex_tables",
    "markdown_tables",
    "read_published",
    "render_page",
    "summarise",
    "write_figures",
]

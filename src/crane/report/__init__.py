"""Reports over any set of runs: tables, figures, and a page that opens from disk.

`figures` and `page` import matplotlib and are therefore not imported here.
"""

from crane.report.discovery import LeftOut, Run, differing_keys, find_runs, first_runs, label_runs
from crane.report.markup import (
    Published,
    TableRow,
    csv_table,
    latex_tables,
    markdown_tables,
    read_published,
    summarise,
)

import csv
import io
import re
import subprocess
from shutil import which

import pytest

from crane.report import csv_table, latex_tables, markdown_tables
from crane.report.markup import escape_latex, places
from crane.report.rows import Row, Spread


def row(setting, *values, dataset="visa", name="mean", metric="image_auroc"):
    return Row(setting, dataset, name, {metric: Spread(values)}, len(values))


ROWS = [
    row("a_b", 0.5, 0.7),
    row("c|d", 0.8),
    row("e & 5%", 0.1),
    row("none"),
    row("a_b", 0.4, dataset="mpdd"),
    row("a_b", 0.9, name="pcb1"),
]


def test_markdown_has_a_table_a_data_set_with_best_bold_and_second_underlined():
    text = markdown_tables(ROWS, ["image_auroc"])
    visa, mpdd = text.split("### mpdd")
    assert visa.splitlines() == [
        "### visa",
        "",
        "| setting | seeds | image AUROC |",
        "| --- | ---: | ---: |",
        "| a_b | 2 | <u>60.0 ± 14.1</u> |",
        r"| c\|d | 1 | **80.0** |",
        "| e & 5% | 1 | 10.0 |",
        "| none | - | - |",
        "",
    ]
    assert "| a_b | 1 | 40.0 |" in mpdd  # alone: neither best nor second
    assert "pcb1" not in text


def test_latex_marks_and_escapes():
    text = latex_tables(ROWS, ["image_auroc"])
    assert r"a\_b & \underline{60.0 $\pm$ 14.1} \\" in text
    assert r"c|d & \textbf{80.0} \\" in text
    assert r"e \& 5\% & 10.0 \\" in text
    assert r"none & - \\" in text
    assert text.count(r"\begin{tabular}{lr}") == text.count(r"\end{tabular}") == 2


@pytest.mark.skipif(which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles(tmp_path):
    head = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    tables = latex_tables([*ROWS, row("~^\\{}<>#$")], ["image_auroc"])
    (tmp_path / "t.tex").write_text(head + tables + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "t.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_every_special_character_is_escaped():
    escaped = escape_latex("\\&%$#_{}~^<>")
    assert not re.search(r"(?<!\\)[&%$#_~^<>]", escaped)
    assert escaped.startswith(r"\textbackslash{}\&\%")


def test_csv_has_every_row_at_full_precision():
    table = list(csv.DictReader(io.StringIO(csv_table([row("s", 1 / 3, 2 / 3, name="a,b")]))))
    assert table == [
        {
            "setting": "s",
            "dataset": "visa",
            "class": "a,b",
            "metric": "image_auroc",
            "mean": repr(0.5),
            "deviation": repr(Spread((1 / 3, 2 / 3)).deviation),
            "num_values": "2",
        }
    ]


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((0.5, 0.7, 0.6), [0, 1, 2]),
        ((0.7, 0.7, 0.6), [1, 1, 2]),  # equals share a place
        ((0.70001, 0.7, 0.6), [1, 1, 2]),  # as they are shown
        ((0.5, 0.5, 0.5), [0, 0, 0]),  # nothing stands out
    ],
)
def test_places(values, wanted):
    assert places([row(str(n), v) for n, v in enumerate(values)], "image_auroc") == wanted


def test_what_is_not_defined_has_no_place():
    assert places([row("a"), row("b", 0.2), row("c", 0.1)], "image_auroc") == [0, 1, 2]

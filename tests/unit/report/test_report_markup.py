import csv
import io
import re
import subprocess
from shutil import which

import pytest

from crane.report import (
    TableRow,
    csv_table,
    find_runs,
    latex_tables,
    markdown_tables,
    summarise,
)
from crane.report.markup import escape_latex, markdown_table, places
from crane.runs import Spread


def row(setting, *values, dataset="visa", name="mean", metric="image_auroc"):
    return TableRow(setting, dataset, name, {metric: Spread(values)}, len(values))


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


def test_a_cell_never_ends_a_row():
    lines = markdown_table(["a|b", "c"], [["x\ny", r"p\|q"]], numbers=False).splitlines()
    assert lines == [r"| a\|b | c |", "| --- | --- |", r"| x y | p\\|q |"]


@pytest.fixture
def rows(make_run, tmp_path):
    make_run("a1", 0.5, seed=1, started="1", findings=False)
    make_run("a2", 0.7, seed=2, started="2", findings=False)
    make_run("b", 0.3, seed=1, dataset="beta", started="3", findings=False)
    runs, _ = find_runs([tmp_path / "runs"])
    return {
        (row.setting, row.dataset, row.class_name): row for row in summarise(runs, ["x", "x", "y"])
    }


def test_seeds_of_a_setting_come_together(rows):
    assert set(rows) == {
        *(("x", "alpha", name) for name in ("mean", "bolt", "nut")),
        *(("y", "beta", name) for name in ("mean", "bolt", "nut")),
    }
    assert rows["x", "alpha", "bolt"].metrics["aupro"].values == (0.5, 0.7)
    assert rows["x", "alpha", "mean"].metrics["aupro"].values == pytest.approx((0.55, 0.75))
    assert rows["x", "alpha", "mean"].num_seeds == 2
    assert rows["y", "beta", "mean"].num_seeds == 1


def test_what_is_not_defined_is_left_out(rows):
    assert rows["x", "alpha", "mean"].metrics["aupro_large"].values == ()


def test_of_a_setting_run_twice_with_one_seed_the_last_counts(make_run, tmp_path):
    make_run("new", 0.9, started="2", findings=False)
    make_run("old", 0.1, started="1", findings=False)
    runs, _ = find_runs([tmp_path / "runs"])
    rows = summarise(runs, ["x", "x"])
    assert rows[1].metrics["aupro"].values == (0.9,)
    assert rows[1].num_seeds == 1

from collections.abc import Callable

import pytest
from rich.console import Console
from rich.table import Table

from crane.errors import UsageError
from crane.runs.results import DatasetResult, class_table, mean_table

WHY = "no anomalous image"
MakeResult = Callable[..., DatasetResult]


def shown(table: Table) -> str:
    console = Console(width=120)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_class_table_is_percent_and_explains_what_is_missing(make_result: MakeResult) -> None:
    text = shown(class_table(make_result(), ["aupro", "image_auroc"]))
    assert "98.8" in text
    assert "(1) -" in text
    assert f"(1) {WHY}" in text
    assert "(2) 66.0" in text
    assert "(2) mean of the 2 of 3 classes where it is defined" in text
    assert text.index("AUPRO") < text.index("image AUROC")
    assert "15 + 15" in text
    assert "nan" not in text


def test_mean_table_puts_methods_of_one_data_set_together(make_result: MakeResult) -> None:
    table = mean_table(
        {"Crane": [make_result("a"), make_result("b")], "Crane+": [make_result("a", 0.1)]},
        ["image_auroc"],
        title="zero-shot",
    )
    rows = [line.split() for line in shown(table).splitlines() if "Crane" in line]
    assert rows == [
        ["a", "Crane", "(1)", "66.0"],
        ["Crane+", "(1)", "71.0"],
        ["b", "Crane", "(1)", "66.0"],
    ]


def test_a_metric_nobody_computed_is_an_error(make_result: MakeResult) -> None:
    with pytest.raises(UsageError, match="unknown metric 'pixel_auroc'"):
        class_table(make_result(), ["pixel_auroc"])
    with pytest.raises(UsageError, match="unknown metric 'pixel_auroc'"):
        mean_table({"Crane": [make_result()]}, ["pixel_auroc"], title="t")
    with pytest.raises(UsageError, match="there is no result to show"):
        mean_table({"Crane": []}, ["aupro"], title="t")

import pytest

from crane.config import conf_dir
from crane.errors import UsageError
from crane.report import TableRow, read_published

HEAD = "level,metric,dataset,method,percent\n"


def test_numbers_are_fractions_under_our_names(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(
        HEAD + "image,auroc,visa,Crane,85.3\npixel,aupro,visa,Crane,91\nimage,ap,tn3k,Crane,nan\n"
    )
    (row,) = read_published(path).rows(["visa", "mvtec"])
    assert row.setting == "Crane (published)"
    assert (row.dataset, row.class_name, row.num_seeds) == ("visa", "mean", 0)
    assert {name: spread.values for name, spread in row.metrics.items()} == {
        "image_auroc": (pytest.approx(0.853),),
        "aupro_200": (0.91,),
    }


def test_they_stand_before_ours_of_the_same_data_set(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(HEAD + "image,auroc,visa,Crane,85.3\n")
    ours = [TableRow("x", dataset, "mean", {}, 1) for dataset in ("mpdd", "visa", "btad")]
    shown = [(row.dataset, row.setting) for row in read_published(path).beside(ours)]
    assert shown == [("mpdd", "x"), ("visa", "Crane (published)"), ("visa", "x"), ("btad", "x")]


def test_hyphens_and_underscores_are_alike(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text(HEAD + "pixel,auroc,cvc-300,Crane,90\n")
    (row,) = read_published(path).rows(["cvc_300"])
    assert row.dataset == "cvc_300"


def test_the_papers_table_is_read_whole():
    path = conf_dir().parent / "experiments" / "table1_zero_shot" / "published.csv"
    if not path.is_file():
        pytest.skip("the experiments are not part of the installed package")
    rows = read_published(path).rows(["mvtec"])
    assert len({row.setting for row in rows}) == 7
    crane = next(row for row in rows if row.setting == "Crane (published)")
    assert set(crane.metrics) == {
        *("image_auroc", "image_ap", "image_f1max"),
        *("pixel_auroc", "pixel_f1max", "aupro_200"),
    }


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,2\n",
        HEAD + "image,accuracy,visa,Crane,9\n",
        HEAD + "image,auroc,visa,Crane,many\n",
        HEAD + "image,auroc,visa\n",
        None,
    ],
)
def test_anything_else_is_refused(tmp_path, text):
    path = tmp_path / "p.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(
        UsageError,
        match=r"published: cannot read .*p\.csv as a CSV table with the columns level, metric",
    ):
        read_published(path)

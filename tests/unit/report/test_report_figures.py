import pytest
from PIL import Image

from crane.errors import UsageError
from crane.report import find_runs, first_runs, summarise, write_figures
from crane.report.rows import Row, Spread

METRICS = ["image_auroc", "aupro"]


@pytest.fixture
def figures(tmp_path):
    """Write the figures of every run made so far, and give their names."""

    def write(labels, file_format="png", more=()):
        runs, _ = find_runs([tmp_path / "runs"])
        rows = [*more, *summarise(runs, labels)]
        folder = tmp_path / "figures"
        paths = write_figures(rows, METRICS, first_runs(runs, labels), folder, file_format)
        return {str(path.relative_to(folder)): path for path in paths}

    return write


def test_every_kind_of_figure_is_written(make_run, figures):
    make_run("a1", 0.5, seed=1, started="1")
    make_run("a2", 0.6, seed=2, started="2")
    make_run("b", 0.3, seed=1, started="3")
    published = Row("Theirs (published)", "alpha", "mean", {"image_auroc": Spread((0.9,))}, 0)
    made = figures(["x", "x", "y"], more=[published])
    names = ("settings", "classes", "sizes", "image_roc", "pixel_pr")
    assert set(made) == {f"alpha/{name}.png" for name in names}
    for path in made.values():
        with Image.open(path) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 24)) > 50


def test_a_setting_has_its_colour_in_every_figure(make_run, figures):
    make_run("a")
    make_run("b", 0.7)
    for name, path in figures(["x", "y"]).items():
        colours = {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 24)}
        assert (0xD9, 0x53, 0x2C) in colours or name.endswith(("image_roc.png", "pixel_pr.png"))
        assert (0x2A, 0x7F, 0xBF) in colours


def test_text_stays_text(make_run, figures):
    make_run("a", findings=False)
    made = figures(["one, two"], "svg")
    assert set(made) == {f"alpha/{name}.svg" for name in ("settings", "classes", "sizes")}
    text = made["alpha/classes.svg"].read_text()
    assert all(f">{word}</text>" in text for word in ("bolt", "nut", "AUPRO", "one, two"))


def test_pdf(make_run, figures):
    make_run("a", findings=False)
    assert all(path.read_bytes().startswith(b"%PDF") for path in figures(["x"], "pdf").values())


def test_another_format_is_refused(make_run, figures):
    make_run("a", findings=False)
    with pytest.raises(UsageError, match=r"pdf, svg, png.*'gif'.*figures"):
        figures(["x"], "gif")


def test_a_broken_file_of_curves_is_named(make_run, figures):
    (make_run("a", findings=False) / "curves.json").write_text("{half")
    with pytest.raises(UsageError, match=r"curves\.json that a test wrote"):
        figures(["x"])

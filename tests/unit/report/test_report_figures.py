import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.font_manager import fontManager
from PIL import Image

from crane.errors import UsageError
from crane.report import TableRow, find_runs, first_runs, summarise
from crane.report import figures as drawing
from crane.runs import Spread

METRICS = ["image_auroc", "aupro"]


@pytest.fixture
def figures(tmp_path):
    """Write the figures of every run made so far, and give their names."""

    def write(labels, file_format="png", more=()):
        runs, _ = find_runs([tmp_path / "runs"])
        rows = [*more, *summarise(runs, labels)]
        folder = tmp_path / "figures"
        paths = drawing.write_figures(rows, METRICS, first_runs(runs, labels), folder, file_format)
        return {str(path.relative_to(folder)): path for path in paths}

    return write


def test_every_kind_of_figure_is_written(make_run, figures):
    make_run("a1", 0.5, seed=1, started="1")
    make_run("a2", 0.6, seed=2, started="2")
    make_run("b", 0.3, seed=1, started="3")
    published = TableRow("Theirs (published)", "alpha", "mean", {"image_auroc": Spread((0.9,))}, 0)
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


@pytest.fixture
def rename(make_run):
    """Write a run whose class `nut` has another name."""

    def write(name):
        folder = make_run("a", findings=True)
        for file in (folder / "results.json", folder / "curves.json"):
            file.write_text(file.read_text().replace('"nut"', f'"{name}"'), encoding="utf-8")

    return write


def test_names_are_no_formulas(rename, figures):
    rename("$a_$")
    made = figures(["$x^$"], "svg")
    for figure, name in (("classes", "$a_$"), ("classes", "$x^$"), ("pixel_pr", "$a_$")):
        assert f">{name}</text>" in made[f"alpha/{figure}.svg"].read_text()


def test_characters_that_no_font_has_are_named_once(rename, figures, caplog, recwarn, monkeypatch):
    monkeypatch.setattr(drawing, "FALLBACKS", ())
    rename("螺母")
    figures(["x"])
    assert caplog.text.count("figures show boxes for 母螺: no installed font") == 1
    assert not [one for one in recwarn if "Glyph" in str(one.message)]


def test_a_font_that_has_them_is_used(rename, figures, caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(fontManager, "ttflist", [*fontManager.ttflist])
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for point in ((0, 800), (800, 800), (800, 0)):
        pen.lineTo(point)
    pen.closePath()
    square = pen.glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "luo", "mu"])
    builder.setupCharacterMap({ord("螺"): "luo", ord("母"): "mu"})
    builder.setupGlyf(dict.fromkeys((".notdef", "luo", "mu"), square))
    builder.setupHorizontalMetrics(dict.fromkeys((".notdef", "luo", "mu"), (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    names = {"familyName": "Noto Sans SC", "styleName": "Regular", "psName": "NotoSansSC"}
    builder.setupNameTable(names)
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "noto.ttf")
    fontManager.addfont(tmp_path / "noto.ttf")
    rename("螺母")
    made = figures(["x"], "pdf")
    assert "no installed font" not in caplog.text
    assert b"NotoSansSC" in made["alpha/classes.pdf"].read_bytes()


def test_no_figure_leaves_the_folder_whatever_a_data_set_is_called(make_run, figures, tmp_path):
    make_run("a", dataset="../../outside", findings=False)
    assert all(tmp_path / "figures" in path.resolve().parents for path in figures(["x"]).values())


def test_pdf(make_run, figures):
    make_run("a", findings=False)
    assert all(path.read_bytes().startswith(b"%PDF") for path in figures(["x"], "pdf").values())


def test_another_format_is_refused(make_run, figures):
    make_run("a", findings=False)
    with pytest.raises(UsageError, match=r"figures must be pdf, svg or png, not 'gif'"):
        figures(["x"], "gif")

"""`crane app` in a browser: headless Chromium, without a network."""

import csv
import io
import re
import runpy
import zipfile
from pathlib import Path
from shutil import which

import numpy as np
import pytest
import yaml
from PIL import Image

import crane
from crane.errors import UsageError

pytestmark = pytest.mark.long

pytest.importorskip("gradio", reason="gradio is not installed")

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
DESKTOP, PHONE = {"width": 1280, "height": 1000}, {"width": 390, "height": 844}
NUM_GOOD = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Grey squares; those of `spots` with a white or dark spot, one of a hostile name."""
    top = tmp_path_factory.mktemp("app")
    rng = np.random.default_rng(4)
    names = {"good": [f"{number}.png" for number in range(NUM_GOOD)], "spots": ["a.png", "=b.png"]}
    for kind, files in names.items():
        (top / kind).mkdir()
        for number, name in enumerate(files):
            pixels = rng.integers(100, 120, (96, 128, 3), dtype=np.uint8)
            if kind == "spots":
                pixels[30:50, 40 + 10 * number : 70 + 10 * number] = 250 - 240 * number
            Image.fromarray(pixels).save(top / kind / name)
    return top


@pytest.fixture(scope="module")
def app():
    from crane.serving.app import App, AppOptions

    return App(AppOptions(["mini"], ["vv"], max_images=12, max_pixels=400_000, device="cpu"))


@pytest.fixture(scope="module")
def open_page(app):
    """Open the page; it must have fetched nothing from elsewhere, and said no error."""
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt install chromium")
    pytest.importorskip("playwright", reason="playwright is not installed")
    from playwright.sync_api import sync_playwright

    from crane.serving.app import launch

    heard = []
    page = app.blocks()
    launch(page, app.options, host="127.0.0.1", port=None, share=False)
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def opened(viewport=DESKTOP):
            tab = running.new_context(viewport=viewport).new_page()
            tab.set_default_timeout(120_000)  # of a busy machine
            tab.on("pageerror", lambda error: heard.append(str(error)))
            tab.on(
                "request",
                lambda request: (
                    request.url.startswith((page.local_url, "data:", "blob:"))
                    or heard.append(request.url)
                ),
            )
            tab.goto(page.local_url)
            tab.locator("#images").wait_for()
            return tab

        yield opened
        running.close()
    page.close()
    assert heard == []


def drop(tab, name: str, files) -> None:
    tab.locator(f"#{name} input[type=file]").first.set_input_files([str(file) for file in files])


def said(tab, number: int = 1) -> str:
    place = tab.locator(f"#verdicts_{number} li").last
    place.wait_for(timeout=60_000)
    return tab.locator(f"#verdicts_{number}").inner_text()


def until(tab, number: int, wanted: str) -> str:
    tab.wait_for_function(
        "([place, wanted]) => document.querySelector(place).innerText.match(wanted)",
        arg=[f"#verdicts_{number}", wanted],
        timeout=60_000,
    )
    return said(tab, number)


def move(tab, value: float, number: int = 1) -> None:
    box = tab.locator(f"#threshold_{number} input[type=number]")
    box.fill(str(value))
    box.press("Enter")
    box.blur()


def test_images_are_scored_and_the_threshold_decides_again(open_page, folder, app, monkeypatch):
    tab = open_page()
    drop(tab, "images", sorted((folder / "spots").iterdir()))
    text = said(tab)
    scores = [float(number) for number in re.findall(r"score ([\d.]+)", text)]
    detector = crane.load("mini", device="cpu")
    wanted = [detector.predict(path).score for path in sorted((folder / "spots").iterdir())]
    assert sorted(scores) == pytest.approx(sorted(wanted), abs=6e-4)
    monkeypatch.setattr(app, "detector", None)  # from here on nothing is scored
    move(tab, 0.0001)
    assert "2 of 2 images anomalous" in until(tab, 1, "^2 of 2")
    move(tab, round(sum(wanted) / 2, 4))
    assert until(tab, 1, "^1 of 2").count("normal: ") == 1
    move(tab, 1)
    assert "anomalous: " not in until(tab, 1, "^0 of 2")
    assert tab.locator("#maps_1 img").count() >= 2


def test_calibration_moves_the_threshold_of_both_methods(open_page, folder):
    tab = open_page()
    drop(tab, "images", sorted((folder / "spots").iterdir()))
    said(tab)
    tab.get_by_label("Compare with").click()
    tab.get_by_role("option", name="mini").click()
    said(tab, 2)
    tab.get_by_label("Attention").nth(1).click()
    tab.get_by_role("option", name="vv").click()
    until(tab, 2, "2 images")
    tab.get_by_text("Calibrate on images known to be normal").click()
    drop(tab, "good", sorted((folder / "good").iterdir()))
    tab.wait_for_function(
        "number => document.querySelectorAll('#good tr').length >= number", arg=NUM_GOOD
    )
    tab.locator("#calibrate").click()
    tab.wait_for_function("document.querySelector('#calibrated').innerText.includes('Calibrated')")
    assert f"on {NUM_GOOD} normal images" in tab.inner_text("#calibrated")
    assert "needs 19 images" in tab.inner_text("#calibrated")
    detector = crane.load("mini", device="cpu")
    value = detector.calibrate(str(folder / "good"), 0.05).value
    shown = tab.locator("#threshold_1 input[type=number]").input_value()
    assert float(shown) == pytest.approx(value, abs=1.01e-4)
    assert float(shown) >= value
    other = crane.load("mini", device="cpu", overrides=["attention=vv"])
    wanted = other.calibrate(str(folder / "good"), 0.05).value
    found = tab.locator("#threshold_2 input[type=number]").input_value()
    assert float(found) == pytest.approx(wanted, abs=1.01e-4)
    until(tab, 1, f"threshold {float(shown):.3g}")
    tab.locator("#pack").click()
    tab.locator("#packed a").first.wait_for()
    with tab.expect_download() as waiting:
        tab.locator("#packed a").first.click()
    with zipfile.ZipFile(waiting.value.path()) as packed:
        names = packed.namelist()
        for number in (1, 2):
            own = [name for name in names if name.startswith(f"method_{number}/")]
            assert len(own) == 6
            rows = list(csv.reader(io.StringIO(packed.read(own[-2]).decode())))
            assert rows[0] == ["image", "score", "anomalous", "regions"]
            assert [row[0] for row in rows[1:]] == ["'=b.png", "a.png"]
            with Image.open(io.BytesIO(packed.read(own[0]))) as overlay:
                assert overlay.width >= 128


def test_a_file_that_is_no_image_is_said(open_page, folder, tmp_path):
    tab = open_page()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    drop(tab, "images", [broken])
    tab.get_by_text("cannot read broken.png").first.wait_for()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_it_fits_the_screen(open_page, viewport):
    tab = open_page(viewport)
    assert tab.evaluate("document.documentElement.scrollWidth") <= viewport["width"]


def test_only_what_is_configured_can_be_chosen_and_sent(app, folder):
    image = str(folder / "spots" / "a.png")
    for checkpoint, attention in (("/etc/passwd", "as trained"), ("mini", "clip")):
        with pytest.raises(UsageError, match="choose"):
            app.detector(checkpoint, attention)
    with pytest.raises(UsageError, match="13 images are too many; max_images=12"):
        app.read([image] * 13)
    big = folder / "big.png"
    Image.new("RGB", (900, 900)).save(big)
    Image.new("RGB", (640, 600)).save(folder / "half.png")  # alone it is small enough
    assert app.read([str(folder / "half.png")])[0] == ["half.png"]
    with pytest.raises(UsageError, match="max_pixels"):
        app.read([str(big)])
    with pytest.raises(UsageError, match="max_pixels"):  # of all together
        app.read([image, image, str(folder / "half.png")])
    with pytest.raises(UsageError, match="drop some images"):
        app.read([])
    with pytest.raises(UsageError, match="score some images"):
        app.download(None, 0.5, 0.5)


def test_a_new_name_does_not_run_as_markup(app):
    from crane.serving.app import _plain

    assert "<" not in _plain("<img src=x onerror=alert(1)>")
    assert "[" not in _plain("[a](javascript:alert(1))")


def test_the_space_builds_its_page(monkeypatch):
    monkeypatch.setenv("CRANE_CHECKPOINTS", "mini")
    folder = Path(__file__).resolve().parents[2] / "spaces"
    space = runpy.run_path(str(folder / "app.py"), run_name="space")
    assert {"Images", "Checkpoint", "Threshold"} <= {
        getattr(one, "label", None) for one in space["demo"].blocks.values()
    }
    facts = yaml.safe_load((folder / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert (facts["sdk"], facts["app_file"]) == ("gradio", "app.py")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["checkpoints=[]"], "checkpoints must be a non-empty list"),
        (["attentions=[foo]"], "unknown attention 'foo'"),
        (["port=1"], "port must be an integer from 1024 to 65535, not 1"),
        (["share=perhaps"], "share must be true or false"),
        (["checkpoints=[/no/such.pth]"], "/no/such.pth"),
    ],
)
def test_what_does_not_fit_is_said(crane, overrides, said):
    outcome = crane("app", *overrides)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1

"""`predictions.html` in a browser: Debian's Chromium, without a network."""

from pathlib import Path
from shutil import which

import numpy as np
import pytest
from PIL import Image

from crane.pictures import ColourScale
from crane.prediction import Threshold
from crane.prediction.joining import STEPS, PredictionsPage, thumbnail_of

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium"),
    pytest.mark.long,
]

SCALE = ColourScale(vmin=0.0, vmax=1.0, colormap="inferno")
HOSTILE = "</script><img src=x onerror=alert(1)>.png"
SCORES = np.random.default_rng(3).permutation(np.linspace(0.02, 0.98, 49)).tolist()
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def page_file(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("predictions")
    rows = []
    for number, score in enumerate(SCORES):
        name = HOSTILE if number == 7 else f"folder_{number % 3}/image_{number:02d}.png"
        overlay = f"overlays/{number}.png.jpg"
        picture = output / thumbnail_of(overlay)
        picture.parent.mkdir(exist_ok=True)
        Image.new("RGB", (400, 150), (int(255 * score), 90, 90)).save(picture)
        rows.append({"image": name, "score": score, "regions": number % 4, "overlay": overlay})
    page = PredictionsPage(output, Threshold(0.5), SCALE)
    page.add(rows[:20])
    page.add([*rows[20:], {"image": "broken.png", "score": None}])
    return page.write(len(rows) + 1)


@pytest.fixture(scope="module")
def open_page(page_file):
    """Open the page; it must have said and fetched nothing."""
    from playwright.sync_api import sync_playwright

    heard = []
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def opened(viewport=DESKTOP, **options):
            page = running.new_context(viewport=viewport, **options).new_page()
            page.set_default_timeout(120_000)  # of a busy machine
            page.on("console", lambda message: heard.append(message.text))
            page.on("pageerror", lambda error: heard.append(str(error)))
            page.on(
                "request",
                lambda request: (
                    request.url.startswith(("file:", "data:")) or heard.append(request.url)
                ),
            )
            page.goto(page_file.as_uri())
            return page

        yield opened
        running.close()
    assert heard == []


def verdicts(page):
    cards = page.locator("#cards li").all()
    return [(card.get_attribute("class"), card.locator(".name").inner_text()) for card in cards]


def test_images_are_sorted_and_the_slider_decides_again(open_page):
    page = open_page()
    ordered = sorted(SCORES, reverse=True)
    for threshold in (0.5, 0.02, 0.75, 0.98, 1.0):
        if threshold != 0.5:
            page.locator("#slider").fill(str(round(threshold * STEPS)))
        shown = verdicts(page)
        num = sum(score >= threshold for score in SCORES)
        assert [kind for kind, _ in shown] == ["anomalous"] * num + ["normal"] * (49 - num)
        assert page.inner_text("#count") == f"{num} of 49 anomalous"
        assert f"threshold={threshold:g}" in page.inner_text("#command")
    scores = [float(t.split("score ")[1][:5]) for t in page.locator(".text").all_inner_texts()]
    assert scores == pytest.approx(ordered, abs=6e-4)
    assert "1 could not be read" in page.inner_text("#about")
    page.locator("#threshold").fill("0.3")
    assert page.inner_text("#count") == f"{sum(s >= 0.3 for s in SCORES)} of 49 anomalous"


def test_filters_by_verdict_and_name(open_page):
    page = open_page()
    page.select_option("#show", "normal")
    assert {kind for kind, _ in verdicts(page)} == {"normal"}
    page.fill("#search", "FOLDER_1")
    assert all(name.startswith("folder_1/") for _, name in verdicts(page))
    page.fill("#search", "no such name")
    assert page.inner_text("#more") == "No image fits."
    page.click("#reset")
    assert len(verdicts(page)) == 49


def test_names_are_text_and_nothing_runs(open_page):
    page = open_page()
    assert HOSTILE in [name for _, name in verdicts(page)]
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_it_fits_the_screen_and_can_be_read(open_page, viewport, scheme):
    page = open_page(viewport, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, paper[4:-1].split(","))) / 3
    assert (light < 60) == (scheme == "dark")


def test_of_very_many_images_the_highest_are_listed_and_all_are_counted(tmp_path, monkeypatch):
    from crane.prediction import joining

    monkeypatch.setattr(joining, "MAX_ROWS", 10)
    page = PredictionsPage(tmp_path, None, SCALE)
    for start in range(0, 49, 7):
        page.add([{"image": f"{score}.png", "score": score} for score in SCORES[start : start + 7]])
    text = page.write(49).read_text()
    assert all(f'"score":{score}' in text for score in sorted(SCORES)[-10:])
    assert not any(f'"score":{score}' in text for score in sorted(SCORES)[:-10])
    wanted = [sum(score >= step / STEPS for score in SCORES) for step in range(STEPS + 1)]
    assert f'"above":{str(wanted).replace(" ", "")}' in text

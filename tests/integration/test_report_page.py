"""The report's page in a browser: Debian's Chromium, without a network."""

from pathlib import Path
from shutil import which

import pytest

from crane.report import find_runs, read_published, summarise
from crane.report.page import render_page
from crane.runs import DatasetResult, write_results_json

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
pytest.importorskip("playwright", reason="playwright is not installed")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium"),
    pytest.mark.long,
]

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def report(tmp_path_factory, tiny, use) -> Path:
    """The page over two attentions and two seeds, with two targets and published numbers."""
    from crane.config import compose
    from crane.training import train

    top = tmp_path_factory.mktemp("report")
    data = [*use("source", "alpha"), *use("targets", "beta", "gamma")]
    for attention in ("vv", "clip"):
        for seed in (1, 2):
            place = top / "runs" / f"{attention}_{seed}"
            typed = [f"attention={attention}", f"seed={seed}", f"run_dir={place}"]
            train(compose("train", [*tiny, *data, "logger=none", *typed]))
    runs, _ = find_runs([top / "runs"])
    labels = [run.folder.name[:-2] for run in runs]
    (top / "published.csv").write_text(
        "level,metric,dataset,method,percent\nimage,auroc,gamma,Theirs,99.9\n"
    )
    published = read_published(top / "published.csv")
    rows = published.beside(summarise(runs, labels))
    html = render_page("A page", runs, labels, rows, ["image_auroc", "aupro"], max_pictures=100)
    page = top / "report.html"
    page.write_text(html, encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def open_page(browser, report):
    """Open the page; when the test ends, it must have said and fetched nothing."""
    heard, contexts = [], []

    def listen(page):
        page.on("console", lambda message: heard.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("request", lambda request: heard.append(request.url))

    def visit(viewport=DESKTOP, **options):
        context = browser.new_context(viewport=viewport, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(120_000)  # of a busy machine
        listen(page)
        page.goto(report.as_uri())
        page.wait_for_selector("#sizes .main-svg")
        return page

    yield visit
    for context in contexts:
        context.close()
    fetched = [one for one in heard if not one.startswith(("data:", "blob:"))]
    assert fetched == [report.as_uri()] * len(contexts)


def shown(page, column):
    """The texts of a column of the table's rows that are shown."""
    rows = page.locator("#table tbody tr:not([hidden])")
    return rows.locator(f":scope > :nth-child({column})").all_inner_texts()


def test_the_table_is_sorted_by_a_click_on_a_heading(open_page):
    page = open_page()
    assert page.locator("#num-rows").inner_text() == "5 rows"
    heading = page.locator("#table th", has_text="image AUROC")

    def sort():
        heading.locator("button").click()
        return [float(text.split()[0]) for text in shown(page, 5)]

    assert sort() == sorted(sort(), reverse=True)
    assert heading.get_attribute("aria-sort") == "ascending"
    page.locator("#table th", has_text="AUPRO").last.locator("button").click()
    assert shown(page, 6)[-1] == "-"  # what is not defined comes last, whichever way
    page.locator("#table th", has_text="AUPRO").last.locator("button").click()
    assert shown(page, 6)[-1] == "-"
    page.locator("#table th", has_text="setting").locator("button").click()
    assert shown(page, 1) == sorted(shown(page, 1), key=str.lower)


def test_the_table_is_filtered_by_words_data_set_and_class(open_page):
    page = open_page()
    page.fill("#search", "vv gamma")
    assert shown(page, 1) == ["vv"]
    page.check("#with-classes")
    assert shown(page, 3) == ["mean", "tile"]
    page.fill("#search", "")
    page.select_option("#dataset-filter", "beta")
    assert set(shown(page, 2)) == {"beta"}
    assert set(shown(page, 3)) == {"mean", "candle", "dice"}
    page.fill("#search", "no such thing")
    assert page.locator("#num-rows").inner_text() == "0 rows"


def test_charts_show_every_setting_and_leave_out_what_is_switched_off(open_page):
    page = open_page()

    def names(chart):
        return set(page.evaluate(f"document.getElementById('{chart}').data.map((d) => d.name)"))

    assert names("ablation") == {"Theirs (published)", "vv", "clip"}
    assert names("curves") == names("sizes") == {"vv", "clip"}
    deviations = page.evaluate(
        "document.getElementById('sizes').data.filter((d) => d.type === 'bar')[0].error_y"
    )
    assert deviations["visible"]
    page.locator(".chips button", has_text="vv").click()
    assert names("ablation") == {"Theirs (published)", "clip"}
    assert names("curves") == names("classes") == {"clip"}
    page.locator("#chips-all").click()
    assert names("curves") == {"vv", "clip"}


def test_charts_follow_what_is_chosen_above_them(open_page):
    page = open_page()

    def values(chart):
        return page.evaluate(f"document.getElementById('{chart}').data.map((d) => d.y)")

    for chart, select, choice in (
        ("curves", "#curves-dataset", "gamma"),
        ("curves", "#curves-kind", "image_roc"),
        ("classes", "#classes-metric", "aupro"),
        ("classes", "#classes-dataset", "gamma"),
    ):
        before = values(chart)
        page.select_option(select, choice)
        assert values(chart) != before, select
    assert page.locator("#curves-class option").all_inner_texts() == ["tile"]


def test_the_gallery_filters_and_opens(open_page):
    page = open_page()
    figures = page.locator("figure:not([hidden])")
    everything = figures.count()
    page.select_option("#gallery-choice", "worst")
    page.select_option("#gallery-setting", "clip")
    page.select_option("#gallery-label", "1")
    assert 0 < figures.count() < everything
    assert page.locator("#num-pictures").inner_text() == f"{figures.count()} pictures"
    assert figures.locator(".tag.worst").count() == figures.count()

    figures.first.locator("button").click()
    large = page.locator("#large")
    assert large.is_visible()
    assert page.evaluate("document.querySelector('#large img').naturalWidth") > 100
    text = large.locator("p").inner_text()
    assert "clip" in text
    page.keyboard.press("ArrowRight")
    assert large.locator("p").inner_text() != text
    page.locator("#previous").click()
    assert large.locator("p").inner_text() == text
    page.keyboard.press("Escape")
    assert not large.is_visible()


def test_more_pictures_are_shown_at_a_press(open_page):
    page = open_page()
    figures = page.locator("figure:not([hidden])")
    assert figures.count() == 24
    page.locator("#more").click()
    assert figures.count() > 24
    assert page.locator("#more").is_hidden()


def test_names_are_text_in_the_charts_too(browser, tmp_path):
    link = '<a href="https://example.org">x</a>'
    result = DatasetResult(
        dataset=link,
        class_names=(link,),
        values={"aupro": (0.5,)},
        means={"aupro": 0.5},
        num_normal=(1,),
        num_anomalous=(1,),
    )
    write_results_json([result], tmp_path / "run" / "results.json")
    runs, _ = find_runs([tmp_path])
    rows = summarise(runs, [link])
    html = render_page(link, runs, [link], rows, ["aupro"], max_pictures=0)
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    page = browser.new_page()
    page.set_default_timeout(120_000)  # of a busy machine
    page.goto((tmp_path / "page.html").as_uri())
    page.wait_for_selector("#classes .main-svg")
    assert page.locator("svg a, a[href*=example]").count() == 0
    assert page.locator("#classes svg text", has_text=link).count() == 1
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_on_a_phone(open_page, scheme):
    page = open_page(PHONE, color_scheme=scheme, has_touch=True, is_mobile=True)
    page.check("#with-classes")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("ablation", "classes", "curves", "sizes"):
        box = page.locator(f"#{name}").bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]


def test_the_page_is_dark_in_the_dark(open_page):
    def brightness(scheme):
        page = open_page(color_scheme=scheme)
        colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
        ink = page.evaluate("document.getElementById('curves').layout.font.color")
        return sum(map(int, colour[4:-1].split(","))), ink

    (light, ink), (dark, chalk) = brightness("light"), brightness("dark")
    assert dark < 150 < 600 < light
    assert ink != chalk

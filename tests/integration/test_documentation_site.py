"""The documentation site, built as `make docs` builds it: its pages are complete and connected."""

import doctest
import importlib.util
import json
import threading
from contextlib import suppress
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import crane
import crane.metrics
import crane_runtime
from crane.cli.validation import groups
from crane.config import conf_dir

pytest.importorskip("mkdocs", reason="mkdocs-material is not installed")
pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}


class Parts(HTMLParser):
    """The ids of a page, where its links lead, and what it loads."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.loaded = set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.ids.add(found.get("id"))
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag in ("link", "script", "img", "source", "iframe", "video", "object"):
            self.loaded += [found[key] for key in ("href", "src", "srcset", "data") if key in found]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    build(load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(folder)))
    return folder


@pytest.fixture(scope="module")
def pages(site):
    """Path of each page in the site to its parts."""
    found = {path.relative_to(site).as_posix(): path for path in site.rglob("*.html")}
    return {name: Parts(path.read_text(encoding="utf-8")) for name, path in found.items()}


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", ROOT / "docs" / "site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def named(entry):
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    values = entry.values() if isinstance(entry, dict) else entry
    return [page for value in values for page in named(value)]


def test_every_page_is_in_the_navigation():
    menu = named(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert len(menu) == len(set(menu))
    for path in sorted((ROOT / "docs").rglob("*.md")):
        page = path.relative_to(ROOT / "docs").as_posix()
        assert page in menu, (
            f"docs/{page} is in no menu: add it to `nav` in mkdocs.yml, a page about a command or "
            "an interface under Guides, a walk-through under Tutorials"
        )


@pytest.mark.long
def test_links_lead_to_pages_and_anchors_of_the_site(pages):
    checked = 0
    for name, page in pages.items():
        if name == "404.html":  # its links are those of a server's root
            continue
        for link in page.links:
            url = urlsplit(link)
            if url.scheme or link in (".", "#"):
                continue
            path = (Path("/") / name).parent / unquote(url.path) if url.path else Path("/") / name
            target = path.resolve().relative_to("/").as_posix()
            assert target in pages, f"{name}: {link}"
            assert not url.fragment or unquote(url.fragment) in pages[target].ids, f"{name}: {link}"
            checked += 1
    assert checked > 500


@pytest.mark.long
def test_pages_load_nothing_from_elsewhere(site, pages):
    for name, page in pages.items():
        foreign = [one for one in page.loaded if one.startswith(("http:", "https:", "//"))]
        assert not foreign, f"{name} loads {foreign}"
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8"), style


@pytest.mark.long
@pytest.mark.parametrize(
    ("module", "page"), [(crane, "python"), (crane.metrics, "metrics"), (crane_runtime, "python")]
)
def test_every_public_name_is_in_the_reference(site, pages, module, page):
    for name in module.__all__:
        full = f"{module.__name__}.{name}"
        text = (site / "reference" / f"{page}.html").read_text(encoding="utf-8")
        assert full in pages[f"reference/{page}.html"].ids or f"<code>{full}</code>" in text, full


@pytest.mark.long
def test_every_key_and_option_of_the_command_line_is_in_the_reference(site):
    text = (site / "reference" / "command_line.html").read_text(encoding="utf-8")
    for file in conf_dir().glob("*.yaml"):
        part = text.split(f'<h2 id="crane-{file.stem}">')[1].split("<h2 ")[0]
        keys = yaml.safe_load(file.read_text(encoding="utf-8")).keys() - {"defaults", "hydra"}
        for key in keys:
            assert f"<td><code>{key}</code></td>" in part, f"{file.name}: {key}"
    for group, options in groups().items():
        part = text.split(f'<h3 id="{group}">')[1].split("<h3 ")[0]
        for option in options:
            assert f"<td><code>{option}</code></td>" in part, f"{group}={option}"
    assert "<td><code>calibration.false_alarm_rate</code></td>\n<td><code>0.05</code></td>" in text


@pytest.mark.long
def test_the_search_finds_guides_keys_and_docstrings(site):
    index = json.loads((site / "search" / "search_index.json").read_text(encoding="utf-8"))
    places = {"split conformal": "predict", "skip_finished": "command_line", "pixel_auroc": "ref"}
    for phrase, place in places.items():
        found = [one["location"] for one in index["docs"] if phrase in one["text"]]
        assert any(place in location for location in found), f"{phrase}: {found}"


def test_links_out_of_the_site_name_the_file_or_lead_to_the_repository(hooks):
    files = SimpleNamespace()
    files = SimpleNamespace(get_file_from_path=lambda uri: uri == "metrics.md" or None)
    page = SimpleNamespace(file=SimpleNamespace(src_uri="from/a.md"))

    def written(text, repo_url=None):
        return hooks.on_page_markdown(text, page, SimpleNamespace(repo_url=repo_url), files)

    link = "[tests](../../tests/conftest.py)"
    assert written(link) == "tests (`tests/conftest.py` in the repository)"
    assert (
        written(link, "https://host/us/it/")
        == "[tests](https://host/us/it/blob/HEAD/tests/conftest.py)"
    )
    assert written("[`tests/conftest.py`](../../tests/conftest.py)") == "`tests/conftest.py`"
    for kept in (
        "[m](../metrics.md#a)",
        "[gone](../../gone.py)",
        "[web](https://a.org/b)",
        "[h](#h)",
    ):
        assert written(kept, "https://host/us/it") == kept
    fenced = f"```md\n{link}\n  - item\n```"
    assert written(f"{fenced}\n  - item") == f"{fenced}\n    - item"
    assert not doctest.testmod(hooks).failed


@pytest.fixture(scope="module")
def address(site):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt install chromium")
def test_the_site_in_a_browser(address):
    """It fits a phone, is dark where the system is, searches, and says and fetches nothing else."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    heard = []
    with sync_api.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for viewport, scheme in ((DESKTOP, "light"), (PHONE, "dark")):
            page = running.new_context(viewport=viewport, color_scheme=scheme).new_page()
            page.set_default_timeout(120_000)  # of a busy machine
            page.on("console", lambda message: heard.append(message.text))
            page.on("pageerror", lambda error: heard.append(str(error)))
            page.on(
                "request",
                lambda one: (
                    one.url.startswith((address, "data:", "blob:")) or heard.append(one.url)
                ),
            )
            for name in ("index", "metrics", "reference/command_line", "reference/metrics"):
                page.goto(f"{address}/{name}.html")
                width = page.evaluate("document.documentElement.scrollWidth")
                assert width <= viewport["width"], f"{name} at {viewport}"
            paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, paper[4:-1].split(","))) / 3 < 80) == (scheme == "dark")
            page.goto(f"{address}/index.html")
            if viewport is PHONE:
                page.locator("label[for=__search]").first.click()
            found = page.locator(".md-search-result__link", has_text="threshold").first
            for _ in range(20):  # what is typed before the page's script listens is lost
                page.locator(".md-search__input").fill("")
                page.locator(".md-search__input").press_sequentially("conformal")
                with suppress(sync_api.TimeoutError):
                    found.wait_for(timeout=6_000)
                    break
            else:
                raise AssertionError(f"nothing is found at {viewport}")
        running.close()
    assert heard == []

"""Take docs/images/predictions.png and docs/images/app.png: two pages about the drawn bricks.

    BRICKS=~/.cache/crane/drawn/v1/photos/brick/test   # drawn by `crane demo`
    crane predict checkpoint=mini class_name=brick input=$BRICKS output=runs/bricks \
        calibration.input=$BRICKS/good calibration.false_alarm_rate=0.1
    python docs/images/pages.py $BRICKS runs/bricks

It needs Chromium: `apt install chromium`.
"""

import io
import shutil
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from crane.serving.app import App, AppOptions, launch

FOLDER = Path(__file__).parent
WIDTH = 1120
"""Of the app's page."""
SHOWN = ["spray/005.png", "spray/004.png", "spill/005.png", "good/000.png"]


def save(png: bytes, name: str) -> None:
    """Save with 256 colours: a third of the size."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(256, dither=Image.Dither.NONE).save(FOLDER / name, optimize=True)


def predictions(browser: Browser, page: Path) -> None:
    """The page of predictions, from its top."""
    tab = browser.new_page(viewport={"width": 1280, "height": 900})
    tab.goto(page.resolve().as_uri())
    tab.wait_for_timeout(1000)
    save(tab.screenshot(), "predictions.png")


def app(browser: Browser, bricks: Path) -> None:
    """Four images under two attentions, both calibrated."""
    made = App(AppOptions(["mini"], ["vv"], device="cpu"))
    page = made.blocks()
    launch(page, made.options, host="127.0.0.1", port=None, share=False)
    tab = browser.new_page(viewport={"width": WIDTH, "height": 900})
    tab.goto(page.local_url)
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name.replace("/", "_") for name in SHOWN]
        for name, file in zip(SHOWN, files, strict=True):
            shutil.copy(bricks / name, file)
        drop(tab, "images", files)
        tab.locator("#verdicts_1 li").last.wait_for(timeout=60_000)
        tab.get_by_label("Compare with").click()
        tab.get_by_role("option", name="mini").click()
        tab.locator("#verdicts_2 li").last.wait_for(timeout=60_000)
        tab.get_by_label("Attention").nth(1).click()
        tab.get_by_role("option", name="vv").click()
        tab.get_by_text("Calibrate on images known to be normal").click()
        drop(tab, "good", sorted((bricks / "good").glob("*.png")))
        tab.wait_for_function("document.querySelectorAll('#good tr').length >= 16")
        rate = tab.get_by_label("number input for Rate of false alarms")
        rate.fill("0.1")
        rate.press("Enter")
        tab.locator("#calibrate").click()
        tab.wait_for_function(
            "document.querySelector('#calibrated').innerText.includes('Calibrated')",
            timeout=120_000,
        )
        tab.wait_for_timeout(5000)  # the maps are drawn again
        tab.evaluate("window.scrollTo(0, 0)")
        save(tab.screenshot(full_page=True, clip=clip(tab)), "app.png")
    page.close()


def drop(tab: Page, name: str, files: list[Path]) -> None:
    """Drop files where the page takes them."""
    tab.locator(f"#{name} input[type=file]").first.set_input_files([str(file) for file in files])


def clip(tab: Page) -> dict[str, float]:
    """From the top of the page to the end of the maps."""
    box = tab.locator("#maps_1").bounding_box()
    return {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + 8}


def main() -> None:
    """Take both pictures."""
    bricks, scored = map(Path, sys.argv[1:])
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        predictions(browser, scored / "predictions.html")
        app(browser, bricks)
        browser.close()


if __name__ == "__main__":
    main()

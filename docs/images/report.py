"""Draw docs/images/report.png: a report's page on a screen, and its gallery on a phone in the dark.

    crane train -m method=crane_plus backbone=mini guide=mini source=[embedded_parts] \
        targets=[embedded_photos,embedded_fabrics,embedded_boards] trainer.max_epochs=3 \
        attention=clip,vv,qq+kk+vv seed=1,2 cache=all hydra.sweep.dir=runs/attention
    crane report runs/attention output=runs/report
    python docs/images/report.py runs/report/report.html

It needs Chromium: `apt install chromium`.
"""

import io
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter
from playwright.sync_api import Browser, sync_playwright

SCREEN, PHONE = (1240, 1500), (400, 1300)
MARGIN, RADIUS = 40, 18
PAPER = (233, 229, 221)


def screenshot(browser: Browser, page: Path, size: tuple[int, int], scheme: str, at: str) -> Image:
    """Open the page at one of its parts."""
    viewport = {"width": size[0], "height": size[1]}
    tab = browser.new_page(viewport=viewport, color_scheme=scheme)
    tab.goto(page.resolve().as_uri(), timeout=120_000)
    tab.select_option("#ablation-metric", "pixel_auroc")
    tab.select_option("#classes-metric", "pixel_auroc")
    if at:
        tab.select_option("#gallery-label", "1")
        tab.select_option("#gallery-choice", "best")
        tab.select_option("#gallery-dataset", "embedded_photos")
        tab.evaluate(
            f"document.documentElement.style.scrollBehavior = 'auto', location.hash = '{at}'"
        )
    tab.wait_for_timeout(1500)
    picture = Image.open(io.BytesIO(tab.screenshot()))
    tab.close()
    return picture.convert("RGB")


def lay(sheet: Image, picture: Image, place: tuple[int, int]) -> None:
    """Lay a picture with round corners and a soft shadow on a sheet."""
    shape = Image.new("L", picture.size, 0)
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, *picture.size), RADIUS, fill=255)
    shadow = Image.new("L", sheet.size, 0)
    shadow.paste(shape.point(lambda value: value // 3), (place[0], place[1] + 8))
    sheet.paste((40, 35, 30), mask=shadow.filter(ImageFilter.GaussianBlur(14)))
    sheet.paste(picture, place, shape)


def main() -> None:
    """Draw the picture of the page named on the command line."""
    page = Path(sys.argv[1])
    with sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        screen = screenshot(browser, page, SCREEN, "light", "")
        phone = screenshot(browser, page, PHONE, "dark", "gallery")
        browser.close()
    width = SCREEN[0] + PHONE[0] + 3 * MARGIN
    sheet = Image.new("RGB", (width, SCREEN[1] + 2 * MARGIN), PAPER)
    lay(sheet, screen, (MARGIN, MARGIN))
    lay(sheet, phone, (SCREEN[0] + 2 * MARGIN, MARGIN + (SCREEN[1] - PHONE[1]) // 2))
    small = sheet.resize((1400, round(1400 * sheet.height / width)), Image.Resampling.LANCZOS)
    small.save(Path(__file__).with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()

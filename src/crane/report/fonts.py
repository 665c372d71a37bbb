"""Fonts for names in any script: those of the machine, as none come with crane."""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

logger = logging.getLogger(__name__)

FALLBACKS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP"),
    *("Noto Sans KR", "Source Han Sans SC", "Source Han Sans", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAGothic", "NanumGothic"),  # Linux
    *("Microsoft YaHei", "SimHei", "Yu Gothic", "MS Gothic", "Malgun Gothic"),  # Windows
    *("PingFang SC", "Hiragino Sans GB", "Hiragino Sans", "Apple SD Gothic Neo"),  # macOS
    *("Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Arabic"),
)
"""Fonts that have what matplotlib's own has not; those that are installed are used."""


@contextmanager
def drawing_text(texts: Iterable[str]) -> Iterator[None]:
    """Let figures drawn inside the block show texts, as far as the installed fonts have them.

    Characters that no font has are named once, in the log.

    Args:
        texts: What will be drawn.
    """
    installed = {font.name for font in fontManager.ttflist}
    names = [*mpl.rcParams["font.family"], *(name for name in FALLBACKS if name in installed)]
    fonts = [get_font(findfont(FontProperties(family=[name]))) for name in names]
    known = {code for font in fonts for code in font.get_charmap()}
    lacking = sorted({sign for text in texts for sign in text if ord(sign) not in known})
    if lacking:
        logger.warning(
            "figures have boxes in the place of %s: no font for them was found; install one, "
            "such as Noto Sans CJK for Chinese, Japanese and Korean",
            "".join(lacking),
        )
    with mpl.rc_context({"font.family": names}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from")
        yield

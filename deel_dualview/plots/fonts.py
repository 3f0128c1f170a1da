"""Names in scripts that Matplotlib's own font lacks: an installed font takes over, or escapes where there is none."""

from __future__ import annotations

import functools
from typing import Any

from deel_dualview.plots.formatting import escape, plain, shorten

# Sans-serif fonts that systems come with and that hold many scripts: Linux, Windows, macOS.
_FAMILIES = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans JP", "Noto Sans SC", "Noto Sans KR", "Source Han Sans",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "IPAexGothic", "NanumGothic", "Microsoft YaHei",
    "Yu Gothic", "Meiryo", "Malgun Gothic", "SimHei", "Hiragino Sans", "PingFang SC", "Heiti TC", "Apple SD Gothic Neo",
    "Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Thai",
    "Leelawadee UI", "Nirmala UI", "Noto Sans Symbols 2", "Segoe UI Symbol", "Symbola",
)  # fmt: skip


def drawn(name: str) -> str:
    r"""Return a name as a figure shows it: short, with escapes such as `\u6f22` where no installed font has a glyph."""
    letters = plain(shorten(name))
    return "".join(letter if letter.isascii() or _has_glyph(letter) else escape(letter) for letter in letters)


def font_settings() -> Any:
    """Return the settings under which texts of a figure are made: the user's fonts first, then installed ones."""
    import matplotlib

    return {"font.family": [*matplotlib.rcParams["font.family"], *_installed(_FAMILIES)]}


@functools.cache
def _installed(families: tuple[str, ...]) -> tuple[str, ...]:
    from matplotlib.font_manager import fontManager

    names = {font.name for font in fontManager.ttflist}
    return tuple(family for family in families if family in names)


def _has_glyph(letter: str) -> bool:
    from matplotlib.font_manager import FontProperties, findfont, get_font

    paths = [findfont(FontProperties(family=[family])) for family in font_settings()["font.family"]]
    return any(get_font(path).get_char_index(ord(letter)) for path in paths)

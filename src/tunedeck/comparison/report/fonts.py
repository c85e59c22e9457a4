"""Letters that a figure can show: matplotlib's font and, for Chinese, Japanese and Korean, one of the system's.

No font of that size is shipped. Where the system has none, a figure's words are English and a label with letters that
no font has is shown by its number, which the text next to the figure explains; empty boxes are never drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tunedeck.core.i18n import language

# The usual ones of Linux, macOS and Windows, by how their files are called, the better ones first.
CJK_FILES = (
    "notosanscjk",
    "notosanssc",
    "sourcehansans",
    "pingfang",
    "hiragino sans gb",
    "msyh",
    "wqy-microhei",
    "wqy-zenhei",
    "droidsansfallback",
    "stheiti",
    "heiti",
    "simhei",
    "deng",
    "arialuni",
    "simsun",
)
_CHINESE = "准确率训练适配器"


@dataclass(frozen=True, slots=True)
class Fonts:
    """Font families in the order to ask them, and the characters they have."""

    families: tuple[str, ...]
    characters: frozenset[int]

    def covers(self, text: str) -> bool:
        """Tell whether every letter can be shown."""
        return all(ord(letter) in self.characters for letter in text)

    @property
    def language(self) -> str:
        """Return the language of a figure's words: the chosen one where it can be shown, else English."""
        return language() if self.covers(_CHINESE) else "en"


@cache
def available_fonts() -> Fonts:
    """Return the fonts of this system with the characters they cover, looked up once."""
    from matplotlib import font_manager

    paths = [font_manager.findfont("DejaVu Sans"), *_cjk_file()]
    families, characters = [], set()
    for path in paths:
        font_manager.fontManager.addfont(path)
        font = font_manager.get_font(path)
        families.append(font.family_name)
        characters |= set(font.get_charmap())
    return Fonts(tuple(families), frozenset(characters))


def _cjk_file() -> list[str]:
    """Return the best font file for Chinese that the system has, if any."""
    from matplotlib import font_manager

    found = {Path(path).stem.lower(): path for path in sorted(font_manager.findSystemFonts())}
    for wanted in CJK_FILES:
        matching = [path for stem, path in found.items() if stem.startswith(wanted)]
        regular = [path for path in matching if "regular" in Path(path).stem.lower()] or matching
        if regular:
            return regular[:1]
    return []

"""`report.html`, `report.md` and the figures of a comparison, in the chosen language."""

from __future__ import annotations

import base64
import html
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from tunedeck.comparison.report.confusion import label_cells
from tunedeck.comparison.report.figures import draw_figures
from tunedeck.comparison.report.recommend import recommend
from tunedeck.comparison.report.style import Figure
from tunedeck.comparison.report.table import blocks
from tunedeck.comparison.report.text import facts, figure_title, notes, words
from tunedeck.comparison.report.values import ComparisonValues
from tunedeck.core.i18n import language
from tunedeck.core.storage import write_bytes, write_text

LONGEST = 400
"""Characters of a text that are shown; the rest is cut."""
_MARKDOWN = re.compile(r"([\\`*_{}\[\]|<>~$])")


def write_report(folder: Path, comparison: ComparisonValues) -> None:
    """Write report.html (one file that needs no network and runs no script), report.md and figures/*.png and *.svg."""
    figures = draw_figures(comparison)
    for figure in figures:
        write_bytes(folder / "figures" / f"{figure.name}.png", figure.png)
        write_bytes(folder / "figures" / f"{figure.name}.svg", figure.svg)
    write_text(folder / "report.html", html_page(comparison, figures))
    write_text(folder / "report.md", markdown_page(comparison, figures))


def html_page(comparison: ComparisonValues, figures: list[Figure]) -> str:
    """Return the page; every text that is not ours is escaped by the template."""
    return _rendered("report.html.j2", comparison, figures, escape=True)


def markdown_page(comparison: ComparisonValues, figures: list[Figure]) -> str:
    """Return the report in Markdown, which refers to the figures in its folder."""
    return _rendered("report.md.j2", comparison, figures, escape=False)


def _rendered(template: str, comparison: ComparisonValues, figures: list[Figure], *, escape: bool) -> str:
    import jinja2

    environment = jinja2.Environment(
        autoescape=escape, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    environment.filters["plain"] = _plain
    source = files("tunedeck.comparison.report").joinpath(template).read_text(encoding="utf-8")
    return environment.from_string(source).render(_values(comparison, figures))


def _values(comparison: ComparisonValues, figures: list[Figure]) -> dict[str, Any]:
    return {
        "lang": {"zh": "zh-CN"}.get(language(), language()),
        "style": files("tunedeck.core").joinpath("report.css").read_text(encoding="utf-8"),
        "words": words(comparison),
        "recommendation": recommend(comparison),
        "blocks": blocks(comparison),
        "figures": [
            {
                "name": one.name,
                "title": figure_title(comparison, one.name),
                "alt": one.alt,
                "key": one.key,
                "svg64": base64.b64encode(one.svg).decode("ascii"),
            }
            for one in figures
        ],
        "labels": [] if comparison.confusion is None else label_cells(comparison.confusion),
        "mistakes": [
            {
                "text": _cut(one.text),
                "wanted": _cut(one.wanted),
                "answered": _cut(one.answered),
                "score": f"{one.score:.3f}",
            }
            for one in comparison.mistakes
        ],
        "command": comparison.repeat.command,
        "facts": facts(comparison),
        "notes": notes(comparison),
    }


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _plain(text: str) -> str:
    """Return a text that means nothing to Markdown or HTML, on one line."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))

"""The report of a check as one HTML page, in the look of a comparison's."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from tunedeck.core.i18n import language, say

LONGEST = 400
"""Characters of a text that are shown; the rest is cut."""


def html_page(check: Mapping[str, Any]) -> str:
    """Return the page of a check as `DataCheck.to_json` gives it; texts of the data are escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    source = files("tunedeck.data.check").joinpath("report.html.j2").read_text(encoding="utf-8")
    style = files("tunedeck.core").joinpath("report.css").read_text(encoding="utf-8")
    return environment.from_string(source).render(
        check=check, words=_words(), style=style, longest=LONGEST, lang={"zh": "zh-CN"}.get(language(), language())
    )


def _words() -> dict[str, str]:
    return {
        "kicker": say("data check"),
        "rows": say("rows"),
        "columns": say("columns"),
        "text_column": say("text column"),
        "label_column": say("label column"),
        "lengths": say("characters: median, 95 % below, longest"),
        "labels": say("Labels"),
        "label": say("label"),
        "findings": say("What was found"),
        "none": say("Nothing was found."),
        "suspicious": say("Labels that look wrong"),
        "suspicious_note": say(
            "by a head on the frozen base's vectors that has not seen the row; look before you change"
        ),
        "text": say("text"),
        "suggested": say("suggested"),
        "probability": say("probability"),
        "curve": say("How many rows are enough"),
        "accuracy": say("accuracy"),
        "interval": say("95 % interval"),
    }

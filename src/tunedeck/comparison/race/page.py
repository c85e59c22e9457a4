"""`report.html` and the figures of a race, in the chosen language."""

from __future__ import annotations

import base64
from importlib.resources import files
from pathlib import Path
from typing import Any

from tunedeck.comparison.race.figures import draw_figures
from tunedeck.comparison.race.values import RaceValues
from tunedeck.comparison.race.words import columns, facts, notes, ranked, rows, verdict_text
from tunedeck.comparison.report.style import Figure
from tunedeck.core.i18n import language, say
from tunedeck.core.storage import write_bytes, write_text


def write_report(folder: Path, race: RaceValues) -> None:
    """Write report.html (one file that needs no network and runs no script) and figures/*.png and *.svg."""
    figures = draw_figures(race)
    for figure in figures:
        write_bytes(folder / "figures" / f"{figure.name}.png", figure.png)
        write_bytes(folder / "figures" / f"{figure.name}.svg", figure.svg)
    write_text(folder / "report.html", html_page(race, figures))


def html_page(race: RaceValues, figures: list[Figure]) -> str:
    """Return the page; every text that is not ours is escaped by the template."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, keep_trailing_newline=True
    )
    source = files("tunedeck.comparison.race").joinpath("race.html.j2").read_text(encoding="utf-8")
    return environment.from_string(source).render(_values(race, figures))


def _values(race: RaceValues, figures: list[Figure]) -> dict[str, Any]:
    titles = {"race": say("The race"), "quality-cost": say("Quality against cost")}
    return {
        "lang": {"zh": "zh-CN"}.get(language(), language()),
        "style": files("tunedeck.core").joinpath("report.css").read_text(encoding="utf-8"),
        "kicker": say("Tunedeck · a race between settings"),
        "title": say("{model} on {data}", model=race.model, data=race.data.source),
        "lede": say(
            "{count} candidates; {train:,} examples to train on, {held_out:,} held out to compare them, {untouched:,} "
            "untouched; on {machine}, {dtype}.",
            count=len(race.candidates),
            train=race.data.train,
            held_out=race.data.held_out,
            untouched=race.untouched,
            machine=race.repeat.machine,
            dtype=race.repeat.dtype,
        ),
        "verdict": verdict_text(race),
        "figures": [
            {
                "title": titles[one.name],
                "alt": one.alt,
                "key": one.key,
                "svg64": base64.b64encode(one.svg).decode("ascii"),
            }
            for one in figures
        ],
        "numbers": say("The candidates"),
        "columns": columns(race),
        "rows": [{"cells": cells, "pick": n == 0 and race.winner is not None} for n, cells in enumerate(rows(race))],
        "stops": say("Why they stopped"),
        "reasons": [one.text for one in ranked(race) if one.text],
        "repeat": say("How to repeat it"),
        "command": race.repeat.command,
        "facts": facts(race),
        "how": say("How to read it"),
        "notes": notes(race),
    }

"""The report: nothing from outside is trusted or fetched, all of it is there, in both languages."""

from __future__ import annotations

import re
from dataclasses import asdict, replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.comparison_results import comparison, demo_like, entry

from tunedeck.comparison.report import fonts
from tunedeck.comparison.report.confusion import condensed, counted
from tunedeck.comparison.report.fonts import Fonts
from tunedeck.comparison.report.page import html_page, markdown_page, write_report
from tunedeck.comparison.report.style import Figure
from tunedeck.comparison.report.table import blocks
from tunedeck.comparison.report.values import Price
from tunedeck.core.i18n import set_language

FIGURE = Figure("quality-size", "lora: 1", b"", b"<svg/>")


class Tags(HTMLParser):
    """Every tag with its attributes, and the text between."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def strings(value: object) -> set[str]:
    """Every string that is not empty somewhere in plain values."""
    if isinstance(value, str):
        return {value} - {""}
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return {text for part in parts for text in strings(part)}


def test_a_text_that_looks_like_html_stays_text() -> None:
    seen = Tags(html_page(demo_like(), [FIGURE]))
    assert "<script>alert('x')</script> thanks for | nothing" in seen.text
    assert not any(
        tag == "script" or any(name.startswith("on") for name in attributes) for tag, attributes in seen.tags
    )


@pytest.mark.parametrize("place", ["name", "label", "source", "command"])
def test_names_from_outside_are_escaped_wherever_they_stand(place: str) -> None:
    bad = '"><img src=x onerror=alert(1)>'
    found = demo_like()
    assert found.confusion is not None
    found = {
        "name": lambda: replace(found, entries=(replace(found.entries[0], name=bad), *found.entries[1:])),
        "label": lambda: replace(found, confusion=replace(found.confusion, labels=(bad, *found.confusion.labels[1:]))),
        "source": lambda: replace(found, data=replace(found.data, source=bad)),
        "command": lambda: replace(found, repeat=replace(found.repeat, command=bad)),
    }[place]()
    seen = Tags(html_page(found, [replace(FIGURE, alt=bad, key=(bad,))]))
    assert bad in seen.text
    assert all(str(attributes.get("src")).startswith("data:") for tag, attributes in seen.tags if tag == "img")


@pytest.mark.figures
def test_the_page_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    write_report(tmp_path, demo_like())
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    seen = Tags(page)
    for tag, attributes in seen.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base")
        for name in ("src", "href", "srcset", "action", "data"):
            assert not re.match(r"\s*(https?:)?//", attributes.get(name) or ""), (tag, attributes)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert sum(tag == "img" for tag, _ in seen.tags) == 5
    for name in ("quality-size", "quality-time", "training-loss", "held-out", "confusions"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (tmp_path / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert f"figures/{name}.png" in (tmp_path / "report.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_recommendation_numbers_mistakes_and_how_to_repeat_it_are_there(language: str) -> None:
    set_language(language)
    for page in (Tags(html_page(demo_like(), [FIGURE])).text, markdown_page(demo_like(), [FIGURE])):
        for wanted in (
            "0.725–0.769",
            "−0.011 … 0.019",
            "885 MB",
            "0.993",
            "tunedeck compare run.yaml",
            "0b" * 32,
            "torch 2.13.0",
        ):
            assert wanted in page
        assert ("Take lora: its accuracy of 0.747" if language == "en" else "选 lora：它的准确率为 0.747") in page


def test_a_chinese_page_has_no_english_sentence_left() -> None:
    set_language("zh")
    shown = demo_like()
    page = html_page(shown, [])
    assert '<html lang="zh-CN">' in page
    text = Tags(page.partition("</style>")[2]).text
    from_outside = {one for one in strings(asdict(shown)) if len(one) > 3} | {"Noto Sans CJK"}  # a font that is advised
    for own in sorted(from_outside, key=len, reverse=True):  # names, examples and commands stay as they are
        text = text.replace(own, "")
    assert re.findall(r"[A-Za-z]{2,}(?:[ ,]+[A-Za-z]{2,}){2,}", text) == []  # no three words in a row


def test_markdown_from_outside_means_nothing() -> None:
    page = markdown_page(demo_like(), [])
    assert "&lt;script&gt;alert('x')&lt;/script&gt; thanks for \\| nothing \\*at all\\*" in page.replace(
        "\\&lt;", "&lt;"
    )
    row = next(line for line in page.splitlines() if "script" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 5


def test_many_entries_are_shown_six_at_a_time() -> None:
    many = comparison(*(entry(f"lora r={r}", 0.7, (-0.02, 0.02)) for r in range(8)))
    assert [len(part) for part, _ in blocks(many)] == [6, 2]
    assert html_page(many, []).count('<table class="numbers">') == 2


def test_a_price_gives_a_cost_and_none_gives_a_note() -> None:
    assert "No price per hour was given" in html_page(demo_like(), [])
    paid = comparison(entry("lora", 0.7, cost=0.0466), price=Price(3.0, "CNY", "as given"))
    page = html_page(paid, [])
    assert "0.047 CNY" in page
    assert "No price per hour" not in page


def test_confusions_are_counted_by_hand_and_the_rest_becomes_one_label() -> None:
    found = counted("a", ("x", "y"), [("x", "x"), ("x", "y"), ("y", "y")])
    assert found.counts == ((1, 1), (0, 1))
    labels = tuple(f"l{number}" for number in range(15))
    wanted = [*labels, "l0", "l0"]
    answered = [*labels, "l1", "l1"]
    small = condensed(counted("a", labels, list(zip(wanted, answered, strict=True))))
    assert len(small.labels) == 12
    assert small.labels[-1] == "4 others"
    assert small.counts[0][:2] == (1, 2)
    assert small.counts[-1][-1] == 4
    assert sum(map(sum, small.counts)) == 17


@pytest.mark.figures
def test_without_a_chinese_font_figures_speak_english_and_number_what_they_cannot_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_language("zh")
    latin = Fonts(("DejaVu Sans",), frozenset(range(32, 127)))
    for module in ("style", "figures", "text"):
        monkeypatch.setattr(f"tunedeck.comparison.report.{module}.available_fonts", lambda: latin)
    found = comparison(entry("lora 好评", 0.7), entry("head", 0.6, (0.05, 0.15), disk=10))
    write_report(tmp_path, found)
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "质量与大小" in page  # the page itself needs no font of ours
    assert "#1 = lora 好评" in page
    assert "本机没有可用于作图的中文字体" in page
    assert fonts.available_fonts().covers("lora 7")

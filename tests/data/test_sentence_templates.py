from __future__ import annotations

import random

import pytest

from tunedeck.data.sentence_templates import Grammar, parse

ROOMS = {"area": [parse("kitchen"), parse("living room")]}


def drawn(template: str, keeps_spaces: bool = True) -> set[str]:
    """What many draws give."""
    grammar = Grammar({"the": parse("(the|my)"), "which": parse("a|b")}, ROOMS, keeps_spaces)
    source = random.Random(0)
    return {grammar.draw(parse(template), source).text for _ in range(200)}


@pytest.mark.parametrize(
    ("template", "sentences"),
    [
        ("turn it on", {"turn it on"}),
        ("turn (on|off)", {"turn on", "turn off"}),
        ("light[s] on", {"light on", "lights on"}),
        ("[a|b] c", {"a c", "b c", "c"}),
        (
            "clean [<the>] {area}",
            {f"clean {the}{room}" for the in ("", "the ", "my ") for room in ("kitchen", "living room")},
        ),
        ("(mute;now)", {"mute now", "now mute"}),
        ("x <which>", {"x a", "x b"}),
        ("to 5[([ ]%)| percent]", {"to 5", "to 5%", "to 5 %", "to 5 percent"}),
    ],
)
def test_a_template_gives_all_its_sentences_and_no_other(template: str, sentences: set[str]) -> None:
    assert drawn(template) == sentences


def test_without_spaces_between_words_none_is_left() -> None:
    assert drawn("打开 [所有] 灯 ", keeps_spaces=False) == {"打开灯", "打开所有灯"}


def test_a_slot_stands_where_it_is_said() -> None:
    sentence = Grammar({}, ROOMS, True).draw(parse("  clean   [the] {area:place} now"), random.Random(1))
    (slot,) = sentence.slots
    assert slot["slot"] == "place"
    start, end = slot["start"], slot["end"]
    assert isinstance(start, int)
    assert isinstance(end, int)
    assert slot["value"] == sentence.text[start:end] in ("kitchen", "living room")


def test_a_seed_gives_the_same_sentences_on_every_machine() -> None:
    grammar, source = Grammar({}, ROOMS, True), random.Random("HassTurnOn 1")
    template = parse("(turn on|switch on) (all;{area}) [lamp|lights]")
    assert [grammar.draw(template, source).text for _ in range(3)] == [
        "turn on all kitchen lights",
        "switch on kitchen all",
        "switch on all kitchen lamp",
    ]

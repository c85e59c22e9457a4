"""`tunedeck explain`: every term, setting and error code is found in either language."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pytest
from support.command_line import Command

from tunedeck.cli.explain import run_settings
from tunedeck.core.errors import TunedeckError
from tunedeck.core.glossary import Term, error_codes, terms
from tunedeck.methods.registry import METHODS, SHORT_NAMES


@pytest.mark.parametrize(
    ("words", "title"),
    [
        (["lora"], "LoRA · 低秩适配（LoRA）"),
        (["learning", "rate"], "learning rate · 学习率"),
        (["学习率"], "learning rate · 学习率"),
        (["warmup-ratio"], "setting training.warmup_ratio (no default)"),
        (["method.r"], "setting method.r (default: 8)"),
        (["td-e012"], "TD-E012"),
    ],
)
def test_a_word_is_explained_whatever_it_is(tunedeck: Command, words: list[str], title: str) -> None:
    said = tunedeck("explain", *words)
    assert said.code == 0
    assert title in said.out.splitlines()


def test_the_explanation_is_in_the_chosen_language(tunedeck: Command) -> None:
    said = tunedeck("explain", "epoch", "--lang", "zh")
    assert said.out.splitlines()[:2] == ["epoch · 轮次（epoch）", "  " + _term("epoch").zh_text]


def test_an_unknown_word_names_a_close_one(tunedeck: Command) -> None:
    said = tunedeck("explain", "overfiting")
    assert said.code == 2
    assert "'overfiting' is not in the glossary (did you mean 'overfitting'?)" in said.err


def test_without_a_word_everything_is_listed(tunedeck: Command) -> None:
    listed = json.loads(tunedeck("explain", "--json").out)
    assert [one["en"] for one in listed["terms"]] == [one.name for one in terms()]
    assert "training.learning_rate" in listed["settings"]
    out = tunedeck("explain").out
    assert all(word in out for word in ("overfitting", "过拟合", "TD-E003", "training.epochs"))


def test_every_word_finds_one_term_and_every_reference_leads_to_one() -> None:
    words = Counter(word for one in terms() for word in set(one.words))
    assert [word for word, count in words.items() if count > 1] == []
    for one in terms():
        assert (one.en_text[-1], one.zh_text[-1]) == (".", "。")
        assert one.name not in one.see
        assert all(_term(name) for name in one.see)


def test_every_method_and_setting_is_explained() -> None:
    known = {word for one in terms() for word in one.words}
    assert not [name for name in (*METHODS, *SHORT_NAMES) if name not in known]
    assert all(entry.text for entry in run_settings().values())


def test_every_error_has_a_code_of_its_own_that_is_explained() -> None:
    classes: list[type[TunedeckError]] = [TunedeckError, *_below(TunedeckError)]
    assert len(classes) == len({one.code for one in classes})
    assert [one.code for one in error_codes()] == sorted(one.code for one in classes)
    assert all("code" in vars(one) for one in classes)


def _below(error: type[TunedeckError]) -> Iterator[type[TunedeckError]]:
    for one in error.__subclasses__():
        if one.__module__.startswith("tunedeck."):
            yield one
            yield from _below(one)


def _term(name: str) -> Term:
    return next(one for one in terms() if one.name == name)

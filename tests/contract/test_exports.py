"""Every kind goes through every target or is refused with a way on, and the table in the docs says which."""

from __future__ import annotations

import pytest
from exports import CASES, KINDS, PAGE, TAKEN, TARGETS, Target, page_with_table, refusal

WAYS_ON = (
    "train lora",
    "tunedeck export",
    "--to adapterhub",
    "--to peft",
    "only adapters for embeddings",
    "serve it with",
    "without --multi-adapter",
)


@pytest.mark.parametrize(
    ("kind", "target"),
    [pytest.param(*case, id=f"{case[0]}-{case[1].name}".replace(" ", "-")) for case in CASES],
)
def test_a_kind_is_exported_or_refused_with_what_else_works(kind: str, target: Target) -> None:
    found = refusal(kind, target)
    if kind in TAKEN[target.name]:
        assert found is None
    else:
        assert found is not None
        assert any(way in found for way in WAYS_ON)


def test_every_target_says_which_kinds_it_takes() -> None:
    assert set(TAKEN) == {target.name for target in TARGETS}
    assert {kind for kinds in TAKEN.values() for kind in kinds} <= set(KINDS)


def test_the_table_in_the_docs_is_what_the_suite_found() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text == page_with_table(text), "run: make pages"

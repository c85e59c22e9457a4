"""Every kind goes through every target or is refused with a way on, as the table in the docs says."""

from __future__ import annotations

import pytest
from support.export_table import CASES, KINDS, TAKEN, TARGETS, Target, on_the_page, refusal

WAYS_ON = (
    "train lora",
    "tunedeck export",
    "--to adapterhub",
    "--to peft",
    "loads adapters for embeddings only",
    "serve it with",
    "without --multi-adapter",
)
IN_TESTS_OF_ONNX = {
    *(("onnx", kind) for kind in ("LoRA", "double_seq_bn", "prompt tuning", "full", "head")),
    *(("onnx --multi-adapter", kind) for kind in ("LoRA", "head")),
}
"""What tests/export/onnx exports and more; a graph takes seconds, so only `make pages` writes these here, too."""


def named(kind: str, target: Target) -> object:
    """A case under a name that can be typed."""
    marks = [pytest.mark.pages] if (target.name, kind) in IN_TESTS_OF_ONNX else []
    return pytest.param(kind, target, id=f"{kind}-{target.name}".replace(" ", "-"), marks=marks)


@pytest.mark.parametrize(("kind", "target"), [named(*case) for case in CASES])
def test_a_kind_is_exported_or_refused_with_what_else_works(kind: str, target: Target) -> None:
    found = refusal(kind, target)
    assert found == on_the_page(kind, target)
    if kind in TAKEN[target.name]:
        assert found is None
    else:
        assert found is not None
        assert any(way in found for way in WAYS_ON)


def test_every_target_says_which_kinds_it_takes() -> None:
    assert set(TAKEN) == {target.name for target in TARGETS}
    assert {kind for kinds in TAKEN.values() for kind in kinds} <= set(KINDS)

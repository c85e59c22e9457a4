"""Every family goes through every method, and the table in the docs says what came out."""

from __future__ import annotations

import pytest
from families import CASES, FAMILIES, METHODS, PAGE, REFUSED, Family, outcome, page


@pytest.mark.parametrize(
    ("family", "form", "method"),
    [pytest.param(*case, id=f"{case[0].model_type}-{case[1]}-{case[2]}".replace(" ", "-")) for case in CASES],
)
def test_a_family_passes_a_method_or_is_refused_for_a_known_reason(family: Family, form: str, method: str) -> None:
    found, expected = outcome(family, form, method), REFUSED.get((family.name, method))
    if expected is None:
        assert found.refusal is None
        assert found.merges == (method.startswith("LoRA") or method in ("full", "top layer"))
    else:
        assert (found.refusal or "").startswith(expected)


def test_every_refusal_is_of_a_family_and_a_method() -> None:
    assert {name for name, _ in REFUSED} <= {family.name for family in FAMILIES}
    assert {method for _, method in REFUSED} <= set(METHODS)


def test_the_table_in_the_docs_is_what_the_suite_found() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python tests/contract/write_families.py"

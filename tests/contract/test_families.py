"""Every family is tried with one method and every method with some families; `make pages` tries them all.

The table in docs/methods/families.md must say of each case what came out.
"""

from __future__ import annotations

import pytest
from support.family_table import CASES, FAMILIES, METHODS, PAGE, REFUSED, Family, cells, outcome, page

DIAGONAL = {
    (family, form, list(METHODS)[number % len(METHODS)])
    for number, (family, form) in enumerate((family, form) for family in FAMILIES for form in family.forms)
}
MERGES = ("DoRA", "(IA)³", "biases, norms", "full", "top layer")
REST = [case for case in CASES if case not in DIAGONAL]


def named(case: tuple[Family, str, str], *marks: pytest.MarkDecorator) -> object:
    """A case under a name that can be typed."""
    family, form, method = case
    return pytest.param(*case, id=f"{family.model_type}-{form}-{method}".replace(" ", "-"), marks=marks)


@pytest.mark.parametrize(
    ("family", "form", "method"),
    [*(named(case) for case in CASES if case in DIAGONAL), *(named(case, pytest.mark.pages) for case in REST)],
)
def test_a_family_passes_a_method_or_is_refused_for_a_known_reason(family: Family, form: str, method: str) -> None:
    found, expected = outcome(family, form, method), REFUSED.get((family.name, method))
    told = cells(PAGE.read_text(encoding="utf-8"))[family.name, form, method]
    if expected is None:
        assert found.refusal is None
        assert found.merges == (method in MERGES or method.startswith("LoRA"))
        assert told == ("merges" if found.merges else "yes")
    else:
        assert (found.refusal or "").startswith(expected)
        assert told.startswith("no (")


def test_every_method_is_tried_with_two_families_or_more() -> None:
    tried = [method for _, _, method in DIAGONAL]
    assert all(tried.count(method) >= 2 for method in METHODS)


def test_every_refusal_is_of_a_family_and_a_method() -> None:
    assert {name for name, _ in REFUSED} <= {family.name for family in FAMILIES}
    assert {method for _, method in REFUSED} <= set(METHODS)


@pytest.mark.pages
def test_the_table_in_the_docs_is_what_the_suite_found() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: make pages"

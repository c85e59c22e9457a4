from __future__ import annotations

import pytest

from tunedeck.data.check.personal import is_identity_number, mask, personal_data


def test_the_check_digit_of_an_identity_number_is_that_of_the_standard() -> None:
    assert is_identity_number("11010519491231002X")  # the example of GB 11643
    assert not is_identity_number("110105194912310021")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("电话13812345678，谢谢", [("phone number", "138******78")]),
        ("call +86 138 1234 5678", [("phone number", "+86************78")]),
        ("ring +44 20 7946 0958 now", [("phone number", "+44***********58")]),
        ("身份证11010519491231002X", [("identity number", "110*************2X")]),
        ("身份证110105194912310021", []),
        ("mail bob.smith@mail.example.org", [("e-mail", "b***@mail.example.org")]),
        ("order 202405139999 of 1381234567", []),
        ("@user and a@b", []),
    ],
)
def test_personal_data_is_found_and_masked(text: str, found: list[tuple[str, str]]) -> None:
    assert [tuple(one) for one in personal_data(text)] == found


def test_a_mask_keeps_five_characters() -> None:
    assert mask("13812345678") == "138******78"

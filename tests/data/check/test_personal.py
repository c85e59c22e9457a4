from __future__ import annotations

import pytest

from tunedeck.data.check.personal import is_identity_number, mask, personal_data


def test_the_check_digit_of_an_identity_number_is_that_of_the_standard() -> None:
    assert is_identity_number("11010519491231002X")  # the example of GB 11643
    assert is_identity_number("110105 19491231 002X")
    assert not is_identity_number("110105194912310021")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("电话13812345678，谢谢", [("phone number", "138******78")]),
        ("call +86 138 1234 5678", [("phone number", "+86************78")]),
        ("ring +44 20 7946 0958 now", [("phone number", "+44***********58")]),
        ("身份证11010519491231002X", [("identity number", "110*************2X")]),
        ("身份证110105194912310021", []),
        ("身份证号：110105 19491231 002x。", [("identity number", "110***************2x")]),
        ("订单号202405139900123456已发货", []),  # 18 digits
        ("order 440305202402300001 was paid", []),  # a date inside, but another check digit
        ("my SSN is 219-09-9999.", [("identity number", "*********99")]),
        ("SSN 078 05 1120", [("identity number", "*********20")]),
        ("parts 000-12-3456, 666-12-3456, 900-12-3456, 219-00-9999, 219-09-0000, 219-09 9999", []),
        ("call (415) 555-2671 or 415-555-2671", [("phone number", "(41*********71"), ("phone number", "415*******71")]),
        ("call +1 415 555 2671", [("phone number", "+1 **********71")]),
        ("座机010-62785001，(0755) 86013388", [("phone number", "010*******01"), ("phone number", "(07**********88")]),
        ("pi is 3.0212345678, tracking 9400111899223197428490, ISBN 978-7-111-40772-0", []),
        ("mail bob.smith@mail.example.org", [("e-mail", "b***@mail.example.org")]),
        ("order 202405139999 of 1381234567", []),
        ("@user and a@b", []),
    ],
)
def test_personal_data_is_found_and_masked(text: str, found: list[tuple[str, str]]) -> None:
    assert [tuple(one) for one in personal_data(text)] == found


def test_a_mask_keeps_five_characters() -> None:
    assert mask("13812345678") == "138******78"

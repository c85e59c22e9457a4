from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core.errors import DataError
from tunedeck.data.obo import read_terms

HEADER = "format-version: 1.2\n\n"
GOOD = """[Term]
id: HP:2
name: Nocturia
def: "Passing urine at night. It has \\"many\\" causes." [x]
synonym: "Nycturia" EXACT []
synonym: "nocturia" EXACT layperson []
synonym: "Getting up \\"often\\" at night" EXACT layperson [x]
is_a: HP:1 ! Abnormal urination
is_a: HP:9 ! Another parent
"""


def read(tmp_path: Path, *stanzas: str) -> tuple[tuple[str, ...], list[dict[str, object]]]:
    path = tmp_path / "a.obo"
    path.write_text(HEADER + "\n".join(stanzas), encoding="utf-8")
    return read_terms(path, "layperson")


def test_a_term_gives_its_first_sentence_first_other_name_and_first_parent(tmp_path: Path) -> None:
    columns, rows = read(tmp_path, GOOD)
    assert columns == ("term", "definition", "plain", "family")
    assert rows == [
        {
            "term": "Nocturia",
            "definition": "Passing urine at night.",
            "plain": 'Getting up "often" at night',
            "family": "Abnormal urination",
        }
    ]


@pytest.mark.parametrize(
    "missing",
    [
        "name: Nocturia\n",
        'def: "Passing urine at night. It has \\"many\\" causes." [x]\n',
        "is_a: HP:1 ! Abnormal urination\nis_a: HP:9 ! Another parent\n",
        'synonym: "Getting up \\"often\\" at night" EXACT layperson [x]\n',
    ],
)
def test_a_term_without_one_of_them_is_passed_over(tmp_path: Path, missing: str) -> None:
    assert missing in GOOD
    assert read(tmp_path, GOOD.replace(missing, ""))[1] == []


def test_obsolete_terms_and_other_stanzas_are_passed_over(tmp_path: Path) -> None:
    assert read(tmp_path, GOOD + "is_obsolete: true\n", GOOD.replace("[Term]", "[Typedef]"))[1] == []


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.obo").write_text("")
    with pytest.raises(DataError, match="is empty"):
        read_terms(tmp_path / "a.obo", "layperson")

from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core.errors import DataError
from tunedeck.data.front_matter import read_documents

COLUMNS = {"licence": "short_name", "label": "category"}
SKIP = {"is_deprecated": True, "language": "!en"}
MEANINGS = {"Permissive": "do as you like"}


def document(folder: Path, name: str, header: str, text: str = "You may\n  copy it.\n") -> Path:
    path = folder / name
    path.write_text(f"---\nshort_name: A\n{header}\n---\n\n{text}", encoding="utf-8")
    return path


def read(*paths: Path) -> tuple[tuple[str, ...], list[dict[str, object]]]:
    return read_documents(paths, COLUMNS, SKIP, MEANINGS)


def test_header_text_meaning_and_family_become_a_row(tmp_path: Path) -> None:
    columns, rows = read(document(tmp_path, "bsd-new.LICENSE", "category: Permissive"))
    assert columns == ("licence", "label", "text", "meaning", "family")
    assert rows == [
        {
            "licence": "A",
            "label": "Permissive",
            "text": "You may copy it.",
            "meaning": "do as you like",
            "family": "bsd",
        }
    ]


def test_a_line_of_hyphens_in_the_text_is_text(tmp_path: Path) -> None:
    (row,) = read(document(tmp_path, "a.LICENSE", "category: Permissive", "one\n---\ntwo"))[1]
    assert row["text"] == "one --- two"


@pytest.mark.parametrize(
    "header",
    ["category: Unknown", "category: Permissive\nis_deprecated: yes", "category: Permissive\nlanguage: fr"],
)
def test_what_has_no_meaning_or_is_to_be_skipped_is_left_out(tmp_path: Path, header: str) -> None:
    assert read(document(tmp_path, "a.LICENSE", header))[1] == []


def test_a_document_in_the_wanted_language_is_kept(tmp_path: Path) -> None:
    assert len(read(document(tmp_path, "a.LICENSE", "category: Permissive\nlanguage: en"))[1]) == 1


def test_a_document_without_text_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.LICENSE"
    path.write_text("---\ncategory: Permissive\n---")
    assert read(path)[1] == []


def test_a_file_without_a_header_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.LICENSE").write_text("You may copy it.")
    with pytest.raises(DataError, match=r"a\.LICENSE does not begin with a header"):
        read(tmp_path / "a.LICENSE")

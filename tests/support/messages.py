"""The catalogues of translations against the texts in the code; `make messages` brings them in line."""

from __future__ import annotations

import warnings
from functools import cache
from pathlib import Path

from babel.messages import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

import tunedeck

PACKAGE = Path(tunedeck.__file__).parent
CATALOGUES = {"zh": PACKAGE / "locale" / "zh" / "LC_MESSAGES" / "tunedeck.po"}
KEYWORDS = {"say": None, "say_plural": (1, 2)}


@cache
def texts_in_the_code() -> Catalog:
    """Every text that the code passes to `say` and `say_plural`."""
    template = Catalog()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # an f-string among the values; the text itself is a literal
        for _, _, text, _, _ in extract_from_dir(PACKAGE, method_map=[("**.py", "python")], keywords=KEYWORDS):
            template.add(text)
    return template


def read_catalogue(file: Path) -> Catalog:
    """The catalogue of a language, obsolete entries included."""
    with file.open("rb") as stream:
        return read_po(stream, locale=file.parents[1].name)


def write_catalogue(file: Path, catalogue: Catalog) -> None:
    """Write in one order, each text on one line and without places in the code, so that two changes seldom conflict."""
    with file.open("wb") as stream:
        write_po(stream, catalogue, width=0, no_location=True, sort_output=True, ignore_obsolete=True)


def update_catalogue(file: Path) -> None:
    """Add new texts, a similar old one's translation marked as fuzzy, and drop those that the code no longer uses."""
    catalogue = read_catalogue(file)
    catalogue.update(texts_in_the_code(), update_creation_date=False)
    write_catalogue(file, catalogue)


if __name__ == "__main__":
    for file in CATALOGUES.values():
        update_catalogue(file)

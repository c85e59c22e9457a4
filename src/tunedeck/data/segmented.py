"""Chinese sentences segmented into words with their parts of speech, as the People's Daily corpus writes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tunedeck.data.files import read_text
from tunedeck.data.rows import Columns, Rows

LINES_TOGETHER = 50
"""Lines of one article are together, and the file does not mark its articles: such a run of lines is kept whole."""
LONGEST_SURNAME = 2


def read_segmented(path: Path, kinds: Mapping[str, str]) -> tuple[Columns, Rows]:
    """Return the sentences of lines such as `江/nr  泽民/nr  发表/v` without spaces, and their entities.

    `kinds` maps parts of speech to kinds of entities. A surname and the name after it are one entity. Columns: `text`,
    `entities`, a list of spans with `start`, `end` and `label`, and `block`, the number of the run of lines.
    """
    rows: Rows = []
    for number, line in enumerate(read_text(path, "utf-8").split("\n")):
        words = [word.rpartition("/") for word in line.split()]
        pairs = [(word, tag) for word, slash, tag in words if slash and word]
        if pairs:
            text = "".join(word for word, _ in pairs)
            rows.append({"text": text, "entities": _entities(pairs, kinds), "block": number // LINES_TOGETHER})
    return ("text", "entities", "block"), rows


def _entities(pairs: Sequence[tuple[str, str]], kinds: Mapping[str, str]) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    place, surname_ends = 0, -1
    for word, tag in pairs:
        end = place + len(word)
        if tag == "nr" and surname_ends == place:
            found[-1]["end"], surname_ends = end, -1
        elif tag in kinds:
            found.append({"start": place, "end": end, "label": kinds[tag]})
            surname_ends = end if tag == "nr" and len(word) <= LONGEST_SURNAME else -1
        place = end
    return found

"""Terms of an ontology in the OBO 1.4 text format."""

from __future__ import annotations

import re
from pathlib import Path

from tunedeck.data.files import read_text
from tunedeck.data.rows import Columns, Rows

_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_NAME = re.compile(r"^name: (.+)$", re.MULTILINE)
_DEFINITION = re.compile(rf"^def: {_QUOTED}", re.MULTILINE)
_PARENT = re.compile(r"^is_a: \S+ ! (.+)$", re.MULTILINE)
_SENTENCE_END = re.compile(r"(?<=[^.][.])\s+(?=[A-Z])")


def read_terms(path: Path, synonym_type: str) -> tuple[Columns, Rows]:
    """Return terms with a definition and a synonym of one type, such as `layperson`, that differs from their name.

    Columns: `term`, the first sentence of its `definition`, `plain` (the first such synonym) and `family`, the first
    parent term's name. Obsolete terms are skipped. DataError when the file cannot be read.
    """
    synonym = re.compile(rf"^synonym: {_QUOTED} \w+ {re.escape(synonym_type)} ", re.MULTILINE)
    rows: Rows = []
    for stanza in read_text(path, "utf-8").split("\n[")[1:]:
        name, definition, parent = (pattern.search(stanza) for pattern in (_NAME, _DEFINITION, _PARENT))
        if not stanza.startswith("Term]") or "\nis_obsolete: true" in stanza or not (name and definition and parent):
            continue
        plain = [text for text in map(_unescaped, synonym.findall(stanza)) if text.lower() != name[1].lower()]
        if plain:
            first = _SENTENCE_END.split(_unescaped(definition[1]))[0]
            rows.append({"term": name[1], "definition": first, "plain": plain[0], "family": parent[1]})
    return ("term", "definition", "plain", "family"), rows


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text.replace("\\n", " "))

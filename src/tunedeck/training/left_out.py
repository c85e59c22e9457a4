"""Settings that a run leaves out and its data tells: the task of conversations, and a base that reads its language."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.task_settings import DEFAULT_TASK
from tunedeck.data.encoding import AUTO
from tunedeck.data.pieces import table_pieces
from tunedeck.data.table import Table
from tunedeck.tasks.generate.config import GenerateConfig

ENGLISH_ENCODER = "bundled:all-minilm-l6-v2"
MULTILINGUAL_ENCODER = "bundled:multilingual-e5-small"
ENGLISH_DECODER = "bundled:smollm2-135m-instruct"
MULTILINGUAL_DECODER = "ms:Qwen/Qwen2.5-0.5B-Instruct"
ROWS, CHARACTERS = 500, 500
"""How many rows are looked at, and how much of each text."""
LEAST_ENGLISH_WORDS = 0.12
"""English texts have about a third of their words from `_ENGLISH`; other languages of the Latin alphabet have few."""
_WORD = re.compile(r"[^\W\d_]+")
_ENGLISH = frozenset(
    _WORD.findall(
        "the of and to in is it that you he was for on are with as i his they be at this have from or had by not but "
        "what all were we when your can there an which their if will how about my me so no do its our out up turn"
    )
)
_CONVERSATIONS = ("messages", "conversations")


def with_left_out(values: Mapping[str, Any], tell: Callable[[str], None]) -> dict[str, Any]:
    """Return a run's values with the model and the task that its data calls for; `tell` is told of them.

    Nothing is added, and the data is not read, where a model is named or no data is. Raises ConfigError where no
    bundled model fits, and what `read_table` raises.
    """
    found = dict(values)
    data = found.get("data")
    reference = data.get("train") if isinstance(data, Mapping) else None
    if "model" in found or "jobs" in found or not isinstance(reference, str):
        return found
    encoding = data.get("encoding", AUTO) if isinstance(data, Mapping) else AUTO
    table = next(table_pieces(reference, encoding))
    if "task" not in found and any(column.lower() in _CONVERSATIONS for column in table.columns):
        found["task"] = GenerateConfig.kind
    task = found.get("task", DEFAULT_TASK)
    kind = task.get("kind", DEFAULT_TASK) if isinstance(task, Mapping) else task
    english = is_english(table)
    if kind == GenerateConfig.kind and not english:
        raise ConfigError(
            say(
                "no bundled model writes the language of {data}; name one, such as --model {model}",
                data=reference,
                model=MULTILINGUAL_DECODER,
            )
        )
    encoder = ENGLISH_ENCODER if english else MULTILINGUAL_ENCODER
    found["model"] = ENGLISH_DECODER if kind == GenerateConfig.kind else encoder
    if english:
        tell(say("no model is named; the texts are English: {model} is used", model=found["model"]))
    else:
        tell(say("no model is named; the texts are not English: {model} is used", model=found["model"]))
    return found


def is_english(table: Table) -> bool:
    """Return whether the texts of a table's first rows are in English, by its commonest words."""
    texts = " ".join(text for row in table.rows[:ROWS] for cell in row.values() for text in _texts(cell))
    words = _WORD.findall(texts.lower())
    known = sum(word in _ENGLISH for word in words)
    return known >= LEAST_ENGLISH_WORDS * max(len(words), 1)


def _texts(cell: Any) -> Iterator[str]:
    if isinstance(cell, str):
        yield cell[:CHARACTERS]
    elif isinstance(cell, Mapping):
        yield from (text for value in cell.values() for text in _texts(value))
    elif isinstance(cell, list | tuple):
        yield from (text for value in cell for text in _texts(value))

"""Conversations from tables, in the shapes people have them: messages, sharegpt, alpaca, prompt and answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import listing, say
from tunedeck.data.table import Table

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
}
PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("instruction", "response"),
    ("question", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("问题", "回答"),
    ("问题", "答案"),
)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Conversation:
    """Turns in order; the last is the assistant's."""

    messages: tuple[Message, ...]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Return everything before the last answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """Return the last answer."""
        return self.messages[-1].content

    def as_dicts(self) -> list[dict[str, str]]:
        """As chat templates take them."""
        return [{"role": message.role, "content": message.content} for message in self.messages]


def read_conversations(table: Table) -> tuple[list[Conversation], str]:
    """Return every row as a conversation, and the name of the shape the columns have.

    Shapes: `messages` (openai), `conversations` (sharegpt), instruction/input/output (alpaca), or a pair of columns
    such as prompt and completion. Raises DataError that lists the columns when none fits, or names the row that is
    wrong.
    """
    columns = {column.lower(): column for column in table.columns}
    if "messages" in columns:
        return [_turns(table, n, row[columns["messages"]]) for n, row in enumerate(table.rows, 1)], "openai messages"
    if "conversations" in columns:
        return [_turns(table, n, row[columns["conversations"]]) for n, row in enumerate(table.rows, 1)], "sharegpt"
    if "instruction" in columns and "output" in columns:
        return [_alpaca(table, n, row, columns) for n, row in enumerate(table.rows, 1)], "alpaca"
    for first, second in PAIRS:
        if first in columns and second in columns:
            asked, answered = columns[first], columns[second]
            pairs = [_pair(table, n, row[asked], row[answered]) for n, row in enumerate(table.rows, 1)]
            return pairs, f"{asked} / {answered}"
    raise DataError(
        say(
            "{source} has no conversations: give a column messages or conversations, the columns instruction "
            "and output, "
            "or a pair such as prompt and completion; it has: {columns}",
            source=table.source,
            columns=listing(table.columns),
        )
    )


def _turns(table: Table, number: int, turns: object) -> Conversation:
    if not isinstance(turns, list) or not turns:
        raise _wrong(table, number, say("it is not a list of turns"))
    messages = [_message(table, number, turn) for turn in turns]
    while messages and messages[-1].role != "assistant":
        messages.pop()
    return _checked(table, number, messages)


def _message(table: Table, number: int, turn: object) -> Message:
    if not isinstance(turn, Mapping):
        raise _wrong(table, number, say("a turn is not an object with a role and a content"))
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if role in ("tool", "function") or turn.get("tool_calls") or turn.get("function_call"):
        raise _wrong(
            table, number, say("a turn calls a tool, which cannot be trained on; leave such conversations out")
        )
    if str(role) not in ROLES:
        raise _wrong(
            table, number, say("a turn has the role {role!r}; allowed: {known}", role=role, known=listing(ROLES))
        )
    if not isinstance(content, str):
        raise _wrong(
            table,
            number,
            say(
                "a turn of the role {role!r} has the content {content!r}; it must be a text", role=role, content=content
            ),
        )
    return Message(ROLES[str(role)], content)


def _alpaca(table: Table, number: int, row: Mapping[str, Any], columns: Mapping[str, str]) -> Conversation:
    def text(name: str) -> str:
        return str(row.get(columns.get(name, name)) or "").strip()

    messages = [Message("system", text("system"))] if text("system") else []
    asked = "\n\n".join(part for part in (text("instruction"), text("input")) if part)
    return _checked(table, number, [*messages, Message("user", asked), Message("assistant", text("output"))])


def _pair(table: Table, number: int, asked: object, answered: object) -> Conversation:
    messages = [Message("user", str(asked or "").strip()), Message("assistant", str(answered or "").strip())]
    return _checked(table, number, messages)


def _checked(table: Table, number: int, messages: list[Message]) -> Conversation:
    if len(messages) < 2 or not any(message.role == "user" for message in messages):
        raise _wrong(table, number, say("it needs a question and an answer after it"))
    if any(not message.content.strip() for message in messages if message.role != "system"):
        raise _wrong(table, number, say("a question or an answer is empty"))
    return Conversation(tuple(messages))


def _wrong(table: Table, number: int, reason: str) -> DataError:
    return DataError(say("{source}, row {number}: {reason}", source=table.source, number=number, reason=reason))

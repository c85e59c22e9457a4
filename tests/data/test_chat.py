"""Conversations in the shapes people have them."""

from __future__ import annotations

import pytest

from tunedeck.core.errors import DataError
from tunedeck.data.chat import Conversation, Message, read_conversations
from tunedeck.data.table import Table

ASKED = Conversation((Message("user", "hi"), Message("assistant", "hello")))


def table(*rows: dict[str, object]) -> Table:
    return Table("t.jsonl", tuple(rows[0]), list(rows))


@pytest.mark.parametrize(
    ("row", "shape"),
    [
        (
            {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]},
            "openai messages",
        ),
        ({"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]}, "sharegpt"),
        ({"instruction": "hi", "input": "", "output": "hello"}, "alpaca"),
        ({"instruction": "hi", "output": "hello"}, "alpaca"),
        ({"prompt": "hi", "completion": "hello"}, "prompt / completion"),
        ({"Question": "hi", "Answer": "hello"}, "Question / Answer"),
        ({"问题": "hi", "回答": "hello"}, "问题 / 回答"),
    ],
)
def test_every_common_shape_reads_as_the_same_conversation(row: dict[str, object], shape: str) -> None:
    assert read_conversations(table(row)) == ([ASKED], shape)


def test_alpacas_input_follows_its_instruction_and_a_system_turn_comes_first() -> None:
    (found,), _ = read_conversations(table({"system": "be kind", "instruction": "add", "input": "1 2", "output": "3"}))
    assert [message.role for message in found.messages] == ["system", "user", "assistant"]
    assert found.messages[1].content == "add\n\n1 2"
    assert found.answer == "3"


def test_what_follows_the_last_answer_is_left_out() -> None:
    turns = [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"), ("user", "c"))]
    (found,), _ = read_conversations(table({"messages": turns}))
    assert [message.content for message in found.messages] == ["a", "b"]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"title": "x"}, "it has: title"),
        ({"messages": "hi"}, "row 1: it is not a list of turns"),
        ({"messages": ["hi"]}, "row 1: a turn is not an object with a role and a content"),
        ({"messages": [{"role": "user", "content": None}]}, "the role 'user' has the content None; it must be a text"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{}]}]}, "row 1: a turn calls a tool"),
        ({"messages": [{"role": "tool", "content": "21"}]}, "row 1: a turn calls a tool"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "the role 'wizard'"),
        ({"messages": [{"role": "user", "content": "x"}]}, "a question and an answer"),
        ({"prompt": "hi", "completion": " "}, "is empty"),
        ({"instruction": "", "output": "x"}, "is empty"),
    ],
)
def test_a_row_that_is_no_conversation_is_named(row: dict[str, object], text: str) -> None:
    with pytest.raises(DataError) as error:
        read_conversations(table(row))
    assert text in str(error.value)

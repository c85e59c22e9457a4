"""Conversations as token ids, with the tokens marked that an answer consists of."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from tunedeck.data.chat import Conversation, Message


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one conversation and, for each, whether it is trained on."""

    ids: Sequence[int]
    loss_mask: Sequence[int]


def encode_prompt(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return token ids up to where the answer begins, by the tokenizer's chat template; without one, the turns in plain
    lines.
    """
    if tokenizer.chat_template is None:
        text = "\n".join(message.content for message in messages) + "\n"
        return cast("list[int]", tokenizer(text)["input_ids"])
    return _templated(tokenizer, messages, answer_next=True)


def encode_conversation(tokenizer: Any, conversation: Conversation) -> Encoded:
    """Return a whole conversation; the assistant's turns are trained on, the end token after each included, and nothing
    else.

    A tokenizer without an end token gives answers without one.
    """
    ids: list[int] = []
    loss_mask: list[bool] = []
    for index, message in enumerate(conversation.messages):
        if message.role != "assistant":
            continue
        asked = encode_prompt(tokenizer, conversation.messages[:index])
        answered = _answered(tokenizer, conversation.messages[: index + 1], asked)
        start = len(ids) if asked[: len(ids)] == ids else 0
        loss_mask = [
            *loss_mask[:start],
            *[False] * (len(asked) - start),
            *_loss_mask(answered[len(asked) :], tokenizer.eos_token_id),
        ]
        ids = answered
    return Encoded(ids, loss_mask)


def kept(encoded: Encoded) -> Encoded:
    """Return a conversation in five bytes for each token, for as long as a run lasts."""
    return Encoded(array("i", encoded.ids), bytes(encoded.loss_mask))


def fit(encoded: Encoded, max_length: int) -> Encoded | None:
    """Return the conversation within `max_length` tokens: the prompt is cut at its start, the last answer never.

    None when the last answer does not fit with at least one token of its prompt.
    """
    if len(encoded.ids) <= max_length:
        return encoded
    last_asked = max(
        index for index, counted in enumerate(encoded.loss_mask) if not counted and any(encoded.loss_mask[index:])
    )
    if len(encoded.ids) - last_asked > max_length:
        return None
    return Encoded(encoded.ids[-max_length:], encoded.loss_mask[-max_length:])


def _answered(tokenizer: Any, messages: Sequence[Message], asked: list[int]) -> list[int]:
    if tokenizer.chat_template is not None:
        whole = _templated(tokenizer, messages, answer_next=False)
        if whole[: len(asked)] == asked:
            return whole
    # Without a template, or with one that writes finished answers in another way than it asks for them.
    answer = tokenizer(messages[-1].content, add_special_tokens=False)["input_ids"]
    return [*asked, *answer, *([] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id])]


def _loss_mask(answer: list[int], end: int | None) -> list[bool]:
    """Return every token up to the end token; the model does not generate what a template writes after it."""
    stop = answer.index(end) + 1 if end in answer else len(answer)
    return [position < stop for position in range(len(answer))]


def _templated(tokenizer: Any, messages: Sequence[Message], *, answer_next: bool) -> list[int]:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    return cast("list[int]", tokenizer.apply_chat_template(turns, add_generation_prompt=answer_next, return_dict=False))

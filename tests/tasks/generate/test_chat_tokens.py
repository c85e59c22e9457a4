"""Which tokens of a conversation are learnt, and what is cut when it is too long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import tiny_models

from tunedeck.data.chat import Conversation, Message
from tunedeck.tasks.generate.chat_tokens import Encoded, encode_conversation, encode_prompt, fit

TEMPLATE = (
    "{% for m in messages %}{{ 'w90' if m.role == 'user' else 'w91' if m.role == 'assistant' else 'w92' }} "
    "{{ m.content }} "
    "[SEP] w99 {% endfor %}{% if add_generation_prompt %}w91 {% endif %}"
)


def tokenizer(template: str | None = TEMPLATE):  # type: ignore[no-untyped-def]
    made = tiny_models.tiny_tokenizer("llama")
    made.eos_token, made.chat_template = "[SEP]", template
    return made


def chat(*texts: str) -> Conversation:
    roles = ("user", "assistant")
    return Conversation(tuple(Message(roles[index % 2], text) for index, text in enumerate(texts)))


def learnt_words(found: Encoded) -> list[int]:
    return [token for token, counted in zip(found.ids, found.loss_mask, strict=True) if counted]


def test_every_answer_is_learnt_up_to_its_end_token_and_nothing_else() -> None:
    found = encode_conversation(tokenizer(), chat("w10", "w20 w21", "w11", "w22"))
    assert learnt_words(found) == [20, 21, tiny_models.SEP, 22, tiny_models.SEP]
    assert len(found.ids) == len(found.loss_mask)
    assert found.ids == tokenizer().apply_chat_template(
        chat("w10", "w20 w21", "w11", "w22").as_dicts(), return_dict=False
    )


def test_the_prompt_of_an_answer_is_what_decoding_begins_with() -> None:
    whole = chat("w10", "w20 w21")
    found = encode_conversation(tokenizer(), whole)
    asked = encode_prompt(tokenizer(), whole.prompt)
    assert found.ids[: len(asked)] == asked
    assert found.loss_mask.index(True) == len(asked)


def test_without_a_template_the_answer_and_its_end_are_learnt() -> None:
    found = encode_conversation(tokenizer(None), chat("w10 w11", "w20"))
    assert learnt_words(found) == [20, tiny_models.SEP]
    assert found.ids[-4:] == [10, 11, 20, tiny_models.SEP]


def test_a_template_that_rewrites_finished_answers_still_teaches_the_answer() -> None:
    rewriting = TEMPLATE.replace("'w91' if m.role == 'assistant'", "'w95' if m.role == 'assistant'")
    found = encode_conversation(tokenizer(rewriting), chat("w10", "w20 w21"))
    assert learnt_words(found) == [20, 21, tiny_models.SEP]


@given(st.integers(4, 40))
def test_cutting_keeps_the_last_answer_whole_or_leaves_the_conversation_out(limit: int) -> None:
    found = encode_conversation(tokenizer(), chat("w10 w11 w12 w13 w14 w15", "w20 w21 w22"))
    fitted = fit(found, limit)
    if fitted is None:
        assert limit < 6  # one prompt token, three words, the end, and what the template writes behind it
    else:
        assert len(fitted.ids) <= limit
        assert learnt_words(fitted) == [20, 21, 22, tiny_models.SEP]
        assert fitted.ids == found.ids[-len(fitted.ids) :]


@pytest.mark.parametrize("limit", [6, 7])
def test_a_long_prompt_is_cut_at_its_start(limit: int) -> None:
    fitted = fit(encode_conversation(tokenizer(), chat("w10 " * 30, "w20 w21 w22")), limit)
    assert fitted is not None
    assert len(fitted.ids) == limit

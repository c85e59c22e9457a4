"""Texts to token ids: the cut is right for every kind of tokenizer, shared by nobody, and reads no more than it
needs.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import tiny_models
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from tunedeck.tasks.text import cut_ids, kept_ids, tokenize

SAMPLE = [
    "the quick brown fox jumps over the lazy dog",
    "pack my box with five dozen liquor jugs, please",
    "机票 很 便宜 服务 也 好",
]
SPECIAL = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]


@cache
def tokenizer_of(kind: str) -> Tokenizer:
    """A small tokenizer of BERT's, GPT-2's or a sentencepiece kind."""
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
        trainer: Any = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    elif kind == "bpe":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
        )
    else:
        made = Tokenizer(models.Unigram())
        made.normalizer, made.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
        )
    made.train_from_iterator(SAMPLE * 20, trainer)
    ids = [(name, made.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    return made


WORDS = st.sampled_from(
    ["the", "quick", "foxes", "liquor", "很", "便宜", "  ", "\n", "é", "🙂", "a" * 130, "xyz,", "\u0301"]
)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
@settings(max_examples=60, deadline=None)
@given(words=st.lists(WORDS, max_size=60), times=st.integers(1, 60), room=st.integers(1, 12))
@example(words=["a" * 130], times=9, room=11)
@example(words=["a" * 130, "foxes"], times=9, room=12)
def test_a_text_that_is_read_in_part_has_the_tokens_of_the_whole(
    kind: str, words: list[str], times: int, room: int
) -> None:
    tokenizer, text = tokenizer_of(kind), " ".join(words * times)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(tokenizer.to_str()))
    whole = wrapped(text, truncation=True, max_length=room + 2)["input_ids"]
    assert cut_ids(tokenizer, [text, "dog", text], room) == [whole, *cut_ids(tokenizer, ["dog"], room), whole]


def test_of_a_text_of_a_million_characters_a_few_thousand_are_read() -> None:
    tokenizer, seen = tokenizer_of("wordpiece"), []

    class Counting:
        truncation = padding = None

        def encode_batch_fast(self, texts: list[str], **more: Any) -> Any:
            seen.append(sum(map(len, texts)))
            return tokenizer.encode_batch_fast(texts, **more)

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

    (ids,) = cut_ids(Counting(), ["中" * 1_000_000], 254)
    assert len(ids) == 256
    assert sum(seen) < 10_000


def test_a_text_of_blanks_is_read_to_its_first_words() -> None:
    tokenizer = tokenizer_of("wordpiece")
    assert cut_ids(tokenizer, [" " * 100_000 + "the dog"], 5) == cut_ids(tokenizer, ["the dog"], 5)


def test_cutting_leaves_nothing_on_the_tokenizer_that_another_thread_would_be_cut_by() -> None:
    deck = tiny_models.deck_of("bert")
    deck.tokenizer.backend_tokenizer.enable_truncation(4)
    deck.tokenizer.backend_tokenizer.enable_padding(length=9)
    long = " ".join(["w5"] * 30)
    assert [len(tokenize(deck, [long], limit)[0]) for limit in (7, 12)] == [7, 12]
    assert deck.tokenizer.backend_tokenizer.truncation is None
    assert deck.tokenizer.backend_tokenizer.padding is None


def test_a_tokenizer_that_cuts_on_the_left_keeps_the_end() -> None:
    tokenizer = tokenizer_of("wordpiece")
    text = " ".join(["dog"] * 500 + ["fox"])
    assert cut_ids(tokenizer, [text], 1, "left") == cut_ids(tokenizer, ["fox"], 1)


def test_texts_that_are_encoded_in_parts_have_the_same_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    deck, texts = tiny_models.deck_of("bert"), ["w5 w6", "w7", "w1 w2 w3 w4", "w9"]
    at_once = tokenize(deck, texts, 16)
    monkeypatch.setattr("tunedeck.tasks.text.AT_A_TIME", 3)
    assert [list(row) for row in kept_ids(deck, texts, 16)] == at_once == tokenize(deck, texts, 16)
    assert len({tuple(row) for row in at_once}) == 4

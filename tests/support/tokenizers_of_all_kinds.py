"""Small tokenizers as the families have them: bytes, word pieces, sentence pieces, whole words."""

from __future__ import annotations

from functools import cache
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from support import tiny_models

SENTENCES = ["hello world, this is text", 'he said: {"a": 1}', "你好，世界", "naïve café 🙂🙃", "ab ab ab"]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    trainer = trainers.WordPieceTrainer(vocab_size=120, special_tokens=["<pad>", "<eos>", "<unk>"])
    tokenizer.train_from_iterator([*SENTENCES, "do not, isn't . ! ?"], trainer)
    return tokenizer


def sentence_piece() -> Tokenizer:
    """As Llama 2 has it: words with a leading space, and bytes for what is not in the vocabulary."""
    pieces = ["<unk>", "<pad>", "<eos>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", "h", "e", "l", "o", "▁h", "▁he", "▁world", "a", "▁a", "b", ",", "▁▁"]
    model = models.BPE(
        {piece: number for number, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


@cache
def tokenizer_of(kind: str) -> Any:
    if kind == "words":
        return tiny_models.tiny_tokenizer("llama")
    made = {"bytes": byte_level, "word pieces": word_piece, "sentence pieces": sentence_piece}[kind]()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>")

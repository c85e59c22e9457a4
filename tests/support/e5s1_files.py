"""A tiny file of the format E5S1 and the tokenizer that stands beside it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy

HIDDEN, LAYERS, FFN, VOCABULARY, POSITIONS = 32, 2, 64, 40, 24
_VECTORS = ("emb.ln.w", "emb.ln.b")
_MATRICES = {"q": HIDDEN, "k": HIDDEN, "v": HIDDEN, "ao": HIDDEN, "fi": FFN, "fo": HIDDEN}


def tensors(seed: int = 0) -> dict[str, tuple[bool, numpy.ndarray]]:
    """Return each tensor's kind (packed or not) and its numbers; packed ones are blocks of a scale and 16 codes."""
    source = numpy.random.default_rng(seed)

    def vector(count: int) -> tuple[bool, numpy.ndarray]:
        return False, source.normal(0, 0.1, count).astype("<f4")

    def packed(count: int) -> tuple[bool, numpy.ndarray]:
        blocks = numpy.empty((count // 32, 18), dtype=numpy.uint8)
        blocks[:, :2] = source.uniform(0.01, 0.05, (count // 32, 1)).astype("<f2").view(numpy.uint8)
        blocks[:, 2:] = source.integers(0, 256, (count // 32, 16), dtype=numpy.uint8)
        return True, blocks

    found = {"emb.word": packed(VOCABULARY * HIDDEN), "emb.pos": vector(POSITIONS * HIDDEN)}
    found |= {"emb.type": vector(2 * HIDDEN)} | {name: vector(HIDDEN) for name in _VECTORS}
    for layer in range(LAYERS):
        for part, out in _MATRICES.items():
            width = FFN if part == "fo" else HIDDEN
            found[f"l{layer}.{part}.w"], found[f"l{layer}.{part}.b"] = packed(out * width), vector(out)
        found |= {f"l{layer}.{norm}.{last}": vector(HIDDEN) for norm in ("aln", "oln") for last in "wb"}
    return found


def write_e5s1(folder: Path) -> dict[str, tuple[bool, numpy.ndarray]]:
    """Write tiny.bin and tokenizer.json; return the tensors in it."""
    stored = tensors()
    pieces = b"abc"
    head = b"E5S1" + struct.pack("<I7ifi", 1, HIDDEN, LAYERS, 2, FFN, VOCABULARY, POSITIONS, 2, 1e-12, 32)
    head += struct.pack("<5iQ", 3, 0, 2, 1, 3, len(pieces)) + struct.pack("<4I3f", 0, 1, 2, 3, 0, 0, 0) + pieces
    head += struct.pack("<iI", 1, 5) + b"\x00" * 5 + struct.pack("<i", len(stored))
    offset = len(head) + sum(2 + len(name) + 21 for name in stored)
    body = b""
    for name, (packed, values) in stored.items():
        numbers = len(values) * 32 if packed else values.size
        head += struct.pack("<H", len(name)) + name.encode()
        head += struct.pack("<BIQQ", packed, numbers, offset + len(body), values.nbytes)
        body += values.tobytes()
    (folder / "tiny.bin").write_bytes(head + body)
    words = ["<s>", "<pad>", "</s>", "<unk>", *(chr(0x4E00 + number) for number in range(VOCABULARY - 5)), "<mask>"]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer: dict[str, object] = {
        "version": "1.0",
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": vocabulary,
            "unk_token": "<unk>",
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    return stored


def dense(blocks: numpy.ndarray) -> numpy.ndarray:
    """Unpack blocks one number at a time."""
    values = []
    for block in blocks:
        scale = float(block[:2].view("<f2")[0])
        values += [scale * ((code & 15) - 8.0) for code in block[2:].astype(int)]
        values += [scale * ((code >> 4) - 8.0) for code in block[2:].astype(int)]
    return numpy.array(values, dtype=numpy.float32)

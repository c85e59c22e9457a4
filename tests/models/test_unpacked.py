"""A GGUF file is unpacked once; what the cache holds is the same model, and nothing that happens to it stays wrong."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers
from safetensors import SafetensorError

from tunedeck.models import unpacked
from tunedeck.models.load import LoadedBase, load_base
from tunedeck.models.source import ModelSource

CAUSAL = "AutoModelForCausalLM"
HIDDEN, INNER, WORDS = 32, 64, 40


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path / "cache"))
    return tiny_llama(tmp_path / "models" / "tiny.gguf", seed=0)


def tiny_llama(file: Path, seed: int) -> Path:
    """Write a LLaMA of one layer in 8 bits whose output layer is tied to its word embeddings."""
    file.parent.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(WORDS)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<|end|>", *(chr(97 + number) for number in range(26)), *map(str, range(12)), "ab"])
    writer.add_token_types([3] + [1] * (WORDS - 1))
    writer.add_token_merges(["a b"])
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(0)
    draw = np.random.default_rng(seed)
    shapes = {"token_embd": (WORDS, HIDDEN), "blk.0.ffn_down": (HIDDEN, INNER)}
    shapes |= {f"blk.0.attn_{name}": (HIDDEN, HIDDEN) for name in ("q", "k", "v", "output")}
    shapes |= {f"blk.0.ffn_{name}": (INNER, HIDDEN) for name in ("gate", "up")}
    for name, shape in shapes.items():
        values = gguf.quantize(draw.normal(size=shape).astype(np.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(f"{name}.weight", values, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        writer.add_tensor(f"{name}.weight", np.ones(HIDDEN, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def opened(file: Path, auto_class: str = CAUSAL) -> LoadedBase:
    return load_base(str(file), auto_class, dtype="float32", device="cpu")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([[1, 5, 9, 2]])).logits
    return found


def from_file(file: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)


def no_unpacking(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("unpacked again")

    monkeypatch.setattr(unpacked, "_unpack", refuse)


def test_the_kept_model_gives_the_logits_of_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = from_file(file)
    tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    first = opened(file)
    no_unpacking(monkeypatch)
    for base in (first, opened(file)):
        model: Any = base.model
        assert torch.equal(logits(model), logits(expected))
        assert model.generation_config.eos_token_id == expected.generation_config.eos_token_id
        assert base.tokenizer("ab1c")["input_ids"] == tokenizer("ab1c")["input_ids"]
        assert base.untrained == ()
    os.utime(file, (1, 1))  # only the time is another
    assert torch.equal(logits(opened(file).model), logits(expected))


def test_a_head_that_the_file_lacks_is_drawn_as_for_any_other_model(file: Path) -> None:
    bases = [opened(file, "AutoModelForSequenceClassification") for _ in range(2)]
    assert [base.untrained for base in bases] == [("score.weight",)] * 2
    assert bases[0].fingerprint == bases[1].fingerprint == opened(file).fingerprint
    assert torch.equal(*(base.model.get_parameter("score.weight") for base in bases))


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", unpacked.RECEIPT])
@pytest.mark.parametrize("damage", [Path.unlink, lambda kept: os.truncate(kept, 20)])
def test_an_incomplete_entry_is_written_anew(file: Path, name: str, damage: Any) -> None:
    expected = logits(opened(file).model)
    damage(unpacked.unpacked_folder(file, CAUSAL, torch.float32) / name)
    assert torch.equal(logits(opened(file).model), expected)
    assert len([*unpacked.all_unpacked().glob("*/")]) == 1


def test_another_file_of_the_same_name_takes_the_place_of_the_first(file: Path) -> None:
    before = logits(opened(file).model)
    tiny_llama(file, seed=1)
    os.utime(file, (1, 1))
    after = logits(opened(file).model)
    assert torch.equal(after, logits(from_file(file)))
    assert not torch.equal(after, before)
    assert len([*unpacked.all_unpacked().glob("*/")]) == 1


def test_of_two_at_once_one_unpacks(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, unpack = [], unpacked._unpack

    def counted(*arguments: Any) -> None:
        calls.append(arguments)
        unpack(*arguments)

    monkeypatch.setattr(unpacked, "_unpack", counted)
    source = ModelSource(str(file), str(file.parent), file.name, bundled=False)
    with ThreadPoolExecutor(2) as pool:
        folders = [*pool.map(lambda _: unpacked.unpacked(source, CAUSAL, torch.float32).location, range(2))]
    assert len(calls) == 1
    assert folders[0] == folders[1]


def test_without_a_place_for_the_cache_a_warning_says_so_and_the_file_itself_is_opened(file: Path) -> None:
    (file.parents[1] / "cache").write_text("no folder")
    with pytest.warns(UserWarning, match="the unpacked model is not kept: cannot write"):
        base = opened(file)
    assert torch.equal(logits(base.model), logits(from_file(file)))


def test_a_full_disk_leaves_nothing_and_the_file_itself_is_opened(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError("No space left on device (os error 28)")

    monkeypatch.setattr(unpacked, "save_file", full)
    with pytest.warns(UserWarning, match="the unpacked model is not kept: .*free some space"):
        base = opened(file)
    assert torch.equal(logits(base.model), logits(from_file(file)))
    assert [*unpacked.all_unpacked().glob("*/")] == []

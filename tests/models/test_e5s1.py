from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import e5s1_files
from transformers import AutoModel

import tunedeck as td
from tunedeck.core.errors import ModelError
from tunedeck.export.merge import save_merged
from tunedeck.methods.packed_embedding import PackedEmbedding
from tunedeck.models.e5s1 import convert_e5s1
from tunedeck.models.load import fingerprint, keep_in_memory, load_base
from tunedeck.models.packed_folder import PACKED_WORDS
from tunedeck.models.sentence import sentence_settings

TEXTS = ["一丁七", "万丈三上下"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    e5s1_files.write_e5s1(folder)
    convert_e5s1(folder)
    return folder


def classifier(folder: Path, dtype: str = "float32") -> td.Deck:
    return td.Deck.load(str(folder), td.Classify(labels=("bad", "good")), dtype=dtype)  # type: ignore[arg-type]


def test_every_tensor_has_its_place_and_its_numbers(folder: Path) -> None:
    stored = e5s1_files.tensors()
    state = AutoModel.from_pretrained(folder).state_dict()
    for name, ours in (
        ("emb.word", "embeddings.word_embeddings.weight"),
        ("emb.pos", "embeddings.position_embeddings.weight"),
        ("l1.fo.w", "encoder.layer.1.output.dense.weight"),
        ("l0.ao.w", "encoder.layer.0.attention.output.dense.weight"),
        ("l1.aln.b", "encoder.layer.1.attention.output.LayerNorm.bias"),
        ("l0.fi.b", "encoder.layer.0.intermediate.dense.bias"),
    ):
        packed, values = stored[name]
        expected = e5s1_files.dense(values) if packed else values
        assert state[ours].flatten().tolist() == expected.tolist(), name
    assert len(state) == len(stored) + 2  # the pooler, which the file lacks
    assert not list(folder.glob("*.bin"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_packed_base_answers_as_the_unpacked_folder_bit_for_bit(folder: Path, dtype: str) -> None:
    base = load_base(str(folder), "AutoModel", dtype=dtype)  # type: ignore[arg-type]
    model: Any = base.model
    plain = AutoModel.from_pretrained(
        folder, dtype=getattr(torch, dtype), attn_implementation=model.config._attn_implementation
    ).eval()
    assert isinstance(model.get_input_embeddings(), PackedEmbedding)
    assert model.config.vocab_size == e5s1_files.VOCABULARY
    batch = base.tokenizer(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(model(**batch).last_hidden_state, plain(**batch).last_hidden_state)
    assert base.fingerprint == fingerprint(plain, base.untrained)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_copy_in_memory_leaves_the_file_of_the_packed_words(folder: Path) -> None:
    model = load_base(str(folder), "AutoModel", dtype="float32").model
    assert PACKED_WORDS in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
    keep_in_memory(model)
    assert PACKED_WORDS not in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")


def test_it_is_an_embedder_with_the_mean_and_its_prefixes(folder: Path) -> None:
    settings = sentence_settings(str(folder))
    assert settings is not None
    assert (settings.pooling, settings.normalize, settings.lacking) == ("mean", True, ())
    assert (settings.query_prompt, settings.document_prompt) == ("query: ", "passage: ")


@pytest.mark.parametrize(
    "config",
    [
        td.LoraConfig(target_modules=("query", "value")),
        td.BottleneckConfig(reduction_factor=4),
        td.PromptTuningConfig(num_virtual_tokens=3),
        td.FullConfig(layers="all"),
        td.FullConfig(layers="head"),
    ],
    ids=lambda config: f"{config.kind} {getattr(config, 'layers', '')}",
)
def test_every_method_answers_as_on_the_unpacked_base(folder: Path, config: td.MethodConfig, tmp_path: Path) -> None:
    deck = classifier(folder)
    torch.manual_seed(1)
    deck.add("a", config)
    with torch.no_grad():
        for parameter in deck.adapter("a").parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    deck.save("a", tmp_path / "a")
    again = classifier(folder)
    embedding = again.model.get_input_embeddings()
    embedding.weight = torch.nn.Parameter(embedding.dense(), requires_grad=False)
    again.load_adapter(tmp_path / "a", name="a")
    ours, theirs = deck.predict(TEXTS, adapter="a"), again.predict(TEXTS, adapter="a")
    assert [one.score for one in ours] == [one.score for one in theirs]


def test_full_fine_tuning_trains_the_word_embeddings_too(folder: Path) -> None:
    deck = classifier(folder)
    deck.add("full", td.FullConfig(layers="all"))
    words = deck.adapter("full").built.weights["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(words, deck.model.get_input_embeddings().dense())
    before = deck.predict(TEXTS, adapter="full")
    with torch.no_grad():
        words.add_(torch.randn_like(words))
    assert deck.predict(TEXTS, adapter="full")[0].score != before[0].score


def test_a_merged_model_is_a_plain_one(folder: Path, tmp_path: Path) -> None:
    task = td.Classify(labels=("bad", "good"), pooling="model")
    deck = td.Deck.load(str(folder), task, dtype="float32")
    deck.add("a", td.LoraConfig(target_modules=("query", "value")))
    save_merged(deck, "a", tmp_path / "merged")
    state = AutoModel.from_pretrained(tmp_path / "merged").state_dict()
    assert torch.equal(state["embeddings.word_embeddings.weight"], deck.model.get_input_embeddings().dense())


def test_a_quantized_base_keeps_its_packed_words(folder: Path) -> None:
    deck = td.Deck.load(str(folder), td.Classify(labels=("bad", "good")), dtype="float32", quantize="int8")
    parts = {part.name: part for part in deck.base_parts()}
    words = e5s1_files.VOCABULARY * e5s1_files.HIDDEN
    assert parts["embeddings"].parameters == words + (e5s1_files.POSITIONS + 2) * e5s1_files.HIDDEN
    assert parts["embeddings"].bytes == words * 18 / 32 + 4 * (e5s1_files.POSITIONS + 2) * e5s1_files.HIDDEN


@pytest.mark.parametrize("start", [b"", b"GGUF", b"E5S1\x02\0\0\0", b"E5S1\x01\0\0\0"])
def test_another_file_is_refused_in_one_line(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "a.bin").write_bytes(start + bytes(100))
    with pytest.raises(ModelError, match="damaged") as caught:
        convert_e5s1(tmp_path)
    assert "\n" not in str(caught.value)

"""Prefix tuning: a prefix that begins as a text is that text, for the model, in generation and beside other rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from support.golden_adapters import GOLDEN, golden_deck
from support.tiny_models import (
    LABELS,
    POSITIONS,
    add_stirred,
    deck_of,
    difference,
    logits_of,
    rows_of,
    stir,
    tiny_model,
    tiny_tokenizer,
    token_batch,
)

import tunedeck as td
from tunedeck.core.errors import AdapterFileError, ArchitectureError, ConfigError, UnsupportedKindError
from tunedeck.core.model_spec import ModelSpec
from tunedeck.export.folders import convert_adapter
from tunedeck.generation.sequence import end_tokens

TEXT = "w20 w21 w22 w23"
AS_TEXT = td.PrefixTuningConfig(4, "TEXT", TEXT)
WINDOW = 6
WINDOWED: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": WINDOW},
    "qwen3": {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": ["sliding_attention"] * 2},
    "gemma3_text": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
}


def windowed_folder(model_type: str, folder: Path) -> str:
    """A tiny decoder whose positions see six at most."""
    tiny_model(model_type, "causal", **WINDOWED[model_type]).save_pretrained(folder)
    tiny_tokenizer(model_type).save_pretrained(folder)
    return str(folder)


def windowed_deck(model_type: str, folder: Path) -> td.Deck:
    return td.Deck.load(windowed_folder(model_type, folder), td.Generate(), dtype="float32")


def token_ids(deck: td.Deck, text: str) -> list[int]:
    return list(deck.tokenizer(text, add_special_tokens=False)["input_ids"])


def assert_says_what_a_pass_over_everything_says(
    deck: td.Deck, names: list[str | None], prompts: list[str], tokens: int
) -> None:
    answers = deck.generate(prompts, adapter=names, sampling=td.Sampling(max_tokens=tokens))
    for prompt, name, answer in zip(prompts, names, answers, strict=True):
        expected = continued(deck, deck.tokenizer(prompt)["input_ids"], name, tokens)
        ends = [place for place, token in enumerate(expected) if token in end_tokens(deck)]
        assert answer == deck.tokenizer.decode(expected[: min(ends, default=tokens)], skip_special_tokens=True)


def continued(deck: td.Deck, prompt: list[int], name: str | None, count: int) -> list[int]:
    """Likeliest tokens, each from a pass over everything before it."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(logits_of(deck, {"input_ids": torch.tensor([ids])}, name)[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "qwen3", "gemma2", "glm"])
def test_a_prefix_that_begins_as_a_text_is_that_text_before_the_prompt(model_type: str) -> None:
    deck, ids = deck_of(model_type, "causal"), token_batch(3, pad=None)["input_ids"]
    deck.add("text", AS_TEXT)
    before = torch.tensor([token_ids(deck, TEXT)]).expand(3, -1)
    whole = logits_of(deck, {"input_ids": torch.cat([before, ids], dim=1)})
    assert difference(logits_of(deck, {"input_ids": ids}, "text"), whole[:, 4:]) < 1e-4


@pytest.mark.parametrize("model_type", WINDOWED)
@pytest.mark.parametrize("count", [4, 9])
def test_a_sliding_window_leaves_the_prefix_behind_as_it_does_a_text(
    model_type: str, count: int, tmp_path: Path
) -> None:
    deck, ids = windowed_deck(model_type, tmp_path), token_batch(2, 11, pad=None)["input_ids"]
    deck.add("text", td.PrefixTuningConfig(count, "TEXT", TEXT))
    deck.add("short", td.PrefixTuningConfig(2, "TEXT", TEXT))
    for name, length in (("text", count), ("short", 2)):
        before = torch.tensor([(token_ids(deck, TEXT) * 3)[:length]]).expand(2, -1)
        whole = logits_of(deck, {"input_ids": torch.cat([before, ids], dim=1)})[:, length:]
        assert difference(logits_of(deck, {"input_ids": ids}, name), whole) < 1e-4
        mixed = logits_of(deck, {"input_ids": ids.repeat(2, 1)}, ["text", "text", "short", "short"])
        assert difference(mixed[:2] if name == "text" else mixed[2:], whole) < 1e-4


@pytest.mark.parametrize("model_type", WINDOWED)
def test_a_prefix_of_peft_under_a_sliding_window_gives_pefts_logits(model_type: str, tmp_path: Path) -> None:
    model = tiny_model(model_type, "causal", **WINDOWED[model_type]).eval()
    theirs = peft.get_peft_model(model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)).eval()
    theirs.save_pretrained(str(tmp_path / "theirs"))
    deck, batch = windowed_deck(model_type, tmp_path / "base"), token_batch(3, 11)
    deck.load_adapter(tmp_path / "theirs")
    with torch.no_grad():
        expected = theirs(**batch).logits
    real = batch["attention_mask"].bool()
    assert difference(logits_of(deck, batch, "theirs")[real], expected[real]) < 1e-4


def test_a_prefix_that_peft_projects_gives_pefts_logits(tmp_path: Path) -> None:
    model, batch = tiny_model("llama", "causal").eval(), token_batch()
    config = peft.PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, prefix_projection=True, encoder_hidden_size=12
    )
    theirs = peft.get_peft_model(model, config).eval()
    theirs.save_pretrained(str(tmp_path / "theirs"))
    deck = deck_of("llama", "causal")
    deck.load_adapter(tmp_path / "theirs")
    with torch.no_grad():
        assert difference(logits_of(deck, batch, "theirs"), theirs(**batch).logits) < 1e-5


@pytest.mark.parametrize(("model_type", "form"), [("bert", "classifier"), ("llama", "causal")])
def test_rows_of_the_base_beside_a_prefix_stay_equal_to_the_last_bit(model_type: str, form: str) -> None:
    deck, batch = deck_of(model_type, form), token_batch(5)
    add_stirred(deck, "prefix", td.PrefixTuningConfig(6))
    mixed = logits_of(deck, batch, [None, "prefix", None, "prefix", None])
    assert torch.equal(mixed[[0, 2, 4]], logits_of(deck, rows_of(batch, [0, 2, 4])))


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_decoding_beside_other_rows_says_what_a_pass_over_everything_says(model_type: str) -> None:
    deck = deck_of(model_type, "causal")
    add_stirred(deck, "long", td.PrefixTuningConfig(7))
    add_stirred(deck, "short", td.PrefixTuningConfig(2), seed=2)
    add_stirred(deck, "prompt", td.PromptTuningConfig(3), seed=3)
    add_stirred(deck, "lora", td.LoraConfig(r=2), seed=4)
    names = ["long", None, "short", "prompt", "lora", "long"]
    prompts = ["w30", "w31 w32 w33 w34 w35", "w36 w37", "w38 w39 w40", "w41", "w42 w43 w44 w45"]
    assert_says_what_a_pass_over_everything_says(deck, names, prompts, 6)


@pytest.mark.parametrize("count", [4, 9])
@pytest.mark.parametrize("model_type", WINDOWED)
def test_decoding_under_a_sliding_window_says_what_a_pass_over_everything_says(
    model_type: str, count: int, tmp_path: Path
) -> None:
    deck = windowed_deck(model_type, tmp_path)
    add_stirred(deck, "prefix", td.PrefixTuningConfig(count))
    add_stirred(deck, "short", td.PrefixTuningConfig(2))
    names: list[str | None] = ["prefix", "prefix", None, "short"]
    prompts = ["w30", "w31 w32 w33 w34 w35", "w36 w37", "w38 w39"]
    assert_says_what_a_pass_over_everything_says(deck, names, prompts, 8)


def test_a_prompt_may_take_the_positions_that_the_prefix_leaves() -> None:
    deck = deck_of("llama", "causal")
    deck.add("prefix", td.PrefixTuningConfig(10))
    assert deck.text_limit("prefix") == POSITIONS - 10
    logits_of(deck, {"input_ids": torch.full((1, POSITIONS - 10), 5)}, "prefix")
    with pytest.raises(ConfigError, match=f"{POSITIONS + 1} tokens, .* are more than the model's {POSITIONS}"):
        logits_of(deck, {"input_ids": torch.full((1, POSITIONS - 9), 5)}, "prefix")


def test_padding_up_to_the_last_position_is_no_text() -> None:
    deck = deck_of("bert")
    add_stirred(deck, "prefix", td.PrefixTuningConfig(10))
    batch = token_batch(2)
    padded = {key: torch.nn.functional.pad(tensor, (0, POSITIONS - 9)) for key, tensor in batch.items()}
    assert difference(logits_of(deck, padded, "prefix"), logits_of(deck, batch, "prefix")) < 1e-5


def test_each_layer_has_keys_and_values() -> None:
    deck = deck_of("bert")
    deck.add("prefix", AS_TEXT)
    names = set(deck.adapter("prefix").tensors())
    start = "bert.encoder.layer"
    assert names == {f"{start}.{n}.attention.self.prefix_{part}" for n in (0, 1) for part in ("keys", "values")}


@pytest.mark.parametrize("model_type", ["distilbert", "modernbert"])
def test_an_architecture_whose_attention_takes_no_keys_is_refused_by_name(model_type: str) -> None:
    deck = deck_of(model_type)
    with pytest.raises(ArchitectureError, match=f"not supported on {model_type} models.*use lora"):
        deck.add("prefix", AS_TEXT)
    with pytest.raises(ArchitectureError, match=model_type):
        AS_TEXT.count_parameters(ModelSpec.from_config(deck.model.config.to_dict()))
    assert deck.adapters == ()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_virtual_tokens": 0}, "num_virtual_tokens must be 1 or more, got 0"),
        ({"prefix_init": "TEXT"}, "prefix_init: TEXT and prefix_init_text go together"),
        ({"prefix_init_text": "w4"}, "prefix_init: TEXT and prefix_init_text go together"),
        ({"num_virtual_tokens": POSITIONS}, f"{POSITIONS} leaves no room for a text in the model's {POSITIONS}"),
        ({"prefix_init": "TEXT", "prefix_init_text": ""}, "prefix_init_text has no tokens"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    deck = deck_of("bert")
    with pytest.raises(ConfigError, match=message):
        deck.add("prefix", td.PrefixTuningConfig(**settings))


def test_adapterhubs_form_is_for_encoders_and_neither_form_turns_into_the_other(tmp_path: Path) -> None:
    decoder = deck_of("llama", "causal")
    with pytest.raises(ArchitectureError, match="shift_positions: false is AdapterHub's form"):
        decoder.add("hub", td.PrefixTuningConfig(3, shift_positions=False))
    deck = golden_deck("adapterhub-bert-prefix-reparametrised")
    deck.load_adapter(GOLDEN / "adapterhub-bert-prefix-reparametrised" / "adapter", name="hub")
    stir(deck, "hub")
    deck.save("hub", tmp_path / "hub")
    deck.load_adapter(tmp_path / "hub", name="again")
    assert torch.equal(logits_of(deck, token_batch(), "again"), logits_of(deck, token_batch(), "hub"))
    with pytest.raises(UnsupportedKindError, match=r"train one with shift_positions: true.*--to adapterhub"):
        convert_adapter(tmp_path / "hub", tmp_path / "peft", "peft", model=str(GOLDEN / "adapterhub-bert-prefix/base"))


def test_a_text_of_an_encoder_begins_at_position_0_by_default_and_a_decoders_behind_the_prefix(tmp_path: Path) -> None:
    for model_type, form, file, other in (
        ("bert", "classifier", "pytorch_adapter.bin", "peft"),
        ("llama", "causal", "adapter_model.safetensors", "adapterhub"),
    ):
        deck = deck_of(model_type, form)
        add_stirred(deck, "default", td.PrefixTuningConfig(3), seed=1)
        add_stirred(deck, "named", td.PrefixTuningConfig(3, shift_positions=model_type == "llama"), seed=1)
        assert deck.adapter("default").config == deck.adapter("named").config
        assert torch.equal(*(logits_of(deck, token_batch(), name) for name in ("default", "named")))
        deck.save("default", tmp_path / model_type)
        assert (tmp_path / model_type / file).is_file()
        with pytest.raises(UnsupportedKindError, match=r"begins? (behind|at position 0)"):
            convert_adapter(tmp_path / model_type, tmp_path / "other", other)


def test_a_prefix_for_other_layers_is_refused(tmp_path: Path) -> None:
    deck = deck_of("llama", "causal")
    add_stirred(deck, "prefix", AS_TEXT)
    deck.save("prefix", tmp_path / "prefix")
    other = td.Deck.load(_three_layers(tmp_path / "base"), td.Generate(), dtype="float32")
    with pytest.raises(AdapterFileError, match=r"prefix_keys has the shape \(4, 11\), this base needs \(4, 16\)"):
        other.load_adapter(tmp_path / "prefix", allow_base_mismatch=True)


def _three_layers(folder: Path) -> str:
    tiny_model("llama", "causal", num_hidden_layers=3).save_pretrained(folder)
    tiny_tokenizer("llama").save_pretrained(folder)
    return str(folder)


def test_a_graph_has_no_place_for_a_prefix(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    deck = deck_of("bert")
    add_stirred(deck, "prefix", AS_TEXT, labels=LABELS)
    with pytest.raises(UnsupportedKindError, match="'prefix' is a prefix_tuning adapter, whose keys and values have"):
        td.save_onnx(deck, "prefix", tmp_path / "onnx")

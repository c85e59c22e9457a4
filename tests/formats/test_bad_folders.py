"""Adapter folders that are damaged, hostile or not ours: one clear error each, and the deck as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.saved_by_kind import KINDS, QUERY, WEIGHTS, refused, saved
from support.tiny_models import HIDDEN, deck_of, hook_count, tiny_model

import tunedeck as td
from tunedeck.core.errors import AdapterFileError, UnsupportedKindError


def write_config(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


def edit_config(folder: Path, **values: Any) -> None:
    write_config(folder, {**json.loads((folder / "adapter_config.json").read_text()), **values})


def edit_tensors(file: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    change(tensors)
    if file.suffix == ".safetensors":
        save_file(tensors, file)
    else:
        torch.save(tensors, file)


# Kinds that are not supported


@pytest.mark.parametrize("peft_type", ["ADALORA", "BOTTLENECK", "LOHA", "P_TUNING"])
def test_another_kind_of_peft_is_named_with_those_we_read(peft_type: str, tmp_path: Path) -> None:
    folder = write_config(tmp_path / "a", {"peft_type": peft_type, "target_modules": ["query"], "r": 8})
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    known = r"\(supported: LORA, IA3, LN_TUNING, PROMPT_TUNING, PREFIX_TUNING\)"
    message = rf"the PEFT kind {peft_type} is not supported {known}"
    refused(folder, UnsupportedKindError, message)


@pytest.mark.parametrize("architecture", ["reft", "union"])
def test_another_kind_of_adapterhub_is_named_with_those_we_read(architecture: str, tmp_path: Path) -> None:
    folder = write_config(
        tmp_path / "a", {"config": {"architecture": architecture}, "name": "a", "version": "adapters.1.3.0"}
    )
    known = r"\(supported: lora, prefix_tuning, seq_bn, double_seq_bn, par_bn\)"
    message = rf"the AdapterHub kind {architecture} is not supported {known}"
    refused(folder, UnsupportedKindError, message)


def test_a_dora_without_its_magnitudes_is_not_loaded_as_plain_lora(tmp_path: Path) -> None:
    folder = saved(tmp_path, "lora")
    edit_config(folder, use_dora=True)
    refused(folder, AdapterFileError, r"missing bert.*lora_magnitude_vector.* and 1 more")


def test_an_ia3_folder_with_a_matrix_for_a_vector_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "ia3")
    tensors = load_file(folder / "adapter_model.safetensors")
    key = next(key for key in tensors if key.endswith("value.ia3_l"))
    save_file({**tensors, key: torch.ones(4, 8)}, folder / "adapter_model.safetensors")
    refused(folder, AdapterFileError, r"value\.ia3_l has the shape \(4, 8\); a vector of \(IA\)³ is \(out, 1\) or")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        *(("bias", "all"), ("lora_bias", True), ("use_qalora", True), ("trainable_token_indices", [1, 2])),
        *(("init_lora_weights", "pissa"), ("init_lora_weights", "olora"), ("layer_replication", [[0, 2]])),
        *(("target_parameters", ["x"]), ("alora_invocation_tokens", [5]), ("a_setting_of_next_year", {"x": 1})),
    ],
)
def test_a_lora_setting_that_would_change_the_result_is_named(setting: str, value: object, tmp_path: Path) -> None:
    folder = saved(tmp_path, "lora")
    edit_config(folder, **{setting: value})
    refused(folder, UnsupportedKindError, re.escape(f"{setting}={value!r}"))


def test_a_prompt_for_an_encoder_decoder_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, "prompt")
    edit_config(folder, num_transformer_submodules=2)
    refused(folder, UnsupportedKindError, "num_transformer_submodules=2")


def test_a_composition_of_adapterhub_is_refused_and_its_adapters_are_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_setup.json").write_text(json.dumps({"adapter_setup": {"type": "Stack"}}))
    for name in ("zh", "sst-2"):
        write_config(tmp_path / name, {"config": {}, "name": name})
    refused(tmp_path, UnsupportedKindError, r"a composition of several AdapterHub adapters.*\(sst-2, zh\)")


# Folders that are none, and files that are missing or damaged


def test_a_folder_that_is_no_adapter_says_so(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", AdapterFileError, "there is no adapter folder .*nowhere")
    refused(
        tmp_path, AdapterFileError, "is not an adapter folder: it has neither adapter_config.json nor tunedeck.json"
    )
    file = tmp_path / "file"
    file.write_text("x")
    refused(file, AdapterFileError, "there is no adapter folder .*file")
    refused(write_config(tmp_path / "odd", {"r": 8}), AdapterFileError, "is neither PEFT's .* nor AdapterHub's")


@pytest.mark.parametrize("content", ["", "{", "[1]", '"x"', "\x00\x01", '{"peft_type": "LORA"'])
def test_a_broken_config_is_damaged(content: str, tmp_path: Path) -> None:
    for kind in ("lora", "bottleneck"):
        folder = saved(tmp_path, kind)
        (folder / "adapter_config.json").write_text(content)
        refused(folder, AdapterFileError, "adapter_config.json is damaged")


@pytest.mark.parametrize(
    "values", [{"r": "eight"}, {"r": None}, {"lora_alpha": []}, {"rank_pattern": 3}, {"target_modules": 5}]
)
def test_a_config_value_of_the_wrong_type_is_damaged(values: dict[str, Any], tmp_path: Path) -> None:
    folder = saved(tmp_path, "lora")
    edit_config(folder, **values)
    refused(folder, td.TunedeckError, "damaged|r must be")


@pytest.mark.parametrize("kind", KINDS)
def test_missing_weights_are_named(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)
    (folder / WEIGHTS[kind]).unlink()
    refused(folder, AdapterFileError, f"has no {WEIGHTS[kind]}; the adapter is incomplete")


def test_a_missing_head_file_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path, "bottleneck")
    (folder / "pytorch_model_head.bin").unlink()
    refused(folder, AdapterFileError, "is incomplete")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "a folder"])
def test_damaged_weights_are_an_error(kind: str, damage: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)
    file = folder / WEIGHTS[kind]
    content = file.read_bytes()
    file.unlink()
    if damage == "a folder":
        file.mkdir()
    else:
        file.write_bytes({"empty": b"", "cut": content[: len(content) * 2 // 3], "garbage": b"\x07" * 400}[damage])
    refused(folder, AdapterFileError, "damaged|cannot read")


# Tensors that do not fit


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_left_over_tensors_are_counted_never_skipped(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)
    file = folder / WEIGHTS[kind]
    body = list(load_file(file)) if file.suffix == ".safetensors" else list(torch.load(file))
    own = sorted(key for key in body if "classifier" not in key)
    edit_tensors(file, lambda tensors: tensors.pop(own[-1]))
    refused(folder, AdapterFileError, "the adapter's tensors do not fit this base: missing .*; left over none")


def test_left_over_tensors_are_an_error(tmp_path: Path) -> None:
    folder = saved(tmp_path, "lora")
    extra = QUERY.replace("query", "key")
    edit_tensors(folder / WEIGHTS["lora"], lambda tensors: tensors.update({extra: tensors[QUERY].clone()}))
    refused(
        folder, AdapterFileError, "holds tensors for .*layer.0.attention.self.key, which its target_modules .* do not"
    )


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("lora", "base_model.model.bert.nowhere.weight"),
        ("lora", "base_model.model.elsewhere.weight"),
        ("prompt", "base_model.elsewhere.weight"),
        ("full", "head.elsewhere.weight"),
        ("full", "bert.nowhere.weight"),
        ("bottleneck", "bert.encoder.layer.0.output.adapters.another.adapter_up.weight"),
        ("bottleneck", "bert.encoder.layer.0.output.adapters.bottleneck.gate.weight"),
    ],
)
def test_a_tensor_without_a_place_is_named(kind: str, name: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)
    edit_tensors(folder / WEIGHTS[kind], lambda tensors: tensors.update({name: torch.zeros(3)}))
    refused(folder, AdapterFileError, name.split(".")[-2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_tensor_of_another_shape_is_named_with_both_shapes(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)

    def widen(tensors: dict[str, torch.Tensor]) -> None:
        key = next(key for key in sorted(tensors) if "classifier" not in key)
        tensors[key] = torch.zeros(7, *tensors[key].shape[1:])

    edit_tensors(folder / WEIGHTS[kind], widen)
    refused(folder, AdapterFileError, r"has the shape \(7.*\), this base needs \(")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(kind: str, value: float, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)

    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors[next(key for key in sorted(tensors) if "classifier" not in key)].view(-1)[0] = value

    edit_tensors(folder / WEIGHTS[kind], spoil)
    refused(folder, AdapterFileError, "holds values that are not finite numbers")


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_is_checked_like_the_rest(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)
    file = folder / ("pytorch_model_head.bin" if kind == "bottleneck" else WEIGHTS[kind])

    def key(tensors: dict[str, torch.Tensor]) -> str:
        return next(key for key in tensors if key.endswith("classifier.weight"))

    edit_tensors(file, lambda tensors: tensors[key(tensors)].view(-1)[0].fill_(float("nan")))
    refused(folder, AdapterFileError, "classifier.weight holds values that are not finite")
    edit_tensors(file, lambda tensors: tensors.update({key(tensors): torch.zeros(3, HIDDEN + 1)}))
    refused(folder, AdapterFileError, "the head does not fit this base")
    edit_tensors(file, lambda tensors: tensors.pop(key(tensors)))
    refused(folder, AdapterFileError, "the head does not fit this base")


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_for_another_hidden_size_is_refused_even_when_one_insists(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind)
    wide = tmp_path / "wide"
    tiny_model("bert", "classifier", hidden_size=HIDDEN * 2).save_pretrained(wide)
    deck = td.Deck.load(str(wide), td.Classify(), dtype="float32")
    with pytest.raises(td.TunedeckError, match="was trained on"):
        deck.load_adapter(folder)
    with pytest.raises(AdapterFileError, match=r"has the shape|does not fit this base"):
        deck.load_adapter(folder, allow_base_mismatch=True)
    assert hook_count(deck.model) == 0


def test_an_adapter_for_more_layers_is_refused_even_when_one_insists(tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    tiny_model("bert", "classifier", num_hidden_layers=1).save_pretrained(shallow)
    deck = td.Deck.load(str(shallow), td.Classify(), dtype="float32")
    for kind in KINDS:
        if kind == "prompt":
            continue
        with pytest.raises(AdapterFileError, match=r"left over .*1\.|layer\.1\..* no linear|prefix_keys has the"):
            deck.load_adapter(saved(tmp_path, kind), allow_base_mismatch=True)


def test_an_adapter_for_another_architecture_is_refused(tmp_path: Path) -> None:
    for kind in ("lora", "bottleneck", "full"):
        deck = deck_of("llama")
        with pytest.raises(td.TunedeckError, match=r"does not fit|no place|no module|matches no linear|left over"):
            deck.load_adapter(saved(tmp_path, kind, manifest=kind == "full"), allow_base_mismatch=True)
        assert hook_count(deck.model) == 0

"""What we save for a bottleneck adapter has the files, keys, shapes and config of AdapterHub's own folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.golden_adapters import CASES, GOLDEN, golden_deck
from support.tiny_models import LABELS, add_stirred, deck_of, logits_of, token_batch

import tunedeck as td

HUB = [case for case in CASES if case.startswith("adapterhub") and "lora" not in case and "ia3" not in case]
REWRITTEN = [
    case for case in HUB if "flex" not in case and "reparam" not in case
]  # a flex head is written as the static head that equals it


def load_bin(file: Path) -> dict[str, torch.Tensor]:
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("case", REWRITTEN)
def test_a_golden_folder_read_and_written_again_is_the_same(case: str, tmp_path: Path) -> None:
    golden, ours = GOLDEN / case / "adapter", tmp_path / "t"
    deck = golden_deck(case)
    deck.load_adapter(golden, name="t")
    deck.save("t", ours)
    assert {file.name for file in golden.iterdir()} | {"tunedeck.json"} >= {file.name for file in ours.iterdir()}
    for file in golden.iterdir():
        if file.suffix == ".bin":
            theirs, written = load_bin(file), load_bin(ours / file.name)
            assert list(written) == list(theirs)
            assert all(torch.equal(written[key], tensor) for key, tensor in theirs.items())
            assert {key: tensor.dtype for key, tensor in written.items()} == {k: t.dtype for k, t in theirs.items()}
        else:
            expected, found = (json.loads((folder / file.name).read_text()) for folder in (golden, ours))
            assert found.pop("model_name")
            expected.pop("model_name")
            assert found == expected
            assert json.dumps(found) == json.dumps(expected)  # keys sorted as theirs, 16 not 16.0


@pytest.mark.parametrize("case", [case for case in HUB if "flex" in case])
def test_a_flex_head_is_written_as_the_static_head_that_equals_it(case: str, tmp_path: Path) -> None:
    deck = golden_deck(case)
    deck.load_adapter(GOLDEN / case / "adapter", name="t")
    deck.save("t", tmp_path / "t")
    head = json.loads((tmp_path / "t" / "head_config.json").read_text())
    assert (head["config"], head["num_labels"], head["label2id"]) == (None, 4, {"a": 0, "b": 1, "c": 2, "d": 3})
    again = golden_deck(case)
    again.load_adapter(tmp_path / "t")
    batch = token_batch()
    assert torch.equal(logits_of(again, batch, "t"), logits_of(deck, batch, "t"))


SETTINGS: dict[str, tuple[td.BottleneckConfig, dict[str, Any]]] = {
    "old name": (
        td.BottleneckConfig("houlsby"),
        {"mh_adapter": True, "non_linearity": "swish", "reduction_factor": 16},
    ),
    "a factor for each layer": (
        td.BottleneckConfig("seq_bn", reduction_factor={"0": 4, "default": 16}),
        {"reduction_factor": {"0": 4, "default": 16}},
    ),
    "half a factor": (td.BottleneckConfig("par_bn", reduction_factor=0.5), {"reduction_factor": 0.5, "scaling": 4.0}),
    "learned scaling": (td.BottleneckConfig("par_bn", scaling="learned"), {"scaling": "learned", "is_parallel": True}),
    "leave out": (td.BottleneckConfig("seq_bn", leave_out=(0,)), {"leave_out": [0], "original_ln_before": True}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_are_written_under_adapterhubs_names_and_read_back(name: str, tmp_path: Path) -> None:
    config, expected = SETTINGS[name]
    deck = deck_of("llama", "causal")
    add_stirred(deck, "t", config)
    deck.save("t", tmp_path / "t")
    written = json.loads((tmp_path / "t" / "adapter_config.json").read_text())
    assert written["config"].items() >= expected.items()
    assert json.dumps({key: written["config"][key] for key in expected}) == json.dumps(expected)  # 16, not 16.0
    assert (written["version"], written["name"], written["model_class"]) == ("adapters.1.3.0", "t", "LlamaForCausalLM")
    assert not (tmp_path / "t" / "pytorch_model_head.bin").exists()
    fresh = deck_of("llama", "causal")
    fresh.load_adapter(tmp_path / "t")
    assert fresh.base.spec is not None
    assert fresh.adapter("t").config.count_parameters(fresh.base.spec) == deck.summary("t").method_parameters
    assert torch.equal(logits_of(fresh, token_batch(), "t"), logits_of(deck, token_batch(), "t"))


def test_learned_scaling_has_adapterhubs_key_and_shape(tmp_path: Path) -> None:
    for scaling, size in (("learned", 1), ("channel", 32)):
        deck = deck_of("bert")
        add_stirred(deck, "t", td.BottleneckConfig("par_bn", scaling=scaling))
        deck.save("t", tmp_path / scaling)
        tensors = load_bin(tmp_path / scaling / "pytorch_adapter.bin")
        assert tensors["bert.encoder.layer.1.output.adapters.t.scaling"].shape == (size,)


def rewrite(folder: Path, file: str, change: Any) -> None:
    value = json.loads((folder / file).read_text())
    change(value)
    (folder / file).write_text(json.dumps(value))


def golden_copy(case: str, folder: Path) -> Path:
    folder.mkdir()
    for file in (GOLDEN / case / "adapter").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_keys_without_the_base_prefix_and_of_old_names_are_read(tmp_path: Path) -> None:
    case = "adapterhub-bert-seq_bn"
    folder = golden_copy(case, tmp_path / "t")
    tensors = load_bin(folder / "pytorch_adapter.bin")
    old = {key.removeprefix("bert.").replace("adapters", "layer_text_task_adapters"): t for key, t in tensors.items()}
    torch.save(old, folder / "pytorch_adapter.bin")
    deck = golden_deck(case)
    deck.load_adapter(GOLDEN / case / "adapter", name="new")
    deck.load_adapter(folder, name="old")
    assert torch.equal(logits_of(deck, token_batch(), "old"), logits_of(deck, token_batch(), "new"))


def test_an_adapter_without_a_version_means_the_old_gelu(tmp_path: Path) -> None:
    folder = golden_copy("adapterhub-bert-seq_bn", tmp_path / "t")
    rewrite(folder, "adapter_config.json", lambda value: value["config"].update(non_linearity="gelu"))
    deck = golden_deck("adapterhub-bert-seq_bn")
    deck.load_adapter(folder, name="new")
    rewrite(folder, "adapter_config.json", lambda value: value.pop("version"))
    deck.load_adapter(folder, name="old")
    for name, expected in (("new", "gelu"), ("old", "gelu_new")):
        config = deck.adapter(name).config
        assert isinstance(config, td.BottleneckConfig)
        assert config.non_linearity == expected


def test_a_minimal_config_takes_bnconfigs_defaults_not_those_of_seq_bn(tmp_path: Path) -> None:
    folder = golden_copy("adapterhub-bert-double_seq_bn", tmp_path / "t")
    minimal = {"mh_adapter": True, "output_adapter": True, "reduction_factor": 16, "non_linearity": "swish"}
    rewrite(folder, "adapter_config.json", lambda value: value.update(config=minimal))
    deck = golden_deck("adapterhub-bert-double_seq_bn")
    deck.load_adapter(folder, name="minimal")
    deck.load_adapter(GOLDEN / "adapterhub-bert-double_seq_bn" / "adapter", name="whole")
    assert torch.equal(logits_of(deck, token_batch(), "minimal"), logits_of(deck, token_batch(), "whole"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("ln_before", True), ("ln_after", True), ("use_gating", True), ("phm_layer", True), ("inv_adapter", "nice")),
        *(("cross_adapter", True), ("adapter_residual_before_ln", True), ("original_ln_after", False)),
        ("residual_before_ln", "post_add"),
    ],
)
def test_a_setting_that_changes_the_result_and_is_not_supported_is_named(
    key: str, value: object, tmp_path: Path
) -> None:
    folder = golden_copy("adapterhub-bert-seq_bn", tmp_path / "t")
    rewrite(folder, "adapter_config.json", lambda content: content["config"].update({key: value}))
    with pytest.raises(td.TunedeckError, match=f"settings that are not supported: {key}={value!r}"):
        golden_deck("adapterhub-bert-seq_bn").load_adapter(folder)


@pytest.mark.parametrize("change", [{"layers": 1}, {"use_pooler": True}, {"head_type": "tagging"}])
def test_another_kind_of_flex_head_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    folder = golden_copy("adapterhub-bert-flex-head", tmp_path / "t")
    rewrite(folder, "head_config.json", lambda content: content["config"].update(change))
    with pytest.raises(td.TunedeckError, match="this AdapterHub head is not supported"):
        golden_deck("adapterhub-bert-flex-head").load_adapter(folder)


def test_the_safetensors_form_is_read_too(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    case = "adapterhub-roberta-static-head"
    folder = golden_copy(case, tmp_path / "t")
    for file, name in (("pytorch_adapter.bin", "adapter"), ("pytorch_model_head.bin", "model_head")):
        save_file(load_bin(folder / file), folder / f"{name}.safetensors")
        (folder / file).unlink()
    deck = golden_deck(case)
    deck.load_adapter(folder, name="safe")
    deck.load_adapter(GOLDEN / case / "adapter", name="plain")
    assert torch.equal(logits_of(deck, token_batch(), "safe"), logits_of(deck, token_batch(), "plain"))


def test_the_head_of_an_adapter_is_written_for_the_static_class(tmp_path: Path) -> None:
    deck = deck_of("distilbert")
    add_stirred(deck, "t", td.BottleneckConfig())
    deck.save("t", tmp_path / "t")
    head = load_bin(tmp_path / "t" / "pytorch_model_head.bin")
    assert set(head) == {"pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"}
    assert json.loads((tmp_path / "t" / "head_config.json").read_text())["label2id"] == {
        label: index for index, label in enumerate(LABELS)
    }

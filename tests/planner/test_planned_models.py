"""Models by name and by config.json, and what their specs say beside parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunedeck.core.bundle import read_bundles
from tunedeck.core.errors import ConfigError, ModelError, TargetError
from tunedeck.planner.models import find_planned_model, known_models


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("chatglm3-6b", 6_243_584_000),
        ("qwen-7b", 7_721_324_544),
        ("mistral-7b", 7_241_732_096),
        ("minicpm-2b", 2_724_880_896),
        ("bge-large-zh", 325_522_432),
        ("qwen2.5-0.5b", 494_032_768),
        ("qwen2.5-1.5b", 1_543_714_304),
        ("qwen2.5-3b", 3_085_938_688),
        ("qwen2.5-7b", 7_615_616_512),
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-8b", 8_190_735_360),
        ("llama-3.1-8b", 8_030_261_248),
        ("llama-3.2-3b", 3_212_749_824),
        ("smollm2-135m", 134_515_008),
        ("bert-base-uncased", 109_482_240),
        ("bert-base-chinese", 102_267_648),
        ("roberta-base", 124_055_040),
        ("distilbert-base-uncased", 66_362_880),
        ("all-minilm-l6-v2", 22_713_216),
    ],
)
def test_catalogue_models_have_their_published_totals(name: str, parameters: int) -> None:
    assert find_planned_model(name).parameters == parameters


def test_every_row_of_the_catalogue_gives_a_spec_and_a_source() -> None:
    for name in known_models():
        model = find_planned_model(name)
        assert model.parameters > 1e7
        assert model.source
        assert model.max_tokens


@pytest.mark.parametrize("reference", ["Qwen/Qwen-7B", "hf:qwen/qwen-7b", "QWEN-7B", "Qwen/Qwen-7B-Chat"])
def test_a_model_answers_to_its_hub_id_and_to_any_case(reference: str) -> None:
    assert find_planned_model(reference).name == "qwen-7b"


def test_a_bundled_name_is_kept_as_the_reference_to_train() -> None:
    assert find_planned_model("bundled:all-minilm-l6-v2").reference == "bundled:all-minilm-l6-v2"


def test_the_odd_keys_of_chatglm3_and_qwen_v1_are_read_right() -> None:
    chatglm, qwen = find_planned_model("chatglm3-6b").spec, find_planned_model("qwen-7b").spec
    assert (chatglm.key_value_size, chatglm.ffn_size, chatglm.gated) == (256, 13696, True)  # two groups of 128
    assert (qwen.key_value_size, qwen.ffn_size, qwen.num_heads) == (4096, 11008, 32)


@pytest.mark.parametrize(
    ("name", "kv_bytes_per_token"),
    [
        ("chatglm3-6b", 28_672),
        ("qwen-7b", 524_288),
        ("qwen2.5-7b", 57_344),
        ("qwen3-8b", 147_456),
        ("mistral-7b", 131_072),
        ("minicpm-2b", 368_640),
        ("smollm2-135m", 23_040),
    ],
)
def test_the_cache_of_a_token_is_as_large_as_published_configs_make_it(name: str, kv_bytes_per_token: int) -> None:
    from tunedeck.planner.serving import cache_bytes_per_token

    assert cache_bytes_per_token(find_planned_model(name).spec) == kv_bytes_per_token


def test_a_folder_or_a_file_with_a_config_is_a_model(tmp_path: Path) -> None:
    config = {
        "model_type": "bert",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 21128,
        "max_position_embeddings": 512,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    for reference in (tmp_path, tmp_path / "config.json"):
        model = find_planned_model(str(reference))
        assert (model.parameters, model.max_tokens) == (102_267_648, 512)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ModelError, match=r"'qwen-7bb' \(did you mean 'qwen-7b'\?\).*chatglm3-6b"):
        find_planned_model("qwen-7bb")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{", ModelError, "cannot read"),
        ("[]", ModelError, "holds no keys"),
        ('{"model_type": "mixtral"}', TargetError, "'mixtral' are not known"),
        ('{"model_type": "bert", "hidden_size": 8}', ConfigError, "lacks 'num_hidden_layers'"),
    ],
)
def test_a_config_that_does_not_do_says_what_it_lacks(
    tmp_path: Path, text: str, error: type[Exception], message: str
) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(error, match=message):
        find_planned_model(str(tmp_path))


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config.json"):
        find_planned_model(str(tmp_path))


@pytest.mark.parametrize("name", known_models())
def test_widths_are_those_of_the_linears(name: str) -> None:
    spec = find_planned_model(name).spec
    linears = spec.linears[: len(spec.linears) // spec.num_layers]
    shapes = {linear.path.rpartition(".")[2]: linear for linear in linears}
    assert linears[-1].in_features == spec.ffn_size
    assert spec.query_size % spec.num_heads == 0
    if "k_proj" in shapes:
        assert shapes["k_proj"].out_features == spec.key_value_size
        assert shapes["o_proj"].in_features == spec.query_size
    assert spec.causal == (spec.model_type not in ("bert", "roberta", "distilbert"))


def test_a_model_downloaded_from_the_hub_is_known_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "models--someone--else" / "snapshots" / "1234"
    folder.mkdir(parents=True)
    (tmp_path / "models--someone--else" / "refs").mkdir()
    (tmp_path / "models--someone--else" / "refs" / "main").write_text("1234")
    config = {
        "model_type": "bert",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 30522,
    }
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    model = find_planned_model("someone/else")
    assert (model.parameters, model.reference) == (109_482_240, "someone/else")


@pytest.mark.parametrize("name", read_bundles("tunedeck.models"))
def test_every_bundled_model_is_known_before_it_is_fetched(name: str) -> None:
    assert find_planned_model(f"bundled:{name}").reference == f"bundled:{name}"

"""Every mistake a user can make ends in one line, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import socket
from collections.abc import Callable
from pathlib import Path

import labelled_words
import pytest
import tiny
from safetensors.torch import load_file, save_file

import tunedeck as td
from tunedeck.core import hub


@pytest.fixture
def model() -> str:
    return tiny.folder_of("bert", "classifier")


@pytest.fixture
def refused(tunedeck: Callable[..., object], tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused; gives the one line it says, after checking that nothing was written."""

    def run(*arguments: object) -> str:
        before = tiny.files_of(tmp_path)
        said = tunedeck(*arguments)
        assert said.code == 2
        lines = said.err.strip().splitlines()
        assert len(lines) == 1, said.err
        assert lines[0].startswith("error: ")
        assert said.out == ""
        assert "Traceback" not in said.err
        assert tiny.files_of(tmp_path) == before
        return lines[0]

    return run


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A saved LoRA adapter for the tiny classifier."""
    deck = tiny.deck_of("bert")
    tiny.add_stirred(deck, "a", td.LoraConfig())
    deck.save("a", tmp_path / "a")
    return tmp_path / "a"


def train(refused: Callable[..., str], model: str, data: object, tmp_path: Path, *more: object) -> str:
    return refused("train", "--model", model, "--data", data, "--out", tmp_path / "run", *more)


def test_a_missing_file(refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    assert "none.csv" in train(refused, model, tmp_path / "none.csv", tmp_path)


def test_an_empty_file(refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_bytes(b"")
    assert "empty" in train(refused, model, tmp_path / "empty.csv", tmp_path)


def test_another_encoding_is_recognised(refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    (tmp_path / "zh.csv").write_bytes("text,label\n服务很好,好\n太差了,差\n".encode("gb18030"))
    assert "--encoding gb18030" in train(refused, model, tmp_path / "zh.csv", tmp_path)


def test_a_missing_column_lists_the_columns(
    refused: Callable[..., str], model: str, words: Path, tmp_path: Path
) -> None:
    said = train(refused, model, words, tmp_path, "--label", "labl")
    assert "labl" in said
    assert "text, label" in said


def test_one_class_only(refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    pairs = [(text, "red") for text, _ in labelled_words.rows(20)]
    assert "red" in train(refused, model, labelled_words.write_csv(tmp_path / "one.csv", pairs), tmp_path)


def test_empty_texts(refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    pairs = [*labelled_words.rows(20), ("", "red"), ("  ", "blue")]
    assert "--drop-empty" in train(refused, model, labelled_words.write_csv(tmp_path / "gaps.csv", pairs), tmp_path)


def test_an_unknown_label_in_the_evaluation_file(
    refused: Callable[..., str], model: str, words: Path, tmp_path: Path
) -> None:
    other = labelled_words.write_csv(tmp_path / "eval.csv", [("w10 w11", "red"), ("w12 w13", "gren")])
    said = train(refused, model, words, tmp_path, "--eval-data", other)
    assert "'gren'" in said
    assert "did you mean 'green'?" in said


def test_an_unknown_label_when_an_adapter_is_evaluated(
    refused: Callable[..., str], adapter: Path, tmp_path: Path
) -> None:
    other = labelled_words.write_csv(tmp_path / "eval.csv", [("w10 w11", "red"), ("w12 w13", "yellow")])
    assert "'yellow'" in refused("eval", "--adapter", adapter, "--data", other)


def test_an_unknown_model_folder(refused: Callable[..., str], words: Path, tmp_path: Path) -> None:
    assert "nowhere" in train(refused, "./nowhere", words, tmp_path)


def test_an_unknown_bundled_model_names_the_nearest(refused: Callable[..., str], words: Path, tmp_path: Path) -> None:
    assert "all-minilm-l6-v2" in train(refused, "bundled:all-minilm", words, tmp_path)


def test_a_hub_that_cannot_be_reached_names_the_ways_out(
    refused: Callable[..., str], words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> socket.socket:
        raise OSError("no route")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hub.socket, "create_connection", unreachable)
    said = train(refused, "no-one/no-model", words, tmp_path)
    assert "HF_ENDPOINT" in said
    assert "ms:" in said
    assert "folder" in said


def test_a_folder_whose_weights_are_cut_short(
    refused: Callable[..., str], model: str, words: Path, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    assert str(tmp_path / "model") in train(refused, str(tmp_path / "model"), words, tmp_path)


def test_target_modules_that_match_nothing(
    refused: Callable[..., str], model: str, words: Path, tmp_path: Path
) -> None:
    said = train(refused, model, words, tmp_path, "--target-modules", "qurey,value")
    assert "did you mean 'query'?" in said


def test_layers_that_the_model_lacks(refused: Callable[..., str], model: str, words: Path, tmp_path: Path) -> None:
    assert "9" in train(refused, model, words, tmp_path, "--set", "method.layers_to_transform=[0, 9]")


@pytest.mark.parametrize("task", ["generate", "embed"])
def test_a_head_alone_for_a_task_that_has_none(
    task: str, refused: Callable[..., str], words: Path, tmp_path: Path
) -> None:
    said = refused("train", "--model", "any", "--data", words, "--task", task, "--method", "head", "--out", tmp_path / "r")  # fmt: skip
    assert f"only classification has a head to train alone; choose another method for {task}" in said


def test_an_unknown_key_names_the_nearest(refused: Callable[..., str], words: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"model: m\ndata: {{train: {words}}}\ntraning: {{epochs: 2}}\n", encoding="utf-8"
    )
    assert "did you mean 'training'?" in refused("train", tmp_path / "run.yaml")


def test_an_unknown_adapter_folder(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "there is no adapter folder" in refused("predict", "--adapter", tmp_path / "none", "a text")


def test_a_folder_that_is_no_adapter(refused: Callable[..., str], model: str) -> None:
    assert "is no adapter folder" in refused("predict", "--adapter", model, "a text")


def test_an_adapter_cut_short(refused: Callable[..., str], adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    assert "cut short" in refused("predict", "--adapter", adapter, "a text")


def test_a_left_over_tensor(refused: Callable[..., str], adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file({**tensors, "base_model.model.extra.weight": tensors[name].clone()}, file)
    assert "'extra.weight'" in refused("predict", "--adapter", adapter, "a text")


def test_a_tensor_for_a_layer_that_the_base_lacks(refused: Callable[..., str], adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file({**tensors, name.replace("layer.0", "layer.7"): tensors[name].clone()}, file)
    assert "does not fit this base" in refused("predict", "--adapter", adapter, "a text")


def test_a_pickle_is_never_opened(refused: Callable[..., str], adapter: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(trace),)

    (adapter / "adapter_model.safetensors").write_bytes(pickle.dumps(Evil()))
    assert "pickle" in refused("predict", "--adapter", adapter, "a text")
    assert not trace.exists()


def test_an_adapter_for_another_base(
    refused: Callable[..., str], tunedeck: Callable[..., object], adapter: Path
) -> None:
    other = tiny.folder_of("bert", "classifier", seed=5)
    assert "--allow-base-mismatch" in refused("predict", "--adapter", adapter, "--model", other, "a text")
    assert tunedeck("predict", "--adapter", adapter, "--model", other, "--allow-base-mismatch", "a text").code == 0


def test_an_unsupported_kind(refused: Callable[..., str], adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "IA3"}))
    assert "IA3 is not supported (supported: LORA, PROMPT_TUNING)" in refused("predict", "--adapter", adapter, "a text")


def test_a_full_disk_keeps_the_earlier_run(
    tunedeck: Callable[..., object], model: str, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("train", "--model", model, "--data", words, "--max-steps", 1, "--out", tmp_path / "run")
    assert tunedeck(*command).code == 0
    before = tiny.files_of(tmp_path / "run" / "adapter")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tunedeck.core.storage._flush", full)
    said = tunedeck(*command, "--overwrite")
    assert said.code == 2
    assert "No space left on device" in said.err
    assert tiny.files_of(tmp_path / "run" / "adapter") == before
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.endswith(".part")]


def test_an_earlier_run_is_not_overwritten_unasked(
    tunedeck: Callable[..., object], model: str, words: Path, tmp_path: Path
) -> None:
    command = ("train", "--model", model, "--data", words, "--max-steps", 1, "--out", tmp_path / "run")
    assert tunedeck(*command).code == 0
    said = tunedeck(*command)
    assert said.code == 2
    assert "--overwrite" in said.err
    assert tunedeck(*command, "--overwrite").code == 0


def test_no_text_to_classify(refused: Callable[..., str], adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115
    assert "no text" in refused("predict", "--adapter", adapter)


def test_an_unknown_language(refused: Callable[..., str]) -> None:
    assert "choose one of: en, zh" in refused("--lang", "fr", "doctor")

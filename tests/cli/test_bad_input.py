"""Every mistake a user can make ends in one line, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support import labelled_words, tiny_models
from support.command_line import Command

import tunedeck as td
from tunedeck.core.i18n import set_language


@pytest.fixture
def model() -> str:
    return tiny_models.folder_of("bert", "classifier")


@pytest.fixture
def refused(tunedeck: Command, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused; gives the one line it says, after checking that nothing was written."""

    def run(*arguments: object) -> str:
        before = tiny_models.files_of(tmp_path)
        said = tunedeck(*arguments)
        assert said.code == 2
        lines = said.err.strip().splitlines()
        assert len(lines) == 1, said.err
        told = re.fullmatch(r"(error: .*) \[TD-E\d{3}\]", lines[0])
        assert told is not None, lines[0]
        assert said.out == ""
        assert "Traceback" not in said.err
        assert tiny_models.files_of(tmp_path) == before
        return told[1]

    return run


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A saved LoRA adapter for the tiny classifier."""
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "a", td.LoraConfig())
    deck.save("a", tmp_path / "a")
    return tmp_path / "a"


def train(refused: Callable[..., str], model: str, data: object, tmp_path: Path, *more: object) -> str:
    return refused("train", "--model", model, "--data", data, "--out", tmp_path / "run", *more)


def test_a_data_file_that_does_not_exist_is_named(refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    file = tmp_path / "none.csv"
    assert f"there is no file or folder {file};" in train(refused, model, file, tmp_path)


def test_an_empty_data_file_is_refused(refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"")
    assert train(refused, model, file, tmp_path) == f"error: {file} is empty"


def test_another_encoding_is_recognised(refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    (tmp_path / "zh.csv").write_bytes("text,label\n服务很好,好\n太差了,好\n".encode("gb18030"))
    said = train(refused, model, tmp_path / "zh.csv", tmp_path)
    assert "have: 好; check the label column" in said


def test_a_missing_column_lists_the_columns(
    refused: Callable[..., str], model: str, words: Path, tmp_path: Path
) -> None:
    said = train(refused, model, words, tmp_path, "--label", "labl")
    assert said == f"error: {words} has no column 'labl' (did you mean 'label'?); there are: text, label"


def test_data_with_one_label_is_refused(refused: Callable[..., str], model: str, tmp_path: Path) -> None:
    pairs = [(text, "red") for text, _ in labelled_words.rows(20)]
    said = train(refused, model, labelled_words.write_csv(tmp_path / "one.csv", pairs), tmp_path)
    assert "a classifier needs two labels or more, the examples (18) have: red;" in said  # two of 20 are held out


def test_empty_texts_are_refused_with_their_rows_and_the_flag_that_drops_them(
    refused: Callable[..., str], model: str, tmp_path: Path
) -> None:
    pairs = [*labelled_words.rows(20), ("", "red"), ("  ", "blue")]
    said = train(refused, model, labelled_words.write_csv(tmp_path / "gaps.csv", pairs), tmp_path)
    assert "empty texts in column 'text': 2 (rows 21, 22); fill them in, or pass --drop-empty" in said


def test_an_unknown_label_in_the_evaluation_file_names_the_nearest(
    refused: Callable[..., str], model: str, words: Path, tmp_path: Path
) -> None:
    other = labelled_words.write_csv(tmp_path / "eval.csv", [("w10 w11", "red"), ("w12 w13", "gren")])
    said = train(refused, model, words, tmp_path, "--eval-data", other)
    assert "has the unknown label 'gren' (did you mean 'green'?); known: blue, green, red" in said


def test_an_adapter_is_not_evaluated_on_a_label_that_it_does_not_know(
    refused: Callable[..., str], adapter: Path, tmp_path: Path
) -> None:
    other = labelled_words.write_csv(tmp_path / "eval.csv", [("w10 w11", "red"), ("w12 w13", "yellow")])
    said = refused("eval", "--adapter", adapter, "--data", other)
    assert "the text 'w12 w13' has the unknown label 'yellow'; known: red, green, blue" in said


def test_a_model_folder_that_does_not_exist_is_named(refused: Callable[..., str], words: Path, tmp_path: Path) -> None:
    assert "there is no file or folder nowhere; a model on the hub is" in train(refused, "./nowhere", words, tmp_path)


def test_an_unknown_bundled_model_names_the_nearest(refused: Callable[..., str], words: Path, tmp_path: Path) -> None:
    said = train(refused, "bundled:all-minilm", words, tmp_path)
    assert "no bundled model 'all-minilm' (did you mean 'all-minilm-l6-v2'?)" in said


def test_a_hub_that_cannot_be_reached_names_the_ways_out(
    refused: Callable[..., str], words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object, **__: object) -> socket.socket:
        raise OSError("no route")

    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(socket, "create_connection", unreachable)
    said = train(refused, "no-one/no-model", words, tmp_path)
    assert "cannot reach the model hub for 'no-one/no-model'" in said
    for way in (
        "set HF_ENDPOINT=https://",
        "ModelScope (ms:org/name)",
        "give a folder that holds it",
        "bundled:all-minilm-l6-v2",
    ):
        assert way in said


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--model", "./nowhere", "--data", "bundled:tweets"],
        ["train", "--model", "no-one/no-model", "--data", "bundled:tweets"],
        ["train", "--model", "bundled:all-minilm-l6-v2", "--data", "no-one/no-data"],
        ["predict", "--adapter", "nowhere", "a text"],
    ],
)
def test_what_does_not_exist_is_refused_before_torch_is_loaded(arguments: list[str]) -> None:
    program = (
        f"import sys; sys.argv[1:] = {arguments!r}\nfrom tunedeck.cli.main import main\n"
        "try: main()\nfinally: print('torch' in sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert found.returncode == 2, found.stderr
    assert found.stdout == "False\n"


def test_model_weights_that_are_cut_short_are_refused(
    refused: Callable[..., str], model: str, words: Path, tmp_path: Path
) -> None:
    shutil.copytree(model, tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    said = train(refused, str(tmp_path / "model"), words, tmp_path)
    assert f"the weights in {tmp_path / 'model'} are damaged" in said


def test_target_modules_that_match_nothing_name_the_nearest(
    refused: Callable[..., str], model: str, words: Path, tmp_path: Path
) -> None:
    said = train(refused, model, words, tmp_path, "--target-modules", "qurey,value")
    assert "target module 'qurey' matches no linear layer (did you mean 'query'?)" in said


def test_layers_that_the_model_lacks_are_named(
    refused: Callable[..., str], model: str, words: Path, tmp_path: Path
) -> None:
    said = train(refused, model, words, tmp_path, "--set", "method.layers_to_transform=[0, 9]")
    assert "layers_to_transform names layers 9 that the model lacks" in said


@pytest.mark.parametrize("task", ["generate", "embed"])
def test_training_only_the_head_is_refused_for_a_task_without_one(
    task: str, refused: Callable[..., str], words: Path, tmp_path: Path
) -> None:
    said = refused(
        "train",
        "--model",
        "bundled:all-minilm-l6-v2",
        "--data",
        words,
        "--task",
        task,
        "--method",
        "head",
        "--out",
        tmp_path / "r",
    )
    assert f"only tasks with labels have a head to train alone; choose another method for {task}" in said


def test_an_unknown_key_names_the_nearest(refused: Callable[..., str], words: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"model: m\ndata: {{train: {words}}}\ntraning: {{epochs: 2}}\n", encoding="utf-8"
    )
    assert "unknown key 'traning' (did you mean 'training'?)" in refused("train", tmp_path / "run.yaml")


def test_an_adapter_folder_that_does_not_exist_is_named(refused: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "none"
    assert refused("predict", "--adapter", folder, "a text") == f"error: there is no adapter folder {folder}"


def test_a_folder_without_an_adapter_is_refused(refused: Callable[..., str], model: str) -> None:
    said = refused("predict", "--adapter", model, "a text")
    assert f"{model} is not an adapter folder: it has neither adapter_config.json nor tunedeck.json" in said


def test_an_adapter_file_that_is_cut_short_is_refused(refused: Callable[..., str], adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-20])
    assert f"{file} is damaged or cut short" in refused("predict", "--adapter", adapter, "a text")


def test_a_tensor_that_belongs_nowhere_is_refused(refused: Callable[..., str], adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file({**tensors, "base_model.model.extra.weight": tensors[name].clone()}, file)
    said = refused("predict", "--adapter", adapter, "a text")
    assert "the adapter brings a head tensor 'extra.weight', but this model has no module 'extra'" in said


def test_a_tensor_for_a_layer_that_the_base_lacks_is_refused(refused: Callable[..., str], adapter: Path) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    save_file({**tensors, name.replace("layer.0", "layer.7"): tensors[name].clone()}, file)
    said = refused("predict", "--adapter", adapter, "a text")
    assert f"{adapter} does not fit this base: target module 'bert.encoder.layer.7.attention.self.query'" in said


def test_a_pickle_is_never_opened(refused: Callable[..., str], adapter: Path, tmp_path: Path) -> None:
    trace = tmp_path / "executed"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(trace),)

    (adapter / "adapter_model.safetensors").write_bytes(pickle.dumps(Evil()))
    said = refused("predict", "--adapter", adapter, "a text")
    assert "adapter_model.safetensors is a pickle, not safetensors, and is not opened" in said
    assert not trace.exists()


def test_an_adapter_for_another_base_is_refused_unless_asked_for(
    refused: Callable[..., str], tunedeck: Command, adapter: Path
) -> None:
    other = tiny_models.folder_of("bert", "classifier", seed=5)
    said = refused("predict", "--adapter", adapter, "--model", other, "a text")
    assert f"{adapter} was trained on {tiny_models.folder_of('bert', 'classifier')}" in said
    assert f"this deck holds {other}" in said
    assert "--allow-base-mismatch" in said
    assert tunedeck("predict", "--adapter", adapter, "--model", other, "--allow-base-mismatch", "a text").code == 0


def test_an_unsupported_kind_lists_the_supported_ones(refused: Callable[..., str], adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, "peft_type": "LOHA"}))
    assert "LOHA is not supported (supported: LORA, IA3, LN_TUNING, PROMPT_TUNING, PREFIX_TUNING)" in refused(
        "predict", "--adapter", adapter, "a text"
    )


def test_an_earlier_run_is_neither_overwritten_unasked_nor_lost_when_the_disk_is_full(
    tunedeck: Command, model: str, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    command = ("train", "--model", model, "--data", words, "--max-steps", 1, "--out", run)
    assert tunedeck(*command).code == 0
    before, adapter = tiny_models.files_of(run), tiny_models.files_of(run / "adapter")
    said = tunedeck(*command)
    assert (said.code, tiny_models.files_of(run)) == (2, before)
    assert f"{run} holds an earlier run" in said.err
    assert "--overwrite" in said.err

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        said = tunedeck(*command, "--overwrite")
    assert said.code == 2
    assert "No space left on device" in said.err
    assert tiny_models.files_of(run / "adapter") == adapter
    assert not [path for path in run.iterdir() if path.name.endswith(".part")]
    assert tunedeck(*command, "--overwrite").code == 0


def test_predicting_no_text_says_how_to_give_some(
    refused: Callable[..., str], adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", open(os.devnull))  # noqa: PTH123, SIM115
    assert "there is no text; give texts, --file, or lines on" in refused("predict", "--adapter", adapter)


def test_an_unknown_language_lists_the_known_ones(refused: Callable[..., str]) -> None:
    assert refused("--lang", "fr", "doctor") == "error: unknown language 'fr', choose one of: en, zh"


def test_the_language_is_chosen_before_or_after_the_command(tunedeck: Command, refused: Callable[..., str]) -> None:
    command = ("predict", "--adapter", "missing", "text")
    for arguments in (("--lang", "zh", *command), (*command, "--lang", "zh"), (*command, "--lang=zh")):
        set_language("en")
        assert tunedeck(*arguments).err.startswith("错误：")
    set_language("en")
    assert refused("doctor", "--lang") == "error: --lang needs a language: en, zh"
    assert refused(*command, "--", "--lang") == "error: there is no adapter folder missing"


@pytest.mark.parametrize(
    ("arguments", "english", "chinese"),
    [
        (("trian",), "there is no command 'trian' (did you mean 'train'?)", "没有命令 'trian'（是不是想写 'train'？）"),
        (
            ("export", "foo"),
            "there is no command 'foo'; there are: peft, adapterhub, gguf-lora, vllm, card, onnx, merge, "
            "sentence-transformers",
            "没有命令 'foo'；可用的有：peft",
        ),
        (
            ("ui", "--folder", "none"),
            "there is no folder none; create it, or give another --folder",
            "找不到文件夹 none",
        ),
        (
            ("ui", "--password-file", "none"),
            "cannot read none: No such file or directory",
            "无法读取 none：没有这个文件",
        ),
        (
            ("serve", "--adapters", ".", "--api-key-file", "none"),
            "none is not a valid key file: No such file or directory; it holds a table [[key]] with name "
            "and sha256 for each key",
            "none 不是有效的密钥文件：没有",
        ),
        (("serve",), "--adapters is missing", "缺少 --adapters"),
        (("serve", "--prot", "1"), "there is no option --prot (did you mean '--port'?)", "没有选项 --prot"),
        (("serve", "--port", "x"), "--port must be a whole number", "--port 必须是整数"),
        (("serve", "--port", "0"), "--port must be 1 or more", "--port 必须大于等于 1"),
        (("serve", "--port", "70000"), "--port must be 65535 or less", "--port 必须小于等于 65535"),
        (("serve", "--drain-timeout", "x"), "--drain-timeout must be a number", "--drain-timeout 必须是数字"),
        (("serve", "--port"), "--port needs a value", "--port 需要一个值"),
        (("doctor", "now"), "unexpected argument: now", "多余的参数：now"),
        (("train", "--epochs", "x"), "--epochs must be a number", "--epochs 必须是数字"),
    ],
)
def test_a_mistake_in_the_command_line_is_one_line_in_either_language(
    tunedeck: Command, refused: Callable[..., str], arguments: tuple[str, ...], english: str, chinese: str
) -> None:
    assert refused(*arguments) == f"error: {english}"
    assert tunedeck(*arguments, "--lang", "zh").err.startswith(f"错误：{chinese}")


def test_a_command_without_its_command_shows_the_help(tunedeck: Command) -> None:
    said = tunedeck("adapters")
    assert (said.code, said.err) == (2, "")
    assert "convert" in said.out


def test_a_setting_of_the_wrong_type_is_told_in_chinese(tunedeck: Command, tmp_path: Path) -> None:
    run = tmp_path / "run.yaml"
    plain = "model: m\ndata: {train: d.csv}\ntask: classify\nmethod: lora\n"
    for settings, told in (
        ("training: {epochs: -1}", "training.epochs：必须 > 0"),
        ("training: {batch_size: many}", "training.batch_size：必须是整数"),
        ("training: {schedule: cosin}", "training.schedule：必须是以下之一：'cosine', 'linear', 'constant'"),
        ("training: 3", "training：必须是一组键和值"),
        ("name: 3", "name：必须是文本"),
    ):
        run.write_text(plain + settings, encoding="utf-8")
        assert told in tunedeck("train", run, "--lang", "zh").err


def test_an_adapter_of_another_task_names_its_command(refused: Callable[..., str], adapter: Path) -> None:
    use = f"{adapter} is an adapter for the task classify, not for {{}}; use: tunedeck predict --adapter {adapter}"
    assert refused("chat", "--adapter", adapter) == "error: " + use.format("chat")
    assert refused("embed", "--adapter", adapter, "a text") == "error: " + use.format("embed")


def test_serving_an_adapter_itself_names_the_folder_to_give(refused: Callable[..., str], adapter: Path) -> None:
    said = refused("serve", "--adapters", adapter, "--port", _free_port())
    assert said == f"error: {adapter} is an adapter itself; give the folder that holds it: --adapters {adapter.parent}"


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])

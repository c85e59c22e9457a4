"""Commands end to end on tiny models: train, eval, predict, adapters, fetch, doctor, help."""

from __future__ import annotations

import csv
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import labelled_words, tiny_models
from support.command_line import Command
from support.stopped_runs import at_loss

from tunedeck.core.i18n import set_language
from tunedeck.core.plug_ins import PlugIn
from tunedeck.data import pieces
from tunedeck.data.table import read_table

MODEL = "bert"


@pytest.fixture
def run_folder(trained: Callable[..., Path], words: Path) -> Path:
    model = ("--model", tiny_models.folder_of(MODEL, "classifier"), "--method", "lora", "--dtype", "float32")
    return trained("reds", *model, "--data", words, "--epochs", 1, "--learning-rate", "0.01")


def test_training_prints_class_balance_parameters_and_what_to_do_next(
    tunedeck: Command, words: Path, tmp_path: Path
) -> None:
    model = tiny_models.folder_of(MODEL, "classifier")
    said = tunedeck("train", "--model", model, "--data", words, "--max-steps", 2, "--out", tmp_path / "r")
    assert "108 examples to train on, 12 held out" in said.err
    assert "parameters train" in said.err
    assert "tunedeck predict --adapter" in said.err
    assert "accuracy" in said.out


def test_json_holds_metrics_times_and_paths(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    said = tunedeck(
        "train",
        "--model",
        tiny_models.folder_of(MODEL, "classifier"),
        "--data",
        words,
        "--method",
        "seq_bn",
        "--max-steps",
        2,
        "--out",
        tmp_path / "r",
        "--json",
    )
    result = json.loads(said.out)
    assert {"accuracy", "macro_f1", "loss", "train_s", "eval_s", "run", "adapter_folder"} <= result.keys()
    assert Path(result["adapter_folder"], "tunedeck.json").exists()


def test_a_run_file_runs_and_its_copy_repeats_it(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(
        f"model: {tiny_models.folder_of(MODEL, 'classifier')}\ndata: {{train: {words}}}\nmethod: {{kind: lora, r: 4}}\n"
        "training: {max_steps: 3}\ndtype: float32\n",
        encoding="utf-8",
    )
    first = json.loads(tunedeck("train", tmp_path / "run.yaml", "--out", tmp_path / "a", "--json").out)
    again = json.loads(tunedeck("train", tmp_path / "a" / "config.yaml", "--out", tmp_path / "b", "--json").out)
    assert again["loss"] == first["loss"]
    assert first["steps"] == 3


def test_evaluation_repeats_the_metrics_of_training(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    held_out = labelled_words.write_csv(tmp_path / "held.csv", labelled_words.rows(40, seed=9))
    model = tiny_models.folder_of(MODEL, "classifier")
    trained = json.loads(
        tunedeck(
            "train",
            "--model",
            model,
            "--data",
            words,
            "--eval-data",
            held_out,
            "--max-steps",
            4,
            "--dtype",
            "float32",
            "--out",
            tmp_path / "r",
            "--json",
        ).out
    )
    found = json.loads(
        tunedeck(
            "eval",
            "--adapter",
            tmp_path / "r" / "adapter",
            "--data",
            held_out,
            "--dtype",
            "float32",
            "--json",
            "--errors",
            tmp_path / "wrong.csv",
        ).out
    )
    with (tmp_path / "wrong.csv").open(newline="", encoding="utf-8") as file:
        wrong = list(csv.DictReader(file))
    assert len(wrong) == round(40 * (1 - trained["accuracy"]))
    assert all(row["label"] != row["predicted"] for row in wrong)
    labels = found["breakdowns"]["r"]["labels"]
    assert sum(label["support"] for label in labels) == 40
    assert sum(map(sum, found["breakdowns"]["r"]["confusion"])) == 40
    assert found["description"].startswith("40 examples")
    assert found["adapters"]["r"]["accuracy"] == trained["accuracy"]
    assert found["adapters"]["r"]["loss"] == pytest.approx(trained["loss"], abs=1e-5)
    assert found["breakdowns"]["r"]["scaling"]["temperature"] == pytest.approx(trained["temperature"], abs=1e-5)


def test_one_call_answers_by_several_adapters(tunedeck: Command, run_folder: Path, words: Path, tmp_path: Path) -> None:
    model = tiny_models.folder_of(MODEL, "classifier")
    tunedeck(
        "train",
        "--model",
        model,
        "--data",
        words,
        "--method",
        "prompt-tuning",
        "--max-steps",
        2,
        "--out",
        tmp_path / "soft",
    )
    said = tunedeck(
        "predict",
        "--adapter",
        run_folder / "adapter",
        "--adapter",
        tmp_path / "soft" / "adapter",
        "w10 w44",
        "w20 w9",
        "--json",
    )
    rows = json.loads(said.out)["predictions"]
    assert [(row["text"], row["adapter"]) for row in rows] == [
        ("w10 w44", "reds"),
        ("w20 w9", "reds"),
        ("w10 w44", "soft"),
        ("w20 w9", "soft"),
    ]
    assert all(sum(row["probabilities"].values()) == pytest.approx(1) for row in rows)


def test_predict_reads_a_file_or_standard_input(
    tunedeck: Command, run_folder: Path, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tunedeck("predict", "--adapter", run_folder / "adapter", "--file", words, "--json")
    assert len(json.loads(said.out)["predictions"]) == 120
    (tmp_path / "lines").write_text("w10 w50\n\nw30\n", encoding="utf-8")
    with (tmp_path / "lines").open() as lines:
        monkeypatch.setattr("sys.stdin", lines)
        said = tunedeck("predict", "--adapter", run_folder / "adapter", "--json")
    assert [row["text"] for row in json.loads(said.out)["predictions"]] == ["w10 w50", "w30"]


@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_predict_writes_the_rows_of_a_file_with_the_predictions(
    tunedeck: Command, run_folder: Path, tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.cli.predict.PIECE", 2)
    texts = ["w10 w44", 'w20, "w9"', "w3"]
    table = [{"id": number, "body": text, "sentence": "other", "note": None} for number, text in enumerate(texts)]
    asked, out = tmp_path / "in.jsonl", tmp_path / f"out.{ending}"
    asked.write_text("".join(json.dumps(row) + "\n" for row in table), encoding="utf-8")
    given = ("predict", "--adapter", run_folder / "adapter", "--file", asked, "--text", "body")
    expected = json.loads(tunedeck(*given, "--json").out)["predictions"]
    said = tunedeck(*given, "--out", out)
    assert (said.code, said.out) == (0, ""), said.err
    assert f"wrote {out}: 3 rows" in said.err
    rows = read_table(str(out)).rows
    for before, row, prediction in zip(table, rows, expected, strict=True):
        assert list(row) == ["id", "body", "sentence", "note", "predicted", "score"]
        assert (str(row["id"]), row["body"]) == (str(before["id"]), before["body"])
        assert row["note"] in (None, "")
        assert row["predicted"] == prediction["label"]
        assert float(str(row["score"])) == pytest.approx(prediction["score"], abs=1e-5)
    assert "has a column 'predicted' already" in tunedeck("predict", *given[1:4], out, *given[5:], "--out", out).err
    assert read_table(str(out)).rows == rows


def test_predict_reads_a_large_file_piece_by_piece(
    tunedeck: Command, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"w{number} w50"} for number in range(4, 19)]
    asked, out = tmp_path / "in.jsonl", tmp_path / "out.csv"
    given = ("predict", "--adapter", run_folder / "adapter", "--file", asked, "--out")
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert tunedeck(*given, tmp_path / "whole.csv").code == 0
    monkeypatch.setattr(pieces, "PIECE", 4)
    monkeypatch.setattr(pieces, "LARGE_BYTES", 1)
    read = pieces.table_pieces(str(asked), "auto")
    assert [len(table.rows) for table in read] == [4, 4, 4, 3]
    said = tunedeck(*given, out)
    assert f"wrote {out}: 15 rows" in said.err
    parts, whole = read_table(str(out)).rows, read_table(str(tmp_path / "whole.csv")).rows
    assert [row["predicted"] for row in parts] == [row["predicted"] for row in whole]
    scores, expected = ([float(str(row["score"])) for row in found] for found in (parts, whole))
    assert scores == pytest.approx(expected, abs=1e-5)
    asked.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": " "}]), encoding="utf-8")
    assert "empty texts in column 'text': 1 (rows 4); fill" in (said := tunedeck(*given, out)).err
    assert "(rows counted from row 13)" in said.err
    asked.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"text": "w3", "id": 1}]), encoding="utf-8")
    assert "row 13 has other columns than the first rows; write .jsonl instead" in tunedeck(*given, out).err
    assert tunedeck(*given, tmp_path / "out.jsonl").code == 0


def test_predict_reads_the_column_that_the_adapter_was_trained_on(
    tunedeck: Command, words: Path, tmp_path: Path
) -> None:
    table = read_table(str(words))
    renamed = [{"body": row["text"], "color": row["label"], "city": "Ulm"} for row in table.rows]
    data = tmp_path / "renamed.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in renamed), encoding="utf-8")
    model, run = tiny_models.folder_of(MODEL, "classifier"), tmp_path / "run"
    said = tunedeck(
        "train", "--model", model, "--data", data, "--text", "body", "--label", "color", "--max-steps", 2, "--out", run
    )
    assert said.code == 0, said.err
    said = tunedeck("predict", "--adapter", run / "adapter", "--file", data, "--json")
    assert [row["text"] for row in json.loads(said.out)["predictions"]] == [row["body"] for row in renamed]
    one_column = tmp_path / "one.csv"
    one_column.write_text("w10 w44\nw3\n", encoding="utf-8")
    said = tunedeck("predict", "--adapter", run / "adapter", "--file", one_column, "--json")
    assert f"the texts are those of column 'w10 w44', the first line of {one_column}" in said.err


def test_a_file_of_an_unknown_kind_is_not_written(tunedeck: Command, run_folder: Path, tmp_path: Path) -> None:
    said = tunedeck("predict", "--adapter", run_folder / "adapter", "w3", "--out", tmp_path / "out.txt")
    assert said.code == 2
    assert "out.txt: its name must end in one of: .csv, .tsv, .json, .jsonl, .parquet, .xlsx" in said.err


def test_adapters_are_listed_shown_and_converted(tunedeck: Command, run_folder: Path, tmp_path: Path) -> None:
    listed = json.loads(tunedeck("adapters", "list", tmp_path, "--json").out)
    assert [(one["name"], one["method"], one["format"]) for one in listed] == [("reds", "lora", "peft")]
    shown = json.loads(tunedeck("adapters", "show", run_folder / "adapter", "--json").out)
    assert shown["task"]["labels"] == ["blue", "green", "red"]
    assert tunedeck("adapters", "show", run_folder / "adapter").code == 0
    golden = Path(__file__).parents[1] / "golden" / "adapterhub-bert-flex-head"
    said = tunedeck("adapters", "convert", golden / "adapter", tmp_path / "converted", "--model", golden / "base")
    assert said.code == 0, said.err
    assert (tmp_path / "converted" / "tunedeck.json").exists()
    assert "adapterhub" in said.err
    said = tunedeck(
        "adapters", "convert", golden / "adapter", tmp_path / "x", "--model", golden / "base", "--to", "peft"
    )
    assert said.code == 2
    assert "PEFT has no bottleneck adapters" in said.err


def test_fetch_lists_the_parts_and_refuses_a_wrong_name(tunedeck: Command) -> None:
    names = [part["name"] for part in json.loads(tunedeck("fetch", "--json").out)]
    assert {"all-minilm-l6-v2", "smollm2-135m-instruct", "tweets", "reviews-zh"} <= set(names)
    said = tunedeck("fetch", "tweet")
    assert said.code == 2
    assert "did you mean 'tweets'?" in said.err


def test_doctor_tells_of_the_machine(tunedeck: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("tunedeck.core.hub.hub_is_reachable", lambda: False)
    found = json.loads(tunedeck("doctor", "--json").out)
    assert found["cpu_cores"] >= 1
    assert found["versions"]["torch"]
    assert found["hub_reachable"] is False
    assert found["plug_ins"] == []
    plug_ins = [PlugIn("scale", "tunedeck-scale", "1.0"), PlugIn("gone", "lost", "2.1", "the package says why")]
    monkeypatch.setattr("tunedeck.methods.registry.PLUG_INS", plug_ins)
    table = tunedeck("doctor").out
    assert "bundled:" in table
    assert re.search(r"method scale +│ tunedeck-scale 1\.0", table)
    assert re.search(r"method gone +│ the package says why", table)


def test_help_loads_no_command_and_speaks_chinese() -> None:
    code = "import sys; sys.argv=['tunedeck','--lang','zh','--help']\nfrom tunedeck.cli.main import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'pydantic', 'rich.console', 'tunedeck.cli.train'} & {*sys.modules}"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "适配器" in said.stdout
    set_language("en")


@pytest.mark.filterwarnings("always:training was stopped")
@pytest.mark.parametrize(("sent", "code", "called"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_a_signal_leaves_a_whole_adapter_and_a_run_to_go_on_with(
    sent: signal.Signals,
    code: int,
    called: str,
    tunedeck: Command,
    words: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_models.folder_of(MODEL, "classifier")
    with monkeypatch.context() as patch:
        at_loss(patch, 5, lambda: signal.raise_signal(sent))
        said = tunedeck("train", "--model", model, "--data", words, "--max-steps", 20, "--out", tmp_path / "r")
    assert said.code == code
    assert f"stopped by {called}" in said.err
    assert f"tunedeck train --resume {tmp_path / 'r'}" in said.err.replace("\n", " ")
    assert "Traceback" not in said.err
    tiny_models.deck_of(MODEL).load_adapter(tmp_path / "r" / "adapter", "kept")
    said = tunedeck("train", "--resume", tmp_path / "r", "--learning-rate", 1)
    assert said.code == 2
    assert "training.learning_rate was null, is 1.0" in said.err
    result = json.loads(tunedeck("train", "--resume", tmp_path / "r", "--json").out)
    assert (result["steps"], result["stopped"]) == (20, "finished")
    lines = (tmp_path / "r" / "events.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if '"event": "step"' in line]
    assert steps == list(range(1, 21))
    said = tunedeck("train", "--resume", tmp_path / "r")
    assert said.code == 2
    assert "is finished" in said.err


def test_there_is_nothing_to_resume_in_a_folder_without_a_run(tunedeck: Command, tmp_path: Path) -> None:
    said = tunedeck("train", "--resume", tmp_path / "none")
    assert said.code == 2
    assert "there is no run folder" in said.err


def test_a_run_file_with_jobs_trains_them_together(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text(
        f"model: {tiny_models.folder_of(MODEL, 'classifier')}\ndata: {{train: {words}}}\ndtype: "
        f"float32\ntraining: {{max_steps: 3}}\n"
        "jobs:\n  - {name: low, method: {kind: lora, r: 2}}\n"
        "  - {name: soft, method: prompt_tuning, training: {max_steps: 2}}\n",
        encoding="utf-8",
    )
    found = json.loads(tunedeck("train", tmp_path / "jobs.yaml", "--out", tmp_path / "r", "--json").out)["jobs"]
    assert [(job["adapter"], job["steps"], job["stopped"]) for job in found] == [
        ("low", 3, "finished"),
        ("soft", 2, "finished"),
    ]
    deck = tiny_models.deck_of(MODEL)
    for job in found:
        deck.load_adapter(job["adapter_folder"], job["adapter"])
    said = tunedeck("train", tmp_path / "jobs.yaml", "--out", tmp_path / "r")
    assert said.code == 2
    assert "holds an earlier run" in said.err
    said = tunedeck("train", tmp_path / "jobs.yaml", "--out", tmp_path / "again")
    assert said.code == 0
    assert "soft" in said.out
    again = json.loads(tunedeck("train", tmp_path / "again" / "config.yaml", "--out", tmp_path / "copy", "--json").out)
    assert [job["loss"] for job in again["jobs"]] == [job["loss"] for job in found]

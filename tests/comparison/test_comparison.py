"""`td.compare`: what is measured, what is there already, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import embedding_decks, tiny_models

import tunedeck as td
from tunedeck.core.errors import ConfigError, DataError, TrainingError


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    return found


def compare(words: Path, folder: Path, **more: Any) -> td.Comparison:
    """A comparison of classifiers in a few steps."""
    training = {"max_steps": 8, **more.pop("training", {})}
    run = {"model": tiny_models.folder_of("bert", "classifier"), "data": {"train": str(words)}, "dtype": "float32"}
    return td.compare(run, training=training, out=folder, **more)


@pytest.mark.figures
def test_each_entry_is_measured_and_what_is_finished_stays(
    words: Path, tmp_path: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    methods = "lora:r=2,4:learning_rate=1e-2,head"
    found = compare(words, tmp_path / "c", methods=methods, price_per_hour=7.2)
    assert json.loads(json.dumps(found.to_json())) == result_of(tmp_path / "c")
    result = result_of(tmp_path / "c")
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == [entry.name for entry in found.entries] == ["lora r=2", "lora r=4", "head"]
    # rank 2 on query and value of two layers of width 32, and a head of three labels
    assert rows["lora r=2"]["trainable_parameters"] == 2 * 2 * 2 * (32 + 32) + 3 * 32 + 3
    for name, row in rows.items():
        assert row["interval"]["source"] == "examples"
        assert row["interval"]["count"] == 12
        assert row["cost"] == pytest.approx(row["train_s"] * 7.2 / 3600)
        assert row["texts_per_s"] > 0
        assert row["mixed_texts_per_s"] > 0
        assert {one["quantity"] for one in row["planned"]} == ({"memory", "time", "cost"} if name != "head" else set())
        assert row["runs"][0]["steps"] == (0 if name == "head" else 8)
    assert sum(row["behind"] is None for row in rows.values()) == 1
    assert rows[found.best.name]["behind"] is None
    assert sum(map(sum, result["confusion"]["counts"])) == 12
    assert f"methods={methods!r}" in result["repeat"]["command"]
    assert len(result["data"]["sha256"]) == 64
    for name in ("report.html", "report.md", "figures/quality-cost.svg", "figures/confusions.png"):
        assert (tmp_path / "c" / name).stat().st_size > 1000
    in_process.clear()
    capsys.readouterr()
    compare(words, tmp_path / "c", methods=methods, price_per_hour=7.2, seeds=2)
    assert in_process == ["lora r=2/1", "lora r=4/1", "head/1"]
    assert "3 of 6 runs are there already" in capsys.readouterr().err
    again = result_of(tmp_path / "c")["rows"][0]
    assert again["interval"]["source"] == "seeds"
    assert again["accuracy"] == pytest.approx(sum(run["metrics"]["accuracy"] for run in again["runs"]) / 2)


def test_other_settings_or_other_data_in_the_folder_are_refused(
    words: Path, tmp_path: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.csv"
    own.write_bytes(words.read_bytes())

    def head(max_steps: int, **more: Any) -> None:
        compare(own, tmp_path / "c", methods="head", training={"max_steps": max_steps}, progress=False, **more)

    head(2)
    with pytest.raises(ConfigError, match=r"training.max_steps: 2 before, 3 now.*--overwrite"):
        head(3)
    own.write_text(own.read_text(encoding="utf-8") + "w99 w98 w97,red\nw89 w88 w87,red\n", encoding="utf-8")
    with pytest.raises(DataError, match="trained on other examples"):
        head(2)
    in_process.clear()
    head(3, overwrite=True)
    assert in_process == ["head/0"]
    assert capsys.readouterr().err == ""


def test_a_search_tries_settings_on_part_of_the_training_examples_and_is_resumed(
    words: Path, tmp_path: Path, in_process: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("optuna")
    compare(words, tmp_path / "c", methods="lora:r=4:learning_rate=1e-2,lora", search=2)
    tried = result_of(tmp_path / "c")["search"]
    assert [one["entry"] for one in tried] == ["lora", "lora"]  # the other entry has nothing left to search
    assert tried[0]["settings"] == {"learning_rate": 1e-3, "r": 8}  # its own settings are tried first
    best = max((one for one in tried if one["quality"] is not None), key=lambda one: one["quality"])["settings"]
    own = result_of(tmp_path / "c")["rows"][1]["settings"]
    assert (own["r"], own["learning_rate"]) == (best["r"], best["learning_rate"])
    assert own["lora_alpha"] / own["r"] == 2  # alpha grows with r
    capsys.readouterr()
    compare(words, tmp_path / "c", methods="lora:r=4:learning_rate=1e-2,lora", search=2)
    err = capsys.readouterr().err
    assert "trial" not in err.replace("trials", "")
    assert "2 of 2 runs are there already" in err


def test_a_search_without_optuna_says_what_to_install(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.core.checks.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'tunedeck\[search\]'"):
        compare(words, tmp_path / "c", methods="head", search=2)


def test_generation_is_compared_by_its_loss(tmp_path: Path, in_process: list[str]) -> None:
    rows = [{"prompt": f"w{10 + n % 7} w{40 + n}", "completion": f"w{10 + n % 7}"} for n in range(60)]
    chats = embedding_decks.write_jsonl(tmp_path / "chats.jsonl", rows)
    tokenizer = tiny_models.tiny_tokenizer("llama")
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_models.tiny_model("llama", "causal").save_pretrained(tmp_path / "model")
    found = td.compare(
        {"dtype": "float32"},
        model=str(tmp_path / "model"),
        data=str(chats),
        task="generate",
        methods=[td.LoraConfig(), "prompt-tuning"],
        training={"max_steps": 4},
        out=tmp_path / "c",
    )
    assert (found.metric, found.higher_is_better, found.confusion) == ("loss", False, None)
    for entry in found.entries:
        assert entry.interval is not None
        assert entry.interval.low < entry.metrics["loss"] < entry.interval.high
    assert len(found.mistakes) == 5
    assert found.mistakes[0].score >= found.mistakes[1].score
    assert all(entry.forgetting != 0 for entry in found.entries)
    assert "forgetting (loss on other text)" in found.table()


def test_a_head_alone_is_refused_where_there_is_none(words: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"head: only tasks with labels have a head to train alone; .* for embed"):
        td.compare(model="any", data=str(words), task="embed", methods="head", out=tmp_path)


def test_embeddings_are_compared_and_one_seed_has_no_interval(tmp_path: Path, in_process: list[str]) -> None:
    rows = [{"anchor": pair.anchor, "positive": pair.positive} for pair in embedding_decks.pairs(60)]
    found = td.compare(
        {"dtype": "float32"},
        model=tiny_models.folder_of("bert", "plain"),
        data=str(embedding_decks.write_jsonl(tmp_path / "pairs.jsonl", rows)),
        task="embed",
        methods="lora,seq_bn",
        training={"max_steps": 4},
        out=tmp_path / "c",
    )
    assert found.metric == "ndcg@10"
    assert all(entry.interval is None for entry in found.entries)
    assert found.recommendation.rule == "unknown"
    assert "--seeds 3" in (tmp_path / "c" / "report.md").read_text(encoding="utf-8")


def test_a_run_file_names_the_folder_and_arguments_override_its_keys(
    words: Path, tmp_path: Path, in_process: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_file = tmp_path / "colours.yaml"
    model = tiny_models.folder_of("bert", "classifier")
    text = f"model: {model}\ndata: {{train: {words}}}\ntraining: {{max_steps: 9, batch_size: 8}}\n"
    run_file.write_text(text, encoding="utf-8")
    found = td.compare(run_file, methods=["lora"], examples=20, training={"max_steps": 2}, progress=False)
    assert found.folder == str(Path("compare") / "colours")
    assert found.data.train == 20
    assert found.entries[0].runs[0].steps == 2
    expected = (
        f"tunedeck.compare('{run_file}', training={{'max_steps': 2}}, methods=['lora'], examples=20, progress=False)"
    )
    assert found.repeat.command == expected


@pytest.mark.slow
def test_a_run_that_fails_says_why_where_nothing_was_printed(words: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"seed-0 ended with code 2: error: .*no-such-model"):
        td.compare(model=str(tmp_path / "no-such-model"), data=str(words), methods="head", out=tmp_path, progress=False)

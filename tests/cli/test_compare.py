"""`tunedeck compare`: what may be written, what is compared, and what is there already."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import embeddings
import pytest
import tiny

from tunedeck.comparison import compare as order
from tunedeck.comparison.budget import seeds_of, with_budget
from tunedeck.comparison.grammar import parse_methods
from tunedeck.comparison.report.result import Price
from tunedeck.comparison.runs import Run
from tunedeck.core.errors import ConfigError
from tunedeck.training.run import run_together

Command = Callable[..., Any]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runs are carried out in this process, which is faster; gives the names of those that were."""
    made: list[str] = []

    def carry_out(run: Run) -> None:
        made.append(f"{run.candidate.name}/{run.seed}")
        run_together([run.config], run.folder, tell=lambda text: None, progress=False)

    monkeypatch.setattr(order, "carry_out", carry_out)
    return made


def result_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    return found


def read(text: str, **values: Any) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
    found = parse_methods(text, values)
    return [(one.name, one.method, {k: v for k, v in one.training.items() if v is not None}) for one in found]


def test_several_values_of_a_setting_make_several_entries() -> None:
    assert read("lora:r=4,16,head") == [
        ("lora r=4", {"kind": "lora", "r": 4}, {}),
        ("lora r=16", {"kind": "lora", "r": 16}, {}),
        ("head", {"kind": "full", "layers": "head"}, {}),
    ]
    assert [name for name, *_ in read("lora:r=4,16:learning_rate=1e-3,3e-4")] == [
        "lora r=4 learning_rate=0.001", "lora r=4 learning_rate=0.0003",
        "lora r=16 learning_rate=0.001", "lora r=16 learning_rate=0.0003",
    ]  # fmt: skip


def test_settings_go_to_the_method_or_to_training_and_names_joined_by_plus_are_one_value() -> None:
    assert read("lora:r=8:lora_alpha=32:target_modules=query+value:learning_rate=1e-3, prompt-tuning") == [
        ("lora", {"kind": "lora", "r": 8, "lora_alpha": 32, "target_modules": ["query", "value"]}, {"learning_rate": 1e-3}),
        ("prompt-tuning", {"kind": "prompt_tuning"}, {}),
    ]  # fmt: skip


def test_entries_of_one_method_are_told_apart_by_what_differs() -> None:
    assert [name for name, *_ in read("lora:r=4:lora_alpha=8,lora:r=16:lora_alpha=8,full")] == ["lora r=4", "lora r=16", "full"]  # fmt: skip


def test_the_run_files_settings_count_for_its_own_method_alone() -> None:
    values = {"method": {"kind": "lora", "r": 2, "lora_alpha": 4}, "training": {"learning_rate": 0.5}}
    assert read("lora,lora:r=16,seq_bn", **values) == [
        ("lora", {"kind": "lora", "r": 2, "lora_alpha": 4}, {"learning_rate": 0.5}),
        ("lora r=16", {"kind": "lora", "r": 16, "lora_alpha": 4}, {"learning_rate": 0.5}),
        ("seq_bn", {"kind": "bottleneck", "name": "seq_bn"}, {}),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lorra", r"'lorra' is no method \(did you mean 'lora'\?\)"),
        ("lora,4", "'4' is no method"),
        ("lora:r", "'r' must be key=value"),
        ("lora:r=", "a value is missing in 'lora:r='"),
        ("lora:rank=4", "lora has no setting 'rank'"),
        ("head:learningrate=1", r"did you mean 'learning_rate'\?"),
        ("lora:r=4:r=8", "'r' is given twice"),
        ("lora,lora", "names 'lora' twice"),
        ("lora:epochs=3", "'epochs' must be the same for all"),
        ("", "'' is no method"),
    ],
)
def test_a_piece_that_cannot_be_understood_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_methods(text, {})


def test_seeds_are_how_many_or_which() -> None:
    assert seeds_of(None, 5) == (5,)
    assert seeds_of("3", 5) == (5, 6, 7)
    assert seeds_of("0,7,13", 5) == (0, 7, 13)
    for bad in ("x", "0", "1,1", "-2", ""):
        with pytest.raises(ConfigError, match="--seeds takes"):
            seeds_of(bad, 0)


def test_money_becomes_minutes_at_the_price_and_runs_until_they_are_over() -> None:
    values, said = with_budget({}, 500, None, 2.0, Price(8.0, "CNY", ""))
    assert values["data"] == {"train_size": 500}
    assert values["training"]["max_minutes"] == pytest.approx(15)
    assert values["training"]["epochs"] > 1000
    assert said == "2 CNY for each run, 15 minutes of training"
    values, _ = with_budget({"training": {"epochs": 3}}, None, 5, None, None)
    assert values["training"] == {"epochs": 3, "max_minutes": 5}
    with pytest.raises(ConfigError, match="give --price-per-hour"):
        with_budget({}, None, None, 2.0, None)
    with pytest.raises(ConfigError, match="not both"):
        with_budget({}, None, 5, 2.0, Price(8.0, "CNY", ""))


def test_a_comparison_measures_each_entry_and_goes_on_where_it_stopped(
    tunedeck: Command, words: Path, tmp_path: Path, in_process: list[str]
) -> None:
    asked = [
        "compare", "--model", tiny.folder_of("bert", "classifier"), "--data", words, "--methods", "lora:r=2,4:learning_rate=1e-2,head",
        "--max-steps", 8, "--dtype", "float32", "--price-per-hour", 7.2, "--out", tmp_path / "c",
    ]  # fmt: skip
    said = tunedeck(*asked, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out) == result_of(tmp_path / "c")
    result = json.loads(said.out)
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == ["lora r=2", "lora r=4", "head"]
    # rank 2 on query and value of two layers of width 32, and a head of three labels
    assert rows["lora r=2"]["trainable_parameters"] == 2 * 2 * 2 * (32 + 32) + 3 * 32 + 3
    for row in rows.values():
        assert row["interval"]["source"] == "examples"
        assert row["interval"]["count"] == 12
        assert row["cost"] == pytest.approx(row["train_s"] * 7.2 / 3600)
        assert row["texts_per_s"] > 0
        assert row["mixed_texts_per_s"] > 0
        assert {one["quantity"] for one in row["planned"]} == {"memory", "time", "cost"}
        assert row["runs"][0]["steps"] == 8
    assert sum(row["behind"] is None for row in rows.values()) == 1
    assert sum(map(sum, result["confusion"]["counts"])) == 12
    assert result["repeat"]["command"].startswith("tunedeck compare --model")
    assert len(result["data"]["sha256"]) == 64
    for name in ("report.html", "report.md", "figures/quality-cost.svg", "figures/confusions.png"):
        assert (tmp_path / "c" / name).stat().st_size > 1000
    in_process.clear()
    said = tunedeck(*asked, "--seeds", 2)
    assert said.code == 0, said.err
    assert in_process == ["lora r=2/1", "lora r=4/1", "head/1"]
    assert "3 of 6 runs are there already" in said.err
    again = result_of(tmp_path / "c")["rows"][0]
    assert again["interval"]["source"] == "seeds"
    assert again["accuracy"] == pytest.approx(sum(run["metrics"]["accuracy"] for run in again["runs"]) / 2)


def test_other_settings_or_other_data_in_the_folder_are_refused(
    tunedeck: Command, words: Path, tmp_path: Path, in_process: list[str]
) -> None:
    own = tmp_path / "own.csv"
    own.write_bytes(words.read_bytes())
    asked = ["compare", "--model", tiny.folder_of("bert", "classifier"), "--data", own, "--methods", "head", "--out", tmp_path / "c"]  # fmt: skip
    assert tunedeck(*asked, "--max-steps", 2).code == 0
    said = tunedeck(*asked, "--max-steps", 3)
    assert said.code == 2
    assert "training.max_steps: 2 before, 3 now" in said.err
    assert "--overwrite" in said.err
    own.write_text(own.read_text(encoding="utf-8") + "w99 w98 w97,red\nw89 w88 w87,red\n", encoding="utf-8")
    said = tunedeck(*asked, "--max-steps", 2)
    assert said.code == 2
    assert "trained on other examples" in said.err
    in_process.clear()
    assert tunedeck(*asked, "--max-steps", 3, "--overwrite").code == 0
    assert in_process == ["head/0"]


def test_a_search_tries_settings_on_part_of_the_training_examples_and_goes_on(
    tunedeck: Command, words: Path, tmp_path: Path, in_process: list[str]
) -> None:
    pytest.importorskip("optuna")
    asked = [
        "compare", "--model", tiny.folder_of("bert", "classifier"), "--data", words, "--methods", "lora:r=4:learning_rate=1e-2,lora",
        "--max-steps", 8, "--dtype", "float32", "--out", tmp_path / "c",
    ]  # fmt: skip
    said = tunedeck(*asked, "--search", 2)
    assert said.code == 0, said.err
    tried = result_of(tmp_path / "c")["search"]
    assert [one["entry"] for one in tried] == ["lora", "lora"]  # the other entry has nothing left to search
    assert tried[0]["settings"] == {"learning_rate": 1e-3, "r": 8}  # its own settings are tried first
    best = max((one for one in tried if one["quality"] is not None), key=lambda one: one["quality"])["settings"]
    own = result_of(tmp_path / "c")["rows"][1]["settings"]
    assert (own["r"], own["learning_rate"]) == (best["r"], best["learning_rate"])
    assert own["lora_alpha"] / own["r"] == 2  # alpha grows with r
    said = tunedeck(*asked, "--search", 2)
    assert "trial" not in said.err.replace("trials", "")
    assert "2 of 2 runs are there already" in said.err


def test_a_search_without_optuna_says_what_to_install(
    tunedeck: Command, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunedeck.comparison.search.find_spec", lambda name: None)
    said = tunedeck("compare", "--model", tiny.folder_of("bert", "classifier"), "--data", words, "--methods", "head", "--search", 2, "--out", tmp_path)  # fmt: skip
    assert said.code == 2
    assert "pip install 'tunedeck[search]'" in said.err


def test_generation_is_compared_by_its_loss(tunedeck: Command, tmp_path: Path, in_process: list[str]) -> None:
    rows = [{"prompt": f"w{10 + n % 7} w{40 + n}", "completion": f"w{10 + n % 7}"} for n in range(60)]
    chats = embeddings.write_jsonl(tmp_path / "chats.jsonl", rows)
    tokenizer = tiny.tiny_tokenizer("llama")
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(tmp_path / "model")
    tiny.tiny_model("llama", "causal").save_pretrained(tmp_path / "model")
    said = tunedeck(
        "compare", "--model", tmp_path / "model", "--data", chats, "--task", "generate", "--methods", "lora,prompt-tuning",
        "--max-steps", 4, "--dtype", "float32", "--out", tmp_path / "c",
    )  # fmt: skip
    assert said.code == 0, said.err
    result = result_of(tmp_path / "c")
    assert (result["metric"], result["higher_is_better"], result["confusion"]) == ("loss", False, None)
    for row in result["rows"]:
        assert row["interval"]["low"] < row["loss"] < row["interval"]["high"]
    assert len(result["mistakes"]) == 5
    assert result["mistakes"][0]["score"] >= result["mistakes"][1]["score"]


def test_a_head_alone_is_refused_where_there_is_none(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    said = tunedeck(
        "compare", "--model", "any", "--data", words, "--task", "embed", "--methods", "head", "--out", tmp_path
    )
    assert said.code == 2
    assert "head: only classification has a head to train alone; choose another method for embed" in said.err


def test_embeddings_are_compared_and_one_seed_has_no_interval(tunedeck: Command, tmp_path: Path, in_process: list[str]) -> None:  # fmt: skip
    pairs = embeddings.write_jsonl(tmp_path / "pairs.jsonl", [{"anchor": p.anchor, "positive": p.positive} for p in embeddings.pairs(60)])  # fmt: skip
    said = tunedeck(
        "compare", "--model", tiny.folder_of("bert", "plain"), "--data", pairs, "--task", "embed", "--methods", "lora,seq_bn",
        "--max-steps", 4, "--dtype", "float32", "--out", tmp_path / "c",
    )  # fmt: skip
    assert said.code == 0, said.err
    result = result_of(tmp_path / "c")
    assert result["metric"] == "ndcg@10"
    assert all(row["interval"] is None for row in result["rows"])
    assert result["recommendation"]["rule"] == "unknown"
    assert "--seeds 3" in (tmp_path / "c" / "report.md").read_text(encoding="utf-8")

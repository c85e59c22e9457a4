"""What commands print beside their result: notes on a run, the commands of a chat, and no progress bars of others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import Command
from transformers.utils import logging


@pytest.fixture(autouse=True)
def _transformers_bars() -> None:
    """Other tests may have hidden the bars of transformers, which is a setting of the process."""
    logging.enable_progress_bar()


def train(tunedeck: Command, words: Path, out: Path, *options: object) -> str:
    model = tiny_models.folder_of("bert", "classifier")
    said = tunedeck("train", "--model", model, "--data", words, "--out", out, "--dtype", "float32", *options)
    assert said.code == 0, said.err
    return said.err


@pytest.mark.filterwarnings("default::UserWarning")
def test_a_rank_above_the_size_of_a_layer_is_noted(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    notes = train(tunedeck, words, tmp_path / "a", "--max-steps", 1, "--r", 999)
    assert "note: the rank 999 is above the size" in notes
    assert "above the size" not in train(tunedeck, words, tmp_path / "b", "--max-steps", 1, "--r", 4)


def test_a_run_that_ends_at_its_best_suggests_more_epochs(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    by_loss = ("--set", "training.metric_for_best_model=loss", "--set", "training.head_init=random")
    advice = "the last evaluation was the best: more --epochs may do better"
    assert advice in train(tunedeck, words, tmp_path / "a", *by_loss, "--max-steps", 8, "--learning-rate", "0.001")
    assert advice not in train(tunedeck, words, tmp_path / "b", *by_loss, "--max-steps", 4, "--learning-rate", "1e-12")


def test_a_chat_lists_its_commands_and_names_unknown_ones(tunedeck: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    typed: Iterator[str] = iter(["/help", "/adpter", "/adapter law", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(typed))
    said = tunedeck("chat", "--model", tiny_models.folder_of("llama", "causal"))
    commands = "/adapter NAME switches the adapter, /clear forgets the conversation, /help shows this line, /quit ends"
    assert said.code == 0, said.err
    assert said.err.splitlines() == [
        f"adapters: base. {commands}",
        commands,
        f"unknown command /adpter; {commands}",
        "adapter 'law' is not loaded (loaded: base)",
    ]


def test_loading_a_model_shows_no_progress_bar_of_transformers(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    train(tunedeck, words, tmp_path / "a", "--max-steps", 1)
    logging.enable_progress_bar()
    said = tunedeck("predict", "--adapter", tmp_path / "a" / "adapter", "w10 w44")
    assert (said.code, said.err) == (0, "")

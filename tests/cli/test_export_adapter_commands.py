"""`tunedeck export peft | adapterhub | gguf-lora | vllm | card`, as a person runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny_models
from support.command_line import Command

import tunedeck as td


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    deck = tiny_models.deck_of("llama", "causal")
    tiny_models.add_stirred(deck, "law", td.LoraConfig(r=4))
    deck.save("law", tmp_path / "law")
    return tmp_path / "law"


@pytest.mark.parametrize(
    ("command", "out", "said"),
    [
        ("peft", "new", "(peft); read back, every tensor is the same"),
        ("adapterhub", "new", "(adapterhub); read back, every tensor is the same"),
        ("gguf-lora", "new.gguf", "llama-server -m BASE.gguf --lora"),
        ("vllm", "new", "serve.sh"),
        ("card", "new.md", "read it before you publish it"),
    ],
)
def test_an_export_says_what_it_wrote_and_does_not_write_twice(
    tunedeck: Command, saved: Path, tmp_path: Path, command: str, out: str, said: str
) -> None:
    arguments = ["export", command, "--adapter", saved, "--out", tmp_path / out]
    arguments += ["--licence", "mit"] if command == "card" else []
    first = tunedeck(*arguments)
    assert first.code == 0, first.err
    assert said in first.err
    assert first.out.startswith("vllm serve ") == (command == "vllm")
    again = tunedeck(*arguments)
    assert again.code == 2
    assert "already exists; choose another path" in again.err
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(["law", out])


def test_adapters_are_merged_by_their_weights(tunedeck: Command, saved: Path, tmp_path: Path) -> None:
    said = tunedeck("adapters", "merge", saved, saved, "--weights", "0.5,0.25", "--out", tmp_path / "both")
    assert said.code == 0, said.err
    assert "measure it: tunedeck eval --adapter" in said.err
    deck = tiny_models.deck_of("llama", "causal")
    for name, folder in (("one", saved), ("both", tmp_path / "both")):
        deck.load_adapter(folder, name)
    one, both = (next(iter(deck.adapter(name).placements().values())).layer.delta() for name in ("one", "both"))
    assert tiny_models.difference(both, 0.75 * one) < 1e-6
    wrong = tunedeck("adapters", "merge", saved, saved, "--weights", "half,0.5", "--out", tmp_path / "no")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "--weights takes numbers with commas, as 0.7,0.3; got 'half,0.5'" in wrong.err


def test_two_folders_of_one_name_are_served_under_two_names(tunedeck: Command, saved: Path, tmp_path: Path) -> None:
    said = tunedeck("export", "vllm", "--adapter", saved, "--adapter", saved, "--out", tmp_path / "v")
    assert said.out.strip().endswith("--max-loras 2 --lora-modules law=law law-2=law-2")


def test_a_wrong_form_is_told_with_the_nearest(tunedeck: Command, saved: Path, tmp_path: Path) -> None:
    said = tunedeck("adapters", "convert", saved, tmp_path / "x", "--to", "adapterhab")
    assert said.code == 2
    assert "did you mean 'adapterhub'?" in said.err

"""The example of three specialists on one base runs from the run files to the mixed batch, in a shortened form."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from support import tiny_models
from support.command_line import Command
from support.tokenizers_of_all_kinds import tokenizer_of

SCRIPT = Path(__file__).parents[2] / "examples" / "specialists" / "run.py"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A tiny decoder with room for the example's conversations, byte by byte."""
    tiny_models.tiny_model("llama", "causal", vocab_size=290, max_position_embeddings=2048).save_pretrained(
        tmp_path / "base"
    )
    tokenizer_of("bytes").save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.network
def test_three_specialists_of_three_kinds_are_trained_compared_and_mixed(
    base: Path, tmp_path: Path, tunedeck: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], **_: object) -> None:
        """Run `python -m tunedeck …` in this process: another one takes ten seconds to start."""
        said = tunedeck(*command[3:])
        assert said.code == 0, said.err

    main = runpy.run_path(str(SCRIPT))["main"]
    monkeypatch.setitem(main.__globals__, "subprocess", SimpleNamespace(run=run))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--short", "--model", str(base), "--out", str(tmp_path)])
    main()
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [(one["name"], one["method"]) for one in report] == [
        ("sentiment", "bottleneck"),
        ("law", "lora"),
        ("medicine", "prompt_tuning"),
    ]
    for one in report:
        assert one["held_out"] == len(one["wanted"]) == len(one["adapter"]["texts"]) == len(one["base"]["texts"]) == 4
        assert 0 < one["size_bytes"] < 6e6
    assert any(one["adapter"]["texts"] != one["base"]["texts"] for one in report)  # so short a training moves little
    assert "One batch, three specialists and the base model" in capsys.readouterr().out

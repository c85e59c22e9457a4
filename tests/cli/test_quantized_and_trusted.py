"""`--quantize` and `--trust-remote-code`: training, predicting and evaluating on packed bases and on models with code
of their own.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support import quantized_models, remote_code
from support.command_line import Command


@pytest.mark.parametrize("scheme", quantized_models.SCHEMES)
def test_a_run_on_a_packed_base_says_what_it_takes_and_is_used_packed(
    tunedeck: Command, words: Path, tmp_path: Path, scheme: str
) -> None:
    base, out = quantized_models.wide_folder("bert", "classifier"), tmp_path / "run"
    steps = ("--max-steps", 2, "--set", "training.optimizer=adamw_8bit")
    said = tunedeck("train", "--model", base, "--data", words, "--quantize", scheme, "--out", out, *steps)
    assert said.code == 0, said.err
    assert f"the base in {scheme} takes" in said.err + said.out
    assert f"quantize: {scheme}" in (out / "config.yaml").read_text()
    adapter = out / "adapter"

    def answers(*flags: object) -> list[float]:
        said = tunedeck("predict", "w10 w50", "--adapter", adapter, "--dtype", "float32", "--json", *flags)
        assert said.code == 0, said.err
        return [row["score"] for row in json.loads(said.out)["predictions"]]

    assert answers() == answers("--quantize", scheme) != answers("--quantize", "none")


def test_a_scheme_that_is_not_there_is_named(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    base = quantized_models.wide_folder("bert", "classifier")
    said = tunedeck("train", "--model", base, "--data", words, "--quantize", "int4", "--out", tmp_path / "run")
    assert said.code == 2
    assert "quantize: must be one of 'nf4', 'int8', got 'int4'" in said.err


def test_a_model_with_code_of_its_own_needs_the_flag_everywhere(tunedeck: Command, words: Path, tmp_path: Path) -> None:
    base, out = remote_code.write_folder(tmp_path / "model", "chatglm", "classifier"), tmp_path / "run"
    arguments = ("train", "--model", base, "--data", words, "--max-steps", 2, "--out", out)
    said = tunedeck(*arguments)
    assert said.code == 2
    assert "--trust-remote-code" in said.err
    assert tunedeck(*arguments, "--trust-remote-code").code == 0
    predict = ("predict", "w10 w50", "--adapter", out / "adapter")
    assert "--trust-remote-code" in tunedeck(*predict).err
    assert tunedeck(*predict, "--trust-remote-code").code == 0
    assert tunedeck("eval", "--adapter", out / "adapter", "--data", words, "--trust-remote-code").code == 0

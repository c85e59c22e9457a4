"""What a command imports until its first answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import tiny_models

import tunedeck as td

NOT_NEEDED = {
    "datasets",
    "fastapi",
    "matplotlib",
    "nicegui",
    "onnxruntime",
    "pandas",
    "peft",
    "pyarrow",
    "rapidfuzz",
    "sacrebleu",
    "scipy",
    "sklearn",
    "sympy",
    "torch._dynamo",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torchvision",
}
PREDICT = """
import json, sys
from tunedeck.cli.main import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)))
"""


def test_predict_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    deck.add("reds", td.LoraConfig(target_modules=("query", "value")))
    tiny_models.stir(deck, "reds")
    deck.save("reds", tmp_path / "reds")
    arguments = [
        "predict",
        "a text",
        "--adapter",
        tmp_path / "reds",
        "--model",
        tiny_models.folder_of("bert", "classifier"),
    ]
    done = subprocess.run(
        [sys.executable, "-c", PREDICT, *map(str, arguments), "--dtype", "float32", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        check=True,
    )
    *answer, modules = done.stdout.splitlines()
    (said,) = json.loads("\n".join(answer))["predictions"]
    (expected,) = deck.predict(["a text"], adapter="reds")
    assert (said["label"], said["score"]) == (expected.label, pytest.approx(expected.score, abs=1e-6))
    assert NOT_NEEDED & {*json.loads(modules)} == set()

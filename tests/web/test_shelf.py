"""What is below a folder, read without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tunedeck.web.folder import Folder
from tunedeck.web.shelf import item_named, items


def write(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value), encoding="utf-8")


def manifest(**values: Any) -> dict[str, Any]:
    return {"base": {"reference": "bundled:x"}, "task": {"kind": "classify"}, "method": {"kind": "lora"}, **values}


def fill(root: Path) -> None:
    write(root / "mail/tunedeck.json", manifest(metrics={"accuracy": 0.9}))
    write(root / "peft/adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "org/base"})
    write(root / "runs/done/events.jsonl", {"event": "start"})
    write(root / "runs/done/metrics.json", {"accuracy": 0.8})
    write(root / "runs/done/adapter/tunedeck.json", manifest(metrics={"accuracy": 0.8}))
    write(root / "runs/begun/events.jsonl", {"event": "start"})
    (root / "runs/begun/config.yaml").write_text("model: org/base\nmethod: bottleneck\ndata: {train: a.csv}\n")
    rows = [{"name": "lora", "accuracy": 0.7, "runs": [{"folder": "runs/lora/seed-0"}]}]
    write(root / "compare/c/comparison.json", {"rows": rows, "metric": "accuracy", "recommendation": {"entry": "lora"}})
    write(root / "compare/c/runs/lora/seed-0/adapter/tunedeck.json", manifest())
    write(root / ".bin/old/tunedeck.json", manifest())
    write(root / "broken/tunedeck.json", ["not a manifest"])


def test_every_adapter_run_and_comparison_is_found_once(tmp_path: Path) -> None:
    fill(tmp_path)
    found = {one.name: one for one in items(Folder(tmp_path))}
    assert {name: one.kind for name, one in found.items()} == {
        "mail": "adapter",
        "peft": "adapter",
        "broken": "adapter",
        "runs/done": "run",
        "runs/begun": "run",
        "compare/c": "comparison",
    }
    assert (found["mail"].method, found["mail"].metric, found["mail"].quality) == ("lora", "accuracy", 0.9)
    assert (found["peft"].base, found["peft"].adapter) == ("org/base", "peft")
    assert (found["runs/done"].adapter, found["runs/done"].finished) == ("runs/done/adapter", True)
    begun = found["runs/begun"]
    assert (begun.method, begun.data, begun.adapter, begun.finished) == ("bottleneck", "a.csv", None, False)
    assert (found["compare/c"].quality, found["compare/c"].adapter) == (0.7, "compare/c/runs/lora/seed-0/adapter")


def test_a_search_is_by_every_word(tmp_path: Path) -> None:
    fill(tmp_path)
    found = items(Folder(tmp_path))
    assert [one.name for one in found if one.has("BOTTLENECK begun")] == ["runs/begun"]
    assert not [one for one in found if one.has("bottleneck mail")]


def test_what_is_none_of_them_has_no_item(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert item_named(Folder(tmp_path), "empty") is None


def test_the_shelf_loads_no_torch() -> None:
    code = (
        "import sys, tunedeck.web.shelf, tunedeck.web.processes, tunedeck.web.guard; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

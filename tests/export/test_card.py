"""The model card: what the hub reads out of it, what stands in it, and that nothing in it is invented or breaks out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from support import tiny_models
from support.labelled_words import rows

import tunedeck as td
from tunedeck.core.errors import AdapterFileError, ConfigError, StorageError
from tunedeck.data.labelled import Example
from tunedeck.export.card import loading, save_card
from tunedeck.export.markdown import code, code_block, table
from tunedeck.formats.manifest import read_manifest
from tunedeck.tasks.base import Dataset

SHA = "ab" * 32
LABELS = tiny_models.LABELS


def trained(tmp_path: Path, config: Any = None) -> Path:
    """A run folder of a few steps on words; its adapter folder."""
    deck = tiny_models.deck_of("bert")
    deck.add("reds", config or td.LoraConfig(r=4))
    examples = [Example(text, (label,)) for text, label in rows(12)]
    data = Dataset("words.csv", examples[:8], examples[8:], SHA, "words", LABELS)
    settings = td.TrainingSettings(max_steps=2, batch_size=4)
    run = td.train(deck, "reds", data, settings=settings, out=tmp_path / "reds", progress=False)
    assert run.folder is not None
    (run.folder / "config.yaml").write_text(yaml.safe_dump({"training": settings.model_dump(mode="json")}))
    return run.folder / "adapter"


def rewritten(folder: Path, **changes: Any) -> Path:
    file = folder / "tunedeck.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    return folder


def front_matter(file: Path) -> dict[str, Any]:
    return ModelCard.load(file).data.to_dict()


def test_the_card_says_what_the_run_left_behind(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    file = save_card(folder, tmp_path / "out", licence="MIT", cost="0.35 CNY")
    manifest = read_manifest(folder)
    assert manifest is not None
    assert manifest.measurement is not None
    data = front_matter(file)
    assert (data["library_name"], data["license"], data["pipeline_tag"]) == ("peft", "mit", "text-classification")
    assert data["tags"] == ["tunedeck", "lora"]
    (index,) = data["model-index"]
    assert index["name"] == "reds"
    told = {metric["type"]: metric["value"] for metric in index["results"][0]["metrics"]}
    assert told == manifest.metrics
    text = file.read_text()
    for known in (
        f"| sha256 of the training examples | `{SHA}` |",
        "| source | `words.csv` |",
        "| training examples | 8 |",
        f"| base fingerprint | `{manifest.base.fingerprint}` |",
        "| labels | `red`, `green`, `blue` |",
        "| `r` | `4` |",
        "| `max_steps` | `2` |",
        f"| training | {manifest.measurement['train_s']:.1f} s, 2 steps |",
        "| money | 0.35 CNY |",
        f"| `accuracy` | {manifest.metrics['accuracy']:.4g} |",
    ):
        assert known in text


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    folder = rewritten(trained(tmp_path), data=None, metrics={}, measurement=None, versions={})
    (folder.parent / "config.yaml").unlink()
    file = save_card(folder, tmp_path / "card.md", licence="mit")
    text = file.read_text()
    assert not {"datasets", "base_model", "model-index", "base_model_relation"} & front_matter(file).keys()
    assert all(word not in text for word in ("## Data", "## Metrics", "machine", "money", "None", "null"))


@pytest.mark.parametrize(
    ("reference", "hub_id"), [("hf:org/base", "org/base"), ("org/base", "org/base"), ("ms:o/b", None)]
)
def test_a_base_and_data_from_the_hub_are_linked(reference: str, hub_id: str | None, tmp_path: Path) -> None:
    folder = rewritten(
        trained(tmp_path),
        base={"reference": reference},
        data={"source": "hf:org/data", "sha256": SHA, "examples": 8},
    )
    data = front_matter(save_card(folder, tmp_path / "card.md", licence="mit"))
    assert (data.get("base_model"), data.get("base_model_relation")) == (hub_id, hub_id and "adapter")
    assert data["datasets"] == ["org/data"]


def test_the_licence_is_that_of_a_bundled_base_or_must_be_named(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    with pytest.raises(ConfigError, match="name the adapter's with --licence"):
        save_card(folder, tmp_path / "a.md")
    rewritten(folder, base={"reference": "bundled:all-minilm-l6-v2"})
    assert front_matter(save_card(folder, tmp_path / "b.md"))["license"] == "apache-2.0"
    own = front_matter(save_card(folder, tmp_path / "c.md", licence="Ours: 1.0"))
    assert (own["license"], own["license_name"]) == ("other", "Ours: 1.0")


def test_names_from_files_do_not_break_out_of_their_place(tmp_path: Path) -> None:
    bad = "x` | y\n---\nlicense: gpl\n# z ```"
    task = {"kind": "classify", "labels": [bad, "b", "c"], "multi_label": False, "max_length": 32}
    folder = rewritten(trained(tmp_path), task=task, data={"source": bad, "sha256": bad, "examples": 8})
    file = save_card(folder, tmp_path / "card.md", licence="mit")
    data, text = front_matter(file), file.read_text()
    assert data["license"] == "mit"
    assert data["model-index"][0]["results"][0]["dataset"]["type"] == bad
    _, body = text.split("\n---\n")
    assert "\nlicense: gpl" not in body
    assert not [line for line in body.splitlines() if line.startswith("# z")]
    assert all(line.replace("\\|", "").count("|") == 3 for line in body.splitlines() if line.startswith("| "))


def test_a_place_that_is_taken_and_a_folder_without_a_record_are_refused(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    (tmp_path / "README.md").write_text("kept")
    with pytest.raises(StorageError, match=r"README\.md already exists"):
        save_card(folder, tmp_path, licence="mit")
    assert (tmp_path / "README.md").read_text() == "kept"
    (folder / "tunedeck.json").unlink()
    with pytest.raises(AdapterFileError, match=r"no tunedeck\.json.*by hand"):
        save_card(folder, tmp_path / "b.md", licence="mit")


@pytest.mark.parametrize("changes", [{"measurement": {"train_s": 1}}, {"task": {"labels": 3}}])
def test_a_damaged_record_is_an_error_and_leaves_no_card(changes: dict[str, Any], tmp_path: Path) -> None:
    folder = rewritten(trained(tmp_path), **changes)
    with pytest.raises(AdapterFileError, match=r"tunedeck\.json is damaged"):
        save_card(folder, tmp_path / "card.md", licence="mit")
    assert not (tmp_path / "card.md").exists()


def test_a_record_of_an_unknown_task_is_refused_by_its_name(tmp_path: Path) -> None:
    folder = rewritten(trained(tmp_path), task={"kind": "dance"})
    with pytest.raises(ConfigError, match=r"unknown task 'dance'; allowed: classify, generate, embed"):
        save_card(folder, tmp_path / "card.md", licence="mit")


@pytest.mark.parametrize("form", ["peft", "adapterhub"])
def test_the_code_to_load_it_is_python(form: str, tmp_path: Path) -> None:
    folder = trained(tmp_path)
    manifest = read_manifest(rewritten(folder, base={"reference": 'hf:o/"b"'}))
    assert manifest is not None
    blocks = loading("re'ds", form, manifest).split("```python\n")[1:]
    assert len(blocks) == 2
    for block in blocks:
        compile(block.split("\n```")[0], "card", "exec")


def test_the_code_for_tunedeck_runs(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    manifest = read_manifest(rewritten(folder, base={"reference": tiny_models.folder_of("bert", "classifier")}))
    assert manifest is not None
    text = loading("reds", "peft", manifest).split("```python\n")[1].split("\n```")[0]
    text = text.replace("PATH/TO/THIS/FOLDER", str(folder))
    text = text.replace(repr(Path(manifest.base.reference).name), repr(manifest.base.reference)).replace(
        '"..."', '"w40"'
    )
    found: dict[str, Any] = {}
    exec(text, found)
    with torch.no_grad():
        assert found["deck"].adapters == ("reds",)


def test_code_and_tables_hold_any_text() -> None:
    assert code("a") == "`a`"
    assert code("a`b") == "``a`b``"
    assert code("`a\nb") == "`` `a b ``"
    assert code("") == "`  `"
    assert code_block("x", "a```b") == "````x\na```b\n````"
    assert table(("a", "b"), [("1|2", "3")]) == "| a | b |\n| --- | --- |\n| 1\\|2 | 3 |"

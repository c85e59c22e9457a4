"""What a sentence-transformers folder says of itself becomes the task's settings; explicit settings win."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
from support import tiny_models

import tunedeck as td
from tunedeck.core.errors import ModelError
from tunedeck.models.sentence import SentenceSettings, sentence_settings

MODULES = ["Transformer", "Pooling", "Normalize"]


def folder(
    path: Path, pooling: dict[str, Any], modules: list[str] = MODULES, told: dict[str, Any] | None = None
) -> str:
    """A model folder with the settings files beside its weights."""
    shutil.copytree(tiny_models.folder_of("bert", "plain"), path)
    names = {"Transformer": "", "Pooling": "1_Pooling"}
    listed = [
        {
            "idx": n,
            "name": str(n),
            "path": names.get(kind, f"{n}_{kind}"),
            "type": f"sentence_transformers.models.{kind}",
        }
        for n, kind in enumerate(modules)
    ]
    (path / "modules.json").write_text(json.dumps(listed))
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (path / "config_sentence_transformers.json").write_text(json.dumps(told or {}))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40}))
    return str(path)


@pytest.mark.parametrize(
    ("config", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "cls", "embedding_dimension": 32}, "first"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
    ],
)
def test_both_forms_of_the_pooling_file_are_read(
    config: dict[str, Any], pooling: Literal["mean", "first", "last"], tmp_path: Path
) -> None:
    found = sentence_settings(folder(tmp_path / "m", config))
    assert found == SentenceSettings(pooling, True, "", "", 40)


def test_prompts_and_normalisation_become_the_tasks_settings_where_none_are_set(tmp_path: Path) -> None:
    told = {"prompts": {"query": "w40 ", "passage": "w41 "}}
    model = folder(tmp_path / "m", {"pooling_mode_cls_token": True}, MODULES[:2], told)
    task = td.Deck.load(model, td.Embed(), dtype="float32").task
    assert task == td.Embed("first", False, "w40 ", "w41 ", 40)
    chosen = td.Embed(pooling="mean", normalize=True, query_instruction="", max_length=30)
    task = td.Deck.load(model, chosen, dtype="float32").task
    assert task == td.Embed("mean", True, "", "w41 ", 30)


def test_the_default_prompt_stands_before_what_has_none_of_its_own(tmp_path: Path) -> None:
    told = {"prompts": {"s": "w40 ", "query": "w41 "}, "default_prompt_name": "s"}
    found = sentence_settings(folder(tmp_path / "m", {"pooling_mode": "mean"}, MODULES, told))
    assert found is not None
    assert (found.query_prompt, found.document_prompt) == ("w41 ", "w40 ")


def test_a_model_that_is_not_of_this_kind_gets_the_plain_defaults() -> None:
    assert sentence_settings(tiny_models.folder_of("bert", "plain")) is None
    task = td.Deck.load(tiny_models.folder_of("bert", "plain"), td.Embed(), dtype="float32").task
    assert task == td.Embed("mean", True, "", "", 512)


@pytest.mark.parametrize(
    ("config", "modules", "text"),
    [
        ({"pooling_mode_max_tokens": True}, MODULES, "pooling max"),
        ({"pooling_mode": ["cls", "mean"]}, MODULES, r"pooling cls \+ mean"),
        ({"pooling_mode": "mean"}, [*MODULES, "Dense"], "Dense"),
        ({"pooling_mode": "mean", "include_prompt": False}, MODULES, "include_prompt: false"),
    ],
)
def test_what_cannot_be_done_is_refused_unless_pooling_is_chosen(
    config: dict[str, Any], modules: list[str], text: str, tmp_path: Path
) -> None:
    model = folder(tmp_path / "m", config, modules)
    with pytest.raises(ModelError, match=text):
        td.Deck.load(model, td.Embed(), dtype="float32")
    task = td.Deck.load(model, td.Embed(pooling="first"), dtype="float32").task
    assert isinstance(task, td.Embed)
    assert task.pooling == "first"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    model = folder(tmp_path / "m", {"pooling_mode": "mean"})
    (tmp_path / "m" / "1_Pooling" / "config.json").write_text("{")
    with pytest.raises(ModelError, match="is damaged"):
        sentence_settings(model)

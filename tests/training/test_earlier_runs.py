"""Runs that version 0.1.0 began: their checkpoints name settings as that version did."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunedeck.core.errors import TrainingError
from tunedeck.tasks.classify.config import ClassifyConfig
from tunedeck.training.config import run_config, stored_values
from tunedeck.training.resume import check_same

NOW = {"data.train": "ab", "training.gradient_accumulation_steps": 2, "training.warmup_ratio": 0.06, "training.seed": 0}
BEFORE = {"data.train": "ab", "training.accumulation": 2, "training.warmup": 0.06, "training.seed": 0}


def test_a_checkpoint_with_the_earlier_names_of_settings_is_the_same_run() -> None:
    check_same(Path("run"), BEFORE, NOW)


def test_a_checkpoint_from_before_heads_had_a_start_is_of_a_random_head_that_the_model_reads() -> None:
    task = {"task.kind": "classify", "task.labels": ["x", "y"]}
    before, now = {**BEFORE, **task}, {**NOW, **task, "task.pooling": "model", "training.head_init": "random"}
    check_same(Path("run"), before, now)
    with pytest.raises(TrainingError, match=r"training.head_init was random, is probe"):
        check_same(Path("run"), before, {**now, "training.head_init": "probe"})
    with pytest.raises(TrainingError, match=r"task.pooling was model, is mean"):
        check_same(Path("run"), before, {**now, "task.pooling": "mean"})


def test_a_checkpoint_from_before_a_method_had_a_setting_has_its_default() -> None:
    before, now = {**BEFORE, "method.kind": "lora"}, {**NOW, "method.kind": "lora", "method.use_dora": False}
    task = {"task.kind": "classify", "training.head_init": "random"}
    check_same(Path("run"), {**before, **task}, {**now, **task})
    with pytest.raises(TrainingError, match=r"method.use_dora was False, is True"):
        check_same(Path("run"), {**before, **task}, {**now, **task, "method.use_dora": True})


def test_a_checkpoint_that_calls_the_first_position_cls_is_the_same_run() -> None:
    before = {**BEFORE, "task.kind": "embed", "task.pooling": "cls"}
    check_same(Path("run"), before, {**NOW, "task.kind": "embed", "task.pooling": "first"})


def test_a_run_folder_from_before_heads_had_a_start_keeps_a_random_head_that_the_model_reads() -> None:
    kept = stored_values({"model": "m", "task": "classify", "training": {"warmup": 0.1}})
    assert kept["training"] == {"head_init": "random", "warmup_ratio": 0.1}
    assert run_config({**kept, "data": {"train": "a"}}).task == ClassifyConfig(pooling="model")
    now = {"model": "m", "task": {"kind": "classify"}, "training": {"head_init": "random"}}
    assert stored_values(now) == now


def test_a_setting_that_differs_is_told_by_its_present_name() -> None:
    with pytest.raises(TrainingError, match=r"training.gradient_accumulation_steps was 4, is 2"):
        check_same(Path("run"), {**BEFORE, "training.accumulation": 4}, NOW)

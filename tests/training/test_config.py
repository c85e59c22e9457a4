"""Run files: keys are checked, flags win, mistakes name the nearest valid key."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from tunedeck.core.errors import ConfigError, UnsupportedKindError
from tunedeck.methods.bottleneck.config import BottleneckConfig
from tunedeck.methods.full.config import FullConfig
from tunedeck.methods.lora.config import LoraConfig
from tunedeck.tasks.classify.config import ClassifyConfig
from tunedeck.tasks.embed.config import EmbedConfig
from tunedeck.tasks.generate.config import GenerateConfig
from tunedeck.training.config import (
    TrainingSettings,
    override,
    parsed_assignments,
    read_run_file,
    run_config,
    stored_values,
)

PLAIN = {"model": "m", "data": {"train": "t.csv"}}


def test_a_run_file_with_two_keys_is_a_run() -> None:
    config = run_config(PLAIN)
    assert config.training.batch_size == 32
    assert config.method == LoraConfig()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("lora", LoraConfig()),
        ({"kind": "lora", "r": 4, "target_modules": ["query"]}, LoraConfig(r=4, target_modules=("query",))),
        ("houlsby", BottleneckConfig("double_seq_bn")),
        ({"kind": "bottleneck", "name": "par_bn"}, BottleneckConfig("par_bn")),
        ("head", FullConfig(layers="head")),
        ({"kind": "full", "layers": 2}, FullConfig(layers=2)),
        ({"r": 4}, LoraConfig(r=4)),
        (LoraConfig(r=4), LoraConfig(r=4)),
    ],
)
def test_a_method_is_named_or_spelled_out(method: object, expected: object) -> None:
    assert run_config({**PLAIN, "method": method}).method == expected


@pytest.mark.parametrize("method", ["lora", "double_seq_bn", {"kind": "full", "layers": 2}, {"rank_pattern": {"q": 4}}])
def test_a_run_is_the_same_after_it_was_written_and_read(method: object) -> None:
    config = run_config({**PLAIN, "method": method})
    assert run_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("generate", GenerateConfig()),
        ({"kind": "embed", "pooling": "last"}, EmbedConfig(pooling="last")),
        ({"labels": ["x", "y"]}, ClassifyConfig(labels=("x", "y"))),
        ({"kind": "embed", "pooling": "cls"}, EmbedConfig(pooling="first")),
    ],
)
def test_a_task_is_named_or_spelled_out_and_the_same_after_it_was_written_and_read(task: Any, expected: Any) -> None:
    config = run_config({**PLAIN, "task": task})
    assert config.task == expected
    assert run_config(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config


def test_prompt_tuning_may_be_written_with_a_hyphen() -> None:
    assert run_config({**PLAIN, "method": "prompt-tuning"}).method.kind == "prompt_tuning"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({**PLAIN, "modle": 1}, "unknown key 'modle' (did you mean 'model'?)"),
        ({**PLAIN, "training": {"epoch": 3}}, "unknown key 'training.epoch' (did you mean 'epochs'?)"),
        ({**PLAIN, "data": {"train": "x", "txt": "a"}}, "unknown key 'data.txt' (did you mean 'text'?)"),
        ({**PLAIN, "method": {"kind": "lora", "alpha": 3}}, "unknown key 'method.alpha' (did you mean 'lora_alpha'?)"),
        ({"model": "m"}, "the key 'data' is missing"),
        ({**PLAIN, "training": {"epochs": -1}}, "training.epochs: must be > 0, got -1"),
        ({**PLAIN, "training": {"batch_size": "many"}}, "training.batch_size"),
        ({**PLAIN, "method": {"kind": "lora", "r": 0}}, "r must be 1 or more, got 0"),
        ({**PLAIN, "task": {"kind": "generate", "pack": True}}, "unknown key 'task.pack' (did you mean 'packing'?)"),
        ({**PLAIN, "task": {"pooling": "max"}}, "task.pooling: "),
        ({**PLAIN, "task": "clasify"}, "unknown task 'clasify' (did you mean 'classify'?); allowed: classify, "),
        ({**PLAIN, "task": 3}, "task: must be a name or a group of keys with kind, got 3"),
        ({**PLAIN, "method": 3}, "method: must be a name or a group of keys with kind, got 3"),
    ],
)
def test_a_mistake_is_named(values: dict[str, object], text: str) -> None:
    with pytest.raises(ConfigError) as error:
        run_config(values)
    assert text in str(error.value)


def test_an_unknown_method_lists_the_supported_ones() -> None:
    with pytest.raises(
        UnsupportedKindError, match="supported: lora, bottleneck, prompt_tuning, prefix_tuning, ia3, bias, full"
    ):
        run_config({**PLAIN, "method": "dora"})


def test_flags_win_over_keys_and_leave_the_rest() -> None:
    values = override(
        {**PLAIN, "training": {"epochs": 3, "seed": 1}}, {"training.epochs": 5, "model": None, "out": "x"}
    )
    assert values == {**PLAIN, "training": {"epochs": 5, "seed": 1}, "out": "x"}
    assert override({"method": "lora"}, {"method.r": 4}) == {"method": {"kind": "lora", "r": 4}}


OLD = {
    "accumulation": 4,
    "warmup": 0.1,
    "clip": None,
    "eval_every": 5,
    "patience": 3,
    "checkpointing": 3,
    "best_by": "loss",
}


def test_earlier_names_of_settings_work_with_a_note_that_names_the_present_one() -> None:
    with pytest.warns(UserWarning, match=r"training.accumulation is called training.gradient_accumulation_steps now"):
        settings = TrainingSettings(**OLD)
    assert settings == TrainingSettings(
        gradient_accumulation_steps=4,
        warmup_ratio=0.1,
        max_grad_norm=None,
        eval_steps=5,
        early_stopping_patience=3,
        gradient_checkpointing=3,
        metric_for_best_model="loss",
    )
    with pytest.warns(UserWarning, match=r"training.warmup is called training.warmup_ratio now"):
        assert override({**PLAIN, "training": {"warmup": 0.1}}, {"training.warmup": 0.2})["training"] == {
            "warmup_ratio": 0.2
        }


def test_a_flag_under_the_present_name_wins_over_the_earlier_one_in_the_file() -> None:
    with pytest.warns(UserWarning, match="training.patience is called"):
        values = override({"training": {"patience": 1}}, {"training.early_stopping_patience": 2})
    assert values == {"training": {"early_stopping_patience": 2}}
    with pytest.raises(ConfigError, match="early_stopping_patience is given twice, as patience too"):
        TrainingSettings.model_validate({"patience": 1, "early_stopping_patience": 2})


def test_what_an_earlier_version_wrote_into_a_run_folder_is_read_without_a_note() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = run_config(stored_values({**PLAIN, "training": OLD}))
        assert [job["training"] for job in stored_values({"jobs": [{"training": {"clip": 1}}]})["jobs"]] == [
            {"head_init": "random", "max_grad_norm": 1}
        ]
    assert config.training.gradient_accumulation_steps == 4


def test_assignments_are_yaml() -> None:
    assert parsed_assignments(["a.b=[1, x]", "c=false"]) == {"a.b": [1, "x"], "c": False}
    with pytest.raises(ConfigError, match="key=value"):
        parsed_assignments(["a"])


def test_a_run_file_that_is_missing_or_no_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no run file"):
        read_run_file(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- a\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="must hold keys"):
        read_run_file(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="is not YAML"):
        read_run_file(tmp_path / "broken.yaml")

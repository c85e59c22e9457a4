"""The JSON schema of run files says what `run_config` accepts, and the reference page is made from it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.settings_page import PAGE, settings_page

from tunedeck.core.settings import settings_of
from tunedeck.core.task_settings import CONFIGS
from tunedeck.methods.registry import METHODS
from tunedeck.training.config import TrainingSettings
from tunedeck.training.earlier_names import RENAMED
from tunedeck.training.job_file import run_configs
from tunedeck.training.schema import run_schema

ROOT = Path(__file__).parents[2]


def run_files() -> list[tuple[str, dict[str, Any]]]:
    """The run files of the examples and those that the documents show."""
    found = [(str(file.relative_to(ROOT)), file.read_text()) for file in sorted((ROOT / "examples").rglob("*.yaml"))]
    for page in (ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").rglob("*.md"))):
        blocks = page.read_text().split("```yaml\n")[1:]
        found += [(f"{page.name} {n}", block.partition("```")[0]) for n, block in enumerate(blocks)]
    values = [(name, yaml.safe_load(text)) for name, text in found if "\n---" not in text]
    return [(name, one) for name, one in values if isinstance(one, dict) and {"model", "data"} <= set(one)]


def test_the_reference_page_is_what_the_settings_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == settings_page(), "run: make pages"


def test_every_setting_has_a_description_and_a_place_in_the_schema() -> None:
    definitions = run_schema()["$defs"]
    for name, one in definitions.items():
        for key, setting in one["properties"].items():
            assert setting.get("description"), f"{name}.{key}"
    for kind, config in METHODS.items():
        assert [*definitions[f"method_{kind}"]["properties"]] == ["kind", *(s.name for s in settings_of(config))]
    for kind, task in CONFIGS.items():
        assert [*definitions[f"task_{kind}"]["properties"]] == ["kind", *(s.name for s in settings_of(task))]


def test_methods_and_tasks_are_told_apart_by_kind_and_may_be_a_name_alone() -> None:
    schema = run_schema()
    method = schema["properties"]["method"]
    assert {"lora", "head", "seq_bn", "prompt_tuning", "prompt-tuning"} <= set(method["oneOf"][0]["enum"])
    kinds = [schema["$defs"][one["$ref"].rpartition("/")[2]] for one in method["oneOf"][1:]]
    named = [name for one in kinds for name in one["properties"]["kind"]["enum"]]
    assert len(named) == len(set(named))
    assert [one["required"] for one in kinds] == [[], *[["kind"]] * (len(kinds) - 1)]


def test_earlier_names_are_marked_as_deprecated() -> None:
    properties = run_schema()["$defs"]["TrainingSettings"]["properties"]
    assert {key for key, one in properties.items() if one.get("deprecated")} == set(RENAMED)
    assert set(properties) - set(RENAMED) == set(TrainingSettings.model_fields)


def test_the_run_files_of_examples_and_documents_are_valid() -> None:
    files = run_files()
    assert {"examples/reviews-zh/run.yaml", "README.md 0"} <= {name for name, _ in files}
    for name, values in files:
        for config in run_configs(values):
            assert config.task, name
            assert config.method, name


@pytest.mark.skipif(find_spec("jsonschema") is None, reason="needs jsonschema")
def test_the_schema_accepts_those_files_and_refuses_an_unknown_key() -> None:
    import jsonschema

    check = jsonschema.Draft202012Validator(run_schema())
    for name, values in run_files():
        assert not list(check.iter_errors(values)), name
    wrong = {"model": "m", "data": {"train": "a"}, "method": {"kind": "lora", "layers": 2}}
    assert not check.is_valid(wrong)

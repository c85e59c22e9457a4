"""What is replaced while transformers is imported for answering."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from transformers import utils
from transformers.utils import import_utils

from tunedeck.core.compat import inference_imports


@pytest.mark.parametrize("name", inference_imports._MODULES)
def test_a_module_that_is_imported_ahead_is_one_of_transformers(name: str) -> None:
    assert import_module(f"transformers.{name}")


@pytest.mark.parametrize("name", ["is_scipy_available", "is_sklearn_available"])
def test_transformers_asks_for_optional_packages_by_these_functions(name: str) -> None:
    assert getattr(utils, name) is getattr(import_utils, name)


def test_the_structure_of_the_models_is_read_by_a_function_of_a_path() -> None:
    assert callable(import_utils.create_import_structure_from_path)
    assert callable(torch.distributed.is_available)


def test_nothing_is_replaced_where_models_are_imported_already() -> None:
    before = torch.distributed.is_available
    inference_imports.import_for_inference()
    assert torch.distributed.is_available is before

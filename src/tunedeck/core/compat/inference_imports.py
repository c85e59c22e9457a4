"""Import transformers without what answering never uses, as of transformers 5.23 and torch 2.13.

`transformers.modeling_utils` imports scipy for the losses of object detection, torch.distributed.tensor with
sympy for sharded models, and torch._dynamo for decorators; it also reads the sources of all its models twice. That
is a third of the time that `tunedeck predict` takes; transformers has no setting for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tunedeck.core.process import without_garbage_collection

_MODULES = ("modeling_utils", "masking_utils", "modeling_layers", "generation.utils")
_DYNAMO = ("torch._dynamo", "torch._dynamo._trace_wrapped_higher_order_op")


def import_for_inference() -> None:
    """Import transformers as on a machine without scipy, scikit-learn and torch.distributed.

    For a process that answers and does nothing else, since these modules stay as they are imported: a later FSDP in the
    same process would fail. Does nothing where transformers' models were imported before.
    """
    if "transformers.modeling_utils" in sys.modules or "torch._dynamo" in sys.modules:
        return
    with ExitStack() as changed:
        changed.enter_context(without_garbage_collection())
        import torch
        from transformers import utils
        from transformers.utils import import_utils

        changed.enter_context(_without_dynamo())
        changed.enter_context(_replaced(torch.distributed, "is_available", _no))
        for module in (utils, import_utils):
            for name in ("is_scipy_available", "is_sklearn_available"):
                changed.enter_context(_replaced(module, name, _no))
        structure = import_utils.create_import_structure_from_path
        changed.enter_context(_replaced(import_utils, structure.__name__, _read_once(structure)))
        for name in _MODULES:
            import_module(f"transformers.{name}")


def _no(*_: object) -> bool:
    return False


@contextmanager
def _replaced(module: Any, name: str, value: object) -> Iterator[None]:
    """Replace a function of a module for a while, where the module has one of that name."""
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


def _read_once(structure: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return the function that reads the sources of all models, which takes the folder's structure for its `__init__`.

    They are the same, and transformers has that of the folder in its cache when it asks for the other one.
    """
    init = Path(sys.modules["transformers"].__file__ or "").parent / "models" / "__init__.py"

    def read(path: Any) -> Any:
        return structure(init.parent if Path(path) == init else path)

    return read


@contextmanager
def _without_dynamo() -> Iterator[None]:
    """Let transformers be imported without torch._dynamo, whose decorators change nothing that is not compiled."""
    dynamo, wrapped = stand_ins = [ModuleType(name) for name in _DYNAMO]
    vars(dynamo).update(dict.fromkeys(("allow_in_graph", "assume_constant_result", "disable"), _unchanged))
    vars(wrapped)["TransformGetItemToIndex"] = _transform_get_item_to_index
    sys.modules.update(zip(_DYNAMO, stand_ins, strict=True))
    try:
        yield
    finally:
        for name in _DYNAMO:
            del sys.modules[name]
        vars(sys.modules["torch"]).pop("_dynamo", None)


def _unchanged(function: Any = None, recursive: bool = True, *, reason: object = None, wrapping: bool = True) -> Any:
    """Return the decorated function as it is; a decorator where there is none yet."""
    return _unchanged if function is None else function


def _transform_get_item_to_index() -> Any:
    return import_module(_DYNAMO[1]).TransformGetItemToIndex()

"""Where an adapter can be exported to, told from its folder before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tunedeck.core.errors import TunedeckError, UnsupportedKindError
from tunedeck.core.i18n import say
from tunedeck.deck.merge import check_mergeable
from tunedeck.export.gguf_lora import check_gguf
from tunedeck.export.onnx.graph import needs_packages, onnx_form
from tunedeck.export.standalone import OpenedAdapter, open_adapter
from tunedeck.export.transformers_folder import check_head
from tunedeck.export.vllm import check_vllm
from tunedeck.formats.folder import adapter_name, check_format


def refusals(folder: Path) -> dict[str, str | None]:
    """Return the targets of `tunedeck export` with the reason why an adapter cannot go there, None where it can.

    Of the base only the config is read; what shows in its weights alone is still refused while exporting. Raises as
    `open_adapter`.
    """
    opened, name = open_adapter(folder), adapter_name(folder)
    return {target: _reason(check, name, opened) for target, check in _CHECKS.items()}


def _reason(check: Callable[[str, OpenedAdapter], object], name: str, opened: OpenedAdapter) -> str | None:
    try:
        check(name, opened)
    except TunedeckError as error:
        return str(error)
    return None


def _merge(name: str, opened: OpenedAdapter) -> None:
    check_head(name, opened.task, opened.base.model)
    check_mergeable(opened.stored.config)


def _onnx(name: str, opened: OpenedAdapter) -> None:
    needs_packages()
    onnx_form(opened.task, [name])


def _sentence_transformers(name: str, opened: OpenedAdapter) -> None:
    if "vectors" not in opened.task.capabilities:
        kind = opened.task.kind
        raise UnsupportedKindError(
            say(
                "adapter {name!r} is for the task {kind}; sentence-transformers loads adapters for embeddings only, "
                "of the task embed",
                name=name,
                kind=kind,
            )
        )
    check_mergeable(opened.stored.config)


_CHECKS: Mapping[str, Callable[[str, OpenedAdapter], object]] = {
    "merge": _merge,
    "onnx": _onnx,
    "peft": lambda name, opened: check_format(opened.stored.config, "peft"),
    "adapterhub": lambda name, opened: check_format(opened.stored.config, "adapterhub"),
    "sentence-transformers": _sentence_transformers,
    "gguf-lora": lambda name, opened: check_gguf(opened),
    "vllm": check_vllm,
    "card": lambda name, opened: None,
}

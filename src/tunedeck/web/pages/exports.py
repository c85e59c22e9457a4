"""Take an adapter away: each target of `tunedeck export`, those that are not possible with the reason."""

from __future__ import annotations

import asyncio
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nicegui import ui

from tunedeck.core.i18n import say
from tunedeck.core.storage import replacing_file
from tunedeck.core.units import format_bytes
from tunedeck.web.processes import command_text
from tunedeck.web.screen import Screen, heading, same_by_hand, told
from tunedeck.web.workspace import Workspace

_EXPORTS, _EVERY_S = "exports", 1.0
_DECKS = {
    "merge": ("save_merged", "checkpoint"),
    "onnx": ("save_onnx", "float32"),
    "sentence-transformers": ("save_sentence_transformers", "float32"),
}
_FOLDERS = {
    "peft": ("tunedeck.export.folders", "convert_adapter"),
    "adapterhub": ("tunedeck.export.folders", "convert_adapter"),
    "card": ("tunedeck.export.card", "save_card"),
}
"""The functions that write a target: from an open deck in a precision, or from the adapter's folder."""


def show_exports(work: Workspace, here: Screen, adapter: str) -> None:
    """Show a button that looks what is possible, and then the targets."""
    heading(say("Export"), 2)
    ui.label(say("The adapter in the format of another program, as one file to download.")).classes("faint")
    button = ui.button(say("Show the formats")).props("no-caps outline")
    place = ui.column().classes("w-full").props('aria-live="polite"')

    async def look() -> None:
        button.disable()
        with place, ui.row().classes("items-center"):
            ui.spinner()
            ui.label(say("Looking at the adapter …")).classes("faint")
        try:
            found = await asyncio.to_thread(_refusals, work.folder.existing(adapter))
        finally:
            place.clear()
            button.enable()
        button.set_visibility(False)
        with place, ui.element("div").classes("cards"):
            for target, reason in found.items():
                _target(work, here, adapter, target, reason)

    button.on_click(here.on(look))


def _refusals(folder: Path) -> dict[str, str | None]:
    """Return the reasons against each target. Loads torch."""
    from tunedeck.export.targets import refusals

    return refusals(folder)


def _explanations() -> dict[str, str]:
    return {
        "merge": say("a plain transformers folder with the adapter in its weights, verified after writing"),
        "onnx": say("labels, entities, scores or vectors by ONNX Runtime, without torch"),
        "peft": say("a folder that PEFT loads"),
        "adapterhub": say("a folder that AdapterHub's adapters library loads"),
        "sentence-transformers": say("a folder that sentence-transformers loads with the same vectors"),
        "gguf-lora": say("a LoRA file for llama.cpp"),
        "vllm": say("LoRA adapters with the command that serves them by vLLM"),
        "card": say("a model card (README.md) as the hub expects it"),
    }


def _target(work: Workspace, here: Screen, adapter: str, target: str, reason: str | None) -> None:
    from tunedeck.formats.folder import adapter_name  # loads torch, which looking at the targets has done

    name = adapter_name(work.folder.path(adapter))
    out = f"{_EXPORTS}/{name}-{target}" + (".gguf" if target == "gguf-lora" else "")
    arguments = ["export", target, "--adapter", adapter, "--out", out]
    with ui.column().classes("box gap-2"):
        ui.label(target).classes("font-bold")
        ui.label(_explanations()[target]).classes("faint")
        if reason is not None:
            ui.label(say("Not possible: {reason}", reason=reason))
            return
        _state(work, here, out, arguments, ui.column().classes("w-full"))
        same_by_hand(command_text(arguments), _python(target, adapter, out))


def _python(target: str, adapter: str, out: str) -> str:
    """Return the Python that writes a target."""
    if target == "vllm":
        return (
            "from pathlib import Path\n\nfrom tunedeck.export.standalone import open_adapter\n"
            "from tunedeck.export.vllm import save_vllm\n\n"
            f"adapter = Path({adapter!r})\nsave_vllm({{adapter.name: open_adapter(adapter)}}, Path({out!r}))"
        )
    if target == "gguf-lora":
        return (
            "from pathlib import Path\n\nfrom tunedeck.export.gguf_lora import save_gguf_lora\n"
            "from tunedeck.export.standalone import open_adapter\n\n"
            f"save_gguf_lora(open_adapter(Path({adapter!r})), Path({out!r}))"
        )
    if target in _FOLDERS:
        module, call = _FOLDERS[target]
        rest = "" if target == "card" else f", {target!r}"
        return (
            f"from pathlib import Path\n\nfrom {module} import {call}\n\n{call}(Path({adapter!r}), Path({out!r}){rest})"
        )
    call, dtype = _DECKS[target]
    return (
        f"import tunedeck as td\n\ndeck = td.Deck.open({adapter!r}, dtype={dtype!r})\n"
        f"td.{call}(deck, deck.adapters[0], {out!r})"
    )


def _state(work: Workspace, here: Screen, out: str, arguments: list[str], place: Any) -> None:
    """Show what there is of an export: nothing yet, a process, its end, or the file."""

    def show() -> None:
        place.clear()
        with place:
            if work.processes.is_running(out):
                _running(work, here, out, show)
            elif work.folder.path(out).exists():
                _download(work, here, out)
            else:
                if log := work.processes.log(out):
                    with ui.element("div").classes("box error w-full").props("role=alert"):
                        told(log.rpartition("\n")[2])
                ui.button(say("Write it"), on_click=here.on(start)).props("no-caps outline")

    def start() -> None:
        work.folder.path(out).parent.mkdir(exist_ok=True)
        work.processes.start(out, arguments)
        show()

    show()


def _running(work: Workspace, here: Screen, out: str, ended: Callable[[], None]) -> None:
    with ui.row().classes("items-center"):
        ui.spinner()
        ui.label(say("running"))
        ui.button(say("Stop"), on_click=here.on(lambda: work.processes.stop(out))).props(
            "no-caps outline color=negative"
        )

    def look() -> None:
        if not work.processes.is_running(out):
            timer.cancel()
            ended()

    timer = ui.timer(_EVERY_S, here.on(look))


def _download(work: Workspace, here: Screen, out: str) -> None:
    path = work.folder.path(out)

    async def download() -> None:
        if path.is_file():
            ui.download.file(path)
            return
        button.props("loading")
        try:
            packed = await asyncio.to_thread(zipped, path)
        finally:
            button.props(remove="loading")
        ui.download.file(packed)

    button = ui.button(say("Download")).props("no-caps unelevated").on_click(here.on(download))
    size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    ui.label(f"{out} ({format_bytes(size)})").classes("faint")


def zipped(folder: Path) -> Path:
    """Write a folder beside itself as a .zip file, uncompressed as weights are, and return it."""
    target = folder.with_name(folder.name + ".zip")
    with replacing_file(target) as part, zipfile.ZipFile(part, "w") as pack:
        for file in sorted(folder.rglob("*")):
            if file.is_file() and not file.is_symlink():
                pack.write(file, Path(folder.name, file.relative_to(folder)))
    return target

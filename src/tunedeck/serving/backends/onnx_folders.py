"""ONNX exports under a root: FOLDER for a graph with its adapter in it, FOLDER/ADAPTER for each adapter of a graph that
takes several.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

from tunedeck.core.errors import AdapterError, AdapterFileError, BaseMismatchError, ConfigError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.formats.onnx.settings import ADAPTERS, FORMAT, SETTINGS, SUFFIX, TOKENIZER, adapter_file
from tunedeck.formats.tensors import read_json
from tunedeck.serving.infer_base import counted
from tunedeck.serving.repository import AdapterMemory, AdapterRepository
from tunedeck.tasks.base import OnnxView
from tunedeck.tasks.registry import TASKS, view_of


@final
class OnnxFolders:
    """Find the exports of `tunedeck export onnx` as adapters that are loaded in one precision."""

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def adapters_in(self, folder: Path) -> list[Path]:
        """Return the export itself, or a place for each adapter file of its graph."""
        if not _is_export(folder):
            return []
        if not _takes_several(folder):
            return [folder]
        return [folder / file.name.removesuffix(SUFFIX) for file in (folder / ADAPTERS).glob(f"*{SUFFIX}")]

    def files(self, place: Path) -> list[Path]:
        """Return the export, its contents, and the adapter's file."""
        folder, name = split(place)
        own = [] if name is None else [folder / adapter_file(name)]
        if not _is_export(folder) or _takes_several(folder) != bool(own) or not all(file.is_file() for file in own):
            return []
        return [folder, *folder.iterdir(), *own]

    def memory(self, place: Path) -> AdapterMemory:
        """Return the graph's bytes; of one that takes several adapters, the adapter's, and the graph's once for all of
        them.
        """
        folder, name = split(place)
        file = graph_file(read_settings(folder), folder, self.precision)
        graph = sum(part.stat().st_size for part in folder.glob(f"{file.name}*"))
        if name is None:
            return AdapterMemory(graph)
        own = (folder / adapter_file(name)).stat().st_size
        return AdapterMemory(own, {graph_version(folder): graph})


def split(place: Path) -> tuple[Path, str | None]:
    """Return the export's folder, and which adapter of its graph is meant; None where the graph holds its adapter."""
    return (place, None) if _is_export(place) else (place.parent, place.name)


def read_settings(folder: Path) -> dict[str, Any]:
    """settings.json; AdapterFileError where it is damaged, or names a file that is not the folder's own."""
    settings = read_json(folder / SETTINGS)
    adapters, files = settings.get("adapters"), settings.get("files")
    known = (
        settings.get("format") == FORMAT and _servable(settings.get("task")) and isinstance(settings.get("base"), str)
    )
    if not known or not adapters or not isinstance(adapters, dict) or not isinstance(files, dict):
        raise AdapterFileError(
            say("{path} is not what tunedeck export onnx writes; export the adapter again", path=folder / SETTINGS)
        )
    wrong = _wrong(settings)
    if wrong is not None:
        raise AdapterFileError(say("{path} is damaged: {reason}", path=folder / SETTINGS, reason=wrong))
    own = {name: adapter_file(name) for name in adapters}
    strange = [told["file"] for name, told in adapters.items() if told.get("file", own[name]) != own[name]]
    strange += [file for file in files.values() if Path(file).name != file]
    if strange:
        raise AdapterFileError(
            say(
                "{path} names the file {file!r}, which is outside of its folder",
                path=folder / SETTINGS,
                file=strange[0],
            )
        )
    return settings


def servable_view(task: str) -> OnnxView:
    """Return how the answers of a task are read from a graph; ConfigError for a task without such a form."""
    view = view_of(task).onnx
    if view is None:
        raise ConfigError(say("the task {kind} has no ONNX form; use tunedeck export merge", kind=task))
    return view


def _servable(task: object) -> bool:
    return isinstance(task, str) and task in TASKS and TASKS[task].onnx is not None


def _wrong(settings: dict[str, Any]) -> str | None:
    """Return which value of the settings has a type or a size that no answer could be made with."""
    told = {key: settings.get(key) for key in ("pad_id", "truncation_side")}
    if not _is_count(told["pad_id"], 0) or told["truncation_side"] not in ("left", "right"):
        return str(told)
    view = servable_view(settings["task"])
    for adapter in settings["adapters"].values():
        if not isinstance(adapter, dict) or not _is_count(adapter.get("max_length"), 1):
            return f"max_length in {adapter!r}"[:200]
        labels = adapter.get("labels", [])
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            return f"labels: {labels!r}"[:200]
        wrong = view.wrong(adapter)
        if wrong is not None:
            return wrong[:200]
        if not _is_count(adapter.get("virtual_tokens", 0), 0):
            return f"virtual_tokens: {adapter['virtual_tokens']!r}"[:200]
        if not all(isinstance(adapter.get(f"{side}_instruction", ""), str) for side in ("query", "document")):
            return f"instructions in {adapter!r}"[:200]
    return None


def _is_count(value: object, least: int) -> bool:
    return type(value) is int and least <= value <= 10**9


def graph_file(settings: dict[str, Any], folder: Path, precision: str) -> Path:
    """Return the graph of a precision; AdapterFileError where the export has none."""
    files = settings["files"]
    if precision not in files:
        raise AdapterFileError(
            say(
                "{path} has no {precision} graph, it has {known}; export it with --int8, or serve another --precision",
                path=folder,
                precision=precision,
                known=listing(files),
            )
        )
    return folder / str(files[precision])


def graph_version(folder: Path) -> tuple[object, ...]:
    """Tells one state of an export's graph from the next."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return folder, *((file.name, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


def check_servable(settings: dict[str, Any], folder: Path, precision: str, task: str | None, base: str | None) -> None:
    """Raise AdapterError for an export of another task or base, None meaning any, or without a graph of the
    precision.
    """
    graph_file(settings, folder, precision)
    if task not in (None, settings["task"]):
        raise UnsupportedKindError(
            say("{path} is for the task {kind}, this server is for {own}", path=folder, kind=settings["task"], own=task)
        )
    if base not in (None, settings["base"]):
        raise BaseMismatchError(
            say("{path} has the base {base}, this server has {own}", path=folder, base=settings["base"], own=base)
        )


def first_settings(exports: Path, precision: str, task: str | None) -> dict[str, Any]:
    """Return the settings of the first export that can be served, of whose task and base all are that can.

    Raises ConfigError when there is none, which says why, and when they are of several tasks or bases.
    """
    repository = AdapterRepository(exports, OnnxFolders(precision))
    if not repository.folder.is_dir():
        raise ConfigError(say("there is no folder {path}; name the one that holds the adapter folders", path=exports))
    if _is_export(repository.folder) and not _takes_several(repository.folder):
        raise ConfigError(say("{path} is one export; name the folder that holds it, and others", path=exports))
    found: dict[str, dict[str, Any]] = {}
    reason: Exception | None = None
    for name in repository.names():
        folder, _ = split(repository.folder / name)
        try:
            settings = read_settings(folder)
            check_servable(settings, folder, precision, task, None)
        except AdapterError as error:
            reason = reason or error
        else:
            found[name] = settings
    _check_agree(exports, found)
    if found:
        return next(iter(found.values()))
    if reason is not None:
        raise ConfigError(str(reason)) from reason
    raise ConfigError(
        say("{path} holds no ONNX export; write one with: tunedeck export onnx --out {path}/NAME", path=exports)
    )


def _check_agree(exports: Path, found: dict[str, dict[str, Any]]) -> None:
    """Raise ConfigError where exports of several tasks or bases could be served: none of them is to choose for the
    others.
    """
    tasks = {name: str(settings["task"]) for name, settings in found.items()}
    if len(set(tasks.values())) > 1:
        raise ConfigError(
            say(
                "the adapters in {path} are for different tasks: {tasks}; choose one with --task",
                path=exports,
                tasks=counted(tasks),
            )
        )
    bases = {name: str(settings["base"]) for name, settings in found.items()}
    if len(set(bases.values())) > 1:
        raise ConfigError(
            say(
                "the exports in {path} belong to different bases: {bases}; put each base's exports into a "
                "separate folder",
                path=exports,
                bases=counted(bases),
            )
        )


def _is_export(folder: Path) -> bool:
    return (folder / SETTINGS).is_file() and (folder / TOKENIZER).is_file()


def _takes_several(folder: Path) -> bool:
    return (folder / ADAPTERS).is_dir()

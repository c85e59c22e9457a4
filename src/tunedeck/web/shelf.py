"""Find the adapters and runs below a folder, without loading torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from tunedeck.core.errors import AdapterFileError
from tunedeck.formats.manifest import FILE, read_manifest
from tunedeck.web.folder import Folder

Kind = Literal["adapter", "run", "comparison", "race"]
_DEEPEST = 6
_EVENTS, _METRICS, _CONFIG, _PEFT = "events.jsonl", "metrics.json", "config.yaml", "adapter_config.json"
UNKNOWN = "?"
_COMPARISON, _RACE_LOG, _RACE = "comparison.json", "race.jsonl", "race.json"


@dataclass(frozen=True, slots=True)
class Item:
    """An adapter, a run, a comparison or a race, as its folder tells; names are relative, bytes are the adapter's."""

    name: str
    kind: Kind
    method: str
    base: str
    task: str
    metric: str
    quality: float | None
    bytes: int
    changed: float
    """Seconds since the epoch."""
    finished: bool
    adapter: str | None
    """The folder of the adapter to use."""
    data: str = ""

    def has(self, words: str) -> bool:
        """Tell whether every word of a search is in its texts."""
        text = " ".join((self.name, self.kind, self.method, self.base, self.task, self.data)).lower()
        return all(word in text for word in words.lower().split())


def items(folder: Folder) -> list[Item]:
    """Return everything below a folder, the latest first; hidden folders and links are left out."""
    found = []
    for path, kind in _folders(folder.root):
        try:
            found.append(item(folder, path, kind))
        except OSError:  # removed meanwhile
            continue
    return sorted(found, key=lambda one: -one.changed)


def deleted(folder: Folder) -> list[tuple[Path, Item]]:
    """Return what is in the bin, each with the folder of its deletion, the latest first."""
    return [(deletion, one) for deletion in folder.deletions() for one in items(Folder(deletion))]


def item_named(folder: Folder, name: str) -> Item | None:
    """Return one item by its name, None where the folder is none of them yet."""
    path = folder.path(name)
    kind = _kind(path)
    return None if kind is None else item(folder, path, kind)


def item(folder: Folder, path: Path, kind: Kind) -> Item:
    """Return what a folder of a kind tells."""
    found: dict[str, Any] = {
        "adapter": _of_adapter,
        "run": _of_run,
        "comparison": _of_comparison,
        "race": _of_race,
    }[kind](path)
    adapter: Path | None = found.pop("adapter")
    there = adapter is not None and _is_adapter(adapter)
    return Item(
        **found,
        name=folder.name(path),
        kind=kind,
        adapter=folder.name(adapter) if adapter is not None and there else None,
        bytes=_size(adapter) if adapter is not None and there else 0,
        changed=path.stat().st_mtime,
    )


def _folders(root: Path) -> Iterator[tuple[Path, Kind]]:
    for place, folders, _ in os.walk(root):
        path = Path(place)
        kind = _kind(path) if path != root else None
        if kind is not None:
            yield path, kind
        too_deep = len(path.relative_to(root).parts) >= _DEEPEST
        folders[:] = [] if kind or too_deep else [one for one in folders if not one.startswith((".", "_", "node_mod"))]


def _kind(path: Path) -> Kind | None:
    if (path / _COMPARISON).is_file() or next(path.glob("runs/*/seed-*.yaml"), None) is not None:
        return "comparison"
    if (path / _RACE_LOG).is_file() or (path / _RACE).is_file():
        return "race"
    if (path / _EVENTS).is_file():
        return "run"
    return "adapter" if _is_adapter(path) else None


def _is_adapter(path: Path) -> bool:
    return (path / FILE).is_file() or (path / _PEFT).is_file()


def _of_adapter(path: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(path)
    except AdapterFileError:
        manifest = None
    if manifest is None:
        config = read_values(path / _PEFT)
        method, base = (
            str(config.get("peft_type") or UNKNOWN).lower(),
            str(config.get("base_model_name_or_path") or UNKNOWN),
        )
        return _facts(method, base, str(config.get("task_type") or ""), {}, "", path, finished=True)
    data = manifest.data.source if manifest.data else ""
    kind = str(manifest.method.get("kind") or read_values(path / _PEFT).get("peft_type") or UNKNOWN).lower()
    task = str(manifest.task.get("kind") or "")
    return _facts(kind, manifest.base.reference, task, manifest.metrics, data, path, finished=True)


def _of_run(path: Path) -> dict[str, Any]:
    adapter = path / "adapter"
    if _is_adapter(adapter):
        return {**_of_adapter(adapter), "finished": (path / _METRICS).is_file()}
    config = read_values(path / _CONFIG)
    method, task, data = (_kind_of(config.get(key)) for key in ("method", "task", "data"))
    return _facts(method, str(config.get("model") or UNKNOWN), task, {}, data, adapter, finished=False)


def _of_comparison(path: Path) -> dict[str, Any]:
    found = read_values(path / _COMPARISON)
    rows = {str(row.get("name")): row for row in found.get("rows", ()) if isinstance(row, dict)}
    chosen = _mapping(found.get("recommendation")).get("entry")
    row = _mapping(rows.get(str(chosen)))
    metric = str(found.get("metric") or "")
    runs = row.get("runs") or [{}]
    adapter = path / str(_mapping(runs[0]).get("folder") or "runs") / "adapter"
    data = str(_mapping(found.get("data")).get("source") or "")
    metrics = {metric: row.get(metric)} if metric else {}
    facts = (str(chosen or UNKNOWN), str(found.get("model") or UNKNOWN), str(found.get("task") or ""))
    return _facts(*facts, metrics, data, adapter, finished=bool(found))


def _of_race(path: Path) -> dict[str, Any]:
    found = read_values(path / _RACE)
    verdict = _mapping(found.get("verdict"))
    metric = str(found.get("metric") or "")
    data = str(_mapping(found.get("data")).get("source") or "")
    metrics = {metric: verdict.get("untouched")} if metric else {}
    facts = (str(verdict.get("name") or UNKNOWN), str(found.get("model") or UNKNOWN), str(found.get("task") or ""))
    return _facts(*facts, metrics, data, path / "adapter", finished=bool(found))


def _facts(
    method: str, base: str, task: str, metrics: Mapping[str, Any], data: str, adapter: Path, *, finished: bool
) -> dict[str, Any]:
    metric, value = next(((key, one) for key, one in metrics.items() if isinstance(one, int | float)), ("", None))
    facts = {"method": method, "base": base, "task": task, "metric": metric, "quality": value, "data": data}
    return {**facts, "adapter": adapter, "finished": finished}


def metrics_of(adapter: Path) -> dict[str, float]:
    """Return the metrics that an adapter folder records; none where it records none."""
    try:
        manifest = read_manifest(adapter)
    except AdapterFileError:
        return {}
    metrics = {} if manifest is None else manifest.metrics
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}


def read_values(file: Path) -> dict[str, Any]:
    """Return the mapping in a JSON or YAML file; empty where the file is missing, damaged or something else."""
    try:
        text = file.read_text(encoding="utf-8")
        values = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _kind_of(value: object) -> str:
    if isinstance(value, dict):
        return str(value.get("kind") or value.get("train") or "")
    return str(value or "")


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())

"""Reading and writing any adapter folder; which format it is in is told by its content, not by file names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunedeck.core.errors import AdapterFileError, UnsupportedKindError
from tunedeck.core.i18n import listing, say
from tunedeck.core.storage import replacing_folder, write_json
from tunedeck.formats.adapterhub import folder as adapterhub
from tunedeck.formats.manifest import FILE, Manifest, check_folder, read_manifest
from tunedeck.formats.peft import folder as peft
from tunedeck.formats.tensors import ModelNames, StoredAdapter, read_json, read_safetensors, write_safetensors
from tunedeck.methods.base import MethodConfig
from tunedeck.methods.bottleneck.config import BottleneckConfig
from tunedeck.methods.prefix_tuning.config import PrefixTuningConfig
from tunedeck.methods.prompt_tuning.config import PromptTuningConfig
from tunedeck.methods.registry import config_of

_SETUP = "adapter_setup.json"
_OWN_WEIGHTS, _HEAD = "model.safetensors", "head."
POOLED_FILE = "head.safetensors"
"""File of the head on pooled states, for an adapter that PEFT and AdapterHub load onto the model without a head."""


def detect_format(folder: Path) -> str:
    """Return "peft", "adapterhub" or "tunedeck"; AdapterFileError when the folder is none of them."""
    check_folder(folder)
    if not (folder / peft.CONFIG).exists():
        if (folder / FILE).exists():
            return "tunedeck"
        _refuse_composition(folder)
        raise AdapterFileError(
            say(
                "{path} is not an adapter folder: it has neither {first} nor {second}",
                path=folder,
                first=peft.CONFIG,
                second=FILE,
            )
        )
    config = read_json(folder / peft.CONFIG)
    if config.get("peft_type"):
        return "peft"
    if "config" in config and "name" in config:
        return "adapterhub"
    raise AdapterFileError(
        say("{path} is neither PEFT's (no peft_type) nor AdapterHub's (no config and name)", path=folder / peft.CONFIG)
    )


def _refuse_composition(folder: Path) -> None:
    """Raise UnsupportedKindError for what AdapterHub's `save_adapter_setup` writes (adapters 1.3.0, utils.py)."""
    if not (folder / _SETUP).exists():
        return
    parts = sorted(file.parent.name for file in folder.glob(f"*/{peft.CONFIG}"))
    raise UnsupportedKindError(
        say(
            "{path} is a composition of several AdapterHub adapters, such as a Stack, which is not supported; load one "
            "of them ({parts}), or merge the lower one into the base (tunedeck export merge) and train the upper one "
            "on that",
            path=folder,
            parts=listing(parts),
        )
    )


def read_adapter(folder: Path, names: ModelNames) -> StoredAdapter:
    """Read an adapter for the model that `names` describes, from PEFT's, AdapterHub's or our folder.

    Raises AdapterFileError for a missing or damaged folder, UnsupportedKindError for a kind or setting we lack.
    """
    found = detect_format(folder)
    manifest = read_manifest(folder)
    if found == "tunedeck":
        assert manifest is not None
        return _read_own(folder, manifest)
    config = read_json(folder / peft.CONFIG)
    reader = peft.read if found == "peft" else adapterhub.read
    try:
        stored = reader(folder, config, names)
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        raise AdapterFileError(
            say("{path} is damaged: {reason}", path=folder / peft.CONFIG, reason=repr(error))
        ) from error
    if (folder / POOLED_FILE).exists():
        stored = replace(stored, head=read_safetensors(folder / POOLED_FILE))
    return stored if manifest is None else _with_manifest(stored, manifest)


def write_adapter(
    folder: Path, adapter: StoredAdapter, names: ModelNames, name: str, peft_task: str, to: str | None = None
) -> None:
    """Write an adapter in its kind's format, or in `to`, with a tunedeck.json; the folder appears whole or not
    at all.

    Raises UnsupportedKindError where `to` cannot hold it, AdapterFileError for a folder that holds something else.
    """
    if folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or _is_adapter(folder))):
        raise AdapterFileError(
            say("{path} exists and holds something else than an adapter; choose another place", path=folder)
        )
    written_by = to or adapter.config.stored_as
    check_format(adapter.config, written_by)
    with replacing_folder(folder) as staging:
        plain = adapter
        if adapter.pooled and written_by != "tunedeck":
            write_safetensors(staging / POOLED_FILE, adapter.head)
            plain, peft_task = replace(adapter, head={}), "FEATURE_EXTRACTION"
        if written_by == "peft":
            peft.write(staging, plain, names, peft_task)
        elif written_by == "adapterhub":
            adapterhub.write(staging, plain, names, name)
        else:
            head = {f"{_HEAD}{key}": tensor for key, tensor in adapter.head.items()}
            write_safetensors(staging / _OWN_WEIGHTS, {**adapter.tensors, **head})
        if adapter.manifest is not None:
            write_json(staging / FILE, adapter.manifest.model_dump(mode="json"))


def check_format(config: MethodConfig, to: str) -> None:
    """Raise UnsupportedKindError where a format has no place for a method, saying what else works."""
    others = {"peft": peft.holds, "adapterhub": adapterhub.holds}
    if to == config.stored_as or (to in others and others[to](config)):
        return
    if config.trains != "adapter":
        raise UnsupportedKindError(
            say(
                "{to} cannot store trained weights of the base or a head only: write a complete model with "
                "tunedeck export merge, or train lora",
                to=to,
            )
        )
    if to == "peft" and isinstance(config, BottleneckConfig):
        raise UnsupportedKindError(
            say("PEFT has no bottleneck adapters; use tunedeck export adapterhub, or train lora")
        )
    if to == "adapterhub" and isinstance(config, PromptTuningConfig):
        raise UnsupportedKindError(adapterhub.prompt_refusal())
    if to == "peft" and isinstance(config, PrefixTuningConfig):
        raise UnsupportedKindError(
            say(
                "PEFT's text begins behind the prefix, and this adapter's at position 0: train one with "
                "shift_positions: true, or keep this one for AdapterHub: --to adapterhub"
            )
        )
    if to == "adapterhub" and isinstance(config, PrefixTuningConfig):
        raise UnsupportedKindError(
            say(
                "behind a prefix a text begins at position 0 for AdapterHub and after the prefix for PEFT, so neither "
                "form can be turned into the other; keep the adapter as it is: --to {format}",
                format=config.stored_as,
            )
        )
    raise UnsupportedKindError(
        say(
            "{to} cannot store an adapter of the kind {kind}, which is kept as {format}: serve it with tunedeck; "
            "if it can be merged, use tunedeck export merge",
            kind=config.kind,
            format=config.stored_as,
            to=to,
        )
    )


def adapter_bytes(folder: Path) -> int:
    """Return bytes of an adapter folder on disk."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def base_of(folder: Path) -> str | None:
    """Return the base an adapter folder names, None where it names none."""
    manifest = read_manifest(folder)
    if manifest is not None:
        return manifest.base.reference
    config = read_json(folder / peft.CONFIG)
    return config.get("base_model_name_or_path") or config.get("model_name") or None


def adapter_name(folder: Path) -> str:
    """Return the name of an adapter folder: its own, or its parent's if it is the `adapter` folder of a run."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "adapter" else folder.name


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return a name for each adapter folder; a second one of the same name gets a number."""
    names: list[str] = []
    for folder in folders:
        plain = adapter_name(folder)
        names.append(plain if plain not in names else f"{plain}-{len(names) + 1}")
    return names


def describe_folder(folder: Path) -> dict[str, Any]:
    """Return the description of an adapter folder as plain JSON values, without reading tensors."""
    found = detect_format(folder)
    manifest = read_manifest(folder)
    config = read_json(folder / peft.CONFIG) if found != "tunedeck" else {}
    method = dict(manifest.method) if manifest else {}
    return {
        "folder": str(folder),
        "format": found,
        "method": method.pop("kind", None) or str(config.get("peft_type") or "bottleneck").lower(),
        "settings": method or config.get("config") or {key: value for key, value in config.items() if value},
        "base": base_of(folder),
        "fingerprint": manifest.base.fingerprint if manifest else None,
        "task": manifest.task if manifest else {"kind": config.get("task_type")},
        "metrics": manifest.metrics if manifest else {},
        "data": manifest.data.model_dump() if manifest and manifest.data else None,
        "versions": manifest.versions if manifest else {},
        "bytes": adapter_bytes(folder),
    }


def _is_adapter(folder: Path) -> bool:
    return (folder / peft.CONFIG).exists() or (folder / FILE).exists()


def _read_own(folder: Path, manifest: Manifest) -> StoredAdapter:
    values = dict(manifest.method)
    config = config_of(str(values.pop("kind", "")), values)
    if config.stored_as != "tunedeck":
        raise UnsupportedKindError(
            say(
                "{path} names the method {kind!r} but the folder has no {file}",
                path=folder / FILE,
                kind=config.kind,
                file=peft.CONFIG,
            )
        )
    file = folder / _OWN_WEIGHTS
    if not file.exists():
        raise AdapterFileError(say("{path} has no {file}; the adapter is incomplete", path=folder, file=_OWN_WEIGHTS))
    tensors = read_safetensors(file)
    head = {key.removeprefix(_HEAD): t for key, t in tensors.items() if key.startswith(_HEAD)}
    body = {key: t for key, t in tensors.items() if not key.startswith(_HEAD)}
    stored = StoredAdapter(config, body, head, None, manifest.base.reference, manifest)
    return _with_manifest(stored, manifest)


def _with_manifest(stored: StoredAdapter, manifest: Manifest) -> StoredAdapter:
    labels = manifest.task.get("labels")
    if labels is not None and not isinstance(labels, list):
        raise AdapterFileError(
            say("{path} is damaged: {reason}", path=FILE, reason=f"labels is {labels!r}, not a list of names")
        )
    known = stored.labels if labels is None else tuple(str(label) for label in labels)
    return replace(stored, manifest=manifest, labels=known, base_reference=manifest.base.reference)

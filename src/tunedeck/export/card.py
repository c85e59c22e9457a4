"""A model card in the hub's form, from what tunedeck.json and the run folder know; what they do not know is left
out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData

from tunedeck.core.bundle import read_bundles
from tunedeck.core.checks import HUB_ID
from tunedeck.core.errors import AdapterFileError, ConfigError, StorageError
from tunedeck.core.i18n import listing, say
from tunedeck.core.storage import write_text
from tunedeck.export.markdown import code, code_block, table
from tunedeck.formats.folder import adapter_bytes, adapter_name, detect_format
from tunedeck.formats.manifest import FILE, DataRecord, Manifest, read_manifest
from tunedeck.tasks.base import TaskView
from tunedeck.tasks.registry import view_of_values

LIBRARIES = {"peft": "peft", "adapterhub": "adapter-transformers", "tunedeck": "tunedeck"}
"""The hub's name of the library that loads a folder of each format."""
KNOWN_LICENCES = (
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc-by-4.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc0-1.0",
    "gpl-3.0",
    "openrail",
    "llama2",
    "llama3",
    "llama3.1",
    "llama3.2",
    "llama3.3",
    "gemma",
    "unlicense",
    "other",
)
"""Licences by the hub's identifiers; any other is written as `other` with its name."""


def save_card(folder: Path, out: Path, *, licence: str | None = None, cost: str | None = None) -> Path:
    """Write the card of an adapter folder to `out`, a .md file or a folder to hold README.md; returns the file.

    `licence` is the card's; the base's where it is bundled. `cost` is what the run cost in money. Raises
    AdapterFileError for a folder without tunedeck.json, ConfigError where no licence is known, StorageError when the
    file exists.
    """
    file = out if out.suffix == ".md" else out / "README.md"
    form = detect_format(folder)
    manifest = read_manifest(folder)
    if manifest is None:
        raise AdapterFileError(
            say(
                "{path} has no tunedeck.json, so its data, metrics and cost are not known; write its card by "
                "hand, or train "
                "it with tunedeck",
                path=folder,
            )
        )
    if file.exists():
        raise StorageError(say("{path} already exists; choose another path", path=file))
    name = adapter_name(folder)
    pipeline_tag = view_of_values(manifest.task).pipeline_tag
    data = _front_matter(name, form, manifest, pipeline_tag, licence or _licence_of_base(manifest.base.reference))
    try:
        parts = [
            f"---\n{data.to_yaml().strip()}\n---",
            f"# {code(name)}",
            _summary(manifest),
            *_section(say("Data"), _data(manifest.data)),
            *_section(say("Method"), _method(folder, manifest)),
            *_section(say("Metrics"), _metrics(manifest.metrics)),
            *_section(say("What it cost"), _cost(folder, manifest, cost)),
            *_section(say("How to load it"), loading(name, form, manifest)),
        ]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise AdapterFileError(say("{path} is damaged: {reason}", path=folder / FILE, reason=repr(error))) from error
    write_text(file, "\n\n".join(parts) + "\n")
    return file


def _licence_of_base(reference: str) -> str:
    bundle = read_bundles("tunedeck.models").get(reference.removeprefix("bundled:"))
    if bundle is None or not reference.startswith("bundled:"):
        raise ConfigError(
            say(
                "no licence is known for {base}: name the adapter's with --licence, for example apache-2.0 "
                "(the base's may "
                "bind you)",
                base=reference,
            )
        )
    return bundle.licence.split(" ")[0].rstrip(",")


def _front_matter(name: str, form: str, manifest: Manifest, pipeline_tag: str | None, licence: str) -> ModelCardData:
    reference = manifest.base.reference.removeprefix("hf:")
    identifier = licence.lower()
    known = identifier in KNOWN_LICENCES
    on_hub = bool(HUB_ID.fullmatch(reference)) and not Path(reference).exists()
    data = ModelCardData(
        base_model=reference if on_hub else None,
        datasets=_hub_dataset(manifest.data),
        eval_results=_results(manifest, pipeline_tag) or None,
        library_name=LIBRARIES[form],
        license=identifier if known else "other",
        license_name=None if known else licence,
        model_name=name,
        pipeline_tag=pipeline_tag,
        tags=["tunedeck", str(manifest.method.get("kind", "")).replace("_", "-") or form],
    )
    if on_hub:
        data["base_model_relation"] = "adapter"
    return data


def _hub_dataset(data: DataRecord | None) -> list[str] | None:
    """Return the data set's id, where the data came from the hub."""
    source = "" if data is None else data.source.removeprefix("hf:")
    return [source] if HUB_ID.fullmatch(source) and not Path(source).exists() else None


def _results(manifest: Manifest, pipeline_tag: str | None) -> list[EvalResult]:
    if manifest.data is None or pipeline_tag is None:
        return []
    source = _source(manifest.data)
    return [
        EvalResult(
            task_type=pipeline_tag,
            dataset_type=source,
            dataset_name=source,
            metric_type=metric,
            metric_value=value,
        )
        for metric, value in _numbers(manifest.metrics).items()
    ]


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}


def _source(data: DataRecord) -> str:
    """Return the data's name without the folders of the machine."""
    return Path(data.source).name if Path(data.source).is_absolute() else data.source


def _section(title: str, text: str | None) -> list[str]:
    return [f"## {title}", text] if text else []


def _summary(manifest: Manifest) -> str:
    base = manifest.base
    rows = [(say("base"), code(_base_name(base.reference)))]
    if base.fingerprint:
        rows.append((say("base fingerprint"), code(base.fingerprint)))
    if base.quantize:
        rows.append((say("base quantized as"), code(base.quantize)))
    rows.append((say("task"), code(manifest.task.get("kind"))))
    if manifest.task.get("labels"):
        rows.append((say("labels"), ", ".join(code(label) for label in manifest.task["labels"])))
    rows += [(say("made with"), code(f"{package} {number}")) for package, number in manifest.versions.items()]
    return table((say("what"), say("value")), rows)


def _base_name(reference: str) -> str:
    return Path(reference).name if Path(reference).is_absolute() else reference


def _data(data: DataRecord | None) -> str | None:
    if data is None:
        return None
    bundle = read_bundles("tunedeck.data").get(data.source.removeprefix("bundled:"))
    rows = [
        (say("source"), code(_source(data))),
        (say("training examples"), f"{data.examples:,}"),
        (say("sha256 of the training examples"), code(data.sha256)),
    ]
    if bundle is not None and data.source.startswith("bundled:"):
        rows.append((say("licence of the data"), bundle.licence))
    return table((say("what"), say("value")), rows)


def _method(folder: Path, manifest: Manifest) -> str | None:
    rows = [
        (key, value) for key, value in {**manifest.method, **_training(folder)}.items() if value not in (None, {}, [])
    ]
    return (
        table((say("setting"), say("value")), [(code(key), code(_plain(value))) for key, value in rows])
        if rows
        else None
    )


def _training(folder: Path) -> dict[str, Any]:
    """Return the training settings in the run folder around an adapter, nothing where there is none."""
    file = folder.resolve().parent / "config.yaml"
    if folder.resolve().name != "adapter" or not file.is_file():
        return {}
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))["training"]
        return {key: value for key, value in settings.items() if value is not None}
    except (yaml.YAMLError, KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise AdapterFileError(say("{path} is damaged: {reason}", path=file, reason=error)) from error


def _plain(value: Any) -> str:
    return listing(value) if isinstance(value, list) else str(value)


def _metrics(metrics: Mapping[str, Any]) -> str | None:
    found = _numbers(metrics)
    rows = [(code(name), f"{value:.4g}") for name, value in found.items()]
    return table((say("metric"), say("held-out examples")), rows) if found else None


def _cost(folder: Path, manifest: Manifest, cost: str | None) -> str:
    rows = []
    if manifest.measurement is not None:
        seen = manifest.measurement
        machine = seen.get("machine", {})
        rows = [
            (say("training"), say("{seconds:.1f} s, {steps} steps", seconds=seen["train_s"], steps=seen["steps"])),
            (say("throughput"), say("{rate:.1f} examples/s", rate=seen["examples_per_s"])),
            (say("peak memory"), say("{gigabytes:.2f} GB", gigabytes=seen["peak_memory_bytes"] / 1e9)),
            (say("machine"), code(machine.get("gpu") or f"{machine.get('cpu')}, {machine.get('cpu_cores')} cores")),
            (say("precision"), code(seen["dtype"])),
        ]
    if cost:
        rows.append((say("money"), cost))
    rows.append((say("size on disk"), say("{megabytes:.2f} MB", megabytes=adapter_bytes(folder) / 1e6)))
    return table((say("what"), say("measured")), rows)


def loading(name: str, form: str, manifest: Manifest) -> str:
    """Return the code to load an adapter folder called `name`, as Markdown; its words are Python literals."""
    view, reference = view_of_values(manifest.task), manifest.base.reference
    base, auto_class = _base_name(reference), str(view.task.auto_class)
    ours = view.task.__module__.partition(".")[0] == "tunedeck"
    task = f"td.{view.task.__name__}()" if ours else f"{view.task.__name__}()"
    asked = 'td.TextPair("...", "...")' if manifest.task.get("pairs") else '"..."'
    own = [
        "import tunedeck as td",
        *([] if ours else [f"from {view.task.__module__} import {view.task.__name__}"]),
        "",
        f"deck = td.Deck.load({base!r}, {task})",
        f'deck.load_adapter("PATH/TO/THIS/FOLDER", name={name!r})',
        f"deck.{_call(view)}([{asked}], adapter={name!r})",
    ]
    parts = [code_block("python", "\n".join(own))]
    if form in ("peft", "adapterhub") and not reference.startswith(("bundled:", "ms:")) and not base.endswith(".gguf"):
        parts += [say("With {library}:", library=form), code_block("python", _theirs(form, base, auto_class, manifest))]
    return "\n\n".join(parts)


def _theirs(form: str, base: str, auto_class: str, manifest: Manifest) -> str:
    labels = manifest.task.get("labels")
    count = f", num_labels={len(labels)}" if labels else ""
    load = f"{auto_class}.from_pretrained({base.removeprefix('hf:')!r}{count})"
    if form == "peft":
        return "\n".join(
            [
                "from peft import PeftModel",
                f"from transformers import {auto_class}",
                "",
                f'model = PeftModel.from_pretrained({load}, "PATH/TO/THIS/FOLDER")',
            ]
        )
    return "\n".join(
        [
            "import adapters",
            f"from transformers import {auto_class}",
            "",
            f"model = {load}",
            "adapters.init(model)",
            'model.load_adapter("PATH/TO/THIS/FOLDER", set_active=True)',
        ]
    )


def _call(view: TaskView) -> str:
    """Return the deck's method that answers by the task."""
    calls = (("text", "generate"), ("vectors", "embed"))
    return next((call for capability, call in calls if capability in view.task.capabilities), "predict")

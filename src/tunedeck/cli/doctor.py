"""`tunedeck doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from tunedeck.cli.console import format_bytes, print_json, print_table
from tunedeck.cli.fetch import all_bundles
from tunedeck.core.i18n import say

LIBRARIES = (
    "tunedeck",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "safetensors",
    "peft",
    "bitsandbytes",
    "modelscope",
)


def doctor(as_json: Annotated[bool, typer.Option("--json", help=say("print JSON"))] = False) -> None:
    """Look at this machine: processor, GPU, memory, versions, plug-ins, hub and bundled parts."""
    found = examine()
    if as_json:
        print_json(found)
        return
    trains = say("yes: this CPU trains in bfloat16") if found["cpu_bfloat16"] else say("no: this CPU trains in float32")
    if found["hub_reachable"]:
        hub = say("reachable")
    else:
        hub = say("not reachable; use a folder, a mirror (HF_ENDPOINT), ms: or bundled: models")
    gpus = ", ".join(f"{g['name']} ({format_bytes(g['memory_bytes'])})" for g in found["gpus"])
    words = {"method": say("method"), "task": say("task")}
    rows = [
        [say("system"), f"{found['system']}, Python {found['python']}"],
        [say("processor"), say("{cpu}, {cores} cores", cpu=found["cpu"], cores=found["cpu_cores"])],
        [say("memory"), format_bytes(found["memory_bytes"])],
        [say("bfloat16 in hardware"), trains],
        [say("CPU features"), ", ".join(found["cpu_features"])],
        [say("GPU"), gpus or say("none; CPU is used")],
        *[[name, number or say("not installed")] for name, number in found["versions"].items()],
        *[
            [f"{words[one['what']]} {one['name']}", one["error"] or f"{one['package']} {one['version'] or ''}"]
            for one in found["plug_ins"]
        ],
        [say("model hub"), say("{name}: {text}", name=found["hub"], text=hub)],
        [say("cache"), found["cache"]],
        [
            say("unpacked GGUF models"),
            say(
                "{size} in {folder}, which may be deleted",
                size=format_bytes(found["unpacked_bytes"]),
                folder=found["unpacked"],
            ),
        ],
        *[
            [
                f"bundled:{name}",
                say("in the cache") if there else say("not fetched; run: tunedeck fetch {name}", name=name),
            ]
            for name, there in found["bundled"].items()
        ],
    ]
    print_table("", [say("what"), say("found")], rows, numbers_from=9)


def examine() -> dict[str, Any]:
    """Return everything `doctor` reports, as plain JSON values."""
    import platform

    import torch
    from huggingface_hub import constants

    from tunedeck.core.bundle import cache_folder, is_fetched
    from tunedeck.core.compat.torch import cpu_features
    from tunedeck.core.hub import hub_is_reachable
    from tunedeck.core.measurement import this_machine
    from tunedeck.methods import registry as methods
    from tunedeck.models.precision import cpu_has_bfloat16
    from tunedeck.models.unpacked import all_unpacked
    from tunedeck.tasks import registry as tasks

    machine = this_machine()
    features = cpu_features()
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "system": machine.system,
        "python": platform.python_version(),
        "cpu": machine.cpu,
        "cpu_cores": machine.cpu_cores,
        "memory_bytes": machine.memory_bytes,
        "cpu_bfloat16": cpu_has_bfloat16(),
        "cpu_features": [
            name
            for name in ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
            if features.get(name)
        ],
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "versions": {name: _version(name) for name in LIBRARIES},
        "plug_ins": [
            {"what": what, **asdict(plug_in)}
            for what, plug_ins in (("method", methods.PLUG_INS), ("task", tasks.PLUG_INS))
            for plug_in in plug_ins
        ],
        "hub": constants.ENDPOINT,
        "hub_reachable": hub_is_reachable(),
        "cache": str(cache_folder()),
        "unpacked": str(all_unpacked()),
        "unpacked_bytes": sum(file.stat().st_size for file in all_unpacked().glob("*/*")),
        "bundled": {name: is_fetched(bundle) for name, bundle in all_bundles().items()},
    }


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None

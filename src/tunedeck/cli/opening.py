"""Open saved adapters on the base they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck
    from tunedeck.deck.task import Task


QuantizeFlag: TypeAlias = Annotated[
    str | None, typer.Option("--quantize", help=say("nf4, int8 or none; as the adapter was trained by default"))
]
TrustFlag: TypeAlias = Annotated[
    bool, typer.Option("--trust-remote-code", help=say("run code that comes with a model; off by default"))
]


def open_deck(
    folders: list[Path],
    model: str | None,
    dtype: str = "auto",
    any_base: bool = False,
    kind: str = "classify",
    quantize: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[Deck, list[str]]:
    """A deck with the adapters in `folders`, and their names; the base is `model`, or the one the first adapter names.

    `kind` is the task of a folder that names none; `quantize` "none" leaves the base unpacked, None packs it as the first
    adapter's was. Two folders of the same name get numbers. Raises what Deck.load and load_adapter raise.
    """
    from tunedeck.formats.folder import base_of, detect_format
    from tunedeck.formats.manifest import read_manifest
    from tunedeck.tasks.registry import task_of

    for folder in folders:
        detect_format(folder)
    reference = model or base_of(folders[0])
    if not reference:
        raise ConfigError(say("{path} does not say which base it belongs to; name it with --model", path=folders[0]))
    manifest = read_manifest(folders[0])
    task = task_of(manifest.task if manifest else {"kind": kind})
    trained_on = manifest.base.quantize if manifest else None
    deck = open_base(reference, task, trained_on, dtype, quantize, trust_remote_code)
    names = distinct_names(folders)
    for folder, name in zip(folders, names, strict=True):
        deck.load_adapter(folder, name, any_base=any_base)
    return deck, names


def open_base(
    reference: str, task: Task, trained_on: str | None, dtype: str, quantize: str | None, trust_remote_code: bool
) -> Deck:
    """A deck without adapters, packed as `--quantize` says, or as the first adapter was trained where it says nothing."""
    import tunedeck as td

    return td.Deck.load(
        reference,
        task,
        dtype=dtype,  # type: ignore[arg-type]
        quantize=trained_on if quantize is None else packing(quantize),  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code,
    )


def distinct_names(folders: list[Path]) -> list[str]:
    """A name for each adapter folder; two of the same name get numbers."""
    names: list[str] = []
    for folder in folders:
        plain = adapter_name(folder)
        names.append(plain if plain not in names else f"{plain}-{len(names) + 1}")
    return names


def packing(quantize: str | None) -> str | None:
    """What `--quantize` asks of a base: none is no packing."""
    return None if quantize == "none" else quantize


def adapter_name(folder: Path) -> str:
    """A folder's own name; its parent's where it is the `adapter` folder of a run."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "adapter" else folder.name

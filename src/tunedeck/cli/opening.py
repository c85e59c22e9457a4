"""Open saved adapters on the base they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tunedeck.core.errors import ConfigError
from tunedeck.core.messages import say

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck


def open_deck(
    folders: list[Path], model: str | None, dtype: str = "auto", any_base: bool = False, kind: str = "classify"
) -> tuple[Deck, list[str]]:
    """A deck with the adapters in `folders`, and their names; the base is `model`, or the one the first adapter names.

    `kind` is the task of a folder that names none. Two folders of the same name get numbers. Raises what Deck.load and load_adapter raise.
    """
    import tunedeck as td
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
    deck = td.Deck.load(reference, task, dtype=dtype)  # type: ignore[arg-type]
    names: list[str] = []
    for folder in folders:
        plain = adapter_name(folder)
        name = plain if plain not in names else f"{plain}-{len(names) + 1}"
        names.append(deck.load_adapter(folder, name, any_base=any_base))
    return deck, names


def adapter_name(folder: Path) -> str:
    """A folder's own name; its parent's where it is the `adapter` folder of a run."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "adapter" else folder.name

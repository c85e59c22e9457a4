"""Saved adapters opened on the base that they name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Task
from tunedeck.formats.folder import base_of, detect_format, distinct_names
from tunedeck.formats.manifest import read_manifest
from tunedeck.models.precision import Dtype
from tunedeck.models.quantize import Quantize
from tunedeck.tasks.classify.task import Classify
from tunedeck.tasks.registry import task_of


def open_deck(
    folders: Sequence[str | Path],
    *,
    model: str | None = None,
    task: Task | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    quantize: Quantize | Literal["none"] | None = None,
    trust_remote_code: bool = False,
    allow_base_mismatch: bool = False,
) -> Deck:
    """Load the base that the first folder names and every folder's adapter on it; see Deck.open."""
    places = [Path(folder).expanduser() for folder in folders]
    if not places:
        raise ConfigError(say("there is no adapter folder to open; give one or more"))
    for folder in places:
        detect_format(folder)
    reference = model or base_of(places[0])
    if not reference:
        raise ConfigError(say("{path} does not record its base model; name it with --model", path=places[0]))
    manifest = read_manifest(places[0])
    trained_on = cast("Quantize | None", manifest.base.quantize if manifest else None)
    deck = Deck.load(
        reference,
        task_of(manifest.task) if manifest else task or Classify(),
        dtype=dtype,
        device=device,
        quantize=trained_on if quantize is None else None if quantize == "none" else quantize,
        trust_remote_code=trust_remote_code,
    )
    for folder, name in zip(places, distinct_names(places), strict=True):
        deck.load_adapter(folder, name, allow_base_mismatch=allow_base_mismatch)
    return deck

"""Check and write the parts of a plain transformers folder: an empty target, merged weights, a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from tunedeck.core.errors import ModelError, StorageError, UnsupportedKindError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import pooling_of


def empty_place(folder: str | Path) -> Path:
    """Return a folder that may be written to; StorageError if it exists and is not empty."""
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StorageError(say("{path} exists and is not empty; choose another place", path=target))
    return target


def merged(deck: Deck, name: str, instead: str, *, dequantize: bool = False) -> Any:
    """Merge as `deck.merge`; refuse what a transformers folder cannot hold, with advice on what to do `instead`."""
    try:
        _check_head(deck, name)
        return deck.merge(name, dequantize=dequantize)
    except UnsupportedKindError as error:
        raise UnsupportedKindError(say("{reason}; {instead}", reason=error, instead=instead)) from error


def _check_head(deck: Deck, name: str) -> None:
    """Raise UnsupportedKindError for a head on pooled states."""
    pooling = pooling_of(deck.adapter(name).task)
    if pooling != "model":
        raise UnsupportedKindError(
            say(
                "the head of {name!r} reads the text by {pooling} pooling, and transformers' {model_class} does not; "
                "train with task.pooling: model (--pooling model) for a head of its kind",
                name=name,
                pooling=pooling,
                model_class=type(deck.model).__name__,
            )
        )


def tokenizer_of(deck: Deck) -> Any:
    """Return the base's tokenizer; ModelError when it has none."""
    if deck.tokenizer is None:
        raise ModelError(
            say("{model} has no tokenizer files; put tokenizer.json next to its config.json", model=deck.base.reference)
        )
    return deck.tokenizer


@contextmanager
def no_bar() -> Iterator[None]:
    """Hide transformers' progress bar for writing weights."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()

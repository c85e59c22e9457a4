"""Check and write the parts of a plain transformers folder: an empty target, merged weights, a tokenizer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from tunedeck.core.errors import ModelError, StorageError, UnsupportedKindError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import last_linear
from tunedeck.deck.task import Task, pooling_of
from tunedeck.tasks.registry import view_of


def empty_place(folder: str | Path) -> Path:
    """Return a folder that may be written to; StorageError if it exists and is not empty."""
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StorageError(say("{path} already exists and is not empty; choose another path", path=target))
    return target


def merged(deck: Deck, name: str, instead: str, *, dequantize: bool = False) -> Any:
    """Merge as `deck.merge`, with the scale of scores in the last layer; refuse what a transformers folder cannot hold,
    with advice on what to do `instead`.
    """
    try:
        check_head(name, deck.adapter(name).task, deck.model)
        model: Any = deck.merge(name, dequantize=dequantize)
        _put_scale(deck, name, model)
        return model
    except UnsupportedKindError as error:
        raise UnsupportedKindError(say("{reason}; {instead}", reason=error, instead=instead)) from error


def output_scale(deck: Deck, name: str) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return the means and the deviations by which an adapter's answers are standardised; None where they are not."""
    task = deck.adapter(name).task
    scale = view_of(task).output_scale(task)
    if scale is None:
        return None
    means, deviations = (torch.tensor(values, device=next(deck.model.parameters()).device) for values in scale)
    return means, deviations


def _put_scale(deck: Deck, name: str, model: Any) -> None:
    """Let a merged model answer in the scores' unit; UnsupportedKindError where its last layer has no bias."""
    scale = output_scale(deck, name)
    if scale is None:
        return
    last = last_linear({path: model.get_submodule(path) for path in deck.adapter(name).head})
    if last.bias is None:
        raise UnsupportedKindError(
            say(
                "the scores of {name!r} are standardised, and the head of this base has no bias to hold their mean",
                name=name,
            )
        )
    means, deviations = scale
    with torch.no_grad():
        last.weight.copy_(last.weight.float() * deviations[:, None])
        last.bias.copy_(last.bias.float() * deviations + means)
    model.config.problem_type = "regression"


def check_head(name: str, task: Task, model: object) -> None:
    """Raise UnsupportedKindError for an adapter whose head reads pooled states."""
    pooling = pooling_of(task)
    if pooling != "model":
        raise UnsupportedKindError(
            say(
                "the head of {name!r} reads the text by {pooling} pooling, and transformers' {model_class} does not; "
                "train with task.pooling: model (--pooling model) for a head of its kind",
                name=name,
                pooling=pooling,
                model_class=type(model).__name__,
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

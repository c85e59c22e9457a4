"""Texts through the heads of adapters: token ids, logits, and the loss of training examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, TypeVar, final

import torch

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.pooling import HeadPooling
from tunedeck.core.text_pair import TextPair
from tunedeck.data.batches import batches_by_length
from tunedeck.data.columns import shorten
from tunedeck.deck.deck import Deck
from tunedeck.deck.heads import reads_trained
from tunedeck.deck.patches.base import Patch, Unchanged, patched
from tunedeck.deck.patches.first_position import FirstPositionOnly
from tunedeck.deck.patches.lower_layers import LowerLayers
from tunedeck.deck.task import Task, pooling_of
from tunedeck.models.load import LoadedBase
from tunedeck.models.sentence import sentence_settings
from tunedeck.tasks.text import kept_ids, padded, tokenize_rows

T = TypeVar("T")


def base_pooling(base: LoadedBase) -> HeadPooling:
    """Return what heads read of a base's texts unless the user says otherwise.

    That is what a sentence-transformers model says of itself, the model's own where all that its head reads is trained
    or the model is a decoder, which reads the last token, else the mean.
    """
    told = sentence_settings(base.reference)
    if told is not None and told.pooling is not None:
        return told.pooling
    return "model" if reads_trained(base) else "mean"


def text_ids(deck: Deck, texts: Sequence[str], adapters: Sequence[str | None], max_length: int) -> list[list[int]]:
    """Return token ids of every text, each cut to what its adapter's virtual tokens leave of `max_length`.

    Raises ConfigError for a single text where an adapter was trained on pairs.
    """
    pairs = {name for name in set(adapters) if name is not None and reads_pairs(deck.adapter(name).task)}
    for text, name in zip(texts, adapters, strict=True):
        if name in pairs and not isinstance(text, TextPair):
            raise ConfigError(
                say(
                    "adapter {name!r} answers pairs of texts, and {text!r} has no second text; give td.TextPair(first, "
                    "second)",
                    name=name,
                    text=shorten(text),
                )
            )
    return tokenize_rows(deck, texts, [deck.text_limit(name, max_length) for name in adapters])


def reads_pairs(task: Task) -> bool:
    """Tell whether a task with heads on texts was trained on pairs."""
    return bool(task.describe().get("pairs"))


def text_logits(
    deck: Deck, texts: Sequence[str], adapters: Sequence[str | None], max_length: int, batch_size: int = 32
) -> list[torch.Tensor]:
    """Return the logits of every text, in order; batches go from short to long texts so that little is padded."""
    ids = text_ids(deck, texts, adapters, max_length)
    return in_batches(ids, adapters, lambda rows, names: list(logits_of_ids(deck, rows, names)), batch_size)


def in_batches(
    ids: Sequence[Sequence[int]],
    adapters: Sequence[str | None],
    answer: Callable[[list[Sequence[int]], list[str | None]], list[T]],
    batch_size: int = 32,
) -> list[T]:
    """Return the answer to every row of token ids, in order, from batches that go from short to long rows."""
    found: dict[int, T] = {}
    for rows in batches_by_length([len(one) for one in ids], batch_size):
        batch = answer([ids[row] for row in rows], [adapters[row] for row in rows])
        found.update(zip(rows, batch, strict=True))
    return [found[row] for row in range(len(ids))]


def logits_of_ids(deck: Deck, ids: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> torch.Tensor:
    """Return logits (rows, labels), float32, on the CPU, of one batch of token ids."""
    inputs = padded(deck, ids)
    with torch.inference_mode(), deck.lock, only_read_positions(deck, adapters).on(deck.base):
        logits: torch.Tensor = deck(**inputs.named(), adapter=adapters).logits
    return logits.float().cpu()


def only_read_positions(deck: Deck, adapters: Sequence[str | None]) -> Patch:
    """Return the patch that spares what none of these rows' heads reads."""
    own = all(name is None or pooling_of(deck.adapter(name).task) == "model" for name in set(adapters))
    return FirstPositionOnly() if own else Unchanged()


class Targets(Protocol):
    """Targets of the head for the training examples."""

    def weight(self, rows: Sequence[int]) -> float:
        """Return what some examples count in the mean loss."""
        ...

    def loss(self, logits: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Return the mean loss of logits (rows, outputs) of some examples."""
        ...


@final
class HeadObjective:
    """Texts as token ids, and the loss of any of them by what an adapter's head should answer."""

    divisible: ClassVar[bool] = True
    texts_per_example: ClassVar[float] = 1.0

    def __init__(
        self,
        deck: Deck,
        name: str,
        texts: Sequence[str],
        max_length: int,
        targets: Targets,
        evaluate: Callable[[], dict[str, float]],
    ) -> None:
        self._deck, self._name, self._targets, self._evaluate = deck, name, targets, evaluate
        limit = deck.text_limit(name, max_length)
        if limit < 3:
            raise ConfigError(say("max_length leaves no room for text besides the virtual tokens; raise it"))
        self._ids = kept_ids(deck, texts, limit)
        self.lengths: Sequence[int] = [len(ids) for ids in self._ids]
        self._lower = LowerLayers(deck.base, deck.adapter(name), self.lengths)
        self.remembers = self._lower.keeps

    def weight(self, rows: Sequence[int]) -> float:
        """Return the number of examples, or the sum of their weights."""
        return self._targets.weight(rows)

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, int]:
        """Return mean loss of some training examples, and how many positions were computed."""
        inputs = padded(self._deck, [self._ids[row] for row in rows])
        with patched(self._deck.base, self._lower.patch(rows), only_read_positions(self._deck, [self._name])):
            logits = self._deck(**inputs.named(), adapter=self._name).logits
        return self._targets.loss(logits, rows), inputs.input_ids.numel()

    @staticmethod
    def losses(parts: Sequence[tuple[HeadObjective, Sequence[int]]]) -> list[tuple[torch.Tensor, int]]:
        """Return the losses of several objectives, each with its rows, from one pass through the base."""
        deck = parts[0][0]._deck
        inputs = padded(deck, [objective._ids[row] for objective, rows in parts for row in rows])
        names = [objective._name for objective, rows in parts for _ in rows]
        with only_read_positions(deck, names).on(deck.base):
            logits = deck(**inputs.named(), adapter=names).logits
        found = []
        for (objective, rows), own in zip(parts, torch.split(logits, [len(rows) for _, rows in parts]), strict=True):
            known = own[:, : len(deck.label_names(objective._name))]
            found.append((objective._targets.loss(known, rows), len(rows) * inputs.input_ids.shape[1]))
        return found

    def evaluate(self) -> dict[str, float]:
        """Return metrics on the held-out examples."""
        return self._evaluate()

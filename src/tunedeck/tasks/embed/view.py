"""Describe embeddings to serving, comparison, export and planning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, final

import torch

from tunedeck.core.plan_shape import PlanShape
from tunedeck.data.labelled import Example
from tunedeck.data.pairs import Pair, ScoredPair
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Task
from tunedeck.methods.packed_embedding import vocabulary_size
from tunedeck.tasks.base import Comparing, TaskView
from tunedeck.tasks.embed.data import fewer, read_examples
from tunedeck.tasks.embed.encoding import finished, token_ids, vectors_of
from tunedeck.tasks.embed.evaluation import evaluate_vectors
from tunedeck.tasks.embed.task import Embed
from tunedeck.tasks.text import fitting_ids, pad


@final
class EmbedServing:
    """Texts to vectors."""

    def encode(self, deck: Deck, contents: Sequence[Any], adapter: str | None) -> list[list[int]]:
        """Return token ids of texts behind the adapter's document instruction; a content may be token ids already."""
        encoding = _task(deck, adapter).encoding(as_query=False)
        texts = [one for one in contents if isinstance(one, str)]
        encoded = iter(token_ids(deck, texts, [adapter] * len(texts), [encoding] * len(texts)))
        room = deck.text_limit(adapter, encoding.max_length)
        vocabulary = vocabulary_size(deck.model)
        return [next(encoded) if isinstance(one, str) else fitting_ids(one, vocabulary, room) for one in contents]

    def answer(self, deck: Deck, rows: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[torch.Tensor]:
        """Return a vector (hidden,) for each row, float32, on the CPU."""
        input_ids, mask = pad(deck, rows)
        encodings = [_task(deck, adapter).encoding(as_query=False) for adapter in adapters]
        with torch.inference_mode():
            return list(vectors_of(deck, input_ids, mask, adapters, encodings).cpu())

    def to_json(self, answer: torch.Tensor) -> list[float]:
        """Return the vector's numbers."""
        return cast("list[float]", answer.tolist())


@final
class EmbedOnnx:
    """Vectors out of a graph."""

    by_cosine, by_word = True, False

    def settings(self, deck: Deck, name: str) -> dict[str, Any]:
        """Return pooling, instructions and length; max_length counts the tokens of a text with its special ones."""
        query, document = (_task(deck, name).encoding(as_query=flag) for flag in (True, False))
        return {
            "pooling": query.pooling,
            "normalize": query.normalize,
            "query_instruction": query.instruction,
            "document_instruction": document.instruction,
            "max_length": deck.text_limit(name, query.max_length),
        }

    def wrong(self, settings: Mapping[str, Any]) -> str | None:
        """Return nothing: the graph itself pools."""
        return None

    def output(self, task: Task, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the pooled vectors (batch, hidden) in float32."""
        encoding = cast(Embed, task).encoding(as_query=False)
        return finished(states, mask, encoding.pooling, encoding.normalize)

    def graph_key(self, task: Task) -> object:
        """Return how the graph pools."""
        encoding = cast(Embed, task).encoding(as_query=False)
        return encoding.pooling, encoding.normalize

    def expected(self, deck: Deck, name: str, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the deck's vectors (batch, hidden)."""
        encoding = _task(deck, name).encoding(as_query=False)
        with torch.inference_mode():
            return vectors_of(deck, ids, mask, [name] * len(ids), [encoding] * len(ids))

    def answers(self, deck: Deck, name: str, texts: Sequence[str], as_query: bool) -> torch.Tensor:
        """Return the deck's vectors (texts, hidden)."""
        return deck.embed(texts, name, as_query=as_query)

    def examples(self, deck: Deck, name: str, settings: DataSettings) -> Sequence[Any]:
        """Return pairs, scored pairs or labelled texts."""
        found, _ = read_examples(settings.train, settings)
        return fewer(list(found), settings.eval_size, settings.split_seed)

    def metrics(
        self, deck: Deck, name: str, outputs: Callable[[list[str], bool], torch.Tensor], examples: Sequence[Any]
    ) -> dict[str, float]:
        """Return retrieval metrics, or correlations for scored pairs."""
        temperature = _task(deck, name).temperature
        return evaluate_vectors(lambda texts, as_query: outputs(list(texts), as_query), examples, temperature)

    def read(self, runner: Any, name: str, row: Sequence[int], output: Any) -> torch.Tensor:
        """Return the vector (hidden,)."""
        return torch.from_numpy(output)


def text_of(example: Example | Pair | ScoredPair) -> str:
    """Return the text of an example that is looked for, or its first."""
    if isinstance(example, Example):
        return example.text
    return example.anchor if isinstance(example, Pair) else example.first


def _task(deck: Deck, adapter: str | None) -> Embed:
    return cast(Embed, deck.task if adapter is None else deck.adapter(adapter).task)


VIEW = TaskView(
    task=Embed,
    serving=EmbedServing(),
    route="vectors",
    comparing=Comparing(text_of=text_of),
    onnx=EmbedOnnx(),
    plan_shape=lambda config: PlanShape(labels=0, chunk=config.chunk_size),
    pipeline_tag="feature-extraction",
)

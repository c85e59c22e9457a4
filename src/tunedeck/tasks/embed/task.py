"""Text embeddings: vectors whose cosine says how much two texts belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast, final

import torch

from tunedeck.core.errors import ModelError
from tunedeck.core.i18n import listing, say
from tunedeck.core.values import to_values
from tunedeck.data.pairs import Pair
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Capability
from tunedeck.models.load import LoadedBase
from tunedeck.models.sentence import sentence_settings
from tunedeck.tasks.base import BARE_BASE, Dataset, Evaluation
from tunedeck.tasks.embed.config import EmbedConfig
from tunedeck.tasks.embed.data import form_of, read_embedding_data, read_examples
from tunedeck.tasks.embed.encoding import EncodingConfig, embed_texts
from tunedeck.tasks.embed.evaluation import evaluate_vectors
from tunedeck.tasks.embed.objective import Batches, EmbedObjective, LabelledBatches, Learning, PairBatches, encoder

MAX_LENGTH = 512


@final
@dataclass(frozen=True, slots=True)
class Embed(EmbedConfig):
    """Make vectors of texts; `EmbedConfig` describes the settings."""

    auto_class: ClassVar[str] = "AutoModel"
    peft_task: ClassVar[str] = "FEATURE_EXTRACTION"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"vectors"})
    metric_for_best_model: ClassVar[str] = "ndcg@10"
    progress_metrics: ClassVar[tuple[str, ...]] = ("ndcg@10", "mrr", "loss", "spearman")

    def for_base(self, base: LoadedBase) -> Embed:
        """Return the task with the base's settings where none are given.

        Raises ModelError for a sentence-transformers model that does something we cannot do, unless `pooling` is set.
        """
        told = sentence_settings(base.reference)
        if told is not None and told.lacking and self.pooling is None:
            raise ModelError(
                say(
                    "{model} makes its vectors in a way that is not supported: {settings}; to use the base in "
                    "another way, set pooling",
                    model=base.reference,
                    settings=listing(told.lacking),
                )
            )
        own: dict[str, Any] = {
            "pooling": "mean",
            "normalize": True,
            "query_instruction": "",
            "document_instruction": "",
        }
        own["max_length"] = MAX_LENGTH
        if told is not None:
            own |= {"normalize": told.normalize, "query_instruction": told.query_prompt}
            own |= {"document_instruction": told.document_prompt, "max_length": told.max_length or MAX_LENGTH}
            own["pooling"] = told.pooling or "mean"
        return replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})

    def describe(self) -> dict[str, Any]:
        """Return the task as plain JSON values."""
        return {"kind": self.kind, **to_values(self)}

    def encoding(self, *, as_query: bool) -> EncodingConfig:
        """Return how vectors are made, of queries or of other texts."""
        instruction = self.query_instruction if as_query else self.document_instruction
        return EncodingConfig(
            self.pooling or "mean", self.normalize is not False, instruction or "", self.max_length or MAX_LENGTH
        )

    def read(self, settings: DataSettings) -> Dataset[Any]:
        """Read, check and split pairs, triplets or labelled texts; DataError where they are not usable."""
        return read_embedding_data(settings)

    def evaluate(self, deck: Deck, names: Sequence[str | None], settings: DataSettings) -> Evaluation:
        """Return retrieval metrics, or correlations for scored pairs, of each adapter; see `evaluate_vectors`."""
        examples, notes = read_examples(settings.train, settings)
        metrics = {name or BARE_BASE: evaluate_embedding(deck, name, examples) for name in names}
        return Evaluation(say("{count} {form}", count=len(examples), form=form_of(examples[0])), metrics, notes)

    def objective(self, deck: Deck, name: str, dataset: Dataset[Any]) -> EmbedObjective:
        """Encode a dataset for one adapter of a deck."""
        queries, documents = (encoder(deck, name, self.encoding(as_query=flag)) for flag in (True, False))
        batches: Batches = (
            PairBatches(dataset.train, queries, documents)
            if isinstance(dataset.train[0], Pair)
            else LabelledBatches(dataset.train, documents)
        )
        learning = Learning(self.temperature, self.symmetric, self.chunk_size)
        return EmbedObjective(
            deck,
            name,
            batches,
            self.encoding(as_query=False),
            learning,
            lambda: evaluate_embedding(deck, name, dataset.evaluation),
        )

    def embed(
        self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None], *, as_query: bool
    ) -> torch.Tensor:
        """Return vectors (texts, hidden), float32, on the CPU; each row by the settings its adapter was trained
        with.
        """
        tasks = [self if name is None else cast(Embed, deck.adapter(name).task) for name in adapters]
        return embed_texts(deck, texts, adapters, [task.encoding(as_query=as_query) for task in tasks])


def evaluate_embedding(deck: Deck, name: str | None, examples: Sequence[Any]) -> dict[str, float]:
    """Return metrics of an adapter or of the base on pairs, labelled texts or scored pairs; see `evaluate_vectors`."""
    task = cast(Embed, deck.task if name is None else deck.adapter(name).task)

    def vectors(texts: Sequence[str], as_query: bool) -> torch.Tensor:
        return task.embed(deck, texts, [name] * len(texts), as_query=as_query)

    return evaluate_vectors(vectors, examples, task.temperature)

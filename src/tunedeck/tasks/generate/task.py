"""Text generation by a causal language model: instructions and chats in, answers out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, final

import torch
from torch.nn import functional as F

from tunedeck.core.errors import ConfigError, DataError, ModelError
from tunedeck.core.i18n import say
from tunedeck.core.values import to_values
from tunedeck.data.batches import batches_by_length
from tunedeck.data.chat import ROLES, Conversation, Message
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.patches.lower_layers import LowerLayers
from tunedeck.deck.task import Capability
from tunedeck.generation.decode import decode
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Chunk
from tunedeck.models.load import LoadedBase
from tunedeck.tasks.base import BARE_BASE, Dataset, Evaluation
from tunedeck.tasks.generate.chat_tokens import Encoded, encode_conversation, encode_prompt, fit, kept
from tunedeck.tasks.generate.config import GenerateConfig
from tunedeck.tasks.generate.data import read_chats, read_examples
from tunedeck.tasks.generate.loss import frozen_output_loss
from tunedeck.tasks.generate.metrics import answer_metrics
from tunedeck.tasks.generate.packing import (
    Pack,
    joined,
    output_is_a_product,
    pack,
    pack_rows,
    target_logits,
    target_states,
)

Prompt: TypeAlias = str | Sequence[Mapping[str, str]]
"""A question, or a chat as a list of {"role", "content"}."""


@final
@dataclass(frozen=True, slots=True)
class Generate(GenerateConfig):
    """Generate text; `GenerateConfig` describes the settings."""

    auto_class: ClassVar[str] = "AutoModelForCausalLM"
    peft_task: ClassVar[str] = "CAUSAL_LM"
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"predictions", "text"})
    metric_for_best_model: ClassVar[str] = "loss"
    progress_metrics: ClassVar[tuple[str, ...]] = ("loss", "perplexity")

    def for_base(self, base: LoadedBase) -> Generate:
        """Return the same task: nothing of it depends on the base."""
        return self

    def describe(self) -> dict[str, Any]:
        """Return the task as plain JSON values."""
        return {"kind": self.kind, **to_values(self)}

    def read(self, settings: DataSettings) -> Dataset[Conversation]:
        """Read, check and split conversations; DataError where they are not usable."""
        return read_chats(settings)

    def evaluate(self, deck: Deck, names: Sequence[str | None], settings: DataSettings) -> Evaluation:
        """Return loss, perplexity, exact_match, rouge_l and chrf of each adapter; answers are greedy."""
        found, shape, notes = read_examples(settings, settings.train)
        found = found[: settings.eval_size]
        dataset = Dataset(settings.train, found, found, "", "")
        wanted = [one.answer for one in found]
        room = max(len(deck.tokenizer(answer)["input_ids"]) for answer in wanted)
        metrics = {}
        for name in names:
            likely = self.objective(deck, name, dataset).evaluate()
            asked = [Conversation(one.prompt).as_dicts() for one in found]
            answers = self._in_batches(deck, asked, name, Sampling(max_tokens=min(room + 8, self.max_length)))
            metrics[name or BARE_BASE] = {**likely, **answer_metrics(answers, wanted)}
        return Evaluation(say("{count} conversations ({shape})", count=len(found), shape=shape), metrics, notes)

    def _in_batches(self, deck: Deck, prompts: Sequence[Prompt], name: str | None, sampling: Sampling) -> list[str]:
        answers: list[str] = []
        for start in range(0, len(prompts), 16):
            batch = prompts[start : start + 16]
            answers += self.generate(deck, batch, [name] * len(batch), sampling)
        return answers

    def objective(self, deck: Deck, name: str | None, dataset: Dataset[Conversation]) -> GenerateObjective:
        """Encode a dataset for one adapter of a deck."""
        return GenerateObjective(deck, name, self, dataset)

    def predict(self, deck: Deck, texts: Sequence[str], adapters: Sequence[str | None]) -> list[str]:
        """Return a greedy answer to each text."""
        return self.generate(deck, texts, adapters)

    def generate(
        self, deck: Deck, prompts: Sequence[Prompt], adapters: Sequence[str | None], sampling: Sampling | None = None
    ) -> list[str]:
        """Return answers in the order of the prompts, all rows decoded together."""
        answers = [""] * len(prompts)
        for chunk in self.stream(deck, prompts, adapters, sampling):
            answers[chunk.row] += chunk.text
        return answers

    def stream(
        self, deck: Deck, prompts: Sequence[Prompt], adapters: Sequence[str | None], sampling: Sampling | None = None
    ) -> Iterator[Chunk]:
        """Yield the answers piece by piece as they are generated."""
        if deck.tokenizer is None:
            raise ModelError(
                say(
                    "{model} has no tokenizer files; put tokenizer.json next to its config.json",
                    model=deck.base.reference,
                )
            )
        ids = [self.prompt_ids(deck, prompt) for prompt in prompts]
        return decode(deck, ids, adapters, sampling or Sampling())

    def prompt_ids(self, deck: Deck, prompt: Prompt) -> list[int]:
        """Return token ids of a question or a chat, by the chat template, up to where the answer begins; ConfigError
        for no prompt.
        """
        return encode_prompt(deck.tokenizer, self._turns(prompt))

    def _turns(self, prompt: Prompt) -> list[Message]:
        if isinstance(prompt, str):
            turns = [Message("user", prompt)]
        else:
            turns = [Message(ROLES.get(turn.get("role", ""), ""), str(turn.get("content", ""))) for turn in prompt]
        if not turns or any(not turn.role or (turn.role != "system" and not turn.content.strip()) for turn in turns):
            raise ConfigError(say("a prompt is a text that is not empty, or a list of turns with a role and a content"))
        return turns if not self.system or turns[0].role == "system" else [Message("system", self.system), *turns]


@final
class GenerateObjective:
    """Conversations as token ids, and the loss of any of them on their answers."""

    divisible: ClassVar[bool] = True
    texts_per_example: ClassVar[float] = 1.0

    def __init__(self, deck: Deck, name: str | None, task: Generate, dataset: Dataset[Conversation]) -> None:
        self._deck, self._name = deck, name
        self._limit = deck.text_limit(name, task.max_length)
        if self._limit < 4:
            raise ConfigError(say("max_length leaves no room for text besides the virtual tokens; raise it"))
        if deck.tokenizer.chat_template is None and deck.tokenizer.eos_token_id is None:
            warnings.warn(
                say("the tokenizer has no end token: answers are trained without one, and may not end by themselves"),
                stacklevel=2,
            )
        train = [encoded for encoded in self._fitting(task, dataset.train) if encoded is not None]
        tested = zip(dataset.evaluation, self._fitting(task, dataset.evaluation), strict=True)
        self._evaluation = [(one, encoded) for one, encoded in tested if encoded is not None]
        self._rows: list[list[Encoded]] = pack_rows(train, self._limit) if task.packing else [[one] for one in train]
        self.lengths: Sequence[int] = [sum(len(one.ids) for one in row) for row in self._rows]
        self._lower = LowerLayers(deck.base, None if name is None else deck.adapter(name), self.lengths)
        self.remembers = self._lower.keeps
        self._output_is_a_product = output_is_a_product(deck, name, pack(deck, name, [[self._evaluation[0][1]]]))

    def weight(self, rows: Sequence[int]) -> float:
        """Return the number of tokens that are trained on."""
        return sum(sum(one.loss_mask[1:]) for row in rows for one in self._rows[row])

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, int]:
        """Return mean loss of the answers' tokens in some rows, and how many positions were computed."""
        packed = pack(self._deck, self._name, [self._rows[row] for row in rows])
        with self._lower.patch(rows).on(self._deck.base):
            return self._mean_loss(packed), packed.input_ids.numel()

    @staticmethod
    def losses(parts: Sequence[tuple[GenerateObjective, Sequence[int]]]) -> list[tuple[torch.Tensor, int]]:
        """Return the losses of several objectives, each with its rows, from one pass through the base."""
        deck = parts[0][0]._deck
        packs = [pack(deck, objective._name, [objective._rows[row] for row in rows]) for objective, rows in parts]
        names = [objective._name for objective, rows in parts for _ in rows]
        whole = joined(packs, int(deck.model.config.pad_token_id), deck.base.dtype)
        counts = [len(one.targets) for one in packs]
        if all(objective._output_is_a_product for objective, _ in parts):
            states = torch.split(target_states(deck, names, whole), counts)
            layer = deck.model.get_output_embeddings()
            losses = [frozen_output_loss(own, layer, one.targets) for own, one in zip(states, packs, strict=True)]
        else:
            logits = torch.split(target_logits(deck, names, whole).float(), counts)
            losses = [F.cross_entropy(own, one.targets) for own, one in zip(logits, packs, strict=True)]
        width = whole.input_ids.shape[1]
        return [(loss, len(one.input_ids) * width) for loss, one in zip(losses, packs, strict=True)]

    def evaluate(self) -> dict[str, float]:
        """Return mean loss of an answer's token on the held-out conversations, and its exponential."""
        losses = self.held_out_losses()
        mean = sum(loss * tokens for _, loss, tokens in losses) / sum(tokens for *_, tokens in losses)
        return {"loss": mean, "perplexity": math.exp(min(mean, 700))}

    def held_out_losses(self) -> list[tuple[Conversation, float, int]]:
        """Return every held-out conversation that fits, the mean loss of its answers' tokens, and how many tokens that
        is.
        """
        found = []
        lengths = [len(encoded.ids) for _, encoded in self._evaluation]
        with torch.inference_mode():
            for chosen in batches_by_length(lengths, 16):
                rows = [self._evaluation[row] for row in chosen]
                packed = pack(self._deck, self._name, [[encoded] for _, encoded in rows])
                logits = target_logits(self._deck, self._name, packed).float()
                counts = packed.loss_mask.sum(dim=1).tolist()
                each = torch.split(F.cross_entropy(logits, packed.targets, reduction="none"), counts)
                found += [(row[0], own.mean().item(), len(own)) for row, own in zip(rows, each, strict=True)]
        return found

    def _mean_loss(self, packed: Pack) -> torch.Tensor:
        if self._output_is_a_product:
            states = target_states(self._deck, self._name, packed)
            return frozen_output_loss(states, self._deck.model.get_output_embeddings(), packed.targets)
        return F.cross_entropy(target_logits(self._deck, self._name, packed).float(), packed.targets)

    def _fitting(self, task: Generate, conversations: Sequence[Conversation]) -> list[Encoded | None]:
        """Return the token ids of each conversation, None for one whose last answer does not fit."""
        whole = (encode_conversation(self._deck.tokenizer, self._with_system(task, one)) for one in conversations)
        found = [None if (fitted := fit(one, self._limit)) is None else kept(fitted) for one in whole]
        left_out = sum(one is None for one in found)
        if left_out == len(found):
            raise DataError(say("no answer fits into max_length {limit}; raise it", limit=self._limit))
        if left_out:
            warnings.warn(
                say(
                    "{count} conversations are left out: their last answer alone is longer than max_length {limit}",
                    count=left_out,
                    limit=self._limit,
                ),
                stacklevel=2,
            )
        return found

    @staticmethod
    def _with_system(task: Generate, one: Conversation) -> Conversation:
        if not task.system or one.messages[0].role == "system":
            return one
        return Conversation((Message("system", task.system), *one.messages))

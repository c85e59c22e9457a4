"""Generation: continuous batching, prompts in chunks between the steps of the running answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias, final

from transformers import DynamicCache

from tunedeck.core.errors import ConfigError, DrainingError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.generation.decode import DecodingBatch, batch_key
from tunedeck.generation.kv_cache import check_joinable, has_windows, position_bytes
from tunedeck.generation.prefill import Prefill
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Sequence
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.workers.groups import Group, place

GenerateRequest: TypeAlias = Request[Sequence, Sequence]


@final
@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """`kv_bytes` bounds the keys and values of all sequences, `prompt_cache_bytes` those kept of earlier prompts, and
    `prefill_positions` what one step spends on a new prompt.

    One caller has no more than `key_share` of the sequences while another waits. A request that has waited
    `patience_s` gets its keys and values reserved as they become free, so that a long one is admitted despite a steady
    flow of short ones.
    """

    kv_bytes: int = 1 << 30
    prompt_cache_bytes: int = 256 << 20
    rows: int = 32
    prefill_positions: int = 256
    key_share: float = 0.5
    patience_s: float = 2.0


@final
class GenerateWorker:
    """At every step: drop unwanted sequences, take new ones, a chunk of their prompts, one token for the others."""

    def __init__(
        self,
        backend: GenerateBackend,
        queue: FairQueue,
        limits: GenerationLimits,
        on_step: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._backend, self._queue, self._limits, self._on_step = backend, queue, limits, on_step
        self._deck = backend.deck
        self._groups: list[Group] = []
        self._prefill: tuple[Prefill, Group] | None = None
        self._running: dict[Sequence, GenerateRequest] = {}
        cache = _cache_of_a_token(self._deck)
        self.kv_positions, self._windows = limits.kv_bytes // position_bytes(cache), has_windows(cache)
        if not self.kv_positions:
            raise ConfigError(
                say("{bytes} bytes are too few for keys and values; raise the limit", bytes=limits.kv_bytes)
            )

    def step(self) -> bool:
        """Run one step of all running requests."""
        self._drop_unwanted()
        self._compute_prompts()
        for batch in [group.batch for group in self._groups]:
            if batch is not None and batch.sequences:
                self._guarded(batch.sequences, partial(self._step, batch))
        self._groups = [group for group in self._groups if group.lengths]
        return bool(self._running)

    def stop(self) -> None:
        """Fail all running requests."""
        self._fail(list(self._running), DrainingError(say("the server is shutting down")))

    def _admit(self) -> None:
        """Take what fits, several short prompts together."""
        admission = _Admission(self)
        sequences: list[Sequence] = []
        for request in self._queue.take(admission.fits, self._limits.rows - len(self._running)):
            if request.start():
                sequence = request.content
                sequence.adapter_name = request.adapter
                self._running[sequence] = request
                sequences.append(sequence)
        if sequences:
            group = admission.group()
            if group not in self._groups:
                self._groups.append(group)
            group.lengths.update((one, one.max_length) for one in sequences)
            self._guarded(sequences, lambda: self._begin(sequences, group))

    def _begin(self, sequences: list[Sequence], group: Group) -> None:
        self._prefill = Prefill(self._deck, sequences, [self._backend.beginning(one) for one in sequences]), group

    def _prefill_together(self, together: list[Sequence]) -> bool:
        """Tell whether no sequence has its own base tensors and little of their common prefill is padding."""
        if any(batch_key(self._deck, one.adapter) is not None for one in together):
            return False
        if self._windows and any(one.virtual_tokens for one in together):
            return False
        lengths = [self._backend.to_compute(one) for one in together]
        return max(lengths) * len(lengths) <= min(self._limits.prefill_positions, 2 * sum(lengths))

    def _compute_prompts(self) -> None:
        """Compute one prompt, or one group of them, after the other, until most of what a step may spend is spent."""
        most = left = self._limits.prefill_positions
        while 2 * left >= most:
            if self._prefill is None:
                self._admit()
            if self._prefill is None:
                return
            prefill, group = self._prefill
            rows = len(prefill.sequences)
            chunk = min(prefill.left, max(1, left // rows))
            left -= rows * chunk
            self._guarded(prefill.sequences, partial(self._advance, prefill, group, chunk))

    def _advance(self, prefill: Prefill, group: Group, chunk: int) -> None:
        if prefill.advance(chunk):
            group.batch = group.batch or DecodingBatch(self._deck)
            self._prefill = None
            for row, sequence in enumerate(prefill.sequences):
                if sequence in self._running:
                    self._backend.keep_prompt(prefill, row)
            news = group.batch.join(prefill)
            group.batch.drop(lambda one: one not in self._running)
            self._deliver(news)

    def _step(self, batch: DecodingBatch) -> None:
        self._on_step(len(batch.sequences))
        self._deliver(batch.step())

    def _deliver(self, news: list[Sequence]) -> None:
        for sequence in news:
            request = self._running.get(sequence)
            if request is None:  # it left while others of its prefill went on
                continue
            if request.first_token_s is None:
                request.first_token_s = time.monotonic()
            if request.on_piece is not None:
                chunk = sequence.take_chunk()
                if chunk.text:
                    request.on_piece(chunk)
            if sequence.finish_reason is not None:
                self._forget(sequence)
                if sequence.error is not None:
                    request.fail(sequence.error)
                else:
                    request.answer(sequence)

    def _drop_unwanted(self) -> None:
        gone = [
            sequence
            for sequence, request in self._running.items()
            if request.cancelled or request.expired or request.done.done()
        ]
        for sequence in gone:
            request = self._running[sequence]
            if request.cancelled:
                request.fail(CancelledError())
            else:
                request.fail_late()
            self._forget(sequence)
        self._drop(gone)
        if self._prefill is not None and all(one in gone for one in self._prefill[0].sequences):
            self._prefill = None

    def _guarded(self, sequences: list[Sequence], work: Callable[[], None]) -> None:
        """Run work whose failure ends the sequences that took part and no others."""
        taking_part = list(sequences)
        try:
            work()
        except Exception as error:
            self._fail(taking_part, error)

    def _fail(self, sequences: list[Sequence], error: Exception) -> None:
        for sequence in sequences:
            if sequence in self._running:
                self._running[sequence].fail(error)
                self._forget(sequence)
        self._drop(sequences)
        if self._prefill is not None and any(one in sequences for one in self._prefill[0].sequences):
            self._prefill = None

    def _drop(self, gone: Collection[Sequence]) -> None:
        for group in self._groups if gone else ():
            if group.batch is not None:
                group.batch.drop(lambda one: one in gone)

    def _forget(self, sequence: Sequence) -> None:
        del self._running[sequence]
        for group in self._groups:
            group.lengths.pop(sequence, None)


@final
class _Admission:
    """Decide whether requests, one after the other, fit next to the running ones, in one group and one prefill."""

    def __init__(self, worker: GenerateWorker) -> None:
        self._worker = worker
        self._callers = Counter(request.caller for request in worker._running.values())
        self._groups = [Group(group.key, dict(group.lengths), group.batch) for group in worker._groups]
        self._group: Group | None = None
        self._taken: list[Sequence] = []
        self._reserved = 0

    def fits(self, request: GenerateRequest) -> bool:
        """Tell whether a request is taken together with those that have been."""
        worker, sequence = self._worker, request.content
        together = [*self._taken, sequence]
        if not self._shared(request):
            return False
        if self._taken and not worker._prefill_together(together):
            return False
        to_come = sum(worker._backend.prefix_to_come(key) for key in {one.adapter for one in together})
        free = worker.kv_positions - worker._backend.prefix_positions - to_come - self._reserved
        group = place(self._groups, batch_key(worker._deck, sequence.adapter), sequence.max_length, free)
        if group is None:
            if time.monotonic() - request.arrived_s > worker._limits.patience_s:
                self._reserved += sequence.max_length
            return False
        if self._taken and group is not self._group:
            return False
        if group not in self._groups:
            self._groups.append(group)
        self._group = group
        group.lengths[sequence] = sequence.max_length
        self._taken.append(sequence)
        self._callers[request.caller] += 1
        return True

    def group(self) -> Group:
        """Return the worker's group for what has been taken."""
        assert self._group is not None
        at = self._groups.index(self._group)
        return self._worker._groups[at] if at < len(self._worker._groups) else Group(self._group.key)

    def _shared(self, request: GenerateRequest) -> bool:
        """Tell whether the caller leaves rows for another that waits."""
        limits = self._worker._limits
        most = max(1, int(limits.key_share * limits.rows))
        return self._callers[request.caller] < most or not self._worker._queue.waiting(request.caller)


def _cache_of_a_token(deck: Deck) -> DynamicCache:
    """Compute one token to see how the base keeps keys and values; ConfigError for one that cannot be batched."""
    prefill = Prefill(deck, [Sequence([0], Sampling()).prepare(deck, None, [0])])
    prefill.advance()
    check_joinable(prefill.cache, deck.base.reference)
    return prefill.cache

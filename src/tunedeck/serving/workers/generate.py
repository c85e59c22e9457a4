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
from tunedeck.generation.buckets import can_bucket, room, wide_room
from tunedeck.generation.decode import DecodingBatch, batch_key
from tunedeck.generation.kv_cache import check_joinable, has_windows, position_bytes
from tunedeck.generation.prefill import Prefill
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Sequence
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.fair_queue import FairQueue
from tunedeck.serving.request import Request

GenerateRequest: TypeAlias = Request[Sequence, Sequence]


@final
@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """`kv_bytes` bounds the keys and values of all sequences, `prompt_cache_bytes` those kept of earlier prompts, and
    `prefill_positions` what one step spends on a new prompt.

    One caller has no more than `key_share` of the sequences while another waits. A request that has waited
    `patience_s` gets its keys and values reserved as they become free, so that a long one is admitted despite a steady
    flow of short ones. While nothing runs, requests wait up to `gather_s` for those that came with them and whose
    adapters are being loaded: computed one by one, the last of 16 would wait for 15 prompts and steps.
    """

    kv_bytes: int = 1 << 30
    prompt_cache_bytes: int = 256 << 20
    rows: int = 32
    prefill_positions: int = 256
    key_share: float = 0.5
    patience_s: float = 2.0
    gather_s: float = 0.5


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
        self._batches: dict[tuple[str | None, int], DecodingBatch] = {}
        self._prefill: Prefill | None = None
        self._running: dict[Sequence, GenerateRequest] = {}
        cache = _cache_of_a_token(self._deck)
        self.kv_positions, self._windows = limits.kv_bytes // position_bytes(cache), has_windows(cache)
        self._buckets = can_bucket(self._deck)
        if not self.kv_positions:
            raise ConfigError(
                say("{bytes} bytes are too few for keys and values; raise the limit", bytes=limits.kv_bytes)
            )

    def step(self) -> bool:
        """Run one step of all running requests."""
        self._drop_unwanted()
        if not self._running:
            self._queue.gather_coming(self._limits.gather_s)
        self._compute_prompts()
        for batch in self._batches.values():
            if batch.sequences:
                self._guarded(batch.sequences, partial(self._step, batch))
        self._batches = {key: batch for key, batch in self._batches.items() if batch.sequences}
        return bool(self._running)

    @property
    def reserved(self) -> int:
        """Return the positions that the running sequences may come to take."""
        return sum(one.room for one in self._running)

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
        for batch in self._batches.values() if admission.rooms_changed else ():
            self._guarded(batch.sequences, batch.arrange)
        if sequences:
            self._guarded(sequences, lambda: self._begin(sequences))

    def _begin(self, sequences: list[Sequence]) -> None:
        self._prefill = Prefill(self._deck, sequences, [self._backend.beginning(one) for one in sequences])

    def _batch_of(self, sequence: Sequence) -> tuple[str | None, int]:
        """Return the key of the batch that a sequence decodes in."""
        return batch_key(self._deck, sequence.adapter), 0 if self._buckets else sequence.room

    def _prefill_together(self, together: list[Sequence]) -> bool:
        """Tell whether sequences share a batch and the base, and little of their common prefill is padding."""
        if any(batch_key(self._deck, one.adapter) is not None for one in together):
            return False
        if len({self._batch_of(one) for one in together}) > 1:
            return False
        if self._windows and any(one.virtual_tokens for one in together):
            return False
        lengths = [self._backend.to_compute(one) for one in together]
        width = max(lengths) + max(one.prompt_tokens - left for one, left in zip(together, lengths, strict=True))
        if width * len(together) > sum(room(one.max_length) for one in together):
            return False
        return max(lengths) * len(lengths) <= min(self._limits.prefill_positions, 2 * sum(lengths))

    def _compute_prompts(self) -> None:
        """Compute one prompt, or one group of them, after the other, until most of what a step may spend is spent."""
        most = left = self._limits.prefill_positions
        while 2 * left >= most:
            if self._prefill is None:
                self._admit()
            if self._prefill is None:
                return
            prefill = self._prefill
            rows = len(prefill.sequences)
            chunk = min(prefill.left, max(1, left // rows))
            left -= rows * chunk
            self._guarded(prefill.sequences, partial(self._advance, prefill, chunk))

    def _advance(self, prefill: Prefill, chunk: int) -> None:
        if prefill.advance(chunk):
            self._prefill = None
            key = self._batch_of(prefill.sequences[0])
            if key not in self._batches:
                self._batches[key] = DecodingBatch(self._deck)
            batch = self._batches[key]
            for row, sequence in enumerate(prefill.sequences):
                if sequence in self._running:
                    self._backend.keep_prompt(prefill, row)
            news = batch.join(prefill)
            batch.drop(lambda one: one not in self._running)
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
                del self._running[sequence]
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
            del self._running[sequence]
        self._drop(gone)
        if self._prefill is not None and all(one in gone for one in self._prefill.sequences):
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
                del self._running[sequence]
        self._drop(sequences)
        if self._prefill is not None and any(one in sequences for one in self._prefill.sequences):
            self._prefill = None

    def _drop(self, gone: Collection[Sequence]) -> None:
        for batch in self._batches.values() if gone else ():
            batch.drop(lambda one: one in gone)


@final
class _Admission:
    """Decide whether requests, one after the other, fit next to the running ones and in one prefill."""

    def __init__(self, worker: GenerateWorker) -> None:
        self._worker = worker
        self._callers = Counter(request.caller for request in worker._running.values())
        self.rooms_changed = False
        """Whether the rooms of running sequences have been reduced."""
        self._kept_free = 0
        self._taken: list[Sequence] = []

    def fits(self, request: GenerateRequest) -> bool:
        """Tell whether a request is taken together with those that have been; one that is alone always is."""
        worker, sequence = self._worker, request.content
        together = [*self._taken, sequence]
        if not self._shared(request):
            return False
        to_come = sum(worker._backend.prefix_to_come(key) for key in {one.adapter for one in together})
        free = worker.kv_positions - worker._backend.prefix_positions - to_come - self._kept_free
        sequence.room = self._room_within(free, sequence)
        if not sequence.room:
            if time.monotonic() - request.arrived_s > worker._limits.patience_s:
                self._kept_free += room(sequence.max_length)
            return False
        if self._taken and not worker._prefill_together(together):
            return False
        self._taken.append(sequence)
        self._callers[request.caller] += 1
        return True

    def _room_within(self, free: int, sequence: Sequence) -> int:
        """Return the room for one more sequence, 0 while it has to wait; one that is alone does not.

        While half of the positions are free, rooms are wide. They are reduced when a request would wait for the rest.
        """
        taken, needed = [*self._worker._running, *self._taken], room(sequence.max_length)
        reserved = sum(one.room for one in taken)
        if reserved + wide_room(sequence.max_length) <= free // 2:
            return wide_room(sequence.max_length)
        least = sum(room(one.max_length) for one in taken)
        if reserved + needed > free >= least + needed and self._worker._buckets:
            for one in taken:
                one.room = room(one.max_length)
            reserved, self.rooms_changed = least, True
        return needed if not taken or reserved + needed <= free else 0

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

"""Generation: continuous batching, prompts in chunks between the steps of the answers under way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence, Set
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import cast, final

from transformers import DynamicCache

from tunedeck.core.errors import ConfigError, DrainingError
from tunedeck.core.i18n import say
from tunedeck.deck.deck import Deck
from tunedeck.generation.decode import DecodingBatch, company_of
from tunedeck.generation.kv_cache import check_joinable, has_windows, position_bytes
from tunedeck.generation.prefill import Prefill
from tunedeck.generation.sampling import Sampling
from tunedeck.generation.sequence import Chunk, Row, TokenLogprob, new_row
from tunedeck.serving.backends.generate import Asked, GenerateBackend
from tunedeck.serving.queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.serving.room import Group, place


@final
@dataclass(frozen=True, slots=True)
class Generated:
    """A whole answer; `finish` is "stop" or "length"."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    logprobs: tuple[TokenLogprob, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """`kv_bytes` bounds the keys and values of all rows, `prefill_positions` what one step spends on a new prompt.

    One caller has no more than `key_share` of the rows while another waits.
    """

    kv_bytes: int = 1 << 30
    rows: int = 32
    prefill_positions: int = 256
    key_share: float = 0.5


@final
class GenerateWorker:
    """At every step: let rows go that nobody wants, take new ones in, a chunk of their prompts, one token for the others."""

    def __init__(
        self,
        backend: GenerateBackend,
        queue: FairQueue,
        limits: GenerationLimits,
        stepped: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._backend, self._queue, self._limits, self._stepped = backend, queue, limits, stepped
        self._deck = backend.deck
        self._groups: list[Group] = []
        self._prefill: tuple[Prefill, Group] | None = None
        self._requests: dict[int, Request] = {}
        self._rows: dict[int, Row] = {}
        self._numbers = count()
        cache = _cache_of_a_token(self._deck)
        self.kv_positions, self._windows = limits.kv_bytes // position_bytes(cache), has_windows(cache)
        if not self.kv_positions:
            raise ConfigError(
                say("{bytes} bytes are too few for keys and values; raise the limit", bytes=limits.kv_bytes)
            )

    def step(self) -> bool:
        """One step of everything under way."""
        self._drop_unwanted()
        self._compute_prompts()
        for batch in [group.batch for group in self._groups]:
            if batch is not None and batch.rows:
                self._guarded(batch.rows, partial(self._step, batch))
        self._groups = [group for group in self._groups if group.lengths]
        return bool(self._rows)

    def stop(self) -> None:
        """Fail what is under way."""
        self._fail(list(self._rows.values()), DrainingError(say("the server is shutting down")))

    def _admit(self) -> None:
        """Take what fits, several short prompts together."""
        admission = _Admission(self)
        rows: list[Row] = []
        for request in self._queue.take(admission.fits, self._limits.rows - len(self._rows)):
            if request.start():
                asked, index = cast(Asked, request.content), next(self._numbers)
                sampling = asked.sampling
                row = new_row(
                    self._deck,
                    index,
                    request.key,
                    request.ids,
                    sampling,
                    sampling.seed,
                    request.adapter,
                    None if asked.grammar is None else asked.grammar.start(),
                )
                self._requests[index], self._rows[index] = request, row
                rows.append(row)
        if rows:
            group = admission.group()
            if group not in self._groups:
                self._groups.append(group)
            group.lengths.update((row.index, row.length + row.room) for row in rows)
            self._guarded(rows, lambda: self._begin(rows, group))

    def _begin(self, rows: list[Row], group: Group) -> None:
        self._prefill = Prefill(self._deck, rows, [self._backend.prefix(row.adapter) for row in rows]), group

    def _prefill_together(self, together: Sequence[Request]) -> bool:
        """Rows share a prefill when none has a base of its own and little of it is padding."""
        if any(company_of(self._deck, one.key) is not None for one in together):
            return False
        if self._windows and any(self._deck.virtual_tokens(one.key) for one in together):
            return False
        lengths = [len(one.ids) for one in together]
        return max(lengths) * len(lengths) <= min(self._limits.prefill_positions, 2 * sum(lengths))

    def _compute_prompts(self) -> None:
        """One prompt, or one group of them, after the other, until most of what a step may spend is spent."""
        most = left = self._limits.prefill_positions
        while 2 * left >= most:
            if self._prefill is None:
                self._admit()
            if self._prefill is None:
                return
            prefill, group = self._prefill
            rows = len(prefill.rows)
            chunk = min(prefill.left, max(1, left // rows))
            left -= rows * chunk
            self._guarded(prefill.rows, partial(self._advance, prefill, group, chunk))

    def _advance(self, prefill: Prefill, group: Group, chunk: int) -> None:
        if prefill.advance(chunk):
            group.batch = group.batch or DecodingBatch(self._deck)
            self._prefill = None
            chunks = group.batch.join(prefill)
            group.batch.drop(lambda row: row.index not in self._rows)
            self._deliver(chunks)

    def _step(self, batch: DecodingBatch) -> None:
        self._stepped(len(batch.rows))
        self._deliver(batch.step())

    def _deliver(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            request = self._requests.get(chunk.row)
            if request is None:  # it left while others of its prefill went on
                continue
            request.generated = len(self._rows[chunk.row].answer)
            if request.first_token_s is None:
                request.first_token_s = time.monotonic()
            if request.on_piece is not None and chunk.text:
                request.on_piece(chunk)
            if chunk.error is not None:
                self._forget(chunk.row)
                request.fail(chunk.error)
            elif chunk.done:
                row = self._forget(chunk.row)
                assert row.finish is not None
                tokens = max(1, len(row.answer))
                request.answer(Generated(row.said, row.finish, row.length, tokens, tuple(row.logprobs)))

    def _drop_unwanted(self) -> None:
        gone = {
            index
            for index, request in self._requests.items()
            if request.cancelled or request.expired or request.done.done()
        }
        if not gone:
            return
        for index in gone:
            request = self._requests[index]
            if request.cancelled:
                request.fail(CancelledError())
            else:
                request.fail_late()
            self._forget(index)
        self._drop(gone)
        if self._prefill is not None and all(row.index in gone for row in self._prefill[0].rows):
            self._prefill = None

    def _guarded(self, rows: Sequence[Row], work: Callable[[], None]) -> None:
        """A failure ends the rows that took part and nobody else."""
        taking_part = list(rows)
        try:
            work()
        except Exception as error:
            self._fail(taking_part, error)

    def _fail(self, rows: Sequence[Row], error: Exception) -> None:
        gone = {row.index for row in rows}
        for index in gone & self._requests.keys():
            self._requests[index].fail(error)
            self._forget(index)
        self._drop(gone)
        if self._prefill is not None and gone & {row.index for row in self._prefill[0].rows}:
            self._prefill = None

    def _drop(self, gone: Set[int]) -> None:
        for group in self._groups:
            if group.batch is not None:
                group.batch.drop(lambda row: row.index in gone)

    def _forget(self, index: int) -> Row:
        del self._requests[index]
        for group in self._groups:
            group.lengths.pop(index, None)
        return self._rows.pop(index)


@final
class _Admission:
    """Whether requests, one after the other, fit beside the rows under way, in one group and one prefill."""

    def __init__(self, worker: GenerateWorker) -> None:
        self._worker = worker
        self._callers = Counter(request.caller for request in worker._requests.values())
        self._groups = [Group(group.company, dict(group.lengths), group.batch) for group in worker._groups]
        self._group: Group | None = None
        self._taken: list[Request] = []

    def fits(self, request: Request) -> bool:
        """Whether a request is taken with those that have been."""
        worker, together = self._worker, [*self._taken, request]
        if self._taken and not worker._prefill_together(together):
            return False
        if not self._shared(request):
            return False
        to_come = sum(worker._backend.prefix_to_come(key) for key in {one.key for one in together})
        free = worker.kv_positions - worker._backend.prefix_positions - to_come
        length = request.width + cast(Asked, request.content).sampling.max_tokens
        if worker._deck.positions is not None:
            length = min(length, worker._deck.positions)
        group = place(self._groups, company_of(worker._deck, request.key), length, free)
        if group is None or (self._taken and group is not self._group):
            return False
        if group not in self._groups:
            self._groups.append(group)
        self._group = group
        group.lengths[-len(together)] = length
        self._taken.append(request)
        self._callers[request.caller] += 1
        return True

    def group(self) -> Group:
        """The worker's group for what has been taken."""
        assert self._group is not None
        at = self._groups.index(self._group)
        return self._worker._groups[at] if at < len(self._worker._groups) else Group(self._group.company)

    def _shared(self, request: Request) -> bool:
        """Whether the caller leaves rows for another that waits."""
        limits = self._worker._limits
        most = max(1, int(limits.key_share * limits.rows))
        return self._callers[request.caller] < most or not self._worker._queue.waiting(request.caller)


def _cache_of_a_token(deck: Deck) -> DynamicCache:
    """To see how the base keeps its keys and values; raises ConfigError for an architecture whose rows cannot come and go."""
    prefill = Prefill(deck, [new_row(deck, 0, None, [0], Sampling(), 0)])
    prefill.advance()
    check_joinable(prefill.cache, deck.base.reference)
    return prefill.cache

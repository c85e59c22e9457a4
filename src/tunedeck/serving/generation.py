"""Generation: continuous batching, prompts in chunks between the steps of the answers under way."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import cast, final

from transformers import DynamicCache

from tunedeck.core.errors import ConfigError, DrainingError
from tunedeck.core.messages import say
from tunedeck.deck.deck import Deck
from tunedeck.serving.generate_backend import Asked, GenerateBackend
from tunedeck.serving.queue import FairQueue
from tunedeck.serving.request import Request
from tunedeck.tasks.answering import Chunk, Row, new_row
from tunedeck.tasks.decode import DecodingBatch, company_of
from tunedeck.tasks.kv_cache import check_joinable, has_windows, position_bytes
from tunedeck.tasks.prefill import Prefill
from tunedeck.tasks.sampling import Sampling


@final
@dataclass(frozen=True, slots=True)
class Generated:
    """A whole answer; `finish` is "stop" or "length"."""

    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int


@final
@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """`kv_bytes` bounds the keys and values of all rows, `prefill_positions` what one step spends on a new prompt."""

    kv_bytes: int = 1 << 30
    rows: int = 32
    prefill_positions: int = 256


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
        self._batches: dict[str | None, DecodingBatch] = {}
        self._prefill: Prefill | None = None
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
        for batch in list(self._batches.values()):
            if batch.rows:
                self._guarded(batch.rows, partial(self._step, batch))
        self._batches = {company: batch for company, batch in self._batches.items() if batch.rows}
        return bool(self._rows)

    def stop(self) -> None:
        """Fail what is under way."""
        self._fail(list(self._rows.values()), DrainingError(say("the server is shutting down")))

    def _admit(self) -> None:
        """Take what fits, several short prompts together."""
        taken = self._queue.take(self._room(), self._limits.rows - len(self._rows))
        rows = []
        for request in taken:
            if request.start():
                asked, index = cast(Asked, request.content), next(self._numbers)
                row = new_row(self._deck, index, request.key, request.ids, asked.sampling, asked.sampling.seed)
                self._requests[index], self._rows[index] = request, row
                rows.append(row)
        if rows:
            self._guarded(rows, lambda: self._begin(rows))

    def _begin(self, rows: list[Row]) -> None:
        self._prefill = Prefill(self._deck, rows, [self._backend.prefix(row.adapter) for row in rows])

    def _room(self) -> Callable[[Request], bool]:
        """Whether a request fits beside the rows under way when all of them have said all they may."""
        under_way = list(self._rows.values())
        rows, longest = len(under_way), max((row.length + row.room for row in under_way), default=0)
        free = self.kv_positions - self._backend.prefix_positions
        group: list[Request] = []

        def fits(request: Request) -> bool:
            nonlocal rows, longest
            full = max(longest, request.width + cast(Asked, request.content).sampling.max_tokens)
            if self._deck.positions is not None:
                full = min(full, self._deck.positions)
            if rows and (rows + 1) * full > free:
                return False
            if group and not self._prefill_together(group, request):
                return False
            rows, longest = rows + 1, full
            group.append(request)
            return True

        return fits

    def _prefill_together(self, group: list[Request], request: Request) -> bool:
        """Rows share a prefill when none has a base of its own and little of it is padding."""
        together = [*group, request]
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
            rows = len(self._prefill.rows)
            chunk = min(self._prefill.left, max(1, left // rows))
            left -= rows * chunk
            self._guarded(self._prefill.rows, partial(self._advance, self._prefill, chunk))

    def _advance(self, prefill: Prefill, chunk: int) -> None:
        if prefill.advance(chunk):
            company = company_of(self._deck, prefill.rows[0].adapter)
            batch = self._batches.setdefault(company, DecodingBatch(self._deck))
            self._prefill = None
            self._deliver(batch.join(prefill))

    def _step(self, batch: DecodingBatch) -> None:
        self._stepped(len(batch.rows))
        self._deliver(batch.step())

    def _deliver(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            request = self._requests[chunk.row]
            request.generated = len(self._rows[chunk.row].answer)
            if request.first_token_s is None:
                request.first_token_s = time.monotonic()
            if request.on_piece is not None and chunk.text:
                request.on_piece(chunk.text)
            if chunk.done:
                row = self._forget(chunk.row)
                assert row.finish is not None
                request.answer(Generated(row.said, row.finish, row.length, max(1, len(row.answer))))

    def _drop_unwanted(self) -> None:
        gone = {index for index, request in self._requests.items() if request.cancelled or request.expired}
        if not gone:
            return
        for index in gone:
            request = self._requests[index]
            if request.cancelled:
                request.fail(CancelledError())
            else:
                request.fail_late()
            self._forget(index)
        for batch in self._batches.values():
            batch.drop(lambda row: row.index in gone)
        if self._prefill is not None and all(row.index in gone for row in self._prefill.rows):
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
        for batch in self._batches.values():
            batch.drop(lambda row: row.index in gone)
        if self._prefill is not None and gone & {row.index for row in self._prefill.rows}:
            self._prefill = None

    def _forget(self, index: int) -> Row:
        del self._requests[index]
        return self._rows.pop(index)


def _cache_of_a_token(deck: Deck) -> DynamicCache:
    """To see how the base keeps its keys and values; raises ConfigError for an architecture whose rows cannot come and go."""
    prefill = Prefill(deck, [new_row(deck, 0, None, [0], Sampling(), 0)])
    prefill.advance()
    check_joinable(prefill.cache, deck.base.reference)
    return prefill.cache

"""How the next token of each row is chosen from its logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from tunedeck.core.errors import TunedeckError
from tunedeck.generation.sequence import Row, TokenLogprob, not_numbers


def choose_tokens(logits: torch.Tensor, rows: Sequence[Row], tokenizer: Any) -> list[int | TunedeckError]:
    """The next token of each row of logits (rows, vocab), each by its own sampling; an error for a row whose logits are not finite.

    Rows that ask for logprobs get the token's own. From a GPU only the logits of rows that are not plainly greedy are copied.
    """
    likeliest = logits.max(-1)
    finite, best = likeliest.values.isfinite().tolist(), likeliest.indices.tolist()
    chosen: list[int | TunedeckError] = []
    for place, row in enumerate(rows):
        if not finite[place]:
            chosen.append(not_numbers(row.name))
        elif row.plain:
            chosen.append(best[place])
        else:
            chosen.append(_choose(logits[place].cpu(), row, tokenizer))
    return chosen


def _choose(logits: torch.Tensor, row: Row, tokenizer: Any) -> int | TunedeckError:
    scores = logits
    if row.grammar is not None:
        try:
            scores = row.grammar.masked(scores)
        except TunedeckError as error:
            return error
    if row.processors:
        seen = torch.tensor([row.prompt + row.answer])
        scores = row.processors(seen, scores[None])[0]
    if row.sampling.greedy:
        token = int(scores.argmax())
    else:
        chances = scores.softmax(-1)
        if bool(chances[0].isnan()):  # a quotient by a small temperature has left float32
            return not_numbers(row.name)
        token = int(torch.multinomial(chances, 1, generator=row.dice))
    if row.sampling.logprobs is not None and token not in row.ends:
        row.logprobs.append(_logprob(logits, token, row, row.sampling.logprobs, tokenizer))
    return token


def _logprob(logits: torch.Tensor, token: int, row: Row, count: int, tokenizer: Any) -> TokenLogprob:
    """By the model's own distribution, before temperature and penalties, as OpenAI and vLLM tell it."""
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(count)
    texts = [tokenizer.decode([one]) for one in (token, *ids.tolist())]
    top = tuple(zip(texts[1:], values.tolist(), strict=True))
    return TokenLogprob(texts[0], float(logprobs[token]), row.detokenizer.length, top)

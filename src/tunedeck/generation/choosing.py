"""Choose the next token of each sequence from its logits."""

from __future__ import annotations

from typing import Any

import torch

from tunedeck.core.errors import TunedeckError
from tunedeck.generation.sequence import Sequence, TokenLogprob, not_numbers


def choose_tokens(logits: torch.Tensor, sequences: list[Sequence], tokenizer: Any) -> list[int | TunedeckError]:
    """Return the next token of each sequence from logits (sequences, vocab), or an error where they are not finite.

    Each sequence uses its sampling and records logprobs where it asks for them. From a GPU only the logits of
    sequences that are not plainly greedy are copied.
    """
    likeliest = logits.max(-1)
    finite, best = likeliest.values.isfinite().tolist(), likeliest.indices.tolist()
    chosen: list[int | TunedeckError] = []
    for place, sequence in enumerate(sequences):
        if not finite[place]:
            chosen.append(not_numbers(sequence.adapter_name))
        elif sequence.plain:
            chosen.append(best[place])
        else:
            chosen.append(_choose(logits[place].cpu(), sequence, tokenizer))
    return chosen


def _choose(logits: torch.Tensor, sequence: Sequence, tokenizer: Any) -> int | TunedeckError:
    scores = logits
    if sequence.grammar_state is not None:
        try:
            scores = sequence.grammar_state.masked(scores)
        except TunedeckError as error:
            return error
    if sequence.processors:
        seen = torch.tensor([sequence.prompt_ids + sequence.token_ids])
        scores = sequence.processors(seen, scores[None])[0]
    if sequence.sampling.greedy:
        token = int(scores.argmax())
    else:
        chances = scores.softmax(-1)
        if bool(chances[0].isnan()):  # a quotient by a small temperature has left float32
            return not_numbers(sequence.adapter_name)
        token = int(torch.multinomial(chances, 1, generator=sequence.rng))
    if sequence.sampling.logprobs is not None and token not in sequence.end_tokens:
        sequence.logprobs.append(_logprob(logits, token, sequence, sequence.sampling.logprobs, tokenizer))
    return token


def _logprob(logits: torch.Tensor, token: int, sequence: Sequence, count: int, tokenizer: Any) -> TokenLogprob:
    """Use the model's distribution, before temperature and penalties, as OpenAI and vLLM do."""
    logprobs = logits.log_softmax(-1)
    values, ids = logprobs.topk(count)
    texts = [tokenizer.decode([one]) for one in (token, *ids.tolist())]
    top = tuple(zip(texts[1:], values.tolist(), strict=True))
    return TokenLogprob(texts[0], float(logprobs[token]), sequence.detokenizer.length, top)

"""Describe the training data of a plan: number of examples, lengths, epochs."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunedeck.core.bundle import cache_folder
from tunedeck.core.errors import ConfigError, DataError
from tunedeck.core.i18n import say
from tunedeck.core.run_length import DEFAULT_BATCH_SIZE, default_epochs, steps_per_epoch
from tunedeck.data.prepare import normalised
from tunedeck.data.table import read_table
from tunedeck.planner.models import PlannedModel

COUNTED_TEXTS = 1000
TEXT_COLUMNS = ("text", "messages", "content", "sentence", "review")
HELD_OUT = 0.1  # DataSettings.eval_fraction
CHARACTERS_PER_TOKEN = 4.0
"""Characters per token of a text in Latin script (OpenAI's and Hugging Face's rule of thumb for English).

A Chinese character counts as CJK_TOKENS tokens: one in BERT's vocabularies, about two thirds in those of Qwen and
ChatGLM.
"""
CJK_TOKENS = {False: 1.0, True: 0.7}


@dataclass(frozen=True, slots=True)
class Workload:
    """Examples, passes and lengths in tokens; the mean sets the time, the longest the memory."""

    samples: int
    epochs: float
    mean_tokens: float
    longest_tokens: int
    evaluation_share: float
    source: str
    counted: bool
    """Whether lengths were counted by the model's tokenizer or are exact for another reason; else estimated."""

    def __post_init__(self) -> None:
        for name, value, largest in (
            ("samples", self.samples, 1e10),
            ("epochs", self.epochs, 1e4),
            ("tokens", self.longest_tokens, 1e7),
        ):
            if not 0 < value <= largest:
                raise ConfigError(
                    say(
                        "{name} must be above 0 and at most {largest:g}, got {value}",
                        name=name,
                        largest=largest,
                        value=value,
                    )
                )


def workload_of_texts(
    texts: Sequence[str], source: str, model: PlannedModel, epochs: float | None, limit: int | None
) -> Workload:
    """Return examples and lengths of texts, of which a share is held out; lengths beyond `limit` or the model's own are
    cut.

    Tokens are counted with the tokenizer.json next to the model's config where there is one, else estimated from
    characters, on COUNTED_TEXTS of them and on the longest. Raises DataError when there are no texts.
    """
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise DataError(say("{path} holds no texts", path=source))
    step = max(1, len(texts) // COUNTED_TEXTS)
    lengths, counted = _count([*texts[::step], max(texts, key=len)], model)
    longest_allowed = min(limit or 10**9, model.max_tokens or 10**9)
    cut = [min(length, longest_allowed) for length in lengths]
    samples = max(1, round(len(texts) * (1 - HELD_OUT)))
    return Workload(
        samples=samples,
        epochs=planned_epochs(epochs, samples),
        mean_tokens=statistics.fmean(cut[:-1]),
        longest_tokens=max(cut),
        evaluation_share=HELD_OUT / (1 - HELD_OUT),
        source=source,
        counted=counted,
    )


def planned_epochs(epochs: float | None, samples: int) -> float:
    """Return the epochs given, else those of a training run on this number of examples."""
    return default_epochs(steps_per_epoch(samples, DEFAULT_BATCH_SIZE, 1)) if epochs is None else epochs


def workload_of_data(reference: str, model: PlannedModel, epochs: float | None, limit: int | None) -> Workload:
    """Return the workload of a data set: its text column, the messages of its chats, or every text of a row, as in
    instruction, input and output. Repeats are left out as training leaves them out. Raises DataError where it cannot be
    read.
    """
    table = read_table(reference)
    column = next((name for name in TEXT_COLUMNS if name in table.columns), None)
    found = (_joined(row[column] if column else list(row.values())) for row in table.rows)
    texts = list({normalised(text): text for text in found}.values())
    return workload_of_texts(texts, reference, model, epochs, limit)


def _joined(value: object) -> str:
    """Join the texts of a row's value: a text, the contents of messages, or all texts of a list."""
    if isinstance(value, dict):
        value = value.get("content", "")
    if isinstance(value, list):
        return " ".join(filter(None, map(_joined, value)))
    return value if isinstance(value, str) else ""


def _count(texts: Sequence[str], model: PlannedModel) -> tuple[list[int], bool]:
    places = (Path(model.source).parent, cache_folder() / model.reference.removeprefix("bundled:"))
    tokenizer_file = next((place / "tokenizer.json" for place in places if (place / "tokenizer.json").is_file()), None)
    if tokenizer_file is not None:
        try:
            from tokenizers import Tokenizer

            tokenizer = Tokenizer.from_file(str(tokenizer_file))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            return [len(encoded.ids) for encoded in tokenizer.encode_batch(list(texts))], True
        except Exception:  # tokenizers raises bare exceptions; an estimate is better than no plan
            pass
    return [estimated_tokens(text, model.spec.causal) for text in texts], False


def estimated_tokens(text: str, causal: bool) -> int:
    """Return tokens of a text by its characters, two special tokens included."""
    cjk = sum("\u3040" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7af" for character in text)
    return 2 + round(cjk * CJK_TOKENS[causal] + (len(text) - cjk) / CHARACTERS_PER_TOKEN)

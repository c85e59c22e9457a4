"""Choose when a saved adapter answers: `td.threshold`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from tunedeck.core.errors import AdapterError, ConfigError
from tunedeck.core.i18n import say
from tunedeck.core.storage import write_json
from tunedeck.core.values import from_values
from tunedeck.data.labelled import Example
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.formats.confidence import Confidence, Novelty
from tunedeck.formats.manifest import FILE
from tunedeck.models.precision import Dtype
from tunedeck.models.quantize import Quantize
from tunedeck.tasks.classify.confidence import confidence_of
from tunedeck.tasks.classify.data import check_labels, read_examples
from tunedeck.tasks.classify.metrics import targets_of
from tunedeck.tasks.classify.novelty import distances_to_training, fit_novelty, vectors_read
from tunedeck.tasks.classify.task import Classify
from tunedeck.tasks.classify.thresholds import Thresholds, choose_thresholds
from tunedeck.tasks.text_head import logits_of_ids, text_ids
from tunedeck.tasks.vectors import head_inputs


def threshold(
    folder: str | Path,
    data: str | Mapping[str, Any] | DataSettings,
    *,
    precision: float = 0.95,
    confidence: float = 0.95,
    training_data: str | None = None,
    keep: float = 0.95,
    model: str | None = None,
    dtype: Dtype = "auto",
    quantize: Quantize | Literal["none"] | None = None,
    trust_remote_code: bool = False,
) -> Thresholds:
    """Choose the least probability with which each label of a saved adapter is answered, and write it into the folder.

    The threshold of a label is the lowest at which the Wilson interval of its precision on `data`, of the level
    `confidence`, begins at `precision` or above. Labels with too few texts for that share one. The adapter then answers
    "unsure" below it, wherever it answers. With `training_data` it answers "none of these" to a text that is farther
    from the training texts than a share `keep` of `data` is.

    `data` are labelled texts that the adapter was not trained on. Raises DataError for data that is not usable and
    where no label reaches the precision, ConfigError for numbers out of range, AdapterError for an adapter of another
    task; the folder then stays as it is.
    """
    for name, value in {"precision": precision, "confidence": confidence, "keep": keep}.items():
        if not 0 < value < 1:
            raise ConfigError(say("{name} must be between 0 and 1, got {value}", name=name, value=value))
    if not isinstance(data, DataSettings):
        data = from_values(DataSettings, {"train": data} if isinstance(data, str) else data, "data")
    place = Path(folder).expanduser()
    deck = Deck.open(place, model=model, dtype=dtype, quantize=quantize, trust_remote_code=trust_remote_code)
    (name,) = deck.adapters
    examples = _labelled(deck, name, data)
    before = confidence_of(deck, name)
    _keep(deck, name, Confidence(temperature=before.temperature))  # as it answers without thresholds
    answers = deck.predict([example.text for example in examples], adapter=name)
    found = choose_thresholds(
        [answer.probabilities for answer in answers],
        [example.labels for example in examples],
        multi_label=_task(deck, name).multi_label,
        precision=precision,
        confidence=confidence,
    )
    novelty = None
    if training_data is not None:
        known = data.model_copy(update={"train": training_data, "eval_size": None})
        novelty, share = _novelty(deck, name, _labelled(deck, name, known), examples, keep)
        found = replace(found, none_of_these=share)
    limits = {row.label: row.threshold for row in found.labels}
    chosen = Confidence(temperature=before.temperature, thresholds=limits, precision=precision, novelty=novelty)
    _keep(deck, name, chosen)
    write_json(place / FILE, deck.adapter(name).manifest.model_dump(mode="json"))
    return found


def clear_thresholds(folder: str | Path) -> None:
    """Let a saved adapter answer every text again: remove its thresholds and what it knows of its training texts."""
    from tunedeck.formats.manifest import read_manifest

    place = Path(folder).expanduser()
    manifest = read_manifest(place)
    if manifest is None or manifest.confidence is None:
        raise AdapterError(say("{path} has no thresholds", path=place))
    plain = Confidence(temperature=manifest.confidence.temperature)
    write_json(place / FILE, manifest.model_copy(update={"confidence": plain}).model_dump(mode="json"))


def _labelled(deck: Deck, name: str, data: DataSettings) -> list[Example]:
    examples, _ = read_examples(data, data.train, _task(deck, name).multi_label)
    check_labels(examples, deck.label_names(name))
    return examples


def _task(deck: Deck, name: str) -> Classify:
    task = deck.adapter(name).task
    if not isinstance(task, Classify):
        raise AdapterError(say("thresholds are for labels of texts; this adapter is for {task}", task=task.kind))
    return task


def _keep(deck: Deck, name: str, confidence: Confidence) -> None:
    adapter = deck.adapter(name)
    adapter.manifest = adapter.manifest.model_copy(update={"confidence": confidence})


def _novelty(
    deck: Deck, name: str, known: Sequence[Example], held_out: Sequence[Example], keep: float
) -> tuple[Novelty, float]:
    """Return the distance to the training texts, and the share of the held-out texts beyond its limit."""
    task, labels = _task(deck, name), deck.label_names(name)
    if task.multi_label:
        raise ConfigError(say("none of these needs texts with one label each"))

    def vectors(examples: Sequence[Example]) -> torch.Tensor:
        ids = text_ids(deck, [one.text for one in examples], [name] * len(examples), task.max_length)
        with vectors_read(deck, [name]) as read:
            logits_of_ids(deck, ids[:1], [name])
        if read[name].dim() != 2:
            raise ConfigError(say("none of these needs a head that reads one vector of a text; this one reads all"))
        return head_inputs(deck, name, ids)

    targets = targets_of(labels, [one.labels for one in known], multi_label=False)
    if len(set(targets.tolist())) < 2:
        raise ConfigError(say("the training texts of none of these have one label only"))
    apart = vectors(held_out)
    found = fit_novelty(vectors(known), targets, apart, keep)
    far = distances_to_training(found, apart) > found.farthest
    return found, float(far.double().mean())

"""Going on from an adapter with new data: new labels where they appear, and what became of the earlier ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.data.labelled import Example, label_names
from tunedeck.data.prepare import digest, without_overlap
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.classify.data import read_examples
from tunedeck.tasks.classify.task import Classify
from tunedeck.tasks.registry import task_of
from tunedeck.training.config import RunConfig
from tunedeck.training.jobs import Job, run_jobs
from tunedeck.training.record import TrainingRun
from tunedeck.training.resume import check_unfinished, keep_config
from tunedeck.training.start_from import classifier_of

SHOWN = 5
"""Labels that are named with their recall before and after."""


def continue_run(
    config: RunConfig, out: Path, tell: Callable[[str], None], *, resume: bool, progress: bool
) -> dict[str, TrainingRun]:
    """Train a copy of an adapter on new data, and on `replay`, and tell what got better and worse on held-out texts.

    The head keeps its labels and gets a fresh row for each new one; where there are texts of all labels, it begins as
    the fitted one, as in other runs. Raises what `train_run` raises.
    """
    if resume:
        check_unfinished(out)
    folder = Path(str(config.start_from)).expanduser()
    known = tuple(classifier_of(folder).task["labels"])
    task = task_of(config.task)
    if not isinstance(task, Classify):
        raise ConfigError(say("--from is for adapters that give texts labels"))
    sources = [config.data, *_replayed(config)]
    labels = tuple(dict.fromkeys((*known, *(label for source in sources for label in _labels(source, task)))))
    task = task.with_labels(labels)
    parts = [task.read(source) for source in sources]
    dataset = _together(parts)
    for text in (*dataset.notes, *(part.description for part in parts)):
        tell(text)
    if fresh := labels[len(known) :]:
        tell(say("new labels: {labels}", labels=listing(fresh)))
    deck = Deck.load(
        config.model,
        task,
        dtype=config.dtype,
        device=config.device,
        trust_remote_code=config.trust_remote_code,
        quantize=config.quantize,
    )
    name = config.name or out.resolve().name
    deck.load_adapter(folder, name)
    before = _recall(deck, name, dataset)
    deck.add_labels(name, fresh, seed=config.training.seed)

    begin = partial(keep_config, out, config.model_dump(mode="json"), resume)
    settings = config.training
    if not set(labels) <= {label for example in dataset.train for label in example.labels}:
        settings = settings.model_copy(update={"head_init": "random"})  # a fitted head would not know the other labels
    runs = run_jobs(
        deck, {name: Job(dataset, settings)}, settings, {name: out}, resume=resume, progress=progress, begin=begin
    )
    for text in changes(before, _recall(deck, name, dataset)):
        tell(text)
    return runs


def changes(before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]) -> list[str]:
    """Say what became of the labels that an adapter had: (right, all) held-out texts by label, before and after."""
    total = sum(count for _, count in before.values())
    if not total:
        return []
    was, now = (sum(found[label][0] for label in before) for found in (before, after))
    moved = {label: after[label][0] - right for label, (right, _) in before.items()}
    lines = [
        say(
            "held-out texts of the earlier labels: {was} of {total} right before, {now} after",
            was=was,
            now=now,
            total=total,
        )
    ]
    for title, sign in ((say("got better"), 1), (say("got worse"), -1)):
        chosen = sorted((label for label in moved if sign * moved[label] > 0), key=lambda label: -sign * moved[label])
        if chosen:
            shown = (f"{label} {before[label][0]} → {after[label][0]} / {before[label][1]}" for label in chosen[:SHOWN])
            lines.append(f"{title}: {listing(shown)}")
    return lines


def _replayed(config: RunConfig) -> list[DataSettings]:
    return [] if config.replay is None else [config.data.model_copy(update={"train": config.replay, "eval": None})]


def _labels(source: DataSettings, task: Classify) -> tuple[str, ...]:
    references = [reference for reference in (source.train, source.eval) if reference is not None]
    parts = [read_examples(source, reference, task.multi_label)[0] for reference in references]
    return label_names([example for part in parts for example in part])


def _together(parts: Sequence[Dataset[Example]]) -> Dataset[Example]:
    """Return new and replayed data as one, without held-out texts of either among the training texts."""
    evaluation = [example for part in parts for example in part.evaluation]
    train = list(without_overlap([example for part in parts for example in part.train], evaluation))
    notes = tuple(dict.fromkeys(note for part in parts for note in part.notes))
    return replace(parts[0], train=train, evaluation=evaluation, sha256=digest(train), notes=notes)


def _recall(deck: Deck, name: str, dataset: Dataset[Any]) -> dict[str, tuple[int, int]]:
    """Return (right, all) held-out texts by label of an adapter, of the labels that it has."""
    labels = deck.label_names(name)
    examples = [example for example in dataset.evaluation if set(example.labels) <= set(labels)]
    found = dict.fromkeys(labels, (0, 0))
    if not examples:
        return found
    answers = deck.predict([example.text for example in examples], adapter=name)
    for example, answer in zip(examples, answers, strict=True):
        given = answer.labels or (answer.label,)
        for label in example.labels:
            right, count = found[label]
            found[label] = (right + (label in given), count + 1)
    return found

"""Describe classification to serving, comparison, export and planning."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, final

import torch
from pydantic import ValidationError

from tunedeck.core.i18n import say
from tunedeck.core.plan_shape import PlanShape
from tunedeck.core.reliability import TemperatureScaling
from tunedeck.data.labelled import Example
from tunedeck.data.prepare import subset
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Task, pooling_of
from tunedeck.formats.confidence import NONE_OF_THESE, UNSURE, Confidence
from tunedeck.tasks.base import VLLM_DECODERS, Calibration, Comparing, Dataset, HeldOut, Mistake, TaskView, VllmView
from tunedeck.tasks.classify.breakdown import mistakes
from tunedeck.tasks.classify.confidence import confidence_of, temperature_scaling
from tunedeck.tasks.classify.data import check_labels, read_examples
from tunedeck.tasks.classify.metrics import classification_metrics, targets_of
from tunedeck.tasks.classify.prediction import Prediction
from tunedeck.tasks.classify.start import start_head
from tunedeck.tasks.classify.task import Classify
from tunedeck.tasks.text_head import text_ids, text_logits

MISTAKES = 10
_LABELS = ("a", "b")


@final
class ClassifyServing:
    """Texts to predictions."""

    def encode(self, deck: Deck, contents: Sequence[Any], adapter: str | None) -> list[list[int]]:
        """Return token ids of texts, cut to the task's length."""
        return text_ids(deck, contents, [adapter] * len(contents), _task(deck).max_length)

    def answer(self, deck: Deck, rows: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[Prediction]:
        """Return a Prediction for each row."""
        return _task(deck).answer(deck, rows, adapters)

    def to_json(self, answer: Prediction) -> dict[str, Any]:
        """Return labels and probabilities."""
        return {"label": answer.label, "score": answer.score, "probabilities": dict(answer.probabilities)}


@final
class ClassifyOnnx:
    """Logits out of a graph."""

    by_cosine, by_word = False, False

    def settings(self, deck: Deck, name: str) -> dict[str, Any]:
        """Return labels and length; max_length counts the tokens of a text with its special ones."""
        task = cast(Classify, deck.adapter(name).task)
        if confidence_of(deck, name).novelty is not None:
            warnings.warn(say("{name}: ONNX files answer without none of these", name=name), stacklevel=2)
        return {
            "labels": list(deck.label_names(name)),
            "multi_label": task.multi_label,
            "max_length": deck.text_limit(name, _task(deck).max_length),
            **confidence_of(deck, name).model_dump(exclude_defaults=True, exclude={"novelty"}),
            **({"pairs": True} if task.pairs else {}),
        }

    def wrong(self, settings: Mapping[str, Any]) -> str | None:
        """Return which value no prediction could be made with."""
        labels, multi_label = settings.get("labels", []), settings.get("multi_label")
        if not labels or not isinstance(multi_label, bool):
            return f"labels: {labels!r}, multi_label: {multi_label!r}"
        try:
            Confidence.model_validate(settings)
        except ValidationError as error:
            return str(error).replace("\n", " ")
        return None

    def output(self, task: Task, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the logits (batch, labels) in float32."""
        return states.float()

    def graph_key(self, task: Task) -> object:
        """Return what their heads read of the text."""
        return pooling_of(task)

    def expected(self, deck: Deck, name: str, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the deck's logits (batch, labels)."""
        with torch.inference_mode():
            logits: torch.Tensor = deck(ids, mask, adapter=name).logits
        return logits

    def answers(self, deck: Deck, name: str, texts: Sequence[str], as_query: bool) -> torch.Tensor:
        """Return the deck's logits (texts, labels)."""
        return torch.stack(text_logits(deck, texts, [name] * len(texts), _task(deck).max_length))

    def examples(self, deck: Deck, name: str, settings: DataSettings) -> Sequence[Any]:
        """Return labelled texts; DataError for a label that the adapter does not have."""
        task = cast(Classify, deck.adapter(name).task)
        found, _ = read_examples(settings, settings.train, task.multi_label, task.pairs)
        check_labels(found, deck.label_names(name))
        return found if settings.eval_size is None else subset(found, settings.eval_size, settings.split_seed)

    def metrics(
        self, deck: Deck, name: str, outputs: Callable[[list[str], bool], torch.Tensor], examples: Sequence[Any]
    ) -> dict[str, float]:
        """Return accuracy, F1 and loss."""
        task = cast(Classify, deck.adapter(name).task)
        targets = targets_of(deck.label_names(name), [example.labels for example in examples], task.multi_label)
        return classification_metrics(outputs([example.text for example in examples], False), targets, task.multi_label)

    def read(self, runner: Any, name: str, row: Sequence[int], output: Any) -> Prediction:
        """Return the Prediction that logits (labels,) mean."""
        found = runner.labelled(output, name)
        labels, abstain = tuple(found["labels"]), found["abstain"]
        return Prediction(found["label"], found["score"], found["probabilities"], labels, abstain)


def _shown(answer: Prediction) -> dict[str, str]:
    instead = {None: say("none"), UNSURE: say("unsure"), NONE_OF_THESE: say("none of these")}[answer.abstain]
    return {say("label"): ", ".join(answer.labels) or instead, say("probability"): f"{answer.score:.3f}"}


def _held_out(deck: Deck, name: str, dataset: Dataset[Example], metric: str) -> HeldOut:
    predictions = deck.predict([example.text for example in dataset.evaluation], adapter=name)
    right = [set(one.labels) == set(p.labels) for one, p in zip(dataset.evaluation, predictions, strict=True)]
    if metric != "accuracy":
        return HeldOut(answers=tuple(predictions))
    scores, weights = tuple(map(float, right)), (1.0,) * len(right)
    chances = () if _task(deck).multi_label else map(_chance_of_right, dataset.evaluation, predictions)
    return HeldOut(scores, weights, tuple(predictions), tuple(chances))


def _chance_of_right(example: Example, prediction: Prediction) -> float:
    return prediction.probabilities.get(example.labels[0], 0.0)


def _mistakes(deck: Deck, name: str, dataset: Dataset[Example], found: HeldOut) -> list[Mistake]:
    return mistakes(dataset.evaluation, found.answers)[:MISTAKES]


def _confusions(deck: Deck, name: str, dataset: Dataset[Example], found: HeldOut) -> list[tuple[str, str]] | None:
    if _task(deck).multi_label:
        return None
    return [
        (example.labels[0], answer.label) for example, answer in zip(dataset.evaluation, found.answers, strict=True)
    ]


def _scaling(deck: Deck, name: str, dataset: Dataset[Example], found: HeldOut) -> TemperatureScaling:
    labels, multi_label = deck.label_names(name), _task(deck).multi_label
    chances = torch.tensor([list(answer.probabilities.values()) for answer in found.answers], dtype=torch.double)
    targets = targets_of(labels, [example.labels for example in dataset.evaluation], multi_label)
    temperature = confidence_of(deck, name).temperature
    logits = temperature * (chances.logit() if multi_label else chances.log())  # but for a constant in each row
    return temperature_scaling(logits, targets, multi_label, temperature)


def _majority(dataset: Dataset[Example]) -> float:
    return Counter(one.labels for one in dataset.evaluation).most_common(1)[0][1] / len(dataset.evaluation)


def _made_up(count: int, tokens: int) -> Dataset[Example]:
    """Return texts of a word that is one token in every vocabulary, between the special tokens."""
    text = " ".join(["the"] * (tokens - 2))
    examples = [Example(text, (_LABELS[index % 2],)) for index in range(count)]
    return Dataset("calibration", examples, examples[:2], "", "", _LABELS)


def _task(deck: Deck) -> Classify:
    return cast(Classify, deck.task)


VIEW = TaskView(
    task=Classify,
    serving=ClassifyServing(),
    route="labels",
    shown=_shown,
    comparing=Comparing(
        text_of=lambda example: str(example.text),
        held_out=_held_out,
        mistakes=_mistakes,
        confusions=_confusions,
        scaling=_scaling,
        majority=_majority,
        mistakes_note=lambda: say(
            "Held-out texts that it predicted wrongly, the most confident first. Some "
            "may be wrongly labelled: look before you train longer."
        ),
        score_name=lambda: say("probability"),
    ),
    onnx=ClassifyOnnx(),
    vllm=VllmView((*VLLM_DECODERS, "bert"), head=True),
    head_start=start_head,
    calibration=Calibration(Classify(labels=_LABELS, max_length=512), _made_up),
    plan_shape=lambda config: PlanShape(labels=2),
    pipeline_tag="text-classification",
    model_classes=("ForSequenceClassification",),
)

"""Scores as serving, export and comparison use them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import torch

from tunedeck.core.i18n import say
from tunedeck.core.plan_shape import PlanShape
from tunedeck.data.prepare import subset
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Task, pooling_of
from tunedeck.tasks.base import Comparing, Dataset, HeldOut, Mistake, TaskView
from tunedeck.tasks.score.config import ScoreConfig
from tunedeck.tasks.score.data import ScoredText, read_examples
from tunedeck.tasks.score.start import start_head
from tunedeck.tasks.score.task import Score, ScoreAnswer, answer_of, metrics_of, mistakes, task_of
from tunedeck.tasks.text_head import logits_of_ids, text_ids, text_logits

MISTAKES = 10


@final
class ScoreServing:
    """Texts, or TextPairs, to scores."""

    def encode(self, deck: Deck, contents: Sequence[Any], adapter: str | None) -> list[list[int]]:
        """Return token ids, cut to the task's length."""
        return text_ids(deck, contents, [adapter] * len(contents), task_of(deck, None).max_length)

    def answer(self, deck: Deck, rows: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[ScoreAnswer]:
        """Return a ScoreAnswer for each row."""
        logits = logits_of_ids(deck, rows, adapters)
        return [answer_of(deck, row, name) for row, name in zip(logits, adapters, strict=True)]

    def to_json(self, answer: ScoreAnswer) -> dict[str, Any]:
        """Return the scores by target."""
        return dict(answer.scores)


@final
class ScoreOnnx:
    """Scores out of a graph, whose output is the head's: the runner puts it into the scores' unit."""

    by_cosine, by_word = False, False

    def settings(self, deck: Deck, name: str) -> dict[str, Any]:
        """Return targets, scale and length; max_length counts the tokens of a text with its special ones."""
        task, targets = task_of(deck, name), deck.label_names(name)
        return {
            "labels": list(targets),
            "logistic": task.loss == "logistic",
            "means": list(task.target_means or [0.0] * len(targets)),
            "stds": list(task.target_stds or [1.0] * len(targets)),
            "levels": None if task.levels is None else list(task.levels),
            "max_length": deck.text_limit(name, task.max_length),
            **({"pairs": True} if task.pairs else {}),
        }

    def wrong(self, settings: Mapping[str, Any]) -> str | None:
        """Return which value no score could be made with."""
        labels, levels = settings.get("labels", []), settings.get("levels")
        scale = [settings.get("means"), settings.get("stds")]
        fits = all(isinstance(one, list) and len(one) == len(labels) and _numbers(one) for one in scale)
        whole = levels is None or (isinstance(levels, list) and len(levels) == 2 and _numbers(levels))
        if labels and fits and whole and isinstance(settings.get("logistic"), bool):
            return None
        return f"labels: {labels!r}, means and stds: {scale!r}, levels: {levels!r}"

    def output(self, task: Task, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the head's answer (batch, targets) in float32."""
        return states.float()

    def graph_key(self, task: Task) -> object:
        """Return what their heads read of the text."""
        return pooling_of(task)

    def expected(self, deck: Deck, name: str, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the head's answer (batch, targets) in the deck."""
        with torch.inference_mode():
            logits: torch.Tensor = deck(ids, mask, adapter=name).logits
        return logits

    def answers(self, deck: Deck, name: str, texts: Sequence[str], as_query: bool) -> torch.Tensor:
        """Return the head's answers (texts, targets) in the deck."""
        return torch.stack(text_logits(deck, texts, [name] * len(texts), task_of(deck, name).max_length))

    def examples(self, deck: Deck, name: str, settings: DataSettings) -> Sequence[Any]:
        """Return scored texts; DataError where they do not fit the adapter."""
        found = read_examples(settings, settings.train, task_of(deck, name)).examples
        return found if settings.eval_size is None else subset(found, settings.eval_size, settings.split_seed)

    def metrics(
        self, deck: Deck, name: str, outputs: Callable[[list[str], bool], torch.Tensor], examples: Sequence[Any]
    ) -> dict[str, float]:
        """Return the metrics of scores."""
        return metrics_of(task_of(deck, name), outputs([example.text for example in examples], False), examples)

    def read(self, runner: Any, name: str, row: Sequence[int], output: Any) -> ScoreAnswer:
        """Return the ScoreAnswer that a graph's output (targets,) means."""
        found = runner.scored(output, name)
        return ScoreAnswer(found["score"], found["scores"], found["levels"])


def _numbers(values: Sequence[object]) -> bool:
    return all(type(value) in (int, float) for value in values)


def _shown(answer: ScoreAnswer) -> dict[str, str]:
    return {target: f"{score:.4g}" for target, score in (answer.levels or answer.scores).items()}


def _columns(answer: ScoreAnswer) -> dict[str, Any]:
    found: Mapping[str, float] = answer.levels or answer.scores
    return {f"predicted_{target}" if len(found) > 1 else "predicted": score for target, score in found.items()}


def _held_out(deck: Deck, name: str, dataset: Dataset[ScoredText], metric: str) -> HeldOut:
    answers = deck.predict([example.text for example in dataset.evaluation], adapter=name)
    wanted = torch.tensor([example.scores for example in dataset.evaluation], dtype=torch.float64)
    found = torch.tensor([list(answer.scores.values()) for answer in answers], dtype=torch.float64)
    each: torch.Tensor | None = None
    if metric == "mae":
        each = (found - wanted).abs().mean(1)
    elif metric == "r2":
        each = (1 - (found - wanted).square() / wanted.var(0, correction=0).clamp(min=1e-12)).mean(1)
    scores = () if each is None else tuple(each.tolist())
    return HeldOut(scores, (1.0,) * len(scores), tuple(answers))


def _mistakes(deck: Deck, name: str, dataset: Dataset[ScoredText], found: HeldOut) -> list[Mistake]:
    answers = torch.tensor([list(answer.scores.values()) for answer in found.answers], dtype=torch.float64)
    return mistakes(dataset.evaluation, answers)[:MISTAKES]


def _output_scale(task: Score) -> tuple[Sequence[float], Sequence[float]] | None:
    return None if task.target_means is None or task.target_stds is None else (task.target_means, task.target_stds)


def _plan_shape(config: ScoreConfig) -> PlanShape:
    return PlanShape(labels=len(config.labels or ()) or 1)


VIEW = TaskView(
    task=Score,
    serving=ScoreServing(),
    route="scores",
    shown=_shown,
    columns=_columns,
    comparing=Comparing(
        text_of=lambda example: example.text,
        held_out=_held_out,
        mistakes=_mistakes,
        mistakes_note=lambda: say("Held-out texts whose score is furthest off."),
        score_name=lambda: say("error"),
    ),
    onnx=ScoreOnnx(),
    head_start=start_head,
    output_scale=_output_scale,
    plan_shape=_plan_shape,
    pipeline_tag="text-classification",
    lower_is_better=frozenset({"loss", "mae", "rmse"}),
)

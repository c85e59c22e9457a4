"""Define the interface of a task for training, serving, comparison, export and planning.

A task is a dataclass of settings that reads data and turns it into a loss (`TrainableTask`). One `TaskView` per task
says the rest; a part that is None is refused by name where it is needed.

The file is long because it is the whole interface: types and their descriptions, no behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import torch

from tunedeck.core.plan_shape import PlanShape
from tunedeck.core.reliability import Answered, TemperatureScaling
from tunedeck.data.settings import DataSettings
from tunedeck.deck.deck import Deck
from tunedeck.deck.task import Task

E = TypeVar("E")

BARE_BASE = "base"
"""How the base without an adapter is called in results."""
VLLM_DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "glm4", "minicpm", "minicpm3")
"""Decoders for which vLLM 0.33 has LoRA."""


@dataclass(frozen=True, slots=True)
class Dataset(Generic[E]):
    """Examples to train on and to evaluate on; none is in both."""

    source: str
    train: Sequence[E]
    evaluation: Sequence[E]
    sha256: str
    """Digest of the training examples."""
    description: str
    """Size, balance and lengths in a line."""
    labels: tuple[str, ...] | None = None
    metric_for_best_model: str | None = None
    """The metric that tells the best state on these held-out examples, where it is not the task's own."""
    text_column: str | None = None
    """The column that holds the texts, where one does."""
    notes: tuple[str, ...] = ()
    """Notes on the data for the user before training, one line each."""
    task_values: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the task that the data decides besides the labels, such as the scale of scores."""


class Mistake(NamedTuple):
    """A held-out example that was answered wrongly; `score` is what `Comparing.score_name` calls it."""

    text: str
    wanted: str
    answered: str
    score: float


@dataclass(frozen=True, slots=True)
class LabelMetrics:
    """How well one label is predicted: shares from 0 to 1, and `support`, the number of examples that have it.

    `precision` is 0 where the label is never predicted, `recall` where it never occurs, as in scikit-learn.
    """

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Where an adapter is right and wrong."""

    labels: tuple[LabelMetrics, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Counts by true label (rows) and predicted label, both in the order of `labels`; empty when multi-label."""
    mistakes: tuple[Mistake, ...]
    """All wrong answers, the most confident first."""
    scaling: TemperatureScaling | None = None
    """How far the probabilities can be trusted."""
    answered: Answered | None = None
    """The labels that are answered, for an adapter with thresholds."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of each adapter on the same examples."""

    description: str
    metrics: dict[str, dict[str, float]]
    notes: tuple[str, ...] = ()
    """Notes for the user on how the data was read, one line each."""
    breakdowns: dict[str, Breakdown] = field(default_factory=dict)
    """By adapter, for tasks with labels."""


class Objective(Protocol):
    """A dataset encoded for one adapter, as the training loop works through it."""

    divisible: ClassVar[bool]
    """Whether a batch's loss is the mean of its parts' losses by their `weight`, so that it may be worked through in
    pieces.
    """
    remembers: bool
    """Whether the first pass over an example leaves something in memory that later passes take up."""
    lengths: Sequence[int]
    """Tokens of each training example, for batching."""

    @property
    def texts_per_example(self) -> float:
        """Return rows of the base's batches for each training example."""
        ...

    def weight(self, rows: Sequence[int]) -> float:
        """Return what a batch counts in the mean loss of a step: its examples, or the tokens of its answers."""
        ...

    def loss(self, rows: Sequence[int]) -> tuple[torch.Tensor, int]:
        """Return the mean loss of some training examples, and how many positions were computed, padding included."""
        ...

    @staticmethod
    def losses(parts: Sequence[tuple[Any, Sequence[int]]]) -> list[tuple[torch.Tensor, int]]:
        """Return the `loss` of several objectives of one kind and deck, each with its rows, from one pass
        through the base.

        None of the adapters has tensors in the base's place.
        """
        ...

    def evaluate(self) -> dict[str, float]:
        """Return metrics on the held-out examples, `loss` among them.

        A `temperature` among them is not a metric: that of the best state is stored with the adapter.
        """
        ...


class TrainableTask(Task, Protocol):
    """A task that an adapter can be trained for."""

    metric_for_best_model: ClassVar[str]
    """The metric that tells the best state."""
    progress_metrics: ClassVar[tuple[str, ...]]
    """The metrics to show while training."""

    def read(self, settings: DataSettings) -> Dataset[Any]:
        """Read, check and split a run's data; DataError where it is not usable."""
        ...

    def evaluate(self, deck: Deck, names: Sequence[str | None], settings: DataSettings) -> Evaluation:
        """Return metrics of adapters, None for the base model, on all examples of `settings.train`."""
        ...

    def objective(self, deck: Deck, name: str, dataset: Dataset[Any]) -> Objective:
        """Encode a dataset for one adapter of a deck."""
        ...


Route: TypeAlias = Literal["labels", "entities", "scores", "vectors", "text", "answers"]
"""Which of the server's routes answer: /classify and /predict, /entities, /score and /rerank, /v1/embeddings, the
completions, or the generic /v1/answers.
"""


class BatchServing(Protocol):
    """How texts are answered a batch at a time."""

    def encode(self, deck: Deck, contents: Sequence[Any], adapter: str | None) -> list[list[int]]:
        """Return token ids of each content for an adapter; ConfigError for what cannot be encoded.

        A row may be a list of a class of the task's own, which says more than the ids: `answer` is given the same one.
        """
        ...

    def answer(self, deck: Deck, rows: Sequence[Sequence[int]], adapters: Sequence[str | None]) -> list[Any]:
        """Answer each row of token ids by its adapter."""
        ...

    def to_json(self, answer: Any) -> Any:
        """Return an answer as plain JSON values, for the generic route."""
        ...


@dataclass(frozen=True, slots=True)
class HeldOut:
    """One adapter's answers to the held-out examples.

    `scores` is a number for each, whose mean by `weights` is the metric that decides; empty where it is not such a
    mean.
    """

    scores: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    answers: tuple[Any, ...] = ()
    chances: tuple[float, ...] = ()
    """The probability of each right answer, less a matter of luck than a score of 0 or 1; empty where there is none."""


@dataclass(frozen=True, slots=True)
class Comparing:
    """Describe a task to a comparison; parts that are None are left out of the report."""

    text_of: Callable[[Any], str]
    """An example's text as it would be asked."""
    held_out: Callable[[Deck, str, Dataset[Any], str], HeldOut] = lambda deck, name, dataset, metric: HeldOut()
    """One adapter's answers to the held-out examples, with scores for the metric of that name."""
    mistakes: Callable[[Deck, str, Dataset[Any], HeldOut], Sequence[Mistake]] | None = None
    """The worst mistakes, the worst first."""
    confusions: Callable[[Deck, str, Dataset[Any], HeldOut], Sequence[tuple[str, str]] | None] | None = None
    """(wanted, answered) labels of every held-out example; None where an example has several."""
    scaling: Callable[[Deck, str, Dataset[Any], HeldOut], TemperatureScaling] | None = None
    """How far one adapter's probabilities can be trusted."""
    loss_on_other_text: Callable[[Deck, str | None], float] | None = None
    """Mean loss of a token on text of no task, by an adapter or by the base: what it forgets."""
    majority: Callable[[Dataset[Any]], float] | None = None
    """The quality of always answering the same."""
    mistakes_note: Callable[[], str] | None = None
    """A sentence on which mistakes are shown."""
    score_name: Callable[[], str] | None = None
    """Name of the score of a mistake."""
    latency_note: Callable[[], str] | None = None
    """A sentence on what the time of one text leaves out."""


class OnnxView(Protocol):
    """How a task's answers become an ONNX graph and come out of one."""

    def settings(self, deck: Deck, name: str) -> dict[str, Any]:
        """Return the part of settings.json on how an adapter's texts are encoded and its output is read."""
        ...

    def wrong(self, settings: Mapping[str, Any]) -> str | None:
        """Return what is wrong in an adapter's entry of settings.json; None where it can be served."""
        ...

    @property
    def by_word(self) -> bool:
        """Tell whether the words of a text are answered, which the runner reads in windows that overlap."""
        ...

    def output(self, task: Task, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the graph's output from the model's answer without virtual positions; it is traced into the graph."""
        ...

    def graph_key(self, task: Task) -> object:
        """Return what tasks of adapters must share to share one graph."""
        ...

    def expected(self, deck: Deck, name: str, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the deck's output for a padded batch of token ids."""
        ...

    def answers(self, deck: Deck, name: str, texts: Sequence[str], as_query: bool) -> torch.Tensor:
        """Return the deck's output for texts, (texts, outputs), or for the words of all texts, (words, outputs)."""
        ...

    @property
    def by_cosine(self) -> bool:
        """Tell whether two outputs are compared by their cosine."""
        ...

    def examples(self, deck: Deck, name: str, settings: DataSettings) -> Sequence[Any]:
        """Return examples to measure a graph on; DataError where they do not fit the adapter."""
        ...

    def metrics(
        self, deck: Deck, name: str, outputs: Callable[[list[str], bool], torch.Tensor], examples: Sequence[Any]
    ) -> dict[str, float]:
        """Return metrics of outputs for texts, of the deck or of a graph."""
        ...

    def read(self, runner: Any, name: str, row: Sequence[int], output: Any) -> Any:
        """Return the answer that a graph's output for one text means; `runner` is the graph's, `row` the text's token
        ids.
        """
        ...


@dataclass(frozen=True, slots=True)
class VllmView:
    """For which models vLLM serves LoRA adapters of a task."""

    model_types: tuple[str, ...]
    head: bool = False
    """Whether vLLM has to serve a classification head."""


class Started(NamedTuple):
    """Metrics on the held-out examples, as `Objective.evaluate` returns them; empty where nothing is held out."""

    metrics: dict[str, float]
    """Those of the adapter with its new head."""
    head_only: dict[str, float]
    """Those of a head on the frozen base without the adapter; empty where the first are these."""
    kept: bool = False
    """Whether the vectors of the training texts were read from disk, where an earlier run had left them."""


class HeadStart(Protocol):
    """Puts the solution for the vectors that an adapter's head reads into that head."""

    def __call__(self, deck: Deck, name: str, dataset: Dataset[Any], *, fresh: bool = True) -> Started:
        """Fit the head to the training examples; that of a `fresh` adapter may be fitted to the frozen base's
        vectors.
        """
        ...


@dataclass(frozen=True, slots=True)
class Calibration:
    """The objective that the planner's calibration trains on."""

    task: TrainableTask
    examples: Callable[[int, int], Dataset[Any]]
    """That many made-up examples of about that many tokens."""


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task with everything that other rooms ask of it; None is refused by name, and so a small task says little."""

    task: type[Any]
    """The task's class, a dataclass whose fields all have defaults."""
    serving: BatchServing | None = None
    route: Route = "answers"
    shown: Callable[[Any], Mapping[str, str]] | None = None
    """An answer as columns of a table; its fields where it is None."""
    columns: Callable[[Any], Mapping[str, Any]] | None = None
    """An answer as columns of a written file; its fields where it is None."""
    comparing: Comparing | None = None
    onnx: OnnxView | None = None
    vllm: VllmView | None = None
    head_start: HeadStart | None = None
    calibration: Calibration | None = None
    output_scale: Callable[[Any], tuple[Sequence[float], Sequence[float]] | None] = lambda task: None
    """From an adapter's task, the means and deviations that its head's answers are standardised by; None where they are
    not. A merged model has them in its last layer.
    """
    plan_shape: Callable[[Any], PlanShape] = lambda config: PlanShape()
    """From the task's settings in a run file."""
    pipeline_tag: str | None = None
    """The model hub's name of the task."""
    model_classes: tuple[str, ...] = ()
    """Endings of the transformers classes by which AdapterHub folders tell the task."""
    head_types: tuple[str, ...] = ()
    """Types of AdapterHub's heads by which its folders tell the task."""
    lower_is_better: frozenset[str] = field(default_factory=lambda: frozenset({"loss"}))
    """Metrics that are better when lower."""

    @property
    def kind(self) -> str:
        """Return the task's name."""
        return str(self.task.kind)

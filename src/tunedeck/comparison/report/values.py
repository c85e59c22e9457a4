"""A comparison of methods as plain values: what `comparison.json` holds and every part of the report reads."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tunedeck.core.reliability import TemperatureScaling


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % confidence interval; `source` is "seeds", "examples" or "rounds", and `count` how many of them."""

    low: float
    high: float
    source: str
    count: int


@dataclass(frozen=True, slots=True)
class SeedRun:
    """One training run; `folder` is relative to the comparison's own."""

    seed: int
    folder: str
    metrics: dict[str, float]
    train_s: float
    eval_s: float
    peak_memory_bytes: int
    steps: int
    stopped: str
    planned_steps: int = 0
    """The steps that the run would have had without early stopping; 0 where that was not kept."""
    saved_s: float = 0.0
    """About what those that early stopping left out would have taken."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """Compare the planner's prediction of the first run with the actual value; `unit` is "bytes", "s" or a currency."""

    quantity: str
    low: float
    expected: float
    high: float
    actual: float
    unit: str
    reason: str
    """Reason why the actual value is outside; empty if it is inside."""

    @property
    def inside(self) -> bool:
        """Tell whether the actual value is between low and high."""
        return self.low <= self.actual <= self.high


@dataclass(frozen=True, slots=True)
class Serving:
    """How an adapter answers: alone in a batch, in a batch that all entries share, and after another adapter."""

    latency_ms: float
    """Latency of a single text."""
    latency_ratio: float
    """Latency relative to the base model's."""
    texts_per_s: float
    """Throughput in batches of this adapter only."""
    mixed_texts_per_s: float
    """In batches whose other half belongs to the other entries."""
    switch_ms: float
    """Extra time of one text right after a text of another adapter."""
    switch_interval_ms: Interval
    """Over the rounds; where it reaches zero, nothing was measured but noise."""
    load_ms: float
    """From the folder into the deck."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One method with its settings. Times and metrics are means over its runs, memory is the highest."""

    name: str
    settings: dict[str, Any]
    metrics: dict[str, float]
    interval: Interval | None
    behind: Interval | None
    """How far it is behind the best entry, compared seed by seed or example by example; None for the best itself."""
    trainable_parameters: int
    trainable_share: float
    method_parameters: int
    disk_bytes: int
    train_s: float
    peak_memory_bytes: int
    serving: Serving
    cost: float | None
    """Price per hour times hours of training steps; None without a price."""
    planned: tuple[Forecast, ...]
    losses: tuple[tuple[float, float], ...]
    """(examples seen, training loss) of the first run."""
    evaluations: tuple[tuple[float, float], ...]
    """(examples seen, quality) of the first run."""
    runs: tuple[SeedRun, ...]
    forgetting: float | None = None
    """How much the loss on text of no task rose above the base's, per token; None where it is not measured."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, metrics and serving figures by their names."""
        values = asdict(self)
        metrics, serving = values.pop("metrics"), values.pop("serving")
        values.pop("planned")
        planned = [{**asdict(forecast), "inside": forecast.inside} for forecast in self.planned]
        return {"name": self.name, **metrics, **values, **serving, "planned": planned}


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts (actual, predicted) by label."""

    entry: str
    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A held-out text that the best entry got wrong; `score` is its probability, or the loss of the wanted answer."""

    text: str
    wanted: str
    answered: str
    score: float


@dataclass(frozen=True, slots=True)
class Data:
    """The examples every run had; `majority` is what always predicting the most frequent label gets."""

    source: str
    sha256: str
    train: int
    held_out: int
    majority: float | None


@dataclass(frozen=True, slots=True)
class Price:
    """Money per hour of this machine, and who says so."""

    per_hour: float
    currency: str
    source: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """How to get the same again."""

    command: str
    versions: dict[str, str]
    machine: str
    device: str
    dtype: str


@dataclass(frozen=True, slots=True)
class ComparisonValues:
    """Everything that was found; `metric` is the quality, its higher values better or not."""

    task: str
    model: str
    data: Data
    budget: str
    seeds: tuple[int, ...]
    metric: str
    higher_is_better: bool
    entries: tuple[Entry, ...]
    base_latency_ms: float
    base_texts_per_s: float
    price: Price | None
    confusion: Confusion | None
    mistakes: tuple[Mistake, ...]
    search: tuple[dict[str, Any], ...]
    """Trials of the search: entry, settings, quality on the search's held-out part, and number of steps."""
    repeat: Repeat
    total_s: float
    folder: str
    """Folder of the runs."""
    scaling: TemperatureScaling | None = None
    """How far the best entry's probabilities can be trusted."""

    def quality(self, entry: Entry) -> float:
        """Return the mean of the metric that decides."""
        return entry.metrics[self.metric]

    @property
    def best(self) -> Entry:
        """Return the entry of the best mean quality; `recommendation` may name a smaller one that is as good."""
        sign = 1 if self.higher_is_better else -1
        return max(self.entries, key=lambda entry: sign * self.quality(entry))

"""A comparison as the command would hand it to the report, with the numbers a test cares about."""

from __future__ import annotations

import math
from typing import Any

from tunedeck.comparison.report.values import (
    Confusion,
    Data,
    Entry,
    Forecast,
    Interval,
    Mistake,
    Repeat,
    SeedRun,
    Serving,
)
from tunedeck.comparison.result import Comparison


def entry(
    name: str,
    quality: float,
    behind: tuple[float, float] | None = None,
    *,
    disk: int = 100_000,
    train_s: float = 50.0,
    **more: Any,
) -> Entry:
    """An entry of that accuracy with an interval of 0.022 to both sides; `behind` is (low, high), None for the best."""
    values: dict[str, Any] = {
        "name": name,
        "settings": {"kind": name},
        "metrics": {"accuracy": quality, "macro_f1": quality - 0.02, "loss": 1 - quality},
        "interval": Interval(quality - 0.022, quality + 0.022, "examples", 1500),
        "behind": behind and Interval(*behind, "examples", 1500),
        "trainable_parameters": disk // 4,
        "trainable_share": disk / 4 / 22.7e6,
        "method_parameters": disk // 4 - 1155,
        "disk_bytes": disk,
        "train_s": train_s,
        "peak_memory_bytes": 885_000_000,
        "serving": Serving(7.9, 1.21, 412.0, 398.0, 0.1, Interval(-0.2, 0.3, "rounds", 15), 21.0),
        "cost": None,
        "planned": (
            Forecast("time", train_s * 0.8, train_s * 0.95, train_s * 1.2, train_s, "s", ""),
            Forecast(
                "memory", 7e8, 7.4e8, 8.4e8, 885e6, "bytes", "batches of many different lengths leave memory in pieces"
            ),
        ),
        "losses": tuple(
            (32.0 * step, 1.1 * math.exp(-step / 80) * (1 + 0.2 * math.sin(step * quality * 9)))
            for step in range(1, 250)
        ),
        "evaluations": ((4000.0, quality - 0.03), (8000.0, quality)),
        "runs": (SeedRun(0, f"runs/{name}/seed-0", {"accuracy": quality}, train_s, 4.0, 885_000_000, 250, "finished"),),
    }
    return Entry(**{**values, **more})


def comparison(*entries: Entry, **more: Any) -> Comparison:
    """A comparison by accuracy with one seed."""
    values: dict[str, Any] = {
        "task": "classify",
        "model": "bundled:all-minilm-l6-v2",
        "data": Data("bundled:tweets", "0b" * 32, 4000, 1500, 0.44),
        "budget": "2 epochs",
        "seeds": (0,),
        "metric": "accuracy",
        "higher_is_better": True,
        "entries": entries,
        "base_latency_ms": 6.5,
        "base_texts_per_s": 480.0,
        "price": None,
        "confusion": None,
        "mistakes": (),
        "search": (),
        "repeat": Repeat(
            "tunedeck compare run.yaml",
            {"tunedeck": "0.1.0", "torch": "2.13.0"},
            "AMD EPYC, 2 cores",
            "cpu",
            "bfloat16",
        ),
        "total_s": 280.0,
        "folder": "compare/tweets",
    }
    return Comparison(**{**values, **more})


def demo_like() -> Comparison:
    """The demo's four, a confusion matrix and mistakes that try to be HTML and Markdown."""
    return comparison(
        entry("lora", 0.747, (-0.011, 0.019), disk=305_000, train_s=56),
        entry("bottleneck", 0.751, disk=470_000, train_s=54),
        entry("prompt-tuning", 0.681, (0.05, 0.09), disk=19_000, train_s=62),
        entry("head", 0.626, (0.1, 0.15), disk=6_000, train_s=25),
        confusion=Confusion(
            "bottleneck", ("negative", "neutral", "positive"), ((560, 70, 30), (80, 300, 62), (44, 88, 266))
        ),
        mistakes=(
            Mistake("<script>alert('x')</script> thanks for | nothing *at all*", "negative", "positive", 0.993),
            Mistake(
                "@united my bag 行李 is lost and nobody answers http://example.org/a?b=c", "negative", "neutral", 0.984
            ),
        ),
    )

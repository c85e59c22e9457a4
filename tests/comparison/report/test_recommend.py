"""What is recommended, case by case."""

from __future__ import annotations

import pytest
from support.comparison_results import comparison, entry

from tunedeck.comparison.report.recommend import recommend
from tunedeck.comparison.report.values import Data
from tunedeck.comparison.result import Comparison
from tunedeck.core.i18n import set_language

HEAD = entry("head", 0.62, (0.10, 0.16), disk=6_000)
LORA = entry("lora", 0.747, (-0.011, 0.019), disk=305_000)
BOTTLENECK = entry("bottleneck", 0.751, disk=470_000)


@pytest.mark.parametrize(
    ("found", "taken", "rule"),
    [
        (comparison(LORA, BOTTLENECK, HEAD), "lora", "smaller"),  # may be as good, and is smaller
        (comparison(BOTTLENECK, HEAD), "bottleneck", "clear"),  # everything else is surely behind
        (comparison(entry("small", 0.76, disk=9), entry("large", 0.75, (-0.01, 0.03))), "small", "best-anyway"),
        (comparison(entry("slow", 0.75, train_s=9), entry("fast", 0.74, (-0.01, 0.03), train_s=3)), "fast", "smaller"),
        (comparison(entry("best", 0.75), entry("other", 0.74, (0.0, 0.02), disk=9)), "other", "smaller"),  # zero counts
        (comparison(LORA), "lora", "alone"),
        (comparison(entry("a", 0.6, interval=None), entry("b", 0.7, interval=None)), "b", "unknown"),
    ],
)
def test_the_smallest_of_those_that_cannot_be_told_from_the_best_is_taken(
    found: Comparison, taken: str, rule: str
) -> None:
    said = recommend(found)
    assert (said.entry, said.rule) == (taken, rule)
    assert said.text.startswith(f"Take {taken}: ")
    assert said.warning == ""


def test_the_reason_names_the_numbers() -> None:
    said = recommend(comparison(LORA, BOTTLENECK)).text
    assert "0.747" in said
    assert "bottleneck, 0.751" in said
    assert "305 kB instead of 470 kB" in said


def test_of_losses_the_lower_is_better() -> None:
    found = comparison(
        entry("a", 0.5, (0.2, 1.4), metrics={"loss": 2.0}),
        entry("b", 0.5, metrics={"loss": 1.2}),
        metric="loss",
        higher_is_better=False,
    )
    assert recommend(found).entry == "b"


def test_no_better_than_the_most_frequent_label_is_said() -> None:
    plain = Data("words.csv", "0" * 64, 100, 50, 0.73)
    assert "always predicting the most frequent label (73.0%)" in recommend(comparison(LORA, data=plain)).warning
    set_language("zh")
    assert "最常见的标签" in recommend(comparison(LORA, data=plain)).warning

"""What is recommended, case by case."""

from __future__ import annotations

import pytest
from results import comparison, entry

from tunedeck.core.messages import set_language
from tunedeck.report.recommend import recommend
from tunedeck.report.result import Comparison, Data

HEAD = entry("head", 0.62, (0.60, 0.64), disk=6_000)
LORA = entry("lora", 0.747, (0.725, 0.769), disk=305_000)
BOTTLENECK = entry("bottleneck", 0.751, (0.729, 0.772), disk=470_000)


@pytest.mark.parametrize(
    ("found", "taken", "rule"),
    [
        (comparison(LORA, BOTTLENECK, HEAD), "lora", "smaller"),  # overlaps the best and is smaller
        (comparison(BOTTLENECK, HEAD), "bottleneck", "clear"),  # no other interval reaches it
        (comparison(entry("small", 0.76, (0.74, 0.78), disk=9), BOTTLENECK), "small", "best-anyway"),
        (comparison(entry("slow", 0.75, (0.7, 0.8), train_s=9), entry("fast", 0.74, (0.7, 0.8), train_s=3)), "fast", "smaller"),
        (comparison(LORA), "lora", "alone"),
        (comparison(entry("a", 0.6), entry("b", 0.7)), "b", "unknown"),
    ],
)  # fmt: skip
def test_the_smallest_of_those_that_cannot_be_told_from_the_best_is_taken(found: Comparison, taken: str, rule: str) -> None:  # fmt: skip
    said = recommend(found)
    assert (said.entry, said.rule) == (taken, rule)
    assert said.text.startswith(f"Take {taken}: ")
    assert said.warning == ""


def test_the_reason_names_the_numbers() -> None:
    said = recommend(comparison(LORA, BOTTLENECK)).text
    assert "0.747" in said
    assert "bottleneck, 0.751" in said
    assert "305 kB instead of 470 kB" in said


def test_intervals_that_touch_overlap() -> None:
    assert recommend(comparison(entry("a", 0.7, (0.68, 0.72)), entry("b", 0.75, (0.72, 0.78), disk=10**6))).entry == "a"


def test_of_losses_the_lower_is_better() -> None:
    found = comparison(
        entry("a", 0.5, (0.4, 0.6), metrics={"loss": 2.0}), entry("b", 0.5, (1.0, 1.4), metrics={"loss": 1.2}),
        metric="loss", higher_is_better=False,
    )  # fmt: skip
    assert recommend(found).entry == "b"


def test_no_better_than_the_most_frequent_label_is_said() -> None:
    plain = Data("words.csv", "0" * 64, 100, 50, 0.73)
    assert "always answering the most frequent label (73.0%)" in recommend(comparison(LORA, data=plain)).warning
    set_language("zh")
    assert "最常见的标签" in recommend(comparison(LORA, data=plain)).warning

"""One entry to take, and why: the smallest of those that the data cannot tell from the best."""

from __future__ import annotations

from dataclasses import dataclass

from tunedeck.comparison.report.values import ComparisonValues, Entry
from tunedeck.core.i18n import say
from tunedeck.core.units import format_bytes


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`rule` is "alone", "clear", "smaller", "best-anyway" or "unknown"; see `recommend`."""

    entry: str
    rule: str
    text: str
    warning: str = ""


def recommend(comparison: ComparisonValues) -> Recommendation:
    """Return the entry to take.

    alone: nothing to compare with. unknown: no intervals, the best mean. clear: every other is surely behind the best.
    Otherwise the smallest on disk of those that may be as good, because zero is in the interval of how far they are
    behind: "smaller", or "best-anyway" where that is the best itself.
    """
    best = comparison.best
    if len(comparison.entries) == 1:
        return _said(comparison, best, "alone")
    if best.interval is None:
        return _said(comparison, best, "unknown")
    near = [entry for entry in comparison.entries if entry.behind is None or entry.behind.low <= 0]
    if near == [best]:
        return _said(comparison, best, "clear")
    chosen = min(near, key=lambda entry: (entry.disk_bytes, entry.train_s))
    return _said(comparison, chosen, "best-anyway" if chosen is best else "smaller")


def _said(comparison: ComparisonValues, chosen: Entry, rule: str) -> Recommendation:
    return Recommendation(chosen.name, rule, _text(comparison, chosen, rule), _warning(comparison))


def _text(comparison: ComparisonValues, chosen: Entry, rule: str) -> str:
    metric, value = metric_name(comparison.metric), f"{comparison.quality(chosen):.3f}"
    if rule == "alone":
        return say(
            "Take {name}: it is the only one that was tried ({metric} {value}).",
            name=chosen.name,
            metric=metric,
            value=value,
        )
    if rule == "unknown":
        return say(
            "Take {name}: it came out best ({metric} {value}), but one seed gives no interval here, so a repeat may "
            "change the order; add --seeds 3.",
            name=chosen.name,
            metric=metric,
            value=value,
        )
    if rule == "clear":
        sign = 1 if comparison.higher_is_better else -1
        rivals = [entry for entry in comparison.entries if entry is not chosen]
        second = max(rivals, key=lambda entry: sign * comparison.quality(entry))
        return say(
            "Take {name}: its {metric} of {value} is the best, and all others are reliably worse; the next is "
            "{second} with {next_value}.",
            name=chosen.name,
            metric=metric,
            value=value,
            second=second.name,
            next_value=f"{comparison.quality(second):.3f}",
        )
    return _text_of_smallest(comparison, chosen)


def _text_of_smallest(comparison: ComparisonValues, chosen: Entry) -> str:
    """Say why to take the smallest of those that the data cannot tell from the best."""
    best, metric, value = comparison.best, metric_name(comparison.metric), f"{comparison.quality(chosen):.3f}"
    if chosen is best:
        return say(
            "Take {name}: its {metric} of {value} is the best, and of all that this data cannot tell from it, it is "
            "also the smallest ({size}).",
            name=chosen.name,
            metric=metric,
            value=value,
            size=format_bytes(chosen.disk_bytes),
        )
    return say(
        "Take {name}: its {metric} of {value} cannot be told from the best ({best}, {best_value}) on this data, and "
        "it is the smaller: {size} instead of {best_size}.",
        name=chosen.name,
        metric=metric,
        value=value,
        best=best.name,
        best_value=f"{comparison.quality(best):.3f}",
        size=format_bytes(chosen.disk_bytes),
        best_size=format_bytes(best.disk_bytes),
    )


def _warning(comparison: ComparisonValues) -> str:
    """Return a warning if the best entry is not better than always predicting one label."""
    best, floor = comparison.best, comparison.data.majority
    if floor is None or comparison.metric != "accuracy":
        return ""
    low = comparison.quality(best) if best.interval is None else best.interval.low
    if low > floor:
        return ""
    return say(
        "None of them is reliably better than always predicting the most frequent label ({share:.1%}): check the "
        "labels, take more data, or train longer.",
        share=floor,
    )


def metric_name(metric: str) -> str:
    """Return a metric as people call it."""
    names = {
        "accuracy": say("accuracy"),
        "macro_f1": say("macro-F1"),
        "macro_recall": say("macro-recall"),
        "micro_f1": say("micro-F1"),
        "loss": say("loss"),
        "perplexity": say("perplexity"),
        "spearman": say("Spearman correlation"),
        "pearson": say("Pearson correlation"),
        "mae": say("mean absolute error"),
        "rmse": say("root mean squared error"),
        "r2": say("R²"),
        "kappa": say("quadratic weighted kappa"),
    }
    return names.get(metric, metric)

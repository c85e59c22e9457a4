"""What every run may use up, and its seeds."""

from __future__ import annotations

import pytest

from tunedeck.comparison.budget import seeds_of, with_budget
from tunedeck.comparison.report.values import Price
from tunedeck.core.errors import ConfigError


def test_seeds_are_how_many_or_which() -> None:
    assert seeds_of(None, 5) == (5,)
    assert seeds_of("3", 5) == (5, 6, 7)
    assert seeds_of("0,7,13", 5) == (0, 7, 13)
    assert seeds_of(3, 5) == (5, 6, 7)
    assert seeds_of([0, 7, 13], 5) == (0, 7, 13)
    for bad in ("x", "0", "1,1", "-2", "", 0, [], [1, 1], ["x"], 2.5):
        with pytest.raises(ConfigError, match="seeds takes"):
            seeds_of(bad, 0)  # type: ignore[arg-type]


def test_money_becomes_minutes_at_the_price_and_runs_until_they_are_over() -> None:
    values, said = with_budget({}, 500, None, 2.0, Price(8.0, "CNY", ""))
    assert values["data"] == {"train_size": 500}
    assert values["training"]["max_minutes"] == pytest.approx(15)
    assert values["training"]["epochs"] > 1000
    assert said == "2 CNY for each run, 15 minutes of training"
    values, _ = with_budget({"training": {"epochs": 3}}, None, 5, None, None)
    assert values["training"] == {"epochs": 3, "max_minutes": 5}
    with pytest.raises(ConfigError, match="give --price-per-hour"):
        with_budget({}, None, None, 2.0, None)
    with pytest.raises(ConfigError, match="not both"):
        with_budget({}, None, 5, 2.0, Price(8.0, "CNY", ""))
    with pytest.raises(ConfigError, match="minutes must be above 0, got -1"):
        with_budget({}, None, -1, None, None)

"""The tables of `tunedeck compare` in a terminal: whole cells, no line wider than it."""

from __future__ import annotations

import pytest
from rich.cells import cell_len

from tunedeck.cli.compare import show
from tunedeck.comparison.report.values import Data, Entry, Forecast, Interval, Repeat, SeedRun, Serving
from tunedeck.comparison.result import Comparison
from tunedeck.core.i18n import set_language

NOISE = Interval(-80.1, 2.3, "rounds", 15)
SWITCH = {"full": (0.31, Interval(0.1, 0.6, "rounds", 15))}
NAMES = ("lora r=4 learning_rate=0.001", "bottleneck", "prompt-tuning", "full", "head")


def entry(name: str) -> Entry:
    return Entry(
        name=name,
        settings={},
        metrics={"accuracy": 0.751, "macro_f1": 0.731},
        interval=Interval(0.729, 0.773, "examples", 1500),
        behind=None if name == "full" else Interval(-0.011, 0.019, "examples", 1500),
        trainable_parameters=22_700_000,
        trainable_share=1.0,
        method_parameters=1,
        disk_bytes=91_000_000,
        train_s=56.0,
        peak_memory_bytes=885_000_000,
        serving=Serving(7.9, 1.21, 1412.0, 1398.0, *SWITCH.get(name, (-39.6, NOISE)), 21.0),
        cost=None,
        planned=(Forecast("time", 41, 50, 70, 56, "s", ""), Forecast("memory", 7e8, 7.4e8, 8.4e8, 885e6, "bytes", "")),
        losses=(),
        evaluations=(),
        runs=(SeedRun(0, "r", {"accuracy": 0.751}, 56.0, 4.0, 885_000_000, 250, "finished"),),
    )


WITHIN_NOISE = {"en": "0 (within noise)", "zh": "0（噪声内）"}
COMPARISON = Comparison(
    task="classify",
    model="bundled:all-minilm-l6-v2",
    data=Data("bundled:tweets", "0b" * 32, 4000, 1500, 0.44),
    budget="2 epochs",
    seeds=(0,),
    metric="accuracy",
    higher_is_better=True,
    entries=tuple(map(entry, NAMES)),
    base_latency_ms=6.5,
    base_texts_per_s=480.0,
    price=None,
    confusion=None,
    mistakes=(),
    search=(),
    repeat=Repeat("tunedeck compare", {}, "a machine", "cpu", "float32"),
    total_s=280.0,
    folder="c",
)


def lines(
    columns: int, language: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    set_language(language)
    show(COMPARISON)
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize(("columns", "tables"), [(64, 3), (80, 2), (120, 2), (140, 1)])
def test_entries_that_do_not_fit_side_by_side_stand_in_tables_below(
    columns: int, tables: int, language: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = lines(columns, language, monkeypatch, capsys)
    assert max(map(cell_len, said)) <= columns
    assert sum(line.startswith("┏") for line in said) == tables
    whole = "\n".join(said)
    for cell in ("−0.011 … 0.019", "0.729–0.773", "22,700,000", "100.000%", WITHIN_NOISE[language]):
        assert whole.count(cell) == len(NAMES) - (cell in ("−0.011 … 0.019", WITHIN_NOISE[language])), cell
    assert whole.count("+0.3 ms") == 1
    assert "39.6" not in whole


def test_a_narrow_terminal_leaves_out_what_was_planned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any("as planned" in line for line in lines(80, "en", monkeypatch, capsys))
    assert sum("as planned" in line for line in lines(140, "en", monkeypatch, capsys)) == 2

"""Believe: an adapter on held-out texts: the confusion matrix with its texts, reliability, and mistakes to correct."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from nicegui import ui

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say, say_plural
from tunedeck.data.check.checked import write_corrected
from tunedeck.data.columns import shorten
from tunedeck.data.settings import DataSettings
from tunedeck.data.table import read_table
from tunedeck.web.controls import with_question
from tunedeck.web.pages.data import files_of, reference_of
from tunedeck.web.pages.library import address
from tunedeck.web.pages.mend import mended_name
from tunedeck.web.screen import Screen, heading, same_by_hand, table
from tunedeck.web.workspace import Workspace

if TYPE_CHECKING:
    from tunedeck.comparison.examine import Examined
    from tunedeck.core.reliability import Reliability, TemperatureScaling

_LABELS, _PAIRS, _TEXTS, _CHARACTERS = 12, 30, 50, 300
"""Labels of a matrix, pairs of a list, texts of a cell, characters of a text."""
_OF_ITS_RUN = ""


def show_closer(work: Workspace, here: Screen, adapter: str) -> None:
    """Show a button that lets the adapter answer held-out texts, and what comes of it."""
    heading(say("Look closer"), 2)
    ui.label(say("Let the adapter predict texts that it was not trained on, and look at each prediction.")).classes(
        "faint"
    )
    own = (work.folder.path(adapter).parent / "config.yaml").is_file()
    first = {_OF_ITS_RUN: say("the held-out texts of its run")} if own else {}
    files = {**first, **{name: name for name in files_of(work)}}
    with ui.row().classes("items-center w-full"):
        chosen = ui.select(files, value=next(iter(files), None), label=say("Texts")).props("outlined dense")
        button = ui.button(say("Predict them")).props("no-caps outline")
    place = ui.column().classes("w-full").props('aria-live="polite"')
    change = same_by_hand(*_by_hand(adapter, chosen.value))
    chosen.on_value_change(here.on(lambda: change(*_by_hand(adapter, chosen.value))))

    async def look() -> None:
        if chosen.value is None:
            raise DataError(say("choose a file first"))
        button.disable()
        place.clear()
        with place, ui.row().classes("items-center"):
            ui.spinner()
            ui.label(say("Every text is read once; this can take some minutes …")).classes("faint")
        try:
            data = _settings(work, adapter, chosen.value)
            whole = chosen.value != _OF_ITS_RUN
            found = await asyncio.to_thread(_examined, work.folder.existing(adapter), data, whole)
        finally:
            button.enable()
            place.clear()
        with place:
            _show(work, here, data, found)

    button.on_click(here.on(look))


def _by_hand(adapter: str, file: str | None) -> tuple[str, str]:
    """Return the command and the Python that evaluate the adapter, a run's own on its held-out texts."""
    data = file or "FILE"
    python = (
        "from pathlib import Path\n\nfrom tunedeck.comparison.examine import examine, held_out_data\n\n"
        f"adapter = Path({adapter!r})\nfound = examine(adapter, held_out_data(adapter))"
        if file == _OF_ITS_RUN
        else f"import tunedeck as td\n\nfound = td.evaluate(td.Deck.open({adapter!r}), {data!r})"
    )
    return f"tunedeck eval --adapter {shlex.quote(adapter)} --data {shlex.quote(data)}", python


def _settings(work: Workspace, adapter: str, file: str) -> DataSettings:
    """Return the data to answer: that of the run with its paths in the folder, or a file of the folder."""
    if file != _OF_ITS_RUN:
        reference = reference_of(work, file)
        return DataSettings(train=reference)
    from tunedeck.comparison.examine import held_out_data

    found = held_out_data(work.folder.path(adapter))
    if found is None:
        raise DataError(say("choose a file first"))
    inside = {key: str(work.folder.root / name) for key in ("train", "eval") if (name := getattr(found, key))}
    return found.model_copy(update={key: path for key, path in inside.items() if Path(path).exists()})


def _examined(adapter: Path, data: DataSettings, whole: bool) -> Examined:
    """Return what is found. Loads torch."""
    from tunedeck.comparison.examine import examine

    return examine(adapter, data, whole=whole)


def _show(work: Workspace, here: Screen, data: DataSettings, found: Examined) -> None:
    corrections = _Corrections(work, here, data, found)
    if found.confusion is not None:
        heading(say("True label in the row, predicted in the column"), 2)
        ui.label(say("Click a number to read its texts.")).classes("faint")
        texts = ui.column().classes("w-full").props('aria-live="polite"')
        cells = _cells(found.answered)

        def open_cell(wanted: str, predicted: str) -> None:
            texts.clear()
            with texts:
                _cell(corrections, wanted, predicted, cells.get((wanted, predicted), []))

        if len(found.confusion.labels) <= _LABELS:
            _matrix(here, found.confusion.labels, found.confusion.counts, open_cell)
        else:
            _confused(here, cells, open_cell)
        texts.move(ui.context.slot.parent)
    if found.scaling is not None:
        _reliability(found.scaling)
    if found.mistakes:
        heading(say("The worst mistakes"), 2)
        for one in found.mistakes:
            corrections.row(one.text, one.wanted, one.answered, f"{one.score:.2f}")
    corrections.show_save()


def _cells(answered: Sequence[tuple[str, str, str]]) -> dict[tuple[str, str], list[str]]:
    cells: dict[tuple[str, str], list[str]] = {}
    for text, wanted, predicted in answered:
        cells.setdefault((wanted, predicted), []).append(text)
    return cells


def _matrix(here: Screen, labels: Sequence[str], counts: Sequence[Sequence[int]], open_cell: Any) -> None:
    with ui.element("div").classes("wide"), ui.element("table").classes("matrix"):
        with ui.element("tr"):
            ui.element("td")
            for label in labels:
                with ui.element("th").props("scope=col"):
                    ui.label(label)
        for wanted, row in zip(labels, counts, strict=True):
            with ui.element("tr"):
                with ui.element("th").props("scope=row"):
                    ui.label(wanted)
                for predicted, count in zip(labels, row, strict=True):
                    share = count / max(1, sum(row))
                    with ui.element("td").style(f"--share: {share:.2f}"):
                        press = here.on(lambda _, wanted=wanted, predicted=predicted: open_cell(wanted, predicted))
                        button = ui.button(f"{count:,}", on_click=press).props("flat no-caps")
                        button.props["aria-label"] = say(
                            "{count} texts of {wanted} predicted as {predicted}",
                            count=count,
                            wanted=wanted,
                            predicted=predicted,
                        )


def _confused(here: Screen, cells: Mapping[tuple[str, str], list[str]], open_cell: Any) -> None:
    """Show buttons for the pairs of labels that are confused most often."""
    wrong = sorted((pair for pair in cells if pair[0] != pair[1]), key=lambda pair: -len(cells[pair]))
    for wanted, predicted in wrong[:_PAIRS]:
        press = here.on(lambda _, wanted=wanted, predicted=predicted: open_cell(wanted, predicted))
        text = f"{wanted} → {predicted}: {len(cells[wanted, predicted]):,}"
        ui.button(text, on_click=press).props("flat dense no-caps")


def _cell(corrections: _Corrections, wanted: str, predicted: str, texts: Sequence[str]) -> None:
    heading(say("{wanted} predicted as {predicted}", wanted=wanted, predicted=predicted), 3)
    if not texts:
        ui.label(say("There are no such texts.")).classes("faint")
    for text in texts[:_TEXTS]:
        corrections.row(text, wanted, predicted, "")
    if len(texts) > _TEXTS:
        ui.label(say("the first {count} of {total}", count=_TEXTS, total=len(texts))).classes("faint")


def _reliability(scaling: TemperatureScaling) -> None:
    """Draw the share of right answers over the probability that they were given with."""
    heading(say("Reliability of the probabilities"), 2)
    with_question(
        say(
            "On the diagonal, 80 of 100 predictions with a probability of 80 % are right. "
            "Expected calibration error: {error:.3f}",
            error=scaling.after.ece,
        ),
        "calibration",
    )
    line = [[0, 0], [1, 1]]
    series = [
        {
            "type": "line",
            "name": say("perfectly calibrated"),
            "data": line,
            "symbol": "none",
            "lineStyle": {"type": "dashed"},
        },
        _points(say("without its temperature"), scaling.before),
        _points(say("with its temperature"), scaling.after),
    ]
    axis = {"type": "value", "min": 0, "max": 1, "nameLocation": "middle", "nameGap": 28}
    chart = ui.echart(
        {
            "color": ["#9aa5b1", "#c77d1e", "#3f7fc1"],
            "legend": {"top": 0, "textStyle": {"color": "#7a8794"}},
            "grid": {"left": 48, "right": 16, "top": 56, "bottom": 44},
            "xAxis": {**axis, "name": say("probability")},
            "yAxis": {**axis, "name": say("share of right answers"), "nameGap": 34},
            "series": series,
        }
    ).classes("h-80 w-full max-w-xl")
    chart.props["role"], chart.props["aria-label"] = "img", say("share of right predictions by probability")
    with ui.expansion(say("As a table")).classes("box w-full").props("dense"):
        rows = [[f"{one.confidence:.2f}", f"{one.accuracy:.2f}", f"{one.count:,}"] for one in scaling.after.bins]
        table([say("probability"), say("share of right answers"), say("answers")], rows, numbers_from=0)


def _points(name: str, found: Reliability) -> dict[str, Any]:
    most = max(one.count for one in found.bins)
    points = [
        {"value": [round(one.confidence, 3), round(one.accuracy, 3)], "symbolSize": 5 + 15 * (one.count / most) ** 0.5}
        for one in found.bins
    ]
    return {"type": "line", "name": name, "data": points, "symbol": "circle"}


@final
class _Corrections:
    """Labels that were found wrong, by text and label, until they are saved as a new file."""

    def __init__(self, work: Workspace, here: Screen, data: DataSettings, found: Examined) -> None:
        self._work, self._here, self._data, self._found = work, here, data, found
        self._labels = list(found.confusion.labels) if found.confusion is not None else []
        self._chosen: dict[tuple[str, str], str] = {}
        self._save: Any = None

    def row(self, text: str, wanted: str, predicted: str, score: str) -> None:
        """Show a text with its label and the answer, and where it has one label, a button that says it is wrong."""
        with ui.element("div").classes("box w-full"):
            ui.label(shorten(text, _CHARACTERS))
            told = say("label: {label}; predicted: {predicted}", label=wanted, predicted=predicted)
            ui.label(" ".join(filter(None, (told, score)))).classes("faint")
            if self._labels:
                self._choice(text, wanted, predicted)

    def _choice(self, text: str, wanted: str, predicted: str) -> None:
        with ui.row().classes("items-center"):
            choice = ui.select(self._labels, value=self._chosen.get((text, wanted), wanted), label=say("right label"))
            choice.props("outlined dense")
            choice.on_value_change(self._here.on(lambda event: self._change(text, wanted, event.value)))
            if wanted != predicted:
                ui.button(say("This label is wrong"), on_click=lambda: choice.set_value(predicted)).props(
                    "no-caps flat"
                )

    def _change(self, text: str, wanted: str, label: str) -> None:
        if label == wanted:
            self._chosen.pop((text, wanted), None)
        else:
            self._chosen[text, wanted] = label
        self._count()

    def show_save(self) -> None:
        """Show the button that saves, where a label can be wrong."""
        if self._labels:
            self._save = ui.button(on_click=self._here.on(self._write)).props("no-caps unelevated")
            self._count()

    def _count(self) -> None:
        count = len(self._chosen)
        self._save.set_text(
            say_plural("Save {count} change as a new file", "Save {count} changes as a new file", count=count)
        )
        self._save.set_enabled(bool(count))

    async def _write(self) -> None:
        source = self._found.source
        if not source.startswith("bundled:"):
            source = self._work.folder.name(self._work.folder.existing(_inside(self._work, source)))
        out = mended_name(self._work, source, "mended")
        await asyncio.to_thread(_write, self._found.source, self._work.folder.path(out), self._data, self._chosen)
        ui.navigate.to(address("/data", file=out))


def _inside(work: Workspace, source: str) -> str:
    """Return the name in the folder of a file that a run names by its path."""
    path = Path(source)
    return work.folder.name(path) if path.is_relative_to(work.folder.root) else source


def _write(source: str, out: Path, data: DataSettings, labels: Mapping[tuple[str, str], str]) -> None:
    table = read_table(source, data.encoding)
    if not write_corrected(table, out, labels, data.text, data.label):
        out.unlink()
        raise DataError(say("the file has changed meanwhile; look for wrong labels again"))

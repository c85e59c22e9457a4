"""Train: how long it may take or cost, what the plan says, and every setting for those who want them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from nicegui import ui

from tunedeck.core.checks import HUB_ID
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say, say_again
from tunedeck.core.settings import Setting, settings_of
from tunedeck.core.units import duration
from tunedeck.methods.registry import DEFAULT_METHOD, METHODS
from tunedeck.planner.machine import THIS_MACHINE
from tunedeck.planner.plan import PlanRow
from tunedeck.planner.planning import plan
from tunedeck.planner.prices import read_prices
from tunedeck.training.config import RunConfig, TrainingSettings
from tunedeck.training.left_out import with_left_out
from tunedeck.web.controls import Computed, with_question, words
from tunedeck.web.pages.data import reference_of
from tunedeck.web.pages.library import address
from tunedeck.web.pages.training_cost import show_own, show_recommended
from tunedeck.web.processes import command_text
from tunedeck.web.screen import Screen, heading, same_by_hand, screen
from tunedeck.web.workspace import Workspace

_PLANNED, _BUDGET = "lora", "budget"


@dataclass(frozen=True, slots=True)
class Promise:
    """One way to train: a command with its arguments, and the group of folders that it writes into."""

    key: str
    title: str
    text: str
    command: str
    flags: tuple[str, ...]
    group: str


def promises() -> tuple[Promise, ...]:
    """Return the ways to train, the shortest first."""
    return (
        Promise(
            "quick",
            say("3 minutes"),
            say("One LoRA adapter, trained for three minutes at most."),
            "train",
            ("--max-minutes", "3"),
            "runs",
        ),
        Promise(
            "race",
            say("15 minutes"),
            say("Many settings race on your data; the worse ones stop early."),
            "race",
            ("--minutes", "15"),
            "race",
        ),
        Promise(
            "best",
            say("As good as it gets"),
            say("The race runs until its ranking no longer changes, however long that takes."),
            "race",
            (),
            "race",
        ),
        Promise(
            _BUDGET,
            say("A budget in yuan"),
            say("The race takes as long as the money lasts at the price of an hour."),
            "race",
            (),
            "race",
        ),
    )


def page(work: Workspace) -> Callable[..., Coroutine[Any, Any, None]]:
    """Return the screen that starts training on a file."""

    async def train(
        file: str = "", text: str = "", label: str = "", way: str = "quick", money: float = 0, per_hour: float = 0
    ) -> None:
        with screen("/train") as here:
            heading(say("Train"))
            if not file:
                ui.label(say("Choose the data to train on first."))
                ui.button(say("Bring data"), on_click=lambda: ui.navigate.to("/data")).props("no-caps unelevated")
                same_by_hand(
                    "tunedeck train FILE --max-minutes 3",
                    'import tunedeck as td\n\nruns = td.train_run("FILE", {"training.max_minutes": 3})',
                )
                return
            reference_of(work, file)
            ui.label(file).classes("code")
            columns = {key: value for key, value in (("text", text), ("label", label)) if value}
            chosen = next((one for one in promises() if one.key == way), promises()[0])
            _ways(chosen, file, columns)
            _Form(work, here, file, columns, chosen, money or None, per_hour or None).show()

    return train


def _ways(chosen: Promise, file: str, columns: dict[str, str]) -> None:
    with ui.element("div").classes("cards").style("--least: 13rem"):
        for one in promises():
            there = address("/train", file=file, way=one.key, **columns)
            link = ui.link(target=there).classes("box block no-underline").style("color: inherit")
            if one.key == chosen.key:
                link.classes("chosen").props("aria-current=true")
            with link:
                ui.label(one.title).classes("number")
                ui.label(one.text).classes("faint")


@final
@dataclass
class _Form:
    """The choices on the screen: the way to train, the money that it may cost, and settings other than the default."""

    work: Workspace
    here: Screen
    file: str
    columns: dict[str, str]
    way: Promise
    money: float | None
    per_hour: float | None
    settings: dict[str, str] = field(default_factory=dict)

    def show(self) -> None:
        """Show the fields, the plan, the button that starts, and the same by hand."""
        if self.way.key == _BUDGET:
            self._show_budget()
        heading(say("A whole run of one LoRA adapter"), 2)
        reference = reference_of(self.work, self.file)
        planned = Computed(self.here, lambda: _planned(reference, self.money), _show_plan)
        if self.way.command == "train":
            with ui.expansion(say("Every setting")).classes("box w-full").props("dense"):
                _drawer(self.settings, lambda: self._write())
        ui.button(say("Start"), on_click=self.here.on(self._start)).props("no-caps unelevated size=lg")
        self._change = same_by_hand("", "")
        self._renew_plan = planned.renew
        self._write()

    def _show_budget(self) -> None:
        with ui.element("div").classes("box cards"):
            money = ui.number(say("Budget, CNY"), value=self.money, min=0.01)
            price = ui.number(say("Price of an hour of this machine, CNY"), value=self.per_hour, min=0.01)
            lasts = ui.label().classes("faint self-center")

        async def changed() -> None:
            self.money, self.per_hour = money.value or None, price.value or None
            lasts.set_text(self._lasts())
            self._write()
            await self._renew_plan()

        for field_, hint in (
            (money, say("at most this amount for the race")),
            (price, say("empty: the list price of its GPU")),
        ):
            field_.props("outlined dense debounce=400").props["hint"] = hint
            field_.on_value_change(self.here.on(changed))
        lasts.set_text(self._lasts())

    def _lasts(self) -> str:
        if self.money is None or self.per_hour is None:
            return ""
        return say("It lasts for {time}.", time=duration(3600 * self.money / self.per_hour))

    def _arguments(self) -> list[str]:
        name = self.work.folder.free_name(self.way.group, Path(self.file.removeprefix("bundled:")).stem)
        flags = [part for key, value in self.columns.items() for part in (f"--{key}", value)]
        money = {"budget": self.money, "price-per-hour": self.per_hour} if self.way.key == _BUDGET else {}
        limits = [part for key, value in money.items() if value for part in (f"--{key}", f"{value:g}")]
        chosen = [part for key, value in self.settings.items() for part in ("--set", f"{key}={value}")]
        return [self.way.command, self.file, *flags, *self.way.flags, *limits, *chosen, "--out", name]

    def _start(self) -> None:
        if self.way.key == _BUDGET and self.money is None:
            raise ConfigError(say("there is no budget; type an amount first"))
        if "model" in self.settings:
            _check_model(self.work, self.settings["model"])
        command = self._arguments()
        self.work.processes.start(command[-1], command)
        ui.navigate.to(address("/run", name=command[-1]))

    def _write(self) -> None:
        """Write the command with all choices, and keep them in the address."""
        numbers = {"money": self.money, "per_hour": self.per_hour}
        kept = {key: f"{value:g}" for key, value in numbers.items() if value}
        ui.navigate.history.replace(address("/train", file=self.file, way=self.way.key, **self.columns, **kept))
        arguments = self._arguments()
        self._change(command_text(arguments), self._python(arguments[-1]))

    def _python(self, out: str) -> str:
        if self.way.command == "race":
            limits: dict[str, float | None] = {"minutes": 15 if "--minutes" in self.way.flags else None}
            if self.way.key == _BUDGET:
                limits |= {"budget": self.money, "price_per_hour": self.per_hour}
            given = "".join(f", {key}={value!r}" for key, value in limits.items() if value)
            data = {"train": self.file, **self.columns}
            return f"import tunedeck as td\n\nrace = td.race(data={data!r}{given}, out={out!r})"
        changes = {**{f"data.{key}": value for key, value in self.columns.items()}, "training.max_minutes": 3}
        changes |= self.settings
        return f"import tunedeck as td\n\nruns = td.train_run({self.file!r}, {changes!r}, out={out!r})"


def _planned(reference: str, money: float | None) -> tuple[str, tuple[PlanRow, ...]]:
    """Return the base and its plan on this machine and on every GPU of the price list."""
    model: str = with_left_out({"data": {"train": reference}}, lambda text: None)["model"]
    rented = dict.fromkeys(offer.gpu.name for offer in read_prices().offers if offer.gpu.capability > 0)
    return model, plan(model, reference, methods=_PLANNED, gpus=[THIS_MACHINE, *rented], budget=money).rows


def _show_plan(found: tuple[str, tuple[PlanRow, ...]]) -> None:
    model, rows = found
    own = next((row for row in rows if row.offer.gpu.name == THIS_MACHINE), None)
    ui.label(say("base {model}", model=model)).classes("faint")
    with ui.element("div").classes("cards"):
        with ui.column().classes("gap-1"):
            ui.label(say("On this machine"))
            show_own(own)
        with ui.column().classes("gap-1"):
            ui.label(say("On rented GPUs"))
            show_recommended([row for row in rows if row is not own])
    ui.link(say("All methods and GPUs"), address("/cost", model=model)).classes("faint")
    words("LoRA", "base model", "GPU memory", "epoch", "held-out set")


def _drawer(settings: dict[str, str], changed: Callable[[], None]) -> None:
    """Show a field for every setting of the default method and of the training loop; an empty one keeps the default."""
    ui.label(say("An empty field keeps the default.")).classes("faint")
    with ui.element("div").classes("cards"):
        for key, setting in _settings():
            _field(settings, key, setting, changed)


def _check_model(work: Workspace, model: str) -> None:
    """Raise ConfigError for a base that is a folder elsewhere; bundled names and those of a hub may be any."""
    of_a_hub = HUB_ID.fullmatch(model) is not None and not model.startswith(".")
    if not model.startswith(("bundled:", "hf:", "ms:")) and not of_a_hub:
        work.folder.existing(model)


def _settings() -> Iterator[tuple[str, Setting]]:
    yield "model", next(one for one in settings_of(RunConfig) if one.name == "model")
    for group, cls in (("method", METHODS[DEFAULT_METHOD]), ("training", TrainingSettings)):
        for setting in settings_of(cls):
            if setting.help is not None and setting.name != "max_minutes":
                yield f"{group}.{setting.name}", setting


def _field(settings: dict[str, str], key: str, setting: Setting, told: Callable[[], None]) -> None:
    default = "" if setting.default is None else str(setting.default)

    def changed(event: Any) -> None:
        if value := str(event.value or "").strip():
            settings[key] = value
        else:
            settings.pop(key, None)
        told()

    with ui.column().classes("gap-1"):
        if setting.choices and not setting.is_list:
            ui.select(list(setting.choices), label=key, clearable=True, on_change=changed).props(
                "outlined dense"
            ).classes("w-full")
        else:
            ui.input(key, placeholder=default, on_change=changed).props("outlined dense stack-label").classes("w-full")
        with_question(say_again(setting.help.text) if setting.help else "", setting.name)

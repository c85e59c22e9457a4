"""Texts labelled by keys for an adapter, kept as a new file, and training on from it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui")

from nicegui import events
from support.simulated_page import simulated

from tunedeck.data.table import read_table
from tunedeck.tasks import label_next


async def until(holds: Callable[[], bool]) -> None:
    for _ in range(100):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError("did not happen")


def test_texts_are_labelled_by_keys_and_the_adapter_trains_on_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs/mail/adapter"
    folder.mkdir(parents=True)
    task = {"kind": "classify", "labels": ["no", "<b>yes</b>"]}
    given = {"base": {"reference": "bundled:x"}, "task": task, "method": {"kind": "lora"}}
    (folder / "tunedeck.json").write_text(json.dumps(given))
    (tmp_path / "pool.csv").write_text("text\nfirst\nsecond\nthird\n")
    (tmp_path / "old.csv").write_text("text,label\na,no\nb,no\n")
    out = tmp_path / "data/pool-labelled.csv"
    asked: list[list[str]] = []

    async def press(user: Any, key: str) -> None:
        (keyboard,) = user.find(kind=keyboard_class()).elements
        action = events.KeyboardAction(keydown=True, keyup=False, repeat=False)
        modifiers = events.KeyboardModifiers(alt=False, ctrl=False, meta=False, shift=False)
        pressed = events.KeyEventArguments(
            sender=keyboard,
            client=keyboard.client,
            action=action,
            modifiers=modifiers,
            key=events.KeyboardKey(name=key, code="", location=0),
        )
        for handler in keyboard._key_handlers:
            events.handle_event(handler, pressed)
        await asyncio.sleep(0.1)

    def keyboard_class() -> Any:
        return sys.modules["nicegui"].ui.keyboard

    def labelled() -> list[list[object]]:
        return [[row["text"], row["label"]] for row in read_table(str(out)).rows]

    def chosen(texts: list[str], n: int, *, adapter: Path) -> label_next.NextTexts:
        assert adapter == folder
        found = [label_next.NextText(row, text) for row, text in enumerate(texts[:n], start=1)]
        return label_next.NextTexts(tuple(found[::-1]), len(texts), 0)

    async def visit(user: Any) -> None:
        monkeypatch.setattr(label_next, "label_next", chosen)
        processes = sys.modules["tunedeck.web.processes"].Processes
        monkeypatch.setattr(processes, "start", lambda self, name, arguments: asked.append(list(arguments)))
        await user.open("/improve?adapter=runs/mail/adapter&file=pool.csv")
        await user.should_see("third", retries=50)
        await user.should_see("2 · <b>yes</b>")
        await press(user, "2")
        assert labelled() == [["third", "<b>yes</b>"]]
        await user.should_see("second")
        await press(user, "3")
        await press(user, "0")
        await user.should_see("first")
        await press(user, "ArrowLeft")
        await press(user, "1")
        await user.should_see("2 texts labelled")
        assert labelled() == [["third", "<b>yes</b>"], ["second", "no"]]
        await user.open("/improve?adapter=runs/mail/adapter&file=pool.csv")
        await user.should_see("2 texts labelled", retries=50)
        await user.should_see("first")
        user.find("Train on with these").click()
        await until(lambda: bool(asked))

    simulated(tmp_path, visit)
    assert asked == [
        ["train", "--from", "runs/mail/adapter", "--data", "data/pool-labelled.csv", "--out", "runs/mail-more"]
    ]

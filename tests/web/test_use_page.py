"""The screen that uses an adapter: talk, entities, two beside each other, other forms, a server."""

from __future__ import annotations

import ast
import asyncio
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nicegui")

from nicegui import ui
from support.simulated_page import simulated

SCRIPT = "<script>window.hacked = 1</script>"


def adapter(folder: Path, task: str) -> None:
    folder.mkdir(parents=True)
    given = {"base": {"reference": "bundled:x"}, "task": {"kind": task}, "method": {"kind": "lora"}}
    (folder / "tunedeck.json").write_text(json.dumps(given))


def answering(monkeypatch: pytest.MonkeyPatch, name: str, answer: Any) -> None:
    monkeypatch.setattr(sys.modules["tunedeck.web.decks"].Decks, name, answer)


def texts(user: Any) -> list[str]:
    return [one.text for one in user.find(ui.label).elements]


def test_entities_are_marked_in_the_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(tmp_path / "names", "tag")
    found = {"entities": [{"text": "李明", "label": SCRIPT, "start": 2, "end": 4, "score": 0.9}]}

    async def visit(user: Any) -> None:
        await user.open("/use?adapter=names")
        answering(monkeypatch, "answers", lambda *asked: [found])
        user.find("A text").type("昨天李明来了")
        user.find("Ask").click()
        await user.should_see(f"{SCRIPT} 90%", retries=50)
        assert {"昨天", "李明", "来了"} <= set(texts(user))

    simulated(tmp_path, visit)


def test_two_adapters_of_a_base_answer_beside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("mail", "law"):
        adapter(tmp_path / name, "score")
    adapter(tmp_path / "names", "tag")
    asked = []

    def answers(self: object, folders: Any, text: str) -> list[dict[str, Any]]:
        asked.append(([one.name for one in folders], text))
        return [{"score": 1.5, "scores": {"stars": 1.5}}, {"score": 4.25, "scores": {"stars": 4.25}}]

    async def visit(user: Any) -> None:
        await user.open("/use?adapter=mail")
        (choice,) = (one for one in user.find(ui.select).elements if "law" in one.options)
        assert list(choice.options) == ["", "law"]
        await user.open("/use?adapter=mail&beside=law")
        answering(monkeypatch, "answers", answers)
        user.find("A text").type("good")
        user.find("Ask").click()
        await user.should_see("1.500", retries=50)
        await user.should_see("4.250")
        await user.should_see("tunedeck predict --adapter mail --adapter law")

    simulated(tmp_path, visit)
    assert asked == [(["mail", "law"], "good")]


def test_a_conversation_is_streamed_and_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(tmp_path / "talk", "generate")
    asked = []

    def stream(self: object, folders: Any, turns: Any, take: Any, stop: Any) -> None:
        asked.append([[turn["content"] for turn in one] for one in turns])
        take(0, "Good ")
        if len(asked) == 1:
            take(0, "day.")
            return
        assert stop.wait(60)

    async def visit(user: Any) -> None:
        await user.open("/use?adapter=talk")
        answering(monkeypatch, "stream", stream)
        user.find("Your message").type("Hello")
        user.find("Send").click()
        await user.should_see("Good day.", retries=50)
        user.find("Your message").type("And?")
        user.find("Send").click()
        for _ in range(100):
            if "Good " in texts(user):
                break
            await asyncio.sleep(0.05)
        user.find("Stop").click()
        user.find("Your message").type("Still there?")
        await asyncio.sleep(0.5)
        user.find("Send").click()
        for _ in range(100):
            if len(asked) == 3:
                break
            await asyncio.sleep(0.05)
        user.find("Stop").click()

    simulated(tmp_path, visit)
    assert asked == [
        [["Hello"]],
        [["Hello", "Good day.", "And?"]],
        [["Hello", "Good day.", "And?", "Good ", "Still there?"]],
    ]


def test_two_texts_have_a_likeness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(tmp_path / "near", "embed")

    async def visit(user: Any) -> None:
        await user.open("/use?adapter=near")
        answering(monkeypatch, "similarities", lambda self, folders, *texts: [0.875])
        user.find("A text").type("good")
        user.find("Compare").click()
        await user.should_see("there is no text; type one first")
        user.find("Another text").type("fine")
        user.find("Compare").click()
        await user.should_see("0.875", retries=50)

    simulated(tmp_path, visit)


def test_other_forms_are_shown_with_the_reason_against_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(tmp_path / "a'b", "classify")
    done = tmp_path / "exports/a'b-peft"
    done.mkdir(parents=True)
    (done / "adapter_config.json").write_text("{}")
    started = []

    async def visit(user: Any) -> None:
        await user.open("/use?adapter=a%27b")
        exports = sys.modules["tunedeck.web.pages.exports"]
        monkeypatch.setattr(
            exports, "_refusals", lambda folder: {"merge": "its head reads pooled states", "peft": None, "onnx": None}
        )
        processes = sys.modules["tunedeck.web.processes"].Processes
        monkeypatch.setattr(processes, "start", lambda self, name, arguments: started.append((name, arguments)))
        user.find("Show the formats").click()
        await user.should_see("Not possible: its head reads pooled states", retries=50)
        await user.should_see("exports/a'b-peft (2 B)")
        user.find("Write it").click()
        await asyncio.sleep(0.2)
        zipped = exports.zipped(done)
        assert zipfile.ZipFile(zipped).namelist() == ["a'b-peft/adapter_config.json"]
        for target in exports._explanations():
            ast.parse(exports._python(target, "a'b", "exports/a'b"))
        await user.should_see('td.save_onnx(deck, deck.adapters[0], "exports/a\'b-onnx")')

    simulated(tmp_path, visit)
    assert started == [("exports/a'b-onnx", ["export", "onnx", "--adapter", "a'b", "--out", "exports/a'b-onnx"])]


def test_a_server_is_started_with_the_chosen_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(tmp_path / "runs/mail/adapter", "classify")
    (tmp_path / "runs/mail/events.jsonl").touch()
    ready: list[bool] = []

    async def visit(user: Any) -> None:
        await user.open("/use?adapter=runs/mail")
        servers, processes = (sys.modules[f"tunedeck.web.{one}"] for one in ("pages.servers", "processes"))
        monkeypatch.setattr(servers, "answers", lambda port: bool(ready))
        kept: dict[str, list[str]] = {}
        monkeypatch.setattr(processes.Processes, "start", lambda self, name, arguments: kept.update({name: arguments}))
        monkeypatch.setattr(processes.Processes, "names", lambda self: list(kept))
        monkeypatch.setattr(processes.Processes, "arguments", lambda self, name: kept.get(name, []))
        monkeypatch.setattr(processes.Processes, "is_running", lambda self, name: name in kept)
        monkeypatch.setattr(processes.Processes, "stop", lambda self, name: kept.clear())
        user.find("Port").clear().type("80")
        user.find("Start the server").click()
        await user.should_see("the port must be from 1024 to 65535")
        user.find("Port").clear().type("8123")
        user.find("Start the server").click()
        await user.should_see("starting …", retries=50)
        ((_, arguments),) = kept.items()
        assert arguments[:3] == ["serve", "--adapters", "runs/mail"]
        assert arguments[-2:] == ["--port", "8123"]
        ready.append(True)
        await user.should_see("running on http://127.0.0.1:8123", retries=50)
        await user.should_see('-d \'{"model": "adapter", "input": "..."}\'')
        await user.open("/use?adapter=runs/mail")
        await user.should_see("running on http://127.0.0.1:8123", retries=50)
        user.find("Stop the server").click()
        await user.should_see("The server has ended.", retries=50)

    simulated(tmp_path, visit)

"""Mixed serving from Python: one call opens an engine, as docs/serving.md shows it."""

from __future__ import annotations

import platform
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from support import served_adapters

import tunedeck as td
from tunedeck.core.errors import ConfigError, DrainingError
from tunedeck.deck.reading import adapter_from_folder
from tunedeck.serving import Request, Sequence, open_engine
from tunedeck.serving.backends.deck import batch_backend
from tunedeck.serving.backends.generate import GenerateBackend

SOON = 30
DOCS = Path(__file__).parents[2] / "docs" / "serving.md"
CONTENTS: dict[str, Callable[[str], Any]] = {
    "classifier": str,
    "unpooled": str,
    "causal": lambda text: Sequence(text, td.Sampling(max_tokens=2)),
}


@pytest.mark.parametrize("form", ["classifier", "causal"])
def test_the_documented_example_answers(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    section = DOCS.read_text(encoding="utf-8").split("\n## From Python\n")[1].split("\n## ")[0]
    blocks = [block.split("```")[0] for block in section.split("```python\n")[1:]]
    code = next(block for block in blocks if ("Sequence" in block) == (form == "causal"))
    opened = next(line for line in code.splitlines() if line.startswith("deck = "))
    code = re.sub(r'"\w+/"', "folder", code.replace(opened, ""))
    for name, ours in (("sentiment", "lora-1"), ("topic", "prompt-1"), ("law", "lora-1"), ("medicine", "bottleneck-1")):
        code = code.replace(f'"{name}"', f'"{ours}"')
    exec(code, {"deck": served_adapters.base_deck(form), "folder": served_adapters.saved_adapters(form)})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["lora-1", "prompt-1" if form == "classifier" else "bottleneck-1"]
    assert form == "causal" or all(line.split()[1].startswith(line.split("-")[0]) for line in lines)


@pytest.mark.parametrize("form", CONTENTS)
def test_a_stored_probe_is_computed_by_the_thread_that_computes_the_answers(form: str) -> None:
    deck, seen = served_adapters.base_deck(form), set[str]()
    with open_engine(deck, served_adapters.saved_adapters(form)) as engine:
        deck.model.register_forward_pre_hook(lambda *_: seen.add(threading.current_thread().name))
        for name in ("lora-1", "prompt-1"):
            assert engine.store.load(name).result(SOON).adapter.note is None
    assert seen == {"engine"}


@pytest.mark.skipif(platform.system() != "Linux", reason="needs GNU OpenMP")
def test_only_the_thread_that_answers_keeps_helper_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    deck, own, helpers = served_adapters.base_deck("classifier"), torch.get_num_threads(), list[int]()

    def compute() -> None:
        torch.ones(1_000_000).sin()
        helpers.append(psutil.Process().num_threads() - threading.active_count())

    def read(*arguments: Any, **more: Any) -> Any:
        compute()
        return adapter_from_folder(*arguments, **more)

    def open_and_load() -> None:
        compute()
        with open_engine(deck, served_adapters.saved_adapters("classifier")):
            batch_backend(deck).load(served_adapters.saved_adapters("classifier") / "lora-1", "loaded here")
            compute()
        deck.remove("loaded here")

    monkeypatch.setattr("tunedeck.serving.backends.deck.adapter_from_folder", read)
    torch.set_num_threads(3)
    thread = threading.Thread(target=open_and_load)
    thread.start()
    thread.join()
    torch.set_num_threads(own)
    assert helpers == [helpers[0]] * 3  # the two helpers of before have ended each time


def test_a_load_that_waits_for_a_closed_engine_fails() -> None:
    engine = open_engine(served_adapters.base_deck("classifier"), served_adapters.saved_adapters("classifier"))
    computing, go_on = threading.Event(), threading.Event()

    def compute() -> None:
        computing.set()
        go_on.wait(SOON)

    busy = threading.Thread(target=engine.queue.call, args=(compute,))
    busy.start()
    assert computing.wait(SOON)
    loading = engine.store.load("lora-1")
    while not engine.queue._calls:
        time.sleep(0.005)
    closing = threading.Thread(target=engine.close)
    closing.start()
    with pytest.raises(DrainingError):
        loading.result(SOON)
    go_on.set()
    closing.join()
    busy.join()
    with pytest.raises(DrainingError):
        engine.queue.call(int)


@pytest.mark.parametrize("form", CONTENTS)
def test_a_long_batch_is_tokenized_by_the_tokenizers_a_few_texts_at_a_time(form: str) -> None:
    requests = [Request("lora-1", CONTENTS[form](f"w{number} w7")) for number in range(10, 26)]
    seen: list[tuple[str, int]] = []
    with open_engine(served_adapters.base_deck(form), served_adapters.saved_adapters(form)) as engine:
        encode = engine._backend.encode

        def spy(contents: Any, key: str | None) -> list[list[int]]:
            while not all(request.lease for request in requests):
                time.sleep(0.005)
            seen.append((threading.current_thread().name, len(contents)))
            return encode(contents, key)

        engine._backend.encode = spy  # type: ignore[method-assign]
        engine.submit(*requests)
        for request in requests:
            request.done.result(SOON)
    assert {name for name, _ in seen} == {"tokenizer-0"}, "and not the thread that loads adapters"
    assert sum(count for _, count in seen) == len(requests)
    assert len(seen) <= 4


def test_prompts_to_generate_go_through_the_tokenizer_together(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, calls = GenerateBackend(served_adapters.base_deck("causal")), []
    kind = type(backend.deck.tokenizer)
    tokenize = kind.__call__

    def spy(tokenizer: Any, texts: Any) -> Any:
        calls.append(texts)
        return tokenize(tokenizer, texts)

    monkeypatch.setattr(kind, "__call__", spy)
    prompts: list[str | list[int]] = ["w5 w6", [7, 8], "w9", "w5 w6"]
    ids = backend.encode([Sequence(prompt, td.Sampling()) for prompt in prompts], None)
    assert calls == [["w5 w6", "w9"]]
    assert ids == [
        tokenize(backend.deck.tokenizer, one)["input_ids"] if isinstance(one, str) else one for one in prompts
    ]


def test_leaving_the_engine_ends_it_and_keeps_the_deck() -> None:
    deck = served_adapters.base_deck("classifier")
    with open_engine(deck, served_adapters.saved_adapters("classifier")) as engine:
        request = Request("lora-1", "w4 w5")
        engine.submit(request)
        assert request.done.result(SOON).label.startswith("lora-")
    with pytest.raises(DrainingError):
        engine.submit(Request("lora-1", "w4 w5"))
    assert deck.predict(["w4"])


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        open_engine(served_adapters.base_deck("classifier"), tmp_path / "nothing")

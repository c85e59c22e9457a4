"""Runs the blocks of a page in order, as a reader would who follows it: shell, Python, and the run files it shows."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import openai
import openpyxl
import pytest
from fastapi.testclient import TestClient

import tunedeck as td
from support.command_line import Command
from tunedeck.core.i18n import set_language
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.service import Service

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARKED = {
    r"(pip|python3 -m venv|\.) ": "installs packages; tests/support/fresh_environment.py does so",
    r"make (demo|test)": "takes minutes",
    r"tunedeck demo": "trains for minutes; tests/cli/test_demo.py runs it small",
    r"tunedeck ui": "opens a browser; tests/web",
    r"(torchrun|accelerate|srun) ": "several processes or machines; tests/training and tests/cli start two",
    r".* --ray ": "needs Ray; tests/examples",
    r"python examples/ray_": "needs Ray; tests/examples",
    r"python bench/": "measures for minutes",
    r"tunedeck train --resume ": "continues a run that was interrupted; tests/training and tests/cli",
    r"llama-server ": "needs llama.cpp; tests/export reads the file",
    r"sh vllm-adapters/serve.sh": "needs vLLM and a GPU",
    r"tunedeck (plan|train|compare) .*scale": "needs a plug-in, which tests/contract installs",
}
"""Commands that are not run, and why; tests/docs/test_site.py checks that their options exist."""
MARKED_PAGES = {"guides/plug-ins": "files of packages that tests/contract installs and runs"}
"""Pages whose Python is not run, and why."""
SHORTER = (
    (r"(train_size|eval_size|--train-size)([=: ]+)\d+", r"\1\g<2>20"),
    (r"max_steps=60", "max_steps=2"),
    (r"(--minutes |minutes=)\d+", r"\g<1>0.005"),
    (r'until="clear"', 'until="clear", minutes=0.005'),
    (r"--budget 5 --price", "--budget 0.0005 --price"),
    (r"--search 12 --lang", "--search 2 --methods lora,head --lang"),
    (r"--search 12", "--search 2"),
    (r"(--seeds |seeds=)3", r"\g<1>1"),
    (r"rows\[:2000\](.*)rows\[2000:2300\]", r"rows[:60]\1rows[60:]"),
    (r"(--precision |precision=)0.95", r"\g<1>0.2"),
    (r"\ntd\.save_onnx.*", ""),  # the commands above have written the same
)
"""What a page says, and what runs instead, which takes less time."""


def blocks(text: str) -> list[tuple[str, str]]:
    """Return the language and the text of the blocks of a page."""
    return BLOCK.findall(text)


def commands(text: str) -> Iterator[list[str]]:
    """Yield the words of each line of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        if words := shlex.split(line.removeprefix("$ "), comments=True):
            yield words


def mark_of(words: Sequence[str]) -> str | None:
    """Return the mark of a command that is not run, if it has one."""
    return next((mark for mark in MARKED if re.match(mark, " ".join(words) + " ")), None)


def shortened(text: str) -> str:
    """Return a block or a run file with less to do."""
    for pattern, instead in SHORTER:
        text = re.sub(pattern, instead, text)
    return text


class Reader:
    """Somebody who follows a page in the current folder; `graphs` are the ONNX exports of earlier pages."""

    def __init__(
        self, page: str, tunedeck: Command, graphs: dict[tuple[str, ...], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.page, self.tunedeck, self.graphs = page, tunedeck, graphs
        self.names: dict[str, Any] = {}
        self.service: Service | None = None
        self.exported: list[Path] = []
        client = openai.OpenAI
        add = td.label_add
        monkeypatch.setattr(td, "label_add", lambda file, *others, **more: add(_filled(file), *others, **more))
        monkeypatch.setattr("tunedeck.server.run.bind", lambda settings: [])
        monkeypatch.setattr("tunedeck.server.run.serve", lambda service, *_: self._serve(service))
        monkeypatch.setattr(openai, "OpenAI", lambda **settings: client(**settings, http_client=self._client()))

    def follow(self, language: str, text: str) -> None:
        """Run a block; what it prints and the files that it writes stay."""
        text = shortened(text)
        set_language("en")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            if language in ("sh", "console"):
                for words in commands(text):
                    if mark_of(words) is None:
                        self._run(words)
            elif language == "python" and self.page not in MARKED_PAGES:
                self._start_afresh()
                exec(text, self.names)
            elif language == "yaml" and (name := re.match(r"# (\S+\.yaml)", text)):
                path = Path(name[1])
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")

    def close(self) -> None:
        """End the server that the page has started."""
        if self.service is not None:
            self.service.engine.close()
            self.service = None

    def _run(self, words: list[str]) -> None:
        if words[0] == "tunedeck":
            self._run_tunedeck(words[1:])
        elif words[0] == "curl":
            self._ask(words[1:])
        else:
            assert words[0] == "python", f"{words}: run it here or give it a mark"
            given = Path(words[words.index("<") + 1]).read_text(encoding="utf-8") if "<" in words else ""
            called = words[1 : words.index("<")] if "<" in words else words[1:]
            subprocess.run([sys.executable, *called], input=given, encoding="utf-8", check=True, stdout=subprocess.PIPE)

    def _run_tunedeck(self, words: list[str]) -> None:
        out = None
        if ">" in words:
            words, out = words[: words.index(">")], words[-1]
        if words[:2] == ["label", "add"]:
            _filled(words[2])
        if words[0] in ("compare", "race"):
            self._start_afresh()
        if tuple(words) in self.graphs:  # seconds for each
            shutil.copytree(self.graphs[tuple(words)], _out(words))
            return
        said = self.tunedeck(*words)
        assert said.code == 0, said.err
        if words[:2] != ["export", "onnx"]:
            if words[0] == "export" or words[:2] in (["adapters", "merge"], ["label", "next"]):
                self.exported.append(_out(words))
        else:
            self.graphs[tuple(words)] = shutil.copytree(_out(words), Path("graphs").absolute() / str(len(self.graphs)))
        if out is not None:
            Path(out).write_text(said.out, encoding="utf-8")

    def _start_afresh(self) -> None:
        """Remove what another comparison or export has written: a page shows several ways to the same folder."""
        for path in (*self.exported, Path("compare"), Path("race")):
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)

    def _serve(self, service: Service) -> None:
        self.close()
        self.service = service

    def _client(self) -> TestClient:
        assert self.service is not None, "the page has started no server"
        return TestClient(create_app(self.service, Keys(None)), base_url="http://localhost:8000")

    def _ask(self, words: list[str]) -> None:
        url, body = f"http://{words[0]}", None
        for option, value in zip(words[1::2], words[2::2], strict=True):
            assert option in ("-H", "-d")
            if option == "-d":
                body = value
        kind = {"Content-Type": "application/json"}
        with self._client() as client:
            answer = client.get(url) if body is None else client.post(url, content=body, headers=kind)
        assert answer.status_code == 200, answer.text


def _out(words: Sequence[str]) -> Path:
    return Path(words[words.index("--out") + 1])


def _filled(path: str) -> str:
    """Label the texts of a sheet, as a person does, and return its path."""
    book = openpyxl.load_workbook(path)
    sheet = book.worksheets[0]
    column = [cell.value for cell in sheet[1]].index("label") + 1
    for row in range(2, sheet.max_row + 1):
        sheet.cell(row, column, ("negative", "neutral", "positive")[row % 3])
    book.save(path)
    return path

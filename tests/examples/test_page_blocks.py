"""Every block of the pages runs, on tiny models and small files, or is marked in support/page_blocks.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.command_line import Command
from support.page_blocks import MARKED, MARKED_PAGES, ROOT, Reader, blocks, commands, mark_of, shortened
from support.page_files import bundled_rows, fill_cache, write_files

SHELL = ("sh", "console")
GENERATED = ("commands", "errors", "glossary", "http", "python")
FILES = [ROOT / "README.md", ROOT / "README.zh.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = {
    str(file.relative_to(ROOT)).removeprefix("docs/").removesuffix(".md"): file
    for file in FILES
    if file.name.split(".")[0] not in GENERATED
}
QUICKER = {
    "core.run_length.FEWEST_STEPS": 4,
    "tasks.linear_probe.STRENGTHS": (1e-3,),
    "comparison.report.figures.place_labels": lambda *_: None,
    **{f"comparison.latency.{name}": 1 for name in ("ROUNDS", "LEAST_ROUNDS", "WARM_UP")},
    **{f"export.onnx.measure.{name}": 1 for name in ("ALONE", "BATCHES", "ROUNDS")},
    "export.onnx.measure.PAUSE_S": 0.0,
}
"""What takes long and is tested elsewhere: steps, penalties of a head, labels of a figure, and timing."""


def code(page: str) -> list[object]:
    """Return what a page runs, without its comments, texts and bundled models."""
    found: list[object] = []
    for language, text in blocks(PAGES[page].read_text("utf-8")):
        if language in SHELL:
            found += [
                [re.sub(r"bundled:.*|.* .*|.*[^\x00-\x7f].*", "…", word) for word in words] for words in commands(text)
            ]
        elif language == "python":
            found.append("\n".join(line.partition("  # ")[0] for line in text.splitlines() if line.strip()[:1] != "#"))
    return found


def with_code_of_its_own(page: str) -> bool:
    """Whether a page runs something; a translation, something that its original does not."""
    found = code(page)
    return bool(found) and not (page.endswith(".zh") and found == code(page.removesuffix(".zh")))


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which every bundled model is a tiny one."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEDECK_CACHE", str(folder))
        fill_cache()
    return folder


@pytest.fixture(scope="session")
def graphs() -> dict[tuple[str, ...], Path]:
    """Folders of ONNX exports by the command that has written them."""
    return {}


@pytest.mark.parametrize("page", [page for page in PAGES if with_code_of_its_own(page)])
def test_the_blocks_of_a_page_run_one_after_the_other(
    page: str,
    cache: Path,
    graphs: dict[tuple[str, ...], Path],
    tunedeck: Command,
    in_process: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    subtests: pytest.Subtests,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNEDECK_CACHE", str(cache))
    monkeypatch.setattr("tunedeck.data.table.read_bundled", bundled_rows)
    answers = iter(("w4 w5", "/quit"))
    monkeypatch.setattr("builtins.input", lambda prompt: next(answers))
    for name, value in QUICKER.items():
        monkeypatch.setattr(f"tunedeck.{name}", value)
    write_files(page.removesuffix(".zh"), tmp_path)
    for file in (ROOT / "examples" / "specialists").glob("*.yaml"):
        copied = tmp_path / file.relative_to(ROOT)
        copied.parent.mkdir(parents=True, exist_ok=True)
        copied.write_text(shortened(file.read_text("utf-8")), encoding="utf-8")
    reader = Reader(page.removesuffix(".zh"), tunedeck, graphs, monkeypatch)
    for number, (language, text) in enumerate(blocks(PAGES[page].read_text("utf-8"))):
        with subtests.test(f"{page}-{number}"):
            reader.follow(language, text)
    reader.close()


def test_every_mark_stands_for_a_block() -> None:
    shell = [
        words
        for file in PAGES.values()
        for language, text in blocks(file.read_text("utf-8"))
        if language in SHELL
        for words in commands(text)
    ]
    assert {mark_of(words) for words in shell} - {None} == set(MARKED)
    assert set(MARKED_PAGES) <= set(PAGES)

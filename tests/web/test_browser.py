"""The page in a real browser: markup in data stays text, nothing is asked of other hosts, an adapter answers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from support import tiny_models

import tunedeck

pytest.importorskip("nicegui")
playwright = pytest.importorskip("playwright.sync_api")

CHROMIUM = shutil.which("chromium")
PORT = 8934
HERE = f"http://127.0.0.1:{PORT}"
MARKUP = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> {{ 7 * 7 }}"
FILE = "a'b <i>评论.csv"

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium in PATH")]


@pytest.fixture
def page_over(tmp_path: Path) -> Iterator[Path]:
    """The command, running over a folder with a file of reviews and an adapter."""
    rows = [
        f"{'物流很快' if number % 2 else '质量太差'} {number},{'好评' if number % 2 else '差评'}"
        for number in range(60)
    ]
    (tmp_path / FILE).write_text("\n".join(["评论,标签", f"{MARKUP},<b>好评</b>", *rows]), encoding="utf-8")
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "mail", tunedeck.LoraConfig(target_modules=("query", "value")))
    deck.save("mail", tmp_path / "mail")
    command = [sys.executable, "-m", "tunedeck", "ui", "--no-open", "--port", str(PORT)]
    environment = {**os.environ, "PYTHONPATH": str(Path(tunedeck.__file__).parents[1])}
    environment.pop("PYTEST_CURRENT_TEST")  # by which NiceGUI would take it for a test of its own
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        try:
            _wait_until_it_answers(process)
            yield tmp_path
        finally:
            process.terminate()


def _wait_until_it_answers(process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None
        try:
            urllib.request.urlopen(HERE, timeout=10).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the page does not answer")


def shot(page: Any, name: str) -> None:
    """Keep a picture where TUNEDECK_SCREENSHOTS names a folder, to be looked at."""
    if folder := os.environ.get("TUNEDECK_SCREENSHOTS"):
        page.wait_for_timeout(500)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def test_a_file_of_markup_is_shown_as_text_and_an_adapter_answers(page_over: Path) -> None:
    asked: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for width, language, dark in ((1200, "en", "0"), (390, "zh", "1")):
            context = browser.new_context(viewport={"width": width, "height": 800})
            cookies = {"tunedeck_language": language, "tunedeck_dark": dark}
            context.add_cookies([{"name": name, "value": value, "url": HERE} for name, value in cookies.items()])
            page = context.new_page()
            page.set_default_timeout(120_000)
            page.on("request", lambda request: asked.append(request.url))
            for name, address, seen in (
                ("library", "/", "mail"),
                ("choice", "/data", FILE),
                ("data", f"/data?file={quote(FILE)}", {"en": "Problems", "zh": "发现的问题"}[language]),
                ("train", f"/train?file={quote(FILE)}", "tunedeck train"),
            ):
                page.goto(HERE + address)
                page.get_by_text(seen, exact=name == "data").first.wait_for(state="attached")
                shot(page, f"{name}-{language}-{width}")
                assert page.evaluate("window.hacked") is None
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
                if name == "data":
                    assert page.get_by_text("{{ 7 * 7 }}").count()
            page.goto(HERE + "/use?adapter=mail")
            page.locator("textarea").fill("the parcel came")
            page.get_by_role("button", name={"en": "Ask", "zh": "预测"}[language]).first.click()
            page.locator(".number").first.wait_for()
            page.get_by_text("%").first.wait_for()
            shot(page, f"use-{language}-{width}")
        browser.close()
    assert {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {f"127.0.0.1:{PORT}"}
    assert sorted(one.name for one in page_over.iterdir() if not one.name.startswith(".")) == sorted([FILE, "mail"])

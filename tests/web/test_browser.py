"""The page in a real browser: markup stays text, no other host is asked, no serious axe finding, the whole way to a
file of predictions, and what goes wrong on it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, final
from urllib.parse import quote, urlsplit

import httpx
import pytest
from openpyxl import Workbook
from support import tiny_models
from support.serving_process import free_port
from support.waiting import eventually

import tunedeck
from tunedeck.core.i18n import say, set_language
from tunedeck.data.table import read_table
from tunedeck.web.folder import Folder
from tunedeck.web.processes import RECORDS, Processes

pytest.importorskip("nicegui")
playwright = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

CHROMIUM = shutil.which("chromium")
MARKUP = "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> {{ 7 * 7 }}"
FILE, POOL = "a'b <i>评论.csv", "pool.csv"
SCREENS = {
    "library": ("/", "mail"),
    "choice": ("/data", FILE),
    "data": (f"/data?file={quote(FILE)}", "Problems"),
    "train": (f"/train?file={quote(FILE)}", "On this machine"),
    "budget": (f"/train?file={quote(FILE)}&way=budget", "On this machine"),
    "cost": ("/cost?samples=1000&tokens=64", "On this machine"),
    "deployment": ("/cost/deployment", "minicpm-2b"),
    "run": ("/run?name=race/a", "paused"),
    "use": ("/use?adapter=mail", "Ask"),
    "improve": ("/improve?adapter=mail", "In the folder"),
    "labelling": (f"/improve?adapter=mail&file={quote(POOL)}", "Skip"),
    "words": ("/words", "TD-E021"),
    "error": ("/data?file=gone.csv", "[TD-E"),
}
"""Every screen: its address, and a text that is there once it is whole."""

LOOKS = [(1200, "en", False), (390, "zh", True)]
"""Widths, languages and themes; with a folder for screenshots, each with each."""
if os.environ.get("TUNEDECK_SCREENSHOTS"):
    LOOKS = [(width, language, dark) for width in (1200, 390) for language in ("en", "zh") for dark in (False, True)]
SERIOUS = ("serious", "critical")

pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium in PATH")]


@final
class Site:
    """The command over a folder, to be stopped and started again, and the browser with all that it asked for."""

    def __init__(self, folder: Path, browser: Any) -> None:
        self.folder, self.browser = folder, browser
        self.port = free_port()  # the tests of this file may be divided between processes
        self.url = f"http://127.0.0.1:{self.port}"
        self.asked: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tunedeck",
            "ui",
            "--no-open",
            "--port",
            str(self.port),
            "--folder",
            str(self.folder),
        ]
        environment = {**os.environ, "PYTHONPATH": str(Path(tunedeck.__file__).parents[1])}
        environment.pop("PYTEST_CURRENT_TEST", None)  # by which NiceGUI would take it for a test of its own
        self._process = subprocess.Popen(command, cwd=self.folder.parent, env=environment)
        for _ in range(600):
            assert self._process.poll() is None
            try:
                urllib.request.urlopen(self.url, timeout=10).close()
            except OSError:
                time.sleep(0.1)
            else:
                return
        raise AssertionError("the page does not answer")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def end(self) -> None:
        """Stop the page, and what was started on it and still runs."""
        self.stop()
        started = Processes(Folder(self.folder))
        for name in started.names():
            if started.is_running(name):
                os.killpg(self.pid_of(name), signal.SIGKILL)

    def pid_of(self, name: str) -> int:
        """Return the process that writes a name."""
        record = self.folder / RECORDS / f"{quote(name, safe='')}.json"
        return int(json.loads(record.read_text(encoding="utf-8"))["pid"])

    def page(self, language: str = "en", dark: bool = False, width: int = 1200) -> Any:
        """Return a new tab of a new visitor."""
        context = self.browser.new_context(viewport={"width": width, "height": 800})
        cookies = {"tunedeck_language": language, "tunedeck_dark": str(int(dark))}
        context.add_cookies([{"name": name, "value": value, "url": self.url} for name, value in cookies.items()])
        return self.opened(context)

    def asked_only_here(self) -> None:
        hosts = {urlsplit(url).netloc for url in self.asked if not url.startswith(("data:", "blob:"))}
        assert hosts <= {f"127.0.0.1:{self.port}"}

    def opened(self, context: Any) -> Any:
        page = context.new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda request: self.asked.append(request.url))
        return page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The command over a folder with a file of reviews, an adapter, a base and a race that was broken off."""
    folder = tmp_path_factory.mktemp("site")
    rows = [
        f"{'物流很快' if number % 2 else '质量太差'} {number},{'好评' if number % 2 else '差评'}"
        for number in range(60)
    ]
    (folder / FILE).write_text("\n".join(["评论,标签", f"{MARKUP},<b>好评</b>", *rows]), encoding="utf-8")
    (folder / POOL).write_text(f"text\n{MARKUP}\nw5 w6\nw7 w8\n")
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "mail", tunedeck.LoraConfig(target_modules=("query", "value")))
    deck.save("mail", folder / "mail")
    shutil.copytree(tiny_models.folder_of("bert", "plain"), folder / "base")
    _save_talker(folder / "talk")
    (folder / "race/a").mkdir(parents=True)
    known = [{"name": "lora", "key": "a", "text": ""}, {"name": "full", "key": "b", "text": "full stops at 1/27"}]
    (folder / "race/a/standing.json").write_text(json.dumps({"candidates": known}))
    answers = [{"name": key, "share": 1, "scores": [1, 0], "seconds": 1, "at_s": 1} for key in ("a", "b")]
    (folder / "race/a/race.jsonl").write_text("\n".join(map(json.dumps, [{}, *answers])) + "\n")
    os.utime(folder / "race/a/race.jsonl", (1e9, 1e9))
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        found = Site(folder, browser)
        try:
            found.start()
            yield found
        finally:
            found.end()
            browser.close()


def _save_talker(folder: Path) -> None:
    """Save an adapter of a tiny model whose answers end at their limit only, and the model beside it."""
    base = folder.with_name("talking")
    sizes: Any = {"eos_token_id": None, "max_position_embeddings": 2048}
    tiny_models.tiny_model("llama", "causal", **sizes).save_pretrained(base)
    tiny_models.tiny_tokenizer("llama").save_pretrained(base)
    deck = tunedeck.Deck.load(str(base), task=tunedeck.Generate(), dtype="float32", device="cpu")
    tiny_models.add_stirred(deck, "talk", tunedeck.LoraConfig())
    deck.save("talk", folder)


@pytest.fixture(autouse=True)
def _only_this_host(site: Site) -> Iterator[None]:
    """No test makes the browser ask another host."""
    yield
    site.asked_only_here()


def shot(page: Any, name: str) -> None:
    """Keep a picture where TUNEDECK_SCREENSHOTS names a folder, to be looked at."""
    if folder := os.environ.get("TUNEDECK_SCREENSHOTS"):
        page.wait_for_timeout(500)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


def _serious(page: Any) -> list[tuple[str, str]]:
    """The serious findings of axe-core, each with its first element."""
    found = axe.Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in SERIOUS]


@pytest.mark.parametrize(("width", "language", "dark"), LOOKS)
def test_every_screen_shows_markup_as_text_fits_and_has_no_serious_finding(
    site: Site, width: int, language: str, dark: bool
) -> None:
    set_language(language)
    page = site.page(language, dark, width)
    for name, (address, seen) in SCREENS.items():
        page.goto(site.url + address)
        page.get_by_text(say(seen), exact=name == "data").first.wait_for(state="attached")
        shot(page, f"{name}-{language}-{width}-{'dark' if dark else 'light'}")
        assert page.evaluate("window.hacked") is None
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), name
        if name == "data":
            assert page.get_by_text("{{ 7 * 7 }}").count()
        if found := _serious(page):
            page.wait_for_timeout(1000)  # a colour that is changing counts as what it is in that moment
            found = _serious(page)
        assert found == [], name
    page.context.close()


def test_every_control_is_reached_by_the_tab_key_and_shows_its_focus(site: Site) -> None:
    page = site.page()
    for address, seen in (SCREENS["library"], SCREENS["choice"], SCREENS["train"], SCREENS["cost"], SCREENS["run"]):
        page.goto(site.url + address)
        page.get_by_text(seen).first.wait_for()
        controls = page.evaluate(CONTROLS)
        reached = set()
        for _ in range(len(controls) + 10):
            page.keyboard.press("Tab")
            name, visible = page.evaluate(FOCUSED)
            assert visible, (address, name)
            reached.add(name)
        assert [one for one in controls if one not in reached] == [], address
    page.context.close()


CONTROLS = """() => [...document.querySelectorAll('a[href], button, input, textarea, [role=slider], [role=button]')]
  .filter(one => one.checkVisibility() && one.type !== 'hidden' && one.tabIndex >= 0 && !one.disabled)
  .map((one, place) => { one.dataset.place = place; return String(place) })"""
FOCUSED = """() => { const one = document.activeElement, style = getComputedStyle(one);
  const field = one.closest('.q-field__control'), around = field ? getComputedStyle(field) : style;
  return [one.dataset.place ?? one.tagName, one === document.body || style.outlineStyle !== 'none'
    || around.boxShadow !== 'none'] }"""


def test_from_a_chinese_spreadsheet_to_a_file_of_predictions_and_a_served_answer(site: Site) -> None:
    book = Workbook()
    for row in [
        ("评论", "标签"),
        *((f"{'很好' if n % 2 else '太差'} {n}", "好" if n % 2 else "差") for n in range(80)),
    ]:
        book.active.append(row)
    book.save(site.folder.parent / "评价 一.xlsx")
    set_language("zh")
    page = site.page("zh")
    page.goto(site.url + "/data")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name=say("Choose a file")).click()
    chooser.value.set_files(site.folder.parent / "评价 一.xlsx")
    page.get_by_text("太差 0").first.wait_for()
    page.get_by_role("button", name=say("Train on this")).click()
    _start_training(page, 1200)
    _survives(site, page)
    _uses(page, "评价 一.xlsx", site.folder.parent / "predicted.csv", {"好", "差"})
    page.context.close()


def _uses(page: Any, file: str, out: Path, labels: set[str]) -> None:
    """Use the adapter of a finished run: predict its file of 80 texts, and ask its server."""
    page.get_by_role("button", name=say("Try it")).click()
    page.get_by_label(say("Port")).wait_for()
    _connected(page)
    page.get_by_role("combobox", name=say("In the folder")).click()
    page.get_by_role("option", name=file).click()
    page.get_by_role("button", name=say("Predict"), exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name=say("Download")).click()
    download.value.save_as(out)
    predicted = read_table(str(out)).rows
    assert len(predicted) == 80
    assert {value for row in predicted for value in row.values()} >= labels
    (answer,) = _served_answer(page, "1")["data"]
    assert answer["label"] in labels


def _served_answer(page: Any, text: str) -> dict[str, Any]:
    """Start the server, send the request that the page shows, and stop the server."""
    port = free_port()
    page.get_by_label(say("Port")).fill(str(port))
    page.get_by_role("button", name=say("Start the server")).click()
    page.get_by_text(say("running on http://127.0.0.1:{port}", port=port)).wait_for()
    asking = page.get_by_text("httpx.post(").inner_text()
    answer = eval(asking.splitlines()[-1].replace("'...'", repr(text)), {"httpx": httpx})
    page.get_by_role("button", name=say("Stop the server")).click()
    page.get_by_text(say("The server has ended.")).wait_for()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")
    return dict(answer)


def test_a_chat_shows_its_answer_while_it_grows(site: Site) -> None:
    page = site.page()
    page.goto(site.url + "/use?adapter=talk")
    _connected(page)
    send, message = page.get_by_role("button", name="Send"), page.get_by_label("Your message")
    message.fill("w5 w6")
    page.evaluate(KEEP_ANSWERS)
    send.click()
    page.wait_for_function("kept.some(one => one.length > 1)")
    message.fill("w7 w8")
    send.click()  # possible once the answer is whole
    page.wait_for_function(f"document.querySelectorAll('{ANSWERS}')[1]?.innerText.length > 1")
    whole = page.locator(ANSWERS).first.inner_text()
    kept = [one for one in page.evaluate("kept") if one not in ("", "…")]
    assert len(kept) > 2
    assert all(whole.startswith(one) for one in kept)
    page.context.close()


ANSWERS = "[role=log] .said + *"
KEEP_ANSWERS = f"""() => {{ window.kept = []; const log = document.querySelector('[role=log]');
  new MutationObserver(() => {{ const text = document.querySelector('{ANSWERS}')?.innerText ?? '';
    if (text !== kept.at(-1)) kept.push(text) }})
    .observe(log, {{childList: true, subtree: true, characterData: true}}) }}"""
"""Keeps every text that the first answer has had, in the order of the page, however slow its reader is."""


def _connected(page: Any) -> None:
    """Wait until the page is connected; what is done in the same moment before may reach it in any order."""
    page.wait_for_function("window.did_handshake")


def _start_training(page: Any, steps: int) -> None:
    """Train the base of the folder for a number of steps."""
    _connected(page)
    page.get_by_text(say("All methods and GPUs")).wait_for()  # what is below the plan has its place now
    page.get_by_text(say("Every setting")).click()
    page.get_by_label("model", exact=True).fill("base")
    page.get_by_label("training.max_steps", exact=True).fill(str(steps))
    for chosen in ("model=base", f"training.max_steps={steps}"):
        page.get_by_text(f"--set {chosen}").first.wait_for(state="attached")
    page.get_by_role("button", name=say("Start"), exact=True).click()


def _survives(site: Site, page: Any) -> None:
    """Reload, go back and forth, look from a second tab, kill the training and resume it, restart the page.

    The training stands still from its first checkpoint on, so it cannot end before the page has been looked at.
    """
    training = _held_at_its_first_checkpoint(site)
    page.get_by_text(say("running"), exact=True).wait_for()
    page.reload()
    page.get_by_text(say("running"), exact=True).wait_for()
    page.go_back()
    page.get_by_role("button", name=say("Start"), exact=True).wait_for()
    page.go_forward()
    page.get_by_text(say("running"), exact=True).wait_for()  # its address may have been that of before until now
    other = site.opened(page.context)
    other.goto(page.url)
    other.get_by_text(say("running"), exact=True).wait_for()
    os.kill(training, signal.SIGKILL)
    for tab in (page, other):
        tab.get_by_text(say("ended before it was finished"), exact=True).wait_for()
    other.close()
    site.stop()
    with page.expect_event("load"):  # the page notices that its connection is back
        site.start()
    page.get_by_role("button", name=say("Resume")).click()
    page.get_by_text(say("finished"), exact=True).wait_for()


def _held_at_its_first_checkpoint(site: Site) -> int:
    """Let the one run of a folder stand still once it has a checkpoint, and return its process."""
    eventually(lambda: any(site.folder.glob("runs/*/checkpoints/step-*")))
    (run,) = (site.folder / "runs").iterdir()
    os.kill(training := site.pid_of(f"runs/{run.name}"), signal.SIGSTOP)
    return training


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    mount, place = shutil.which("mount"), tmp_path / "disk"
    if mount is None:
        pytest.skip("there is no command that mounts a small disk")
    place.mkdir()
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_run_whose_disk_is_full_is_told_in_one_line_and_resumed_and_used_after_room_was_made(
    site: Site, small_disk: Path
) -> None:
    set_language("en")
    shutil.copytree(tiny_models.folder_of("bert", "plain"), small_disk / "base")
    rows = [f"{'fine' if n % 2 else 'bad'} {n},{'yes' if n % 2 else 'no'}" for n in range(80)]
    (small_disk / "mail.csv").write_text("\n".join(["text,label", *rows]))
    full = Site(small_disk, site.browser)
    try:
        full.start()
        page = full.page()
        page.goto(full.url + "/train?file=mail.csv")
        _start_training(page, 1200)
        training = _held_at_its_first_checkpoint(full)
        (run,) = (small_disk / "runs").iterdir()
        before = (run / "events.jsonl").read_text()
        _fill(small_disk / "ballast")
        os.kill(training, signal.SIGCONT)
        page.get_by_text("ended before it was finished").wait_for()
        page.get_by_text("No space left on device").wait_for()
        assert page.get_by_text("[TD-E").count() == 1
        assert (run / "events.jsonl").read_text().startswith(before)
        (small_disk / "ballast").unlink()
        page.get_by_role("button", name="Resume").click()
        page.get_by_text("finished", exact=True).wait_for()
        _uses(page, "mail.csv", small_disk / "predicted.csv", {"yes", "no"})
        page.context.close()
    finally:
        full.end()
    full.asked_only_here()


def _fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as opened, suppress(OSError):
        while True:
            opened.write(bytes(4096))


def test_a_disk_that_refuses_is_an_error_in_one_line(site: Site) -> None:
    kept = site.folder / "data"
    if kept.exists():
        kept.rename(site.folder / "data-before")
    kept.write_text("in the way of uploads")
    page = site.page()
    page.goto(site.url + "/data")
    _connected(page)
    page.locator("textarea").fill("text,label\ngood,yes\nbad,no\n")
    page.get_by_role("button", name="Save and look at it").click()
    page.get_by_text("cannot write").wait_for()
    assert page.url == site.url + "/data"
    page.context.close()

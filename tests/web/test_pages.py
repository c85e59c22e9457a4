"""The screens with NiceGUI's simulated user."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

pytest.importorskip("nicegui")

from nicegui import ui
from support.simulated_page import simulated

SCRIPT = "<script>window.hacked = 1</script>"


def adapter(folder: Path, **values: Any) -> None:
    folder.mkdir(parents=True)
    given = {"base": {"reference": "bundled:x"}, "task": {"kind": "classify"}, "method": {"kind": "lora"}, **values}
    (folder / "tunedeck.json").write_text(json.dumps(given))


def write_reviews(file: Path) -> None:
    rows = [f"{'good' if number % 2 else 'bad'} thing {number},{'yes' if number % 2 else 'no'}" for number in range(40)]
    file.write_text("\n".join(["review,label", *rows, f"{SCRIPT} {{{{ 7*7 }}}},<b>yes</b>"]), encoding="utf-8")


async def until(holds: Any) -> None:
    for _ in range(600):
        if holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("did not happen")


def test_an_empty_folder_says_what_to_do_first(tmp_path: Path) -> None:
    async def visit(user: Any) -> None:
        await user.open("/")
        await user.should_see("There is nothing here yet")
        await user.should_see("Bring data")

    simulated(tmp_path, visit)


def test_adapters_are_listed_and_searched(tmp_path: Path) -> None:
    adapter(tmp_path / "mail", metrics={"accuracy": 0.9123})
    adapter(tmp_path / "law")

    async def visit(user: Any) -> None:
        await user.open("/")
        await user.should_see("0.912")
        await user.should_see("2 entries")
        user.find(ui.input).type("law")
        await user.should_see("1 entry")
        await user.should_not_see("0.912")

    simulated(tmp_path, visit)


def test_an_adapter_is_renamed_deleted_to_the_bin_and_restored(tmp_path: Path) -> None:
    adapter(tmp_path / "mail")

    async def visit(user: Any) -> None:
        await user.open("/")
        user.find("Rename").click()
        await user.should_see("New name")
        user.find("New name").clear().type("../post")
        user.find(marker="confirm").click()
        await asyncio.sleep(0.1)
        assert (tmp_path / "mail").exists()
        await user.open("/")
        user.find("Delete").click()
        await user.should_see("Delete mail?")
        user.find(marker="confirm").click()
        await until(lambda: not (tmp_path / "mail").exists())
        await user.open("/")
        user.find("Restore").click()
        await until((tmp_path / "mail/tunedeck.json").exists)

    simulated(tmp_path, visit)


def test_a_file_is_previewed_and_checked(tmp_path: Path) -> None:
    write_reviews(tmp_path / "a.csv")

    async def visit(user: Any) -> None:
        await user.open("/data")
        await user.should_see("a.csv")
        await user.open("/data?file=a.csv")
        await user.should_see("41 rows")
        await user.should_see("Problems", retries=300)
        await user.should_see("tunedeck data check a.csv --text review --label label")
        cells = {row["c0"] for shown in user.find(ui.table).elements for row in shown.rows}
        assert {"bad thing 0", "yes", "no"} <= cells

    simulated(tmp_path, visit)


@pytest.mark.parametrize("file", ["../secret.csv", "/etc/passwd", ".ui/x.csv", "gone.csv", "bundled:gone"])
def test_a_file_elsewhere_is_refused_with_the_error_of_the_terminal(tmp_path: Path, file: str) -> None:
    (tmp_path / "secret.csv").write_text("text,label\na,b\n")
    (root := tmp_path / "root").mkdir()

    async def visit(user: Any) -> None:
        await user.open("/data?" + urlencode({"file": file}))
        await user.should_see("[TD-E00")

    simulated(root, visit)


def test_an_error_leads_to_the_explanation_of_its_code(tmp_path: Path) -> None:
    async def visit(user: Any) -> None:
        await user.open("/data?file=gone.csv")
        (link,) = user.find("What TD-E002 means").elements
        await user.open(link.props["href"])
        await user.should_see("A setting or an option has a value it cannot have")
        await user.should_see("tunedeck explain TD-E002")
        user.find(ui.input).clear().type("Rank")
        await user.should_see("rank · 秩")
        await user.should_not_see("TD-E002")
        user.find(ui.input).clear().type("<b>no</b>")
        await user.should_see("'<b>no</b>' is not in the glossary")

    simulated(tmp_path, visit)


def test_pasted_rows_become_a_new_file(tmp_path: Path) -> None:
    async def visit(user: Any) -> None:
        await user.open("/data")
        user.find(ui.textarea).type("text,label\ngood,yes\nbad,no\n")
        user.find("Save and look at it").click()
        await user.should_see("2 rows", retries=50)

    simulated(tmp_path, visit)
    assert (tmp_path / "data/pasted.csv").read_text() == "text,label\ngood,yes\nbad,no\n"


def test_the_page_opens_without_torch() -> None:
    code = "import sys, tunedeck.web.app; assert not {'torch', 'transformers', 'pandas', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_speaks_the_chosen_language(tmp_path: Path) -> None:
    async def visit(user: Any) -> None:
        user.http_client.cookies.set("tunedeck_language", "zh")
        await user.open("/")
        await user.should_see("适配器与训练")
        assert user.client.page.language == "zh-CN"  # of what NiceGUI says of a lost connection
        write_reviews(tmp_path / "a.csv")
        await user.open("/train?file=a.csv")
        await user.should_see("LoRA 的秩")

    simulated(tmp_path, visit)


def test_training_shows_its_command_with_the_settings_that_were_chosen(tmp_path: Path) -> None:
    write_reviews(tmp_path / "a.csv")

    async def visit(user: Any) -> None:
        await user.open("/train?file=a.csv&text=review")
        await user.should_see("tunedeck train a.csv --text review --max-minutes 3 --out runs/a")
        await user.open("/train?file=a.csv&way=race")
        await user.should_see("tunedeck race a.csv --minutes 15 --out race/a")
        await user.should_see("On rented GPUs", retries=600)
        await user.should_see("of memory, no rent")
        await user.open("/train?file=a.csv&way=budget&money=12&per_hour=24")
        await user.should_see("tunedeck race a.csv --budget 12 --price-per-hour 24 --out race/a")
        await user.should_see("It lasts for 30 min.")
        user.find("Budget, CNY").clear()
        await user.should_see("tunedeck race a.csv --price-per-hour 24 --out race/a")
        user.find("Start").click()
        await user.should_see("there is no budget")

    simulated(tmp_path, visit)


def test_a_run_of_the_terminal_is_shown_from_its_folder(tmp_path: Path) -> None:
    adapter(tmp_path / "runs/mail/adapter")
    events = [
        {"event": "start", "at_s": 1, "steps": 2, "step": 0},
        {"event": "step", "at_s": 2, "step": 1, "loss": 0.5},
        {"event": "eval", "at_s": 3, "step": 2, "accuracy": 0.75},
    ]
    (tmp_path / "runs/mail/events.jsonl").write_text("\n".join(map(json.dumps, events)) + "\n")
    (tmp_path / "runs/mail/metrics.json").write_text('{"accuracy": 0.75}')

    async def visit(user: Any) -> None:
        await user.open("/run?name=runs/mail")
        await user.should_see("finished", retries=50)
        entries, metrics = sorted(user.find(ui.table).elements, key=lambda one: one.id)
        assert entries.rows[0]["c1"] == "2 / 2"
        assert metrics.rows[0]["c2"] == "0.7500"
        await user.should_see("Try it")
        (losses, _) = sorted(user.find(ui.echart).elements, key=lambda one: one.id)
        assert losses.options["series"][0]["data"] == [(1, 0.5)]
        await user.open("/run?name=../mail")
        await user.should_see("[TD-E002]")

    simulated(tmp_path, visit)


def test_an_answer_shows_its_probabilities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter(tmp_path / "mail")
    found = {"label": SCRIPT, "labels": (SCRIPT,), "probabilities": {SCRIPT: 0.9, "no": 0.1}, "abstain": None}

    async def visit(user: Any) -> None:
        monkeypatch.setattr(sys.modules["tunedeck.web.decks"].Decks, "answers", lambda *asked: [found])
        await user.open("/use?adapter=mail")
        user.find("A text").type("good")
        user.find("Ask").click()
        await user.should_see("90.0%")
        assert SCRIPT in [one.text for one in user.find(ui.label).elements]

    simulated(tmp_path, visit)

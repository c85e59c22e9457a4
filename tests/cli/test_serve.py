"""`tunedeck serve` as an operator starts and ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import httpx
import pytest
from support import served_adapters
from support.command_line import Command
from support.serving_process import free_port, wait_until_ready
from support.waiting import SOON

from tunedeck.cli.serve import size
from tunedeck.core.errors import ConfigError


def run(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tunedeck", "serve", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TUNEDECK_LANG": "en"},
    )


def test_after_sigterm_what_is_under_way_finishes_and_new_requests_get_503() -> None:
    port, root = free_port(), served_adapters.saved_adapters("causal")
    process = run("--adapters", str(root), "--port", str(port), "--dtype", "float32", "--name", "tiny")
    url, statuses, late = f"http://127.0.0.1:{port}", [], []
    wait_until_ready(process, url)
    body = {"model": "lora-1", "prompt": "w4 w5", "max_tokens": 60}

    def ask() -> None:
        statuses.append(httpx.post(f"{url}/v1/completions", json=body, timeout=SOON).status_code)

    asking = [threading.Thread(target=ask) for _ in range(24)]
    for thread in asking:
        thread.start()
    while _in_flight(url) + len(statuses) < len(asking):  # those that come after the signal are rightly refused
        time.sleep(0.001)
    process.send_signal(signal.SIGTERM)
    try:
        while process.poll() is None:
            late.append(httpx.post(f"{url}/v1/completions", json=body, timeout=SOON).status_code)
    except httpx.TransportError:
        pass
    for thread in asking:
        thread.join(SOON)
    assert process.wait(SOON) == 0
    assert process.stderr is not None
    lines = process.stderr.read().splitlines()
    asked = [json.loads(line) for line in lines if line.startswith("{")]
    assert statuses == [200] * 24
    assert set(late) <= {200, 503}
    assert {one["model"] for one in asked if one["path"] == "/v1/completions" and one["status"] == 200} == {"lora-1"}
    assert not any("w4 w5" in line for line in lines)


def _in_flight(url: str) -> int:
    text = httpx.get(f"{url}/metrics").text
    return int(
        float(next(line.split()[1] for line in text.splitlines() if line.startswith("tunedeck_requests_in_flight")))
    )


def test_another_address_without_keys_ends_with_one_line(tunedeck: Command) -> None:
    said = tunedeck("serve", "--adapters", served_adapters.saved_adapters("causal"), "--host", "0.0.0.0")
    assert said.code == 2
    assert said.err.count("\n") == 1
    assert "give --api-key-file" in said.err


@pytest.mark.parametrize(
    ("text", "expected"), [("2GB", 2_000_000_000), ("512MiB", 512 << 20), ("1.5g", 1_500_000_000), ("77", 77)]
)
def test_amounts_of_memory_are_read(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1", "2 tons", "1e9"])
def test_what_is_no_amount_of_memory_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="invalid size"):
        size(text)

"""The key file: checked, read again when it changes, and what each key has used of its rates."""

from __future__ import annotations

import time
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.http_server import CHAT, bearer, listening, record
from support.waiting import SOON

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.generation.sequence import Sequence
from tunedeck.server.auth import Bucket, Caller, KeyFile, Keys, read_keys
from tunedeck.server.metrics import Metrics
from tunedeck.serving.request import Request


def write(file: Path, *names: str, **more: Any) -> None:
    text = ""
    for name in names:
        text += f'[[key]]\nname = "{name}"\nsha256 = "{record(name).sha256}"\n'
        text += "".join(f"{field} = {value}\n" for field, value in more.items())
    file.write_text(text)
    file.chmod(0o600)


def known(keys: Keys, name: str) -> Caller | None:
    return keys.caller(bearer(name)["Authorization"])


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock of the buckets, in seconds."""
    clock = [0.0]
    monkeypatch.setattr("tunedeck.server.auth.time.monotonic", lambda: clock[0])
    return clock


def test_a_changed_file_brings_new_keys_and_takes_old_ones(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    write(file, "old", "stays")
    held = KeyFile(file)
    write(file, "stays", "new")
    assert known(held.keys, "old") is not None, "nobody has looked yet"
    held.reload_if_changed()
    assert known(held.keys, "old") is None
    assert known(held.keys, "new") is not None
    assert known(held.keys, "stays") is not None


def test_an_unreadable_new_file_keeps_the_old_keys_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "keys.toml"
    write(file, "team")
    held = KeyFile(file)
    for spoil in (lambda: file.write_text("[[key]"), file.unlink):
        caplog.clear()
        spoil()
        for _ in range(3):
            held.reload_if_changed()
        assert known(held.keys, "team") is not None
        assert [one.levelname for one in caplog.records] == ["WARNING"]
        assert "the keys stay as they were" in caplog.text
    write(file, "new")
    held.reload_if_changed()
    assert known(held.keys, "new") is not None


def test_what_a_key_has_used_of_its_rate_stays_used_when_the_file_is_read_again(
    tmp_path: Path, now: list[float]
) -> None:
    file = tmp_path / "keys.toml"
    write(file, "team", requests_per_minute=2)
    held = KeyFile(file)
    caller = known(held.keys, "team")
    assert caller is not None
    assert [caller.wait_s() for _ in range(3)] == [0, 0, 30]
    held.reload()
    again = known(held.keys, "team")
    assert again is not None
    assert again is not caller
    assert again.wait_s() == 30


def test_two_keys_of_one_name_or_one_hash_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    write(file, "team", "team")
    with pytest.raises(ConfigError, match="two keys have the same name"):
        read_keys(file)
    file.write_text(f"{file.read_text().replace('team', 'a', 1)}")
    with pytest.raises(ConfigError, match="two keys have the same sha256"):
        read_keys(file)


def test_a_key_file_that_others_can_read_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys.toml"
    write(file, "team")
    read_keys(file)
    assert not caplog.records
    file.chmod(0o644)
    read_keys(file)
    assert "can be read by others" in caplog.text


def test_a_bucket_below_zero_lets_nothing_through_until_it_is_filled_again(now: list[float]) -> None:
    bucket = Bucket(60)
    assert bucket.wait_s(0) == 0
    bucket.take(90)
    assert bucket.wait_s(0) == 30
    now[0] = 29.0
    assert bucket.wait_s(0) == pytest.approx(1)
    now[0] = 1000.0
    assert bucket.wait_s(60) == 0, "a minute's rate and no more is saved up"
    assert bucket.wait_s(61) == 1


def test_tokens_of_prompts_and_answers_are_charged_to_their_key(now: list[float]) -> None:
    keys, metrics = (
        Keys([record("team", tokens_per_minute=100), record("other", tokens_per_minute=100)]),
        Metrics("tiny"),
    )
    metrics.charge = keys.charge
    sequence = Sequence("text", td.Sampling(), token_ids=[1] * 40)
    request = Request(None, sequence, caller="team", arrived_s=0.0, ids=[1] * 90, started_s=0.0, first_token_s=0.0)
    request.answer(sequence)
    metrics.on_done(request)
    team, other = known(keys, "team"), known(keys, "other")
    assert team is not None
    assert other is not None
    assert team.wait_s() == pytest.approx(18), "30 tokens too many, at 100 a minute"
    assert other.wait_s() == 0
    value = metrics.registry.get_sample_value
    assert value("tunedeck_key_tokens_total", {"key": "team", "kind": "prompt"}) == 90
    assert value("tunedeck_key_tokens_total", {"key": "team", "kind": "generated"}) == 40
    assert value("tunedeck_key_requests_total", {"key": "team", "outcome": "ok"}) == 1


def test_a_request_whose_client_has_left_counts_as_cancelled() -> None:
    metrics, waiting, running = Metrics("tiny"), Request(None, "text"), Request(None, "text")

    def tell(request: Request, _: Future[Any]) -> None:
        metrics.on_done(request)

    running.start()
    for request in (waiting, running):
        request.done.add_done_callback(partial(tell, request))
        request.cancel()
    running.answer("too late")
    assert isinstance(running.done, Future)
    value = metrics.registry.get_sample_value
    assert value("tunedeck_requests_total", {"model": "tiny", "outcome": "cancelled"}) == 2


def test_a_stream_that_its_client_leaves_is_charged_for_what_it_has_had() -> None:
    keys = Keys([record("team", tokens_per_minute=100_000)])
    body = {"model": "lora-1", "messages": CHAT, "max_tokens": 50, "stream": True}
    with listening("causal", keys) as (url, service):
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, headers=bearer("team")) as stream:
            next(stream.iter_lines())
        until = time.monotonic() + SOON
        while service.engine.in_flight:
            assert time.monotonic() < until
            time.sleep(0.01)
        labels = {"key": "team", "kind": "generated"}
        assert (service.metrics.registry.get_sample_value("tunedeck_key_tokens_total", labels) or 0) >= 1

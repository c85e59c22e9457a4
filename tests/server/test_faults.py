"""What goes wrong in service: files that vanish or are cut, a full disk, an engine's error, guessed keys, strange
paths.
"""

from __future__ import annotations

import errno
import hmac
import json
import logging
import shutil
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from support import served_adapters
from support.http_server import CHAT, bearer, listening, record
from support.waiting import SOON, eventually

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import set_language
from tunedeck.server.auth import Keys, read_keys
from tunedeck.server.log import Log
from tunedeck.serving.bounds import Bounds
from tunedeck.tasks import text_head


def asked(url: str, name: str) -> httpx.Response:
    return httpx.post(f"{url}/classify", json={"model": name, "input": "w4 w5"}, timeout=SOON)


def test_files_that_vanish_or_are_cut_while_serving_harm_only_their_own_adapter(tmp_path: Path) -> None:
    for name in ("loaded", "gone", "cut", "good"):
        shutil.copytree(served_adapters.saved_adapters("classifier") / "lora-1", tmp_path / name)
    with listening("classifier", root=tmp_path) as (url, _):
        expected = asked(url, "loaded").json()["data"]
        shutil.rmtree(tmp_path / "loaded")
        (tmp_path / "gone" / "adapter_model.safetensors").unlink()
        weights = tmp_path / "cut" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
        assert asked(url, "loaded").json()["data"] == expected, "what is in memory serves on"
        for name in ("gone", "cut"):
            assert asked(url, name).status_code == 422
            assert str(tmp_path) not in asked(url, name).text
        assert asked(url, "good").json()["data"] == expected
        reloaded = httpx.post(f"{url}/v1/adapters", json={"name": "loaded"})
        assert reloaded.status_code == 404
        assert asked(url, "loaded").json()["data"] == expected
        shutil.copytree(tmp_path / "good", tmp_path / "gone", dirs_exist_ok=True)
        assert asked(url, "gone").json()["data"] == expected, "mended without a restart"


def test_a_full_disk_under_the_log_stops_no_answer() -> None:
    def full(_: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    written = Log(full)
    try:
        with listening("classifier") as (url, _):
            assert [asked(url, "lora-1").status_code for _ in range(5)] == [200] * 5
    finally:
        written.close()


def test_an_error_in_the_engine_is_500_says_nothing_of_itself_and_passes(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tunedeck.server")

    def broken(*_: Any) -> None:
        raise RuntimeError("the secret of /srv")

    with listening("classifier") as (url, _):
        with monkeypatch.context() as patch:
            patch.setattr("tunedeck.tasks.classify.task.logits_of_ids", broken)
            failed = asked(url, "lora-1")
        assert failed.status_code == 500
        assert failed.json()["error"]["type"] == "InternalServerError"
        assert "secret" not in failed.text
        assert asked(url, "lora-1").status_code == 200
    lines = [json.loads(one.message) for one in caplog.records if one.message.startswith("{")]
    assert [line["status"] for line in lines] == [500, 200]
    assert text_head.logits_of_ids is not broken


def test_a_client_that_does_not_read_its_stream_holds_nothing_of_the_engine() -> None:
    body = json.dumps({"model": "lora-1", "messages": CHAT, "max_tokens": 50, "stream": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: tiny\r\nContent-Type: application/json\r\n"
    with listening("causal") as (url, service):
        address = httpx.URL(url)
        with socket.create_connection((address.host, address.port or 0)) as connection:
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            eventually(lambda: service.engine.in_flight == 1)
            eventually(lambda: service.engine.in_flight == 0)
        assert not any(one.users for one in service.engine.store.cached())


STRANGE = ("../lora-1", "..%2flora-1", "%2e%2e%2flora-1", "%2fetc%2fpasswd", "lora-1%00", "lora-1%2f", "%ff", ".")


def test_no_path_leads_out_of_the_folder() -> None:
    with listening("classifier") as (url, _):
        address = httpx.URL(url)
        for name in STRANGE:
            for method, path in (("GET", "/v1/models/"), ("DELETE", "/v1/adapters/")):
                with socket.create_connection((address.host, address.port or 0), SOON) as raw:
                    raw.sendall(f"{method} {path}{name} HTTP/1.1\r\nHost: tiny\r\nConnection: close\r\n\r\n".encode())
                    answer = raw.makefile("rb").read()
                assert answer.split(b"\r\n")[0] == b"HTTP/1.1 404 Not Found", (name, answer)
        assert asked(url, "lora-1").status_code == 200


@pytest.mark.parametrize("guess", ["team-key", "team-kez", "t", "", "x" * 10_000, "team-key "])
def test_a_guessed_key_is_compared_with_all_hashes_in_constant_time(
    guess: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, compared = Keys([record("root", admin=True), record("team"), record("other")]), list[tuple[str, str]]()
    compare = hmac.compare_digest

    def watched(one: str, other: str) -> bool:
        compared.append((one, other))
        return compare(one, other)

    monkeypatch.setattr(hmac, "compare_digest", watched)
    caller = keys.caller(f"Bearer {guess}")
    assert len(compared) == 3
    assert all(len(one) == 64 for two in compared for one in two), "hashes, never keys"
    assert (caller is not None) == (guess.strip() == "team-key")


def test_a_key_file_keeps_no_keys_and_an_error_does_not_repeat_one(tmp_path: Path) -> None:
    file = tmp_path / "keys.toml"
    file.write_text('[[key]]\nname = "team"\nsha256 = "my-plain-key"\n')
    with pytest.raises(ConfigError, match="is not a valid key file") as refused:
        read_keys(file)
    assert "my-plain-key" not in str(refused.value)
    for text in ("", "[[key]]", "key = []", "[[key", '[[key]]\nname = "a"\nsha256 = "00"\nadmn = true'):
        file.write_text(text)
        with pytest.raises(ConfigError, match="is not a valid key file"):
            read_keys(file)
    with pytest.raises(ConfigError, match="is not a valid key file"):
        read_keys(tmp_path / "nowhere.toml")
    team = record("team")
    file.write_text(f'[[key]]\nname = "team"\nsha256 = "{team.sha256}"\n')
    caller = read_keys(file).caller(bearer("team")["Authorization"])
    assert caller is not None
    assert not caller.admin


def test_errors_are_told_in_the_servers_language(tmp_path: Path) -> None:
    shutil.copytree(served_adapters.saved_adapters("classifier") / "lora-1", tmp_path / "law")
    shutil.copytree(served_adapters.saved_adapters("classifier") / "lora-1", tmp_path / "late")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "adapter_config.json").write_text("{}")
    set_language("zh")
    with listening("classifier", Keys([record("root", admin=True)]), root=tmp_path) as (url, service):

        def told(name: str, key: str = "root") -> dict[str, Any]:
            body = {"model": name, "input": "w4"}
            got = httpx.post(f"{url}/classify", json=body, headers=bearer(key), timeout=SOON)
            assert set(got.json()["error"]) == {"message", "type", "param", "code", "request_id"}
            assert got.json()["error"]["request_id"] == got.headers["x-request-id"]
            return got.json()["error"]

        of_the_gate, of_a_route, of_the_loader = told("law", "nobody"), told("nobody"), told("broken")
        service.bounds = Bounds(timeout=1e-9)
        of_the_engine = told("law")
        assert [one["code"] for one in (of_the_gate, of_a_route, of_the_loader, of_the_engine)] == [401, 404, 422, 408]
        for one in (of_the_gate, of_a_route, of_the_loader, of_the_engine):
            assert any("\u4e00" <= sign <= "\u9fff" for sign in one["message"]), one

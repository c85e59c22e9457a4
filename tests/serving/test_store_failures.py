"""What goes wrong with folders, disks and threads: who is told, what is remembered, and when the loader counts as
stuck.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from support import served_adapters
from support.served_adapters import FakeBackend, write_fake_adapter

from tunedeck.core.errors import AdapterFileError, OverloadedError, UnavailableError, UnknownAdapterError
from tunedeck.serving import repository as names
from tunedeck.serving.backends.deck import batch_backend
from tunedeck.serving.backends.generate import GenerateBackend
from tunedeck.serving.bounds import Bounds
from tunedeck.serving.repository import AdapterRepository
from tunedeck.serving.store import AdapterStore

SIZE, SOON = 40, 10


class Backend(FakeBackend):
    """A FakeBackend whose next load or removal raises what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self.removal: BaseException | None = None
        self.in_load = threading.Event()

    def load(self, folder: Path, key: str) -> str | None:
        self.in_load.set()
        if self.error is not None:
            raise self.error
        return super().load(folder, key)

    def remove(self, key: str) -> None:
        super().remove(key)
        if self.removal is not None:
            raise self.removal


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
def store(tmp_path: Path, backend: Backend) -> Iterator[AdapterStore]:
    for name in "abc":
        write_fake_adapter(tmp_path, name)
    made = AdapterStore(tmp_path, backend, max_bytes=2 * SIZE, bounds=Bounds(max_loading=2))
    yield made
    backend.gate.set()
    made.close()


def caused_by(error: Exception, cause: BaseException) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/srv/a"), "adapter 'a' cannot be read: Permission denied"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (MemoryError(), "MemoryError"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), "allocate memory"),
        (caused_by(AdapterFileError("cut short"), OSError(errno.ESTALE, "Stale")), "cut short"),
    ],
    ids=["permission", "disk", "memory", "torch's memory", "a damaged file that the disk damaged"],
)
def test_a_failure_of_the_machine_is_not_held_against_the_files(
    store: AdapterStore, backend: Backend, error: Exception, said: str
) -> None:
    backend.error = error
    with pytest.raises(UnavailableError, match=said):
        store.acquire("a").result(SOON)
    backend.error = None
    store.acquire("a").result(SOON).close()


def test_a_failure_of_the_files_is_remembered_until_they_change(
    store: AdapterStore, backend: Backend, tmp_path: Path
) -> None:
    backend.error = ValueError(f"no sense in {tmp_path.resolve()}/a/x")
    for _ in range(2):
        with pytest.raises(AdapterFileError, match=r"^adapter 'a' cannot be read: ValueError: no sense in a/x$"):
            store.acquire("a").result(SOON)
        backend.error = None
    (tmp_path / "a" / "adapter_config.json").chmod(0o600)  # neither its time nor its size changes
    store.acquire("a").result(SOON).close()


def test_a_file_that_may_not_be_read_is_told_as_that(
    store: AdapterStore, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tunedeck.formats.files.os.open", denied)
    with pytest.raises(UnavailableError, match=r"^cannot read a/adapter_model.safetensors: Permission denied$"):
        store.acquire("a").result(SOON)
    monkeypatch.undo()
    store.acquire("a").result(SOON).close()


@pytest.mark.parametrize("unreadable", ["lost+found", "team/secret"])
def test_a_folder_that_cannot_be_read_is_left_out_and_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, unreadable: str
) -> None:
    write_fake_adapter(tmp_path, "team/tax")
    (tmp_path / unreadable).mkdir(parents=True)
    original = os.scandir

    def scandir(path: str | Path) -> Iterator[os.DirEntry[str]]:
        if str(path).endswith(unreadable):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(names, "_FRESH_S", -1.0)
    monkeypatch.setattr(logging.getLogger("tunedeck.server"), "propagate", True)
    root = AdapterRepository(tmp_path)
    assert [root.names(), root.names()] == [["team/tax"], ["team/tax"]]
    assert [line.getMessage() for line in caplog.records] == [
        f"{root.folder / unreadable} is left out: Permission denied"
    ]


@pytest.mark.parametrize("asked", [Path.is_file, Path.iterdir], ids=["is_file", "iterdir"])
def test_an_adapter_whose_folder_cannot_be_read_is_unknown_and_the_others_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: object
) -> None:
    for name in ("closed", "open"):
        write_fake_adapter(tmp_path, name)

    def denied(self: Path) -> object:
        if "closed" in self.parts:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return asked(self)  # type: ignore[operator]

    monkeypatch.setattr(Path, asked.__name__, denied)  # type: ignore[attr-defined]
    root = AdapterRepository(tmp_path)
    assert "open" in root.names()
    assert root.find("open")
    with pytest.raises(UnknownAdapterError):
        root.find("closed")


def test_a_link_gives_no_adapter_a_second_name(tmp_path: Path) -> None:
    secret = write_fake_adapter(tmp_path, "team-b/secret")
    (tmp_path / "team-a").mkdir()
    (tmp_path / "team-a" / "alias").symlink_to(secret)
    borrowed = write_fake_adapter(tmp_path, "team-a/borrowed")
    (borrowed / "adapter_model.safetensors").unlink()
    (borrowed / "adapter_model.safetensors").symlink_to(secret / "adapter_model.safetensors")
    root = AdapterRepository(tmp_path)
    for name in ("team-a/alias", "team-a/borrowed"):
        with pytest.raises(UnknownAdapterError):
            root.find(name)
    assert root.find("team-b/secret") == secret.resolve()
    assert "team-a/alias" not in root.names()


def test_links_within_an_adapters_own_folder_are_followed(tmp_path: Path) -> None:
    folder = write_fake_adapter(tmp_path, "law")
    (folder / "..data").mkdir()
    (folder / "adapter_config.json").rename(folder / "..data" / "adapter_config.json")
    (folder / "adapter_config.json").symlink_to("..data/adapter_config.json")
    assert AdapterRepository(tmp_path).find("law")


def test_files_that_changed_since_the_load_are_noted_until_it_is_loaded_again(
    store: AdapterStore, tmp_path: Path
) -> None:
    store.acquire("a").result(SOON).close()
    assert [store.note(one) for one in store.cached()] == [None]
    (tmp_path / "a" / "tunedeck.json").write_text("{}")
    assert [store.note(one) for one in store.cached()] == ["its files have changed since it was loaded; load it again"]
    store.load("a").result(SOON).close()
    assert [store.note(one) for one in store.cached()] == [None]


def test_more_names_than_may_wait_are_refused_with_the_flag(store: AdapterStore, backend: Backend) -> None:
    backend.gate.clear()
    waiting = [store.acquire(name) for name in "aba"]
    with pytest.raises(OverloadedError, match="at most 2 are allowed, got 3; the server's flag is --max-loading"):
        store.acquire("c")
    backend.gate.set()
    for one in waiting:
        one.result(SOON).close()
    store.acquire("c").result(SOON).close()


def test_a_loader_that_is_busy_with_one_adapter_for_too_long_is_told(store: AdapterStore, backend: Backend) -> None:
    assert store.alarm(0.0) is None
    backend.gate.clear()
    loading = store.acquire("a")
    backend.in_load.wait(SOON)
    assert store.alarm(1000.0) is None
    assert "busy with one" in str(store.alarm(0.0))
    backend.gate.set()
    loading.result(SOON).close()


def test_waiting_for_room_is_not_being_stuck(store: AdapterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = [store.acquire(name).result(SOON) for name in "ab"]
    waits = threading.Event()
    original = store._changed.wait

    def wait(timeout: float | None = None) -> bool:
        if timeout == 0.2:
            told.append(store.alarm(0.0))
            waits.set()
        return original(timeout)

    told: list[str | None] = []
    monkeypatch.setattr(store._changed, "wait", wait)
    waiting = store.acquire("c")
    assert waits.wait(SOON)
    for lease in leases:
        lease.close()
    waiting.result(SOON).close()
    assert set(told) == {None}


def test_an_adapter_that_cannot_be_freed_does_not_end_the_loader(store: AdapterStore, backend: Backend) -> None:
    backend.removal = RuntimeError("no")
    for name in "abcabc":
        store.acquire(name).result(SOON).close()
    assert store.alarm(1000.0) is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loader_that_has_ended_is_told(store: AdapterStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise SystemExit

    monkeypatch.setattr(store, "_run", broken)
    store.acquire("a")
    store._loader.join(SOON)
    assert store.alarm(1000.0) == "the thread that loads adapters has ended"


def test_a_folder_that_is_larger_than_allowed_is_refused_and_not_loaded(tmp_path: Path, backend: Backend) -> None:
    write_fake_adapter(tmp_path, "large", floats=11)
    store = AdapterStore(tmp_path, backend, max_bytes=1000, bounds=Bounds(max_folder_memory=40))
    with pytest.raises(
        AdapterFileError, match="at most 40 are allowed, got 44; the server's flag is --max-folder-memory"
    ):
        store.acquire("large").result(SOON)
    assert backend.loads == []
    store.close()


def test_a_stored_probe_that_raises_anything_leaves_no_adapter_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bool:
        raise IndexError("out of range")

    monkeypatch.setattr("tunedeck.deck.deck.check_probes", broken)
    deck = served_adapters.base_deck("classifier")
    with pytest.raises(IndexError):
        batch_backend(deck).load(served_adapters.saved_adapters("classifier") / "lora-1", "a@1")
    assert deck.adapters == ()


@pytest.mark.parametrize("form", ["classifier", "causal"])
def test_stored_probes_are_asked_in_one_batch_and_one_that_answers_otherwise_fails_alone(
    form: str, tmp_path: Path
) -> None:
    deck, rows = served_adapters.base_deck(form), list[int]()
    backend = batch_backend(deck) if form == "classifier" else GenerateBackend(deck)
    deck.model.register_forward_pre_hook(
        lambda _, args, given: rows.append(len(given["attention_mask"])), with_kwargs=True
    )
    folders = {f"{name}@1": tmp_path / name for name in ("lora-1", "bottleneck-1", "lora-2")}
    for folder in folders.values():
        shutil.copytree(served_adapters.saved_adapters(form) / folder.name, folder)
    assert backend.load_together(folders, nullcontext) == dict.fromkeys(folders)
    assert rows == [3]
    for key in folders:
        backend.remove(key)

    manifest = json.loads((tmp_path / "lora-2" / "tunedeck.json").read_text())
    manifest["probe"]["output"][0] += 10
    (tmp_path / "lora-2" / "tunedeck.json").write_text(json.dumps(manifest))
    found = backend.load_together({**folders, "gone@1": tmp_path / "gone"}, nullcontext)
    assert {key for key, outcome in found.items() if isinstance(outcome, AdapterFileError)} == {"lora-2@1", "gone@1"}
    assert [found[key] for key in ("lora-1@1", "bottleneck-1@1")] == [None, None]
    assert set(deck.adapters) == {"lora-1@1", "bottleneck-1@1"}
    assert rows == [3, 3, 1, 1, 1]

"""The store: bounded, never evicting what is in use, two-phase unloading, versions, and bad folders that harm nobody
else.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.served_adapters import FakeBackend, write_fake_adapter
from support.waiting import eventually

from tunedeck.core.errors import AdapterError, AdapterFileError, DrainingError, UnknownAdapterError
from tunedeck.serving.adapter_cache import Lease
from tunedeck.serving.backends.base import Loaded
from tunedeck.serving.store import AdapterStore

SIZE = 40
SOON = 10


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def store(tmp_path: Path, backend: FakeBackend) -> Iterator[AdapterStore]:
    for name in "abcdef":
        write_fake_adapter(tmp_path, name)
    made = AdapterStore(tmp_path, backend, max_bytes=3 * SIZE)
    yield made
    backend.gate.set()
    made.close()


def used(store: AdapterStore, *names: str) -> None:
    for name in names:
        store.acquire(name).result(SOON).close()


def names_in(store: AdapterStore) -> list[str]:
    return [resident.name for resident in store.cached()]


def test_an_adapter_is_loaded_on_first_use_and_then_there(store: AdapterStore, backend: FakeBackend) -> None:
    used(store, "a", "a", "b", "a")
    assert backend.loads == ["a@1", "b@2"]
    assert store.bytes == 2 * SIZE


def test_the_least_recently_used_goes_first(store: AdapterStore, backend: FakeBackend) -> None:
    used(store, "a", "b", "c", "a", "d")
    assert names_in(store) == ["c", "a", "d"]
    assert backend.most_held == 3


def test_one_in_use_is_not_evicted_and_a_load_waits_until_there_is_room(store: AdapterStore) -> None:
    leases = [store.acquire(name).result(SOON) for name in "abc"]
    waiting = store.acquire("d")
    time.sleep(0.05)
    assert not waiting.done()
    assert sorted(names_in(store)) == ["a", "b", "c"]
    leases[1].close()
    waiting.result(SOON).close()
    assert sorted(names_in(store)) == ["a", "c", "d"]


def test_a_pinned_one_stays(store: AdapterStore) -> None:
    store.load("a", pin=True).result(SOON).close()
    used(store, "b", "c", "d", "e")
    assert "a" in names_in(store)


def test_what_can_never_fit_is_refused_with_the_numbers(store: AdapterStore, tmp_path: Path) -> None:
    write_fake_adapter(tmp_path, "huge", floats=100)
    with pytest.raises(AdapterError, match="takes 400 bytes; 120 are allowed"):
        store.acquire("huge").result(SOON)
    for name in "abc":
        store.load(name, pin=True).result(SOON).close()
    with pytest.raises(AdapterError, match="120 of them pinned"):
        store.acquire("d").result(SOON)


def test_unloading_takes_the_name_at_once_and_the_memory_when_the_last_user_is_done(
    store: AdapterStore, backend: FakeBackend
) -> None:
    lease = store.acquire("a").result(SOON)
    store.unload("a")
    assert names_in(store) == []
    assert "a" not in store.names()
    with pytest.raises(UnknownAdapterError):
        store.acquire("a")
    assert store.bytes == SIZE
    assert lease.adapter.key in backend.held
    lease.close()
    eventually(lambda: not backend.held)
    assert store.bytes == 0


def test_an_unloaded_name_comes_back_when_it_is_loaded_again(store: AdapterStore) -> None:
    used(store, "a")
    store.unload("a")
    with pytest.raises(UnknownAdapterError):
        store.unload("a")
    store.load("a").result(SOON).close()
    assert "a" in store.names()
    used(store, "a")


def test_loading_again_is_a_new_version_and_the_old_one_finishes(store: AdapterStore, backend: FakeBackend) -> None:
    old = store.acquire("a").result(SOON)
    new = store.load("a").result(SOON)
    assert new.adapter.version > old.adapter.version
    assert set(backend.held) == {old.adapter.key, new.adapter.key}
    old.close()
    eventually(lambda: set(backend.held) == {new.adapter.key})
    new.close()


def test_many_who_ask_at_once_cause_one_load(store: AdapterStore, backend: FakeBackend) -> None:
    backend.gate.clear()
    asked = [store.acquire("a") for _ in range(20)]
    backend.gate.set()
    keys = {future.result(SOON).adapter.key for future in asked}
    assert keys == {"a@1"}
    assert backend.loads == ["a@1"]


class BackendOfGroups(FakeBackend):
    """Notes what is loaded together."""

    def __init__(self) -> None:
        super().__init__()
        self.groups: list[list[str]] = []

    def load_together(
        self, folders: Mapping[str, Path], reading: Callable[[], AbstractContextManager[None]]
    ) -> dict[str, Loaded]:
        self.groups.append(list(folders))
        found: dict[str, Loaded] = {}
        for key, folder in folders.items():
            try:
                with reading():
                    found[key] = self.load(folder, key)
            except AdapterFileError as error:
                found[key] = error
        return found


def test_adapters_that_wait_are_loaded_together_as_far_as_there_is_room(tmp_path: Path) -> None:
    backend = BackendOfGroups()
    for name in "abcdef":
        write_fake_adapter(tmp_path, name)
    (tmp_path / "c" / "bad").touch()
    store = AdapterStore(tmp_path, backend, max_bytes=3 * SIZE)
    backend.gate.clear()
    first = store.acquire("a")
    eventually(lambda: backend.waiting)
    others = {name: store.acquire(name) for name in "bcdef"}
    shutil.rmtree(tmp_path / "d")
    backend.gate.set()
    first.result(SOON).close()
    others["b"].result(SOON).close()
    for name, reason in (("c", "c/bad says no"), ("d", "d")):
        with pytest.raises((AdapterFileError, UnknownAdapterError), match=reason):
            others[name].result(SOON)
    for name in "ef":
        others[name].result(SOON).close()
    assert backend.groups == [["a@1"], ["b@2", "c@3"], ["e@5"], ["f@6"]]
    assert backend.most_held <= 3
    store.close()


def test_unloading_while_loading_gives_nobody_the_adapter(store: AdapterStore, backend: FakeBackend) -> None:
    backend.gate.clear()
    asked = store.acquire("a")
    store.unload("a")
    backend.gate.set()
    with pytest.raises(UnknownAdapterError):
        asked.result(SOON)
    eventually(lambda: not backend.held)


def test_a_bad_folder_answers_with_its_reason_and_the_others_serve_on(
    store: AdapterStore, backend: FakeBackend, tmp_path: Path
) -> None:
    (tmp_path / "b" / "bad").touch()
    for _ in range(3):
        with pytest.raises(AdapterFileError, match=r"^b/bad says no$"):
            store.acquire("b").result(SOON)
    assert backend.loads == ["b@1"], "a folder that has not changed is not read again"
    used(store, "a", "c")
    (tmp_path / "b" / "bad").unlink()
    used(store, "b")


def test_a_folder_that_was_bad_only_while_it_was_read_is_read_again(
    store: AdapterStore, backend: FakeBackend, tmp_path: Path
) -> None:
    backend.gate.clear()
    asked = store.acquire("b")
    eventually(lambda: backend.waiting)
    (tmp_path / "b" / "bad").touch()
    backend.gate.set()
    with pytest.raises(AdapterFileError):
        asked.result(SOON)
    (tmp_path / "b" / "bad").unlink()
    used(store, "b")


def test_a_damaged_file_or_a_deleted_folder_does_not_end_the_loader(store: AdapterStore, tmp_path: Path) -> None:
    used(store, "a")
    (tmp_path / "b" / "adapter_model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(AdapterFileError, match=r"^b.adapter_model.safetensors is damaged or cut short"):
        store.acquire("b").result(SOON)
    shutil.rmtree(tmp_path / "a")
    shutil.rmtree(tmp_path / "c")
    used(store, "a", "d")
    with pytest.raises(UnknownAdapterError):
        store.acquire("c")


def test_a_failed_reload_leaves_the_old_version_serving(store: AdapterStore, tmp_path: Path) -> None:
    used(store, "a")
    (tmp_path / "a" / "bad").touch()
    with pytest.raises(AdapterFileError):
        store.load("a").result(SOON)
    assert store.acquire("a").result(SOON).adapter.version == 1


def test_closing_tells_those_who_wait(store: AdapterStore) -> None:
    leases = [store.acquire(name).result(SOON) for name in "abc"]
    waiting = store.acquire("d")
    store.close()
    with pytest.raises((DrainingError, UnknownAdapterError)):
        waiting.result(SOON)
    assert len(leases) == 3


class Sequences(RuleBasedStateMachine):
    """Any order of loads, pins, uses, unloads, damages and closings keeps the bound, never takes away what is in use or
    pinned, never brings back what is gone, and leaves nothing behind.
    """

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        for name in "abcde":
            write_fake_adapter(Path(self.folder.name), name)
        self.backend = FakeBackend()
        self.store = AdapterStore(Path(self.folder.name), self.backend, max_bytes=3 * SIZE)
        self.leases: list[Lease] = []
        self.waiting: list[Future[Lease]] = []
        self.pins: dict[str, Future[Lease]] = {}
        self.gone: set[str] = set()
        self.damaged: set[str] = set()

    @rule(name=st.sampled_from("abcde"))
    def use(self, name: str) -> None:
        try:
            self.waiting.append(self.store.acquire(name))
            assert name not in self.gone
        except UnknownAdapterError:
            assert name in self.gone
        except AdapterFileError:
            assert name in self.damaged

    @rule(name=st.sampled_from("abcde"))
    def load(self, name: str) -> None:
        self.waiting.append(self.store.load(name))
        self.gone.discard(name)

    @rule(name=st.sampled_from("ab"))
    def pin(self, name: str) -> None:
        self.pins[name] = self.store.load(name, pin=True)
        self.waiting.append(self.pins[name])
        self.gone.discard(name)

    @rule(name=st.sampled_from("de"))
    def damage_or_mend(self, name: str) -> None:
        bad = Path(self.folder.name) / name / "bad"
        if name in self.damaged:
            bad.unlink()
        else:
            bad.touch()
        self.damaged ^= {name}

    @rule(name=st.sampled_from("abcde"))
    def unload(self, name: str) -> None:
        try:
            self.store.unload(name)
            assert name not in self.gone
            self.gone.add(name)
            self.pins.pop(name, None)
        except UnknownAdapterError:
            assert name in self.gone
        except AdapterFileError:  # it is not in memory and cannot be
            assert name in self.damaged
        assert name not in names_in(self.store)

    @rule(place=st.integers(0, 9))
    def close(self, place: int) -> None:
        if self.leases:
            self.leases.pop(place % len(self.leases)).close()

    @rule()
    def cancel(self) -> None:
        if not self.waiting:
            return
        future = self.waiting.pop()
        if not future.cancel() and future.exception(SOON) is None:
            future.result().close()

    @invariant()
    def the_bound_holds_and_what_is_leased_is_held(self) -> None:
        for future in [one for one in self.waiting if one.done()]:
            self.waiting.remove(future)
            if future.exception() is None:
                self.leases.append(future.result())
        assert self.store.bytes <= 3 * SIZE
        assert self.backend.most_held <= 3
        assert {lease.adapter.key for lease in self.leases} <= set(self.backend.held)
        pinned = {one.name for one in self.store.cached() if one.pinned}
        assert {name for name, future in self.pins.items() if future.done() and not future.cancelled()} <= pinned
        assert not self.gone & {*names_in(self.store), *self.store.names()}

    def teardown(self) -> None:
        for lease in self.leases:
            lease.close()
        for future in self.waiting:
            if not future.cancel() and future.exception(SOON) is None:
                future.result().close()
        eventually(lambda: set(self.backend.held) == {one.key for one in self.store.cached()})
        assert self.store.bytes == SIZE * len(self.backend.held)
        self.store.close()
        users = [resident.users for resident in self.store.cached()]
        assert not any(users)
        self.folder.cleanup()
        assert threading.active_count() < 50


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)

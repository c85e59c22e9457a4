"""A saved adapter is whole or not there, and what stood there before survives a failure."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.tiny_models import add_stirred, deck_of, files_of, logits_of, token_batch

import tunedeck as td
from tunedeck.core import storage
from tunedeck.core.errors import AdapterFileError, StorageError
from tunedeck.formats import tensors as stored
from tunedeck.methods.base import MethodConfig

LARGE: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=64, target_modules="all-linear"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=600),
    "bottleneck": td.BottleneckConfig("double_seq_bn", reduction_factor=0.25),
    "full": td.FullConfig(),
}


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The kernel itself refuses to write on, as it does when a disk is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("kind", LARGE)
def test_a_write_that_the_disk_refuses_leaves_the_old_adapter(kind: str, tmp_path: Path) -> None:
    deck = deck_of("bert")
    add_stirred(deck, "small", td.LoraConfig(r=1))
    deck.save("small", tmp_path / "adapter")
    before = files_of(tmp_path)
    add_stirred(deck, "large", LARGE[kind])
    with no_file_larger_than(50_000), pytest.raises(StorageError, match=r"cannot write .*adapter: .*unchanged"):
        deck.save("large", tmp_path / "adapter")
    assert files_of(tmp_path) == before
    fresh = deck_of("bert")
    fresh.load_adapter(tmp_path / "adapter", name="small")
    assert (logits_of(fresh, token_batch(), "small") == logits_of(deck, token_batch(), "small")).all()


@pytest.mark.parametrize(
    ("kind", "step"),
    [
        *((kind, step) for kind in LARGE for step in ("fsync", "rename")),
        *(("lora", "save_file"), ("prompt", "save_file"), ("full", "save_file"), ("bottleneck", "write_bytes")),
    ],
)
def test_a_full_disk_at_any_step_leaves_the_old_adapter(
    kind: str, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deck = deck_of("bert")
    add_stirred(deck, "old", td.LoraConfig(r=1))
    add_stirred(deck, "new", LARGE[kind])
    deck.save("old", tmp_path / "adapter")
    before = files_of(tmp_path)
    places: dict[str, Any] = {"fsync": os, "rename": Path, "save_file": stored, "write_bytes": Path}
    monkeypatch.setattr(places[step], step, full_disk)
    monkeypatch.setattr(storage, "_exchange", lambda *_: False)  # a file system that cannot: two renames
    message = "cannot write .*: No space left on device; free some space or choose another place"
    with pytest.raises(StorageError, match=message):
        deck.save("new", tmp_path / "adapter")
    monkeypatch.undo()
    assert files_of(tmp_path) == before
    with monkeypatch.context() as patch:
        patch.setattr(places[step], step, full_disk)
        with pytest.raises(StorageError):
            deck.save("new", tmp_path / "fresh")
    assert files_of(tmp_path) == before


def test_an_adapter_that_cannot_take_its_place_gives_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deck = deck_of("bert")
    add_stirred(deck, "old", td.LoraConfig(r=1))
    add_stirred(deck, "new", td.LoraConfig(r=2))
    deck.save("old", tmp_path / "adapter")
    before, rename = files_of(tmp_path), Path.rename

    def refuse_the_new(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            full_disk()
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_the_new)
    monkeypatch.setattr(storage, "_exchange", lambda *_: False)
    with pytest.raises(StorageError):
        deck.save("new", tmp_path / "adapter")
    assert files_of(tmp_path) == before


def test_saving_over_an_adapter_replaces_it_whole(tmp_path: Path) -> None:
    deck = deck_of("bert")
    add_stirred(deck, "one", td.BottleneckConfig())
    add_stirred(deck, "two", td.LoraConfig())
    deck.save("one", tmp_path / "adapter")
    deck.save("two", tmp_path / "adapter")
    names = {"adapter_config.json", "adapter_model.safetensors", "tunedeck.json"}
    assert {path.name for path in (tmp_path / "adapter").iterdir()} == names
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_a_folder_that_holds_something_else_is_not_overwritten(tmp_path: Path) -> None:
    deck = deck_of("bert")
    add_stirred(deck, "one", td.LoraConfig())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "file"):
        with pytest.raises(AdapterFileError, match=f"{name} exists and holds something else than an adapter"):
            deck.save("one", tmp_path / name)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    deck.save("one", tmp_path / "empty")
    deck.save("one", tmp_path / "deep" / "er")
    assert deck.load_adapter(tmp_path / "deep" / "er") == "er"


def test_a_place_where_one_may_not_write_says_so(tmp_path: Path) -> None:
    deck = deck_of("bert")
    add_stirred(deck, "one", td.LoraConfig())
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match=r"cannot write .*; check the place and its permissions"):
        deck.save("one", tmp_path / "file" / "adapter")

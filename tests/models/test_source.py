from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tunedeck.core.bundle import RECEIPT, folder_of, read_bundles
from tunedeck.core.errors import ModelError
from tunedeck.models.source import ModelSource, find_model, hub_help


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEDECK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def model_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    return path


def put_in_cache(name: str, *files: str) -> Path:
    bundle = read_bundles("tunedeck.models")[name]
    folder = folder_of(bundle)
    folder.mkdir(parents=True)
    for file in files:
        (folder / file).write_text("x")
    (folder / RECEIPT).write_text(json.dumps({"sha256": bundle.sha256, "files": dict.fromkeys(files, 1)}))
    return folder


@pytest.mark.parametrize(
    ("reference", "location"),
    [("org/name", "org/name"), ("hf:org/name", "org/name"), ("hf:gpt2", "gpt2"), (" org/na-me.v1 ", "org/na-me.v1")],
)
def test_hub_ids_are_passed_on(reference: str, location: str) -> None:
    assert find_model(reference) == ModelSource(reference, location, None, False)


def test_a_folder_with_a_config_is_a_model(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "org" / "name")
    for reference in (str(folder), "./org/name", "org/name"):
        assert Path(find_model(reference).location).resolve() == folder


def test_the_home_folder_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = model_folder(tmp_path / "model")
    assert find_model("~/model").location == str(folder)


def test_a_gguf_file_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "small.Q4.gguf").write_bytes(b"GGUF\x03")
    found = find_model(str(tmp_path / "small.Q4.gguf"))
    assert (found.location, found.gguf_file) == (str(tmp_path), "small.Q4.gguf")


def test_a_bundled_model_in_the_cache_is_found_without_a_download() -> None:
    folder = put_in_cache("all-minilm-l6-v2", "config.json")
    found = find_model("bundled:all-minilm-l6-v2", fetch_missing=False)
    assert found == ModelSource("bundled:all-minilm-l6-v2", str(folder), None, True)


def test_a_bundled_gguf_model_names_its_file() -> None:
    put_in_cache("smollm2-135m-instruct", "model.gguf")
    assert find_model("bundled:smollm2-135m-instruct").gguf_file == "model.gguf"


def test_a_bundled_model_that_must_not_be_fetched_names_the_fetch_command() -> None:
    with pytest.raises(ModelError, match="tunedeck fetch all-minilm-l6-v2"):
        find_model("bundled:all-minilm-l6-v2", fetch_missing=False)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("bundled:all-minilm", r"did you mean 'all-minilm-l6-v2'.*smollm2-135m-instruct"),
        ("bundled:", "no bundled model ''"),
        ("all-minilm-l6-v2", "did you mean 'bundled:all-minilm-l6-v2'"),
        ("./nothing", "no file or folder nothing"),
        ("/nothing/here", "no file or folder /nothing/here"),
        ("some words", "no such file or folder"),
        ("models/lost.gguf", "no such file or folder"),
        ("hf:a/b/c", "the form is hf:org/name"),
        ("ms:name", "the form is ms:org/name"),
    ],
)
def test_a_reference_that_names_nothing_says_what_to_do(reference: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_model(reference)


def test_a_folder_without_a_config_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"has no config\.json.*it needs"):
        find_model("./empty")


def test_an_adapter_folder_is_not_a_base_model(tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter"):
        find_model("./adapter")


def test_a_folder_of_gguf_files_asks_for_one_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"name one of its \.gguf files: a\.gguf"):
        find_model(str(tmp_path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match="is not a base model"):
        find_model("model.bin")


@pytest.mark.parametrize("content", [b"", b"<html>"])
def test_a_gguf_file_that_is_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ModelError, match="is not a GGUF file"):
        find_model("m.gguf")


def test_modelscope_gives_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "from-modelscope")
    asked: list[tuple[str, bool]] = []

    def snapshot_download(model_id: str, local_files_only: bool) -> str:
        asked.append((model_id, local_files_only))
        return str(folder)

    monkeypatch.setitem(sys.modules, "modelscope", SimpleNamespace(snapshot_download=snapshot_download))
    assert find_model("ms:org/name") == ModelSource("ms:org/name", str(folder), None, False)
    find_model("ms:org/name", fetch_missing=False)
    assert asked == [("org/name", False), ("org/name", True)]


def test_without_the_modelscope_package_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)
    with pytest.raises(ModelError, match="pip install modelscope"):
        find_model("ms:org/name")


def test_a_modelscope_failure_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(model_id: str, local_files_only: bool) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setitem(sys.modules, "modelscope", SimpleNamespace(snapshot_download=snapshot_download))
    with pytest.raises(ModelError, match="no route; check the name and the network") as caught:
        find_model("ms:org/name")
    assert "\n" not in str(caught.value)


def test_the_hub_help_names_the_ways_around_the_hub() -> None:
    text = hub_help("org/name")
    assert all(way in text for way in ("org/name", "HF_ENDPOINT", "ms:", "folder", "bundled:all-minilm-l6-v2"))

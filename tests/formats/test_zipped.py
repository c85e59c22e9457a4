"""Adapters out of .zip files, honest and hostile ones."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import tiny_models

import tunedeck as td
from tunedeck.core.errors import AdapterFileError
from tunedeck.export.folders import convert_adapter
from tunedeck.formats.zipped import unpack_adapter

CONFIG = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "x"})


def packed(place: Path, files: Mapping[str, str | bytes]) -> Path:
    with zipfile.ZipFile(place / "a.zip", "w", zipfile.ZIP_DEFLATED) as pack:
        for name, content in files.items():
            pack.writestr(name, content)
    return place / "a.zip"


def test_the_adapter_folder_is_taken_and_nothing_else(tmp_path: Path) -> None:
    files = {
        "x/mail/adapter_config.json": CONFIG,
        "x/mail/adapter_model.safetensors": "t",
        "x/mail/adapter_model.bin": "pickle",
        "x/mail/run.py": "import os",
        "x/mail/more/deep.json": "{}",
        "x/other.json": "{}",
    }
    assert unpack_adapter(packed(tmp_path, files), tmp_path / "in/mail") == "peft"
    taken = sorted(file.name for file in (tmp_path / "in/mail").iterdir())
    assert taken == ["adapter_config.json", "adapter_model.safetensors"]


def test_an_adapterhub_folder_is_read_after_it_was_packed(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("bert")
    tiny_models.add_stirred(deck, "mail", td.LoraConfig(target_modules=("query", "value")))
    deck.save("mail", tmp_path / "own")
    convert_adapter(tmp_path / "own", tmp_path / "mail", "adapterhub")
    written = tiny_models.files_of(tmp_path / "mail")
    file = packed(tmp_path, {f"mail/{name}": content for name, content in written.items()})
    assert unpack_adapter(file, tmp_path / "in/mail") == "adapterhub"
    assert tiny_models.files_of(tmp_path / "in/mail") == written


def test_names_that_lead_elsewhere_stay_inside(tmp_path: Path) -> None:
    file = packed(tmp_path, {"../../evil/adapter_config.json": CONFIG, "../../evil/a.json": "{}", "/etc/b.json": "{}"})
    unpack_adapter(file, tmp_path / "in/mail")
    assert sorted(one.name for one in (tmp_path / "in/mail").iterdir()) == ["a.json", "adapter_config.json"]
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.zip", "in"]


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"a/x.json": "{}"}, "holds 0 adapter folders"),
        ({"a/adapter_config.json": CONFIG, "b/adapter_config.json": CONFIG}, "holds 2 adapter folders"),
        ({"adapter_config.json": CONFIG, "w.safetensors": "0" * 5_000_000}, "too large when unpacked"),
        ({"adapter_config.json": CONFIG, **{f"{number}.json": "" for number in range(1000)}}, "holds 1001 files"),
        ({"adapter_config.json": "{}"}, "neither PEFT's"),
    ],
)
def test_what_cannot_be_taken_leaves_nothing(files: dict[str, str], reason: str, tmp_path: Path) -> None:
    with pytest.raises(AdapterFileError, match=reason):
        unpack_adapter(packed(tmp_path, files), tmp_path / "in/mail", largest_bytes=1_000_000)
    assert not (tmp_path / "in/mail").exists()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    pack_bytes = io.BytesIO()
    with zipfile.ZipFile(pack_bytes, "w") as pack:
        pack.writestr("adapter_config.json", CONFIG)
    damaged = pack_bytes.getvalue().replace(b"LORA", b"LARO")
    for given, reason in ((b"no zip", "is not a .zip file"), (damaged, "is damaged")):
        (tmp_path / "a.zip").write_bytes(given)
        with pytest.raises(AdapterFileError, match=reason):
            unpack_adapter(tmp_path / "a.zip", tmp_path / "mail")

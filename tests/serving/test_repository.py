"""Names lead to folders inside the root and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.served_adapters import write_fake_adapter

from tunedeck.core.errors import UnknownAdapterError
from tunedeck.serving.repository import AdapterRepository, bytes_in_memory

ANGSTROM = "\u212b"  # looks like the letter \u00c5 and is the same to some file systems


@pytest.fixture
def root(tmp_path: Path) -> AdapterRepository:
    for name in ("law", "team/tax", "runs/one/adapter", "情感", ".hidden", "odd name", "a/b/c/too-deep", ANGSTROM):
        write_fake_adapter(tmp_path / "root", name)
    write_fake_adapter(tmp_path, "outside")
    (tmp_path / "root" / "empty").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "outside")
    borrowed = write_fake_adapter(tmp_path / "root", "borrowed")
    (borrowed / "adapter_model.safetensors").unlink()
    (borrowed / "adapter_model.safetensors").symlink_to(tmp_path / "outside" / "adapter_model.safetensors")
    return AdapterRepository(tmp_path / "root")


@pytest.mark.parametrize("name", ["law", "team/tax", "runs/one/adapter", "情感"])
def test_a_relative_folder_name_is_an_adapter(root: AdapterRepository, name: str) -> None:
    assert root.find(name) == root.folder / name
    assert name in root.names()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../outside",
        "law/../law",
        "team/../../outside",
        "./law",
        "law/",
        "/law",
        "law//",
        "team//tax",
        "law\x00",
        "law\n",
        " law",
        "law ",
        "LAW\\..\\law",
        "odd name",
        ".hidden",
        "%2e%2e/outside",
        "..%2foutside",
        "~",
        "~root",
        "link",
        "borrowed",
        "empty",
        "nobody",
        "a/b/c/too-deep",
        "cafe\u0301",
        ANGSTROM,
        "l" * 5000,
    ],
)
def test_every_other_name_is_unknown_and_says_nothing_about_why(root: AdapterRepository, name: str) -> None:
    with pytest.raises(UnknownAdapterError, match=r"^The model .* does not exist\.$"):
        root.find(name)


def test_an_absolute_path_to_an_adapter_is_unknown(root: AdapterRepository) -> None:
    with pytest.raises(UnknownAdapterError):
        root.find(str(root.folder / "law"))


def test_names_lists_what_find_finds(root: AdapterRepository) -> None:
    found = [name for name in root.names() if name not in ("link", "borrowed")]
    assert found == ["law", "runs/one/adapter", "team/tax", "情感"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(st.sampled_from("law./\\~%2e \x00team"), max_size=14))
def test_no_name_leads_out_of_the_root(root: AdapterRepository, name: str) -> None:
    try:
        folder = root.find(name)
    except UnknownAdapterError:
        return
    assert folder.resolve().is_relative_to(root.folder)
    assert folder != root.folder


def test_bytes_are_those_of_float32_tensors(root: AdapterRepository) -> None:
    assert bytes_in_memory(root.find("law")) == 40

"""A served base needs its files no more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import tiny_models

from tunedeck.models.load import keep_in_memory


def mapped_files() -> str:
    return Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs /proc")
def test_a_base_that_is_served_is_not_mapped_from_its_file_and_keeps_its_values(tmp_path: Path) -> None:
    deck = tiny_models.deck_of("llama", "causal")
    deck.model.save_pretrained(tmp_path)
    own = type(deck.model).from_pretrained(tmp_path, dtype=torch.float32)
    assert str(tmp_path) in mapped_files()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    tied = own.get_input_embeddings().weight is own.get_output_embeddings().weight
    keep_in_memory(own)
    assert str(tmp_path) not in mapped_files()
    after = own.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert (own.get_input_embeddings().weight is own.get_output_embeddings().weight) is tied

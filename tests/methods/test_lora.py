"""The LoRA formula: a hand-computed number, and the same result in each of its forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tunedeck as td
from tunedeck.methods.lora import grouped
from tunedeck.methods.lora.grouped import add_low_rank
from tunedeck.methods.lora.layer import LoraLayer

PER_GROUP, SIDE_BY_SIDE = 0, 10**12


def layer(in_features: int, out_features: int, r: int, scaling: float, seed: int) -> LoraLayer:
    torch.manual_seed(seed)
    made = LoraLayer(in_features, out_features, r, scaling, 0.0)
    torch.nn.init.normal_(made.lora_B)
    return made.eval()


def test_one_row_by_hand() -> None:
    made = LoraLayer(2, 2, 1, scaling=0.5, dropout=0.0)
    made.lora_A.data = torch.tensor([[1.0, 2.0]])
    made.lora_B.data = torch.tensor([[3.0], [-1.0]])
    x, output = torch.tensor([[[4.0, 5.0]]]), torch.tensor([[[10.0, 20.0]]])
    # A x = 4 + 10 = 14; B A x = (42, -14); half of it on top of (10, 20)
    assert add_low_rank(x, output, [(slice(0, 1), made)]).tolist() == [[[31.0, 13.0]]]
    assert made.delta().tolist() == [[1.5, 3.0], [-0.5, -1.0]]


def test_scaling_is_alpha_over_r_or_over_its_root() -> None:
    assert td.LoraConfig(r=4, lora_alpha=8).scaling("any") == 2
    assert td.LoraConfig(r=4, lora_alpha=8, use_rslora=True).scaling("any") == 4
    patterned = td.LoraConfig(r=4, lora_alpha=8, rank_pattern={"query": 2}, alpha_pattern={"query": 6})
    assert patterned.scaling("bert.encoder.layer.0.attention.self.query") == 3
    assert patterned.scaling("bert.encoder.layer.0.attention.self.value") == 2


@pytest.mark.parametrize("shape", [(), (1,), (6,)], ids=["pooled", "one token", "a text"])
@settings(max_examples=20, deadline=None)
@given(owners=st.lists(st.sampled_from([None, 0, 1, 2, 3]), min_size=3, max_size=9).map(lambda x: sorted(x, key=str)))
def test_all_adapters_side_by_side_equal_one_after_the_other(shape: tuple[int, ...], owners: list[int | None]) -> None:
    layers = [layer(12, 10, r=2 + seed, scaling=0.5 + seed, seed=seed) for seed in range(4)]
    torch.manual_seed(9)
    x, output = torch.randn(len(owners), *shape, 12), torch.randn(len(owners), *shape, 10)
    work = []
    for owner in dict.fromkeys(owners):
        first, count = owners.index(owner), owners.count(owner)
        work.append((slice(first, first + count), None if owner is None else layers[owner]))
    results = []
    for limit in (PER_GROUP, SIDE_BY_SIDE):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(grouped, "SIDE_BY_SIDE_FLOPS_PER_GROUP", limit)
            results.append(add_low_rank(x, output, work))
    rows = []
    for row, owner in enumerate(owners):
        rows.append(output[row] + (0 if owner is None else x[row] @ layers[owner].delta().T))
    assert (results[0] - torch.stack(rows)).abs().max() < 1e-5
    assert (results[1] - torch.stack(rows)).abs().max() < 1e-5


def test_the_side_by_side_form_is_taken_for_many_adapters_on_few_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [layer(12, 10, r=2, scaling=1.0, seed=seed) for seed in range(3)]
    work = [(slice(row, row + 1), layers[row]) for row in range(3)]
    taken: list[int] = []
    monkeypatch.setattr(grouped, "_side_by_side", lambda x, output, work: taken.append(len(work)) or output)
    add_low_rank(torch.zeros(3, 1, 12), torch.zeros(3, 1, 10), work)
    assert taken == [3]
    add_low_rank(torch.zeros(3, 20_000, 12), torch.zeros(3, 20_000, 10), work)
    assert taken == [3]


def test_dropout_acts_in_training_alone() -> None:
    made = LoraLayer(64, 8, 4, scaling=1.0, dropout=0.5)
    torch.nn.init.normal_(made.lora_B)
    x, output = torch.ones(1, 3, 64), torch.zeros(1, 3, 8)
    work = [(slice(0, 1), made)]
    made.eval()
    assert torch.equal(add_low_rank(x, output, work), add_low_rank(x, output, work))
    made.train()
    torch.manual_seed(0)
    assert not torch.equal(add_low_rank(x, output, work), add_low_rank(x, output, work))

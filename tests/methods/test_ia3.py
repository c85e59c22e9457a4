"""(IA)³: hand-computed numbers, the default places, and names that mean nothing."""

from __future__ import annotations

import pytest
import torch
from support.tiny_models import deck_of
from torch import nn

import tunedeck as td
from tunedeck.core.errors import ConfigError, TargetError
from tunedeck.methods.base import Built
from tunedeck.methods.ia3.layer import Ia3Layer, LinearScale, merge, scale_rows
from tunedeck.methods.sites import Placement, RowDispatch


def layer(*numbers: float) -> Ia3Layer:
    made = Ia3Layer(len(numbers))
    made.ia3_l.data = torch.tensor(numbers)
    return made


def test_each_row_is_multiplied_by_its_own_vector_and_a_row_of_the_base_by_none() -> None:
    dispatch = RowDispatch([(slice(0, 1), layer(2.0, -1.0)), (slice(1, 2), None), (slice(2, 4), layer(0.5, 3.0))])
    x = torch.tensor([[[4.0, 5.0]]] * 5)[:4]
    assert scale_rows(x, dispatch).squeeze(1).tolist() == [[8.0, -5.0], [4.0, 5.0], [2.0, 15.0], [2.0, 15.0]]
    alone = RowDispatch([(slice(0, 4), layer(2.0, -1.0))])
    assert scale_rows(x, alone)[3].tolist() == [[8.0, -5.0]]


@pytest.mark.parametrize(("of_input", "weight", "bias"), [(True, [[2.0, 6.0]], [5.0]), (False, [[10.0, 20.0]], [50.0])])
def test_merging_scales_columns_for_an_input_and_rows_with_their_bias_for_an_output(
    of_input: bool, weight: list[list[float]], bias: list[float]
) -> None:
    linear = nn.Linear(2, 1)
    linear.weight.data, linear.bias.data = torch.tensor([[1.0, 2.0]]), torch.tensor([5.0])
    vector = layer(2.0, 3.0) if of_input else layer(10.0)
    merge(nn.ModuleDict({"l": linear}), Built({"l": Placement(LinearScale("l", of_input), vector)}))
    assert (linear.weight.tolist(), linear.bias.tolist()) == (weight, bias)


def test_by_default_keys_values_and_the_last_linear_of_the_feed_forward_block_have_a_vector() -> None:
    deck = deck_of("bert")
    deck.add("new", td.Ia3Config())
    shapes = {name: len(tensor) for name, tensor in deck.adapter("new").tensors().items() if ".layer.1." in name}
    start = "bert.encoder.layer.1"
    assert shapes == {
        f"{start}.attention.self.key.ia3_l": 32,
        f"{start}.attention.self.value.ia3_l": 32,
        f"{start}.output.dense.ia3_l": 64,  # its inputs
    }


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (td.Ia3Config(("kee",)), r"target module 'kee' matches no linear layer \(did you mean 'key'\?\)"),
        (
            td.Ia3Config(("key",), ("output.dense",)),
            r"feedforward_modules: 'output.dense' matches none of the .* \(key\)",
        ),
        (td.Ia3Config(("key",), r".*dense"), r"feedforward_modules: '\.\*dense' matches none of the targeted modules"),
    ],
    ids=["a target", "a feed-forward module", "a pattern"],
)
def test_a_name_that_matches_nothing_is_an_error(config: td.Ia3Config, message: str) -> None:
    with pytest.raises(TargetError, match=message):
        deck_of("bert").add("new", config)


def test_an_empty_list_of_targets_is_an_error() -> None:
    with pytest.raises(ConfigError, match="target_modules is empty"):
        td.Ia3Config(())

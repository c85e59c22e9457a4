"""Decoding's attention is torch's, with one row and with many."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tunedeck.deck.patches.attention import grouped_attention


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("masked", [False, True])
def test_grouped_heads_attend_as_repeated_keys_do(rows: int, masked: bool) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(rows, 6, 1, 8), torch.randn(rows, 2, 5, 8), torch.randn(rows, 2, 5, 8)
    mask = torch.zeros(rows, 1, 1, 5).masked_fill(torch.arange(5) < 2, torch.finfo().min) if masked else None
    output, _ = grouped_attention(torch.nn.Identity(), query, key, value, mask)
    repeated_key, repeated_value = (tensor.repeat_interleave(3, 1) for tensor in (key, value))
    expected = F.scaled_dot_product_attention(query, repeated_key, repeated_value, attn_mask=mask)
    torch.testing.assert_close(output, expected.transpose(1, 2))


@pytest.mark.parametrize("rows", [1, 7])
def test_scores_are_capped_where_the_model_says_so(rows: int) -> None:
    query, key, value = torch.ones(rows, 2, 1, 4), torch.ones(rows, 1, 2, 4), torch.eye(2).expand(rows, 1, 2, 2)
    key = key * torch.tensor([100.0, 1.0])[:, None]
    output, _ = grouped_attention(torch.nn.Identity(), query, key, value, None, scaling=1.0, softcap=2.0)
    scores = torch.tanh(torch.tensor([400.0, 4.0]) / 2) * 2
    torch.testing.assert_close(output, scores.softmax(0).expand(rows, 1, 2, 2))

"""Heads kept on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tunedeck.tasks import kept_heads
from tunedeck.tasks.kept_heads import kept_linear_head
from tunedeck.tasks.linear_probe import LinearHead, fit_linear_head


def test_a_head_is_fitted_once_and_any_change_fits_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[int] = []

    def fit(*arguments: Any, **named: Any) -> LinearHead:
        fits.append(len(fits))
        return fit_linear_head(*arguments, **named)

    monkeypatch.setattr(kept_heads, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(kept_heads, "fit_linear_head", fit)
    vectors, targets = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 2
    first = kept_linear_head(vectors, targets, 2, multi_label=False)
    again = kept_linear_head(vectors, targets, 2, multi_label=False)
    assert len(fits) == 1
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.bias, again.bias)
    assert first.strength == again.strength
    kept_linear_head(vectors, targets, 2, multi_label=False, weights=torch.tensor([1.0, 3.0]))
    kept_linear_head(vectors, targets.flip(0), 2, multi_label=False)
    kept_linear_head(vectors, targets, 2, multi_label=False, bias=False)
    assert len(fits) == 4
    for file in (tmp_path / "heads").iterdir():
        file.write_bytes(b"damaged")
    assert torch.equal(kept_linear_head(vectors, targets, 2, multi_label=False).weight, first.weight)
    assert len(fits) == 5

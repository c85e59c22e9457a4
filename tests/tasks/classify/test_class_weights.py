"""Rare labels count as much as frequent ones where the settings ask for it, and uneven data is noticed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from support.labelled_words import rows, write_csv
from support.tiny_models import deck_of

import tunedeck as td
from tunedeck.core.errors import ConfigError
from tunedeck.data.labelled import Example
from tunedeck.data.settings import DataSettings
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.classify.weights import label_weights
from tunedeck.tasks.linear_probe import fit_linear_head


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    targets = torch.tensor([0] * 90 + [1] * 9 + [2])
    found = label_weights("balanced", ("a", "b", "c"), targets, multi_label=False)
    assert found is not None
    np.testing.assert_allclose(found, compute_class_weight("balanced", classes=np.arange(3), y=targets.numpy()), 1e-6)


def test_weights_by_name() -> None:
    assert label_weights({"b": 3}, ("a", "b"), torch.tensor([0]), multi_label=False) == pytest.approx([1.0, 3.0])
    with pytest.raises(ConfigError, match="no label 'c'; known: a, b"):
        label_weights({"c": 3}, ("a", "b"), torch.tensor([0]), multi_label=False)
    with pytest.raises(ConfigError, match="must be above 0"):
        td.Classify(class_weights={"a": 0})


def test_balanced_labels_of_which_a_text_has_several() -> None:
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    assert label_weights("balanced", ("a", "b"), targets, multi_label=True) == pytest.approx([1 / 3, 3.0])


def test_a_weighted_head_finds_the_rare_label() -> None:
    torch.manual_seed(0)
    targets = torch.tensor([0] * 190 + [1] * 10)
    vectors = torch.randn(200, 8) + 0.6 * targets.unsqueeze(1)
    weights = label_weights("balanced", ("a", "b"), targets, multi_label=False)
    recalls = [
        (fit_linear_head(vectors, targets, 2, multi_label=False, weights=one)(vectors).argmax(-1)[190:] == 1).sum()
        for one in (None, weights)
    ]
    assert recalls[1] > recalls[0]


def test_pieces_of_a_batch_have_the_gradient_of_the_batch() -> None:
    """A batch that does not fit into memory is cut; the weighted mean is then that of the parts."""
    deck = deck_of("bert")
    deck.add("law", td.LoraConfig(r=2), task=td.Classify(labels=("a", "b"), class_weights="balanced"))
    examples = [Example(f"w{number} w9", ("a" if number < 6 else "b",)) for number in range(8)]
    data = Dataset("words", examples, examples[:2], "", "", ("a", "b"))
    task = deck.adapter("law").task
    assert isinstance(task, td.Classify)
    objective = task.objective(deck, "law", data)
    whole = objective.loss(range(8))[0].item()
    parts = [(objective.loss(part)[0].item(), objective.weight(part)) for part in (range(5), range(5, 8))]
    assert sum(loss * weight for loss, weight in parts) / sum(weight for _, weight in parts) == pytest.approx(whole)
    assert objective.weight(range(8)) == pytest.approx(8)


def test_uneven_labels_are_noticed_and_judged_by_macro_f1(tmp_path: Path) -> None:
    words = rows(120)
    rare = words[0][1]
    few = [row for row in words if row[1] != rare] + [row for row in words if row[1] == rare][:3]
    data = td.Classify().read(DataSettings(train=str(write_csv(tmp_path / "few.csv", few))))
    assert Counter(one.labels[0] for one in data.train)[rare] < 4
    assert data.metric_for_best_model == "macro_f1"
    assert any("chosen by macro-F1; task.class_weights: balanced" in note for note in data.notes)
    even = td.Classify().read(DataSettings(train=str(write_csv(tmp_path / "even.csv", words))))
    assert even.metric_for_best_model is None

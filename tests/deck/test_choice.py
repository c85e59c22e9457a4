"""The adapter "auto": the one whose training texts are nearest to a text."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models

import tunedeck as td
from tunedeck.core.errors import AdapterFileError, ConfigError, NoNearAdapterError
from tunedeck.deck.choice import choose, fit_centroids, sample_size, text_vectors
from tunedeck.formats.centroids import Centroids
from tunedeck.formats.manifest import FILE, read_manifest

TEXTS = {"low": [f"w{4 + row % 9} w{5 + row % 7} w6" for row in range(80)]}
TEXTS["high"] = [text.replace("w", "w10") for text in TEXTS["low"]]


@pytest.fixture
def deck() -> td.Deck:
    """A deck with an adapter for each kind of texts, with their centroids."""
    deck = tiny_models.deck_of("bert", "classifier")
    for seed, (name, texts) in enumerate(TEXTS.items()):
        tiny_models.add_stirred(deck, name, td.LoraConfig(r=2), labels=[f"{name}-a", f"{name}-b"], seed=seed)
        adapter = deck.adapter(name)
        centroids = fit_centroids(text_vectors(deck.base, deck.router, texts))
        adapter.manifest = adapter.manifest.model_copy(update={"centroids": centroids})
    return deck


def test_each_text_is_answered_by_the_adapter_that_was_trained_on_texts_like_it(deck: td.Deck) -> None:
    texts = ["w4 w5 w6", "w104 w105 w106", "w9 w8 w6"]
    chosen = deck.choose(texts)
    assert [one.adapter for one in chosen] == ["low", "high", "low"]
    assert all(0.5 < one.certainty <= 1 and -1 <= one.similarity <= 1.001 for one in chosen)
    assert deck.predict(texts, adapter="auto") == deck.predict(texts, adapter=["low", "high", "low"])
    assert [one.adapter for one in deck.choose(texts[:1], among=["low"])] == ["low"]


@pytest.mark.parametrize("spread", [0.5, 0.1, 0.02])
def test_how_sure_a_choice_is_depends_on_cosines_relative_to_the_spread_of_the_training_texts(spread: float) -> None:
    known = {name: Centroids.of(torch.eye(2)[[row]].numpy(), 1 - spread) for row, name in enumerate(("a", "b"))}
    lower, higher = 0.9, 0.9 + 0.06 * spread
    (found,) = choose(torch.tensor([[higher, lower]]), known)
    assert found.adapter == "a"
    assert found.certainty == pytest.approx(1 / (1 + math.exp(-1)), abs=1e-3)


def test_a_text_that_is_near_to_none_is_an_error_and_not_a_guess(deck: td.Deck) -> None:
    with pytest.raises(NoNearAdapterError, match="no adapter is near the text 'w50 w60'"):
        deck.predict(["w4 w5 w6", "w50 w60"], adapter="auto")


def test_an_adapter_named_auto_is_that_adapter(deck: td.Deck) -> None:
    tiny_models.add_stirred(deck, "auto", td.LoraConfig(r=2), labels=["a", "b"], seed=5)
    assert deck.predict(["w50"], adapter="auto")[0].label in ("a", "b")


@pytest.mark.parametrize("change", [{"centroids": None}, {"base": None}])
def test_adapters_without_centroids_or_of_another_base_are_never_chosen(deck: td.Deck, change: dict[str, Any]) -> None:
    for name in TEXTS:
        adapter = deck.adapter(name)
        if "base" in change:
            change = {"base": adapter.manifest.base.model_copy(update={"fingerprint": "another"})}
        adapter.manifest = adapter.manifest.model_copy(update=change)
    with pytest.raises(NoNearAdapterError, match="none of them keeps the centroids"):
        deck.choose(["w4 w5 w6"])


def test_token_ids_and_single_texts_are_refused(deck: td.Deck) -> None:
    with pytest.raises(ConfigError, match="chosen by a text"):
        deck.choose([[4, 5, 6]])
    with pytest.raises(ConfigError, match="list of texts"):
        deck.choose("w4")


def test_a_chat_is_about_its_last_question(deck: td.Deck) -> None:
    chat = [{"role": "user", "content": "w104 w105"}, {"role": "assistant", "content": "w104"}]
    assert deck.choose([[*chat, {"role": "user", "content": "w4 w5 w6"}]])[0].adapter == "low"


def test_what_a_text_is_batched_with_and_which_adapter_ran_before_does_not_matter(deck: td.Deck) -> None:
    alone = torch.cat([text_vectors(deck.base, deck.router, [text]) for text in ("w4", "w104 w105 w106 w107")])
    deck.predict(["w9"], adapter="low")
    together = text_vectors(deck.base, deck.router, ["w4", "w104 w105 w106 w107"])
    assert torch.allclose(alone, together, atol=1e-6)
    assert torch.allclose(together.norm(dim=1), torch.ones(2))


def test_of_the_adapters_a_text_is_near_to_the_nearest_is_chosen() -> None:
    wide = Centroids.of(torch.tensor([[1.0, 0.0]]).numpy(), -1.0)
    narrow = Centroids.of(torch.tensor([[0.0, 1.0]]).numpy(), 0.99)
    vector = torch.nn.functional.normalize(torch.tensor([[0.5, 0.8]]), dim=1)  # nearest to `narrow`, yet not near
    assert choose(vector, {"wide": wide, "narrow": narrow})[0].adapter == "wide"


def test_centroids_come_from_a_sample_that_grows_with_the_data_and_is_bounded() -> None:
    assert [sample_size(count) for count in (3, 500, 1000, 10**6)] == [3, 64, 100, 256]
    one = fit_centroids(torch.tensor([[1.0, 0.0]]))
    assert one.count == 1
    assert one.least == 1
    groups = torch.eye(4).repeat_interleave(16, 0)
    found = fit_centroids(groups)
    assert {tuple(row) for row in found.array.tolist()} == {tuple(row) for row in torch.eye(4).tolist()}
    assert found.least == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("damage", [{"values": "%%%"}, {"count": 3}, {"values": "AAB8"}, {"least": 2.0}])
def test_damaged_centroids_are_a_damaged_adapter(tmp_path: Path, deck: td.Deck, damage: dict[str, Any]) -> None:
    deck.save("low", tmp_path / "low")
    kept = read_manifest(tmp_path / "low")
    assert kept is not None
    assert kept.centroids == deck.adapter("low").manifest.centroids
    file = tmp_path / "low" / FILE
    values = json.loads(file.read_text())
    values["centroids"] |= damage
    file.write_text(json.dumps(values))
    with pytest.raises(AdapterFileError, match="damaged"):
        read_manifest(tmp_path / "low")

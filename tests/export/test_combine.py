"""LoRA adapters combined into one: equal to PEFT's add_weighted_adapter, and to the sum of the updates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from support.tiny_models import add_stirred, deck_of, difference, folder_of, logits_of, tiny_model, token_batch

import tunedeck as td
from tunedeck.core.errors import AdapterError, ConfigError, StorageError, TunedeckError, UnsupportedKindError
from tunedeck.methods.lora.combine import Factors, combine

BATCH = token_batch(pad=None)


def saved(tmp_path: Path, *configs: Any, form: str = "causal", **more: Any) -> list[Path]:
    """Folders of adapters that do something, one for each config."""
    deck, folders = deck_of("llama", form), []
    for seed, config in enumerate(configs):
        add_stirred(deck, f"a{seed}", config, seed=seed + 1, **more)
        folders.append(tmp_path / f"a{seed}")
        deck.save(f"a{seed}", folders[-1])
    return folders


def logits_with(folder: Path, form: str = "causal") -> torch.Tensor:
    deck = deck_of("llama", form)
    deck.load_adapter(folder, "it")
    return logits_of(deck, BATCH, "it")


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1.0, -0.5)])
@pytest.mark.parametrize("how", ["cat", "svd", "linear", "ties"])
def test_each_combination_is_that_of_peft(how: Any, weights: tuple[float, float], tmp_path: Path) -> None:
    folders = saved(tmp_path, td.LoraConfig(r=4), td.LoraConfig(r=4, lora_alpha=4))
    made = td.combine_adapters(folders, tmp_path / "both", weights=weights, how=how, density=0.6)
    theirs = peft.PeftModel.from_pretrained(tiny_model("llama", "causal"), str(folders[0]), adapter_name="a0")
    theirs.load_adapter(str(folders[1]), "a1")
    theirs.add_weighted_adapter(["a0", "a1"], list(weights), "both", combination_type=how, density=0.6)
    theirs.set_adapter("both")
    with torch.no_grad():
        expected = theirs.eval()(**BATCH).logits
    assert difference(logits_with(made), expected) < 1e-5


def test_the_exact_sum_joins_ranks_layers_and_scalings_that_differ(tmp_path: Path) -> None:
    folders = saved(
        tmp_path,
        td.LoraConfig(r=2, target_modules=("q_proj", "v_proj"), rank_pattern={"q_proj": 3}),
        td.LoraConfig(r=4, lora_alpha=2, target_modules=("v_proj", "up_proj"), use_rslora=True),
    )
    made = td.combine_adapters(folders, tmp_path / "both", weights=(0.5, 2.0))
    deck = deck_of("llama", "causal")
    updates: dict[str, torch.Tensor] = {}
    for folder, weight in zip(folders, (0.5, 2.0), strict=True):
        deck.load_adapter(folder, folder.name)
        for path, placement in deck.adapter(folder.name).placements().items():
            updates[path] = updates.get(path, torch.zeros(())) + weight * placement.layer.delta()
    deck.load_adapter(made, "both")
    both = {path: one.layer.delta() for path, one in deck.adapter("both").placements().items()}
    assert both.keys() == updates.keys()
    assert max(difference(both[path], updates[path]) for path in both) < 1e-6


def test_dare_keeps_the_density_and_the_mean() -> None:
    layer = Factors(torch.ones(1, 20_000), torch.ones(3, 1), 1.0)
    a = combine([layer], "dare_linear", 1, 0.25, torch.Generator().manual_seed(0)).a
    assert (a != 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert a.mean().item() == pytest.approx(1.0, abs=0.06)


def test_heads_of_the_same_labels_are_averaged(tmp_path: Path) -> None:
    folders = saved(tmp_path, td.LoraConfig(), td.LoraConfig(), form="classifier", labels=("no", "yes"))
    made = td.combine_adapters(folders, tmp_path / "both", weights=(3, 1))
    deck = deck_of("llama", "classifier")
    for name, folder in (("a", folders[0]), ("b", folders[1]), ("both", made)):
        deck.load_adapter(folder, name)
    heads = {name: deck.adapter(name).head_tensors() for name in ("a", "b", "both")}
    for tensor, mean in heads["both"].items():
        assert difference(mean, 0.75 * heads["a"][tensor] + 0.25 * heads["b"][tensor]) < 1e-6
    assert deck.adapter("both").labels == ("no", "yes")
    assert deck.adapter("both").manifest.metrics == {}


def test_what_does_not_belong_together_is_refused(tmp_path: Path) -> None:
    first, second = saved(tmp_path, td.LoraConfig(r=4), td.LoraConfig(r=8))
    (bottleneck,) = saved(tmp_path / "b", td.BottleneckConfig())
    (dora,) = saved(tmp_path / "d", td.LoraConfig(use_dora=True))
    out = tmp_path / "out"

    def refused(error: type[TunedeckError], match: str, folders: list[Path], **more: Any) -> None:
        with pytest.raises(error, match=match):
            td.combine_adapters(folders, out, **more)
        assert not out.exists()

    refused(
        AdapterError, "linear needs equal ranks, the adapters have 4, 8; use cat or svd", [first, second], how="linear"
    )
    refused(UnsupportedKindError, "only LoRA adapters can be combined, not bottleneck", [first, bottleneck])
    refused(UnsupportedKindError, "not DoRA", [first, dora])
    refused(ConfigError, "give two or more adapter folders", [first])
    refused(ConfigError, "give 2 weights, one for each adapter", [first, second], weights=[1.0])
    refused(ConfigError, "not all zero", [first, second], weights=[0, 0])
    refused(ConfigError, "density must be above 0", [first, second], density=0)
    refused(ConfigError, "how must be one of cat, svd", [first, second], how="sum")
    (tmp_path / "there").mkdir()
    with pytest.raises(StorageError, match="already exists; choose another path"):
        td.combine_adapters([first, second], tmp_path / "there")


def test_adapters_of_other_labels_or_bases_are_refused(tmp_path: Path) -> None:
    (first,) = saved(tmp_path / "1", td.LoraConfig(), form="classifier", labels=("no", "yes"))
    (second,) = saved(tmp_path / "2", td.LoraConfig(), form="classifier", labels=("bad", "good"))
    with pytest.raises(AdapterError, match="different labels: no, yes; bad, good"):
        td.combine_adapters([first, second], tmp_path / "out")
    deck = deck_of("llama", "classifier", seed=5)
    add_stirred(deck, "c", td.LoraConfig(), labels=("no", "yes"))
    deck.save("c", tmp_path / "c")
    with pytest.raises(
        AdapterError, match=r"different bases: .* \(.{12}\), .* \(.{12}\); combine adapters of one base"
    ):
        td.combine_adapters([first, tmp_path / "c"], tmp_path / "out", model=folder_of("llama", "classifier"))

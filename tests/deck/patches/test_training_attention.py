"""The attention of training steps: its gradients are those of plain operations, and a run trains by it as by them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from support.stopped_runs import dataset
from support.tiny_models import deck_of

import tunedeck as td
from tunedeck.core.compat.transformers import attention_of
from tunedeck.deck.patches.base import Unchanged
from tunedeck.deck.patches.training_attention import Attention, training_attention
from tunedeck.tasks.text_head import HeadObjective

HIDDEN = torch.finfo(torch.bfloat16).min


def attention(*inputs: Any) -> torch.Tensor:
    """What `Attention` gives."""
    return cast(torch.Tensor, cast(Any, Attention).apply(*inputs))


def plain(*inputs: Any) -> torch.Tensor:
    """The formula, operation by operation."""
    query, key, value, mask, scaling = inputs
    repeats = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(repeats, 1).transpose(2, 3) * scaling
    scores = scores if mask is None else scores + mask
    return cast(torch.Tensor, scores.softmax(-1) @ value.repeat_interleave(repeats, 1))


def inputs(dtype: torch.dtype) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Query, key and value, the heads of a pair sharing keys, laid out as a model has them; and a mask."""
    torch.manual_seed(0)
    made = [torch.randn(2, seq, heads, 4, dtype=dtype) for seq, heads in ((3, 4), (5, 2), (5, 2))]
    hidden = torch.arange(5) == torch.tensor([1, 4])[:, None, None, None]
    mask = torch.zeros(2, 1, 3, 5, dtype=dtype).masked_fill(hidden, HIDDEN)
    return [one.transpose(1, 2).requires_grad_() for one in made], mask


@pytest.mark.parametrize("masked", [False, True])
def test_the_gradients_are_those_of_finite_differences(masked: bool) -> None:
    tensors, mask = inputs(torch.float64)
    assert torch.autograd.gradcheck(lambda *qkv: attention(*qkv, mask if masked else None, 0.3), tensors)


@pytest.mark.parametrize("trained", [(0,), (1,), (2,), (0, 2)])
def test_what_is_not_trained_needs_no_gradient(trained: tuple[int, ...]) -> None:
    tensors, mask = inputs(torch.float64)
    for place, tensor in enumerate(tensors):
        tensor.requires_grad_(place in trained)
    wanted = [tensors[place] for place in trained]
    found = torch.autograd.grad(attention(*tensors, mask, 0.3).sin().sum(), wanted)
    torch.testing.assert_close(found, torch.autograd.grad(plain(*tensors, mask, 0.3).sin().sum(), wanted))


@pytest.mark.parametrize("at_once", [1, 1 << 18])
def test_in_bfloat16_it_is_as_exact_as_plain_operations(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunedeck.deck.patches.training_attention._SCORES_AT_ONCE", at_once)
    tensors, mask = inputs(torch.float32)

    def gradients(compute: Any, dtype: torch.dtype) -> Iterator[torch.Tensor]:
        rounded = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
        output = compute(*rounded, mask.to(dtype), 0.3)
        yield output
        yield from torch.autograd.grad(output.float().sin().sum(), rounded)

    exact, usual, own = (
        torch.cat([one.flatten().double() for one in gradients(compute, dtype)])
        for compute, dtype in ((plain, torch.float32), (plain, torch.bfloat16), (attention, torch.bfloat16))
    )
    assert (own - exact).abs().mean() < 1.2 * (usual - exact).abs().mean()


@pytest.mark.parametrize("model_type", ["bert", "roberta", "llama", "qwen2", "gemma2"])
def test_a_model_has_the_same_gradients_as_by_plain_operations(model_type: str) -> None:
    deck = deck_of(model_type)
    deck.model.set_attn_implementation("eager")
    deck.add("x", td.LoraConfig(r=4, target_modules="all-linear"))
    adapter = deck.adapter("x").eval()  # its head drops nothing out
    torch.manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data.normal_(std=0.1)
    ids, mask = torch.randint(5, 50, (3, 7)), (torch.arange(7) < torch.tensor([[7], [4], [6]])).long()
    gradients, during = [], []
    for patch in (Unchanged(), training_attention(deck.base)):
        with patch.on(deck.base):
            during.append(attention_of(deck.model))
            logits = deck(input_ids=ids, attention_mask=mask, adapter="x").logits
            gradients.append(torch.autograd.grad(logits.sin().sum(), list(adapter.parameters())))
    assert during == ["eager", "eager" if model_type == "gemma2" else "tunedeck_training"]  # it caps its scores
    assert attention_of(deck.model) == "eager"
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-4, atol=1e-5)


def test_a_base_that_drops_out_or_takes_the_kernel_of_torch_keeps_its_attention() -> None:
    deck = deck_of("bert")
    deck.model.set_attn_implementation("sdpa")
    assert isinstance(training_attention(deck.base), Unchanged)
    deck.model.set_attn_implementation("eager")
    assert not isinstance(training_attention(deck.base), Unchanged)
    deck.model.train()
    assert isinstance(training_attention(deck.base), Unchanged)


def test_a_run_takes_its_steps_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    deck, seen = deck_of("bert"), set()
    deck.model.set_attn_implementation("eager")
    deck.add("x", td.LoraConfig(r=2), labels=dataset().labels)
    plain_loss = HeadObjective.loss

    def loss(objective: Any, rows: Any) -> Any:
        seen.add(attention_of(deck.model))
        return plain_loss(objective, rows)

    monkeypatch.setattr(HeadObjective, "loss", loss)
    settings = td.TrainingSettings(max_steps=1, batch_size=4, head_init="random")
    td.train(deck, "x", dataset(), settings=settings, progress=False)
    assert (seen, attention_of(deck.model)) == ({"tunedeck_training"}, "eager")

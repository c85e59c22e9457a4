"""What a deck gives on a GPU is what it gives on the CPU, in float32. Run with `pytest -m gpu`; skipped without
CUDA.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support import labelled_words
from support.quantized_models import wide_folder
from support.tiny_models import LABELS, add_stirred, deck_of, difference, folder_of, logits_of, token_batch

import tunedeck as td
from tunedeck.deck.patches.lower_layers import free_bytes
from tunedeck.methods.base import MethodConfig

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device; run pytest -m gpu where there is one"
    ),
]
KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=4, target_modules="all-linear"),
    "lora-2": td.LoraConfig(r=2),
    "seq_bn": td.BottleneckConfig("seq_bn"),
    "par_bn": td.BottleneckConfig("par_bn"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=5),
    "prompt-2": td.PromptTuningConfig(num_virtual_tokens=2),
    "full": td.FullConfig(1),
}
FAMILIES = (("bert", "classifier"), ("llama", "classifier"), ("llama", "causal"), ("gemma3_text", "causal"))
MIXED = [None, *KINDS, None, *reversed(KINDS)]
LARGEST = 1e-4


def both_decks(model_type: str, form: str) -> tuple[td.Deck, td.Deck]:
    """The same base and the same adapters, on the CPU and on the GPU."""
    task = td.Generate() if form == "causal" else td.Classify(labels=LABELS)
    on_gpu = td.Deck.load(folder_of(model_type, form), task, dtype="float32", device="cuda")
    decks = deck_of(model_type, form), on_gpu
    for deck in decks:
        for seed, (name, config) in enumerate(KINDS.items()):
            add_stirred(deck, name, config, seed=seed)
    return decks


@pytest.mark.parametrize(
    ("model_type", "form", "pad"), [(*one, "right") for one in FAMILIES] + [(*one, "left") for one in FAMILIES[1:]]
)
def test_a_mixed_batch_gives_the_same_logits_on_a_gpu(model_type: str, form: str, pad: str) -> None:
    on_cpu, on_gpu = both_decks(model_type, form)
    batch = token_batch(len(MIXED), pad=pad)
    there = {name: tensor.cuda() for name, tensor in batch.items()}
    for adapter in (MIXED, *KINDS, None):
        expected = logits_of(on_cpu, batch, adapter)
        found = logits_of(on_gpu, there, adapter)
        assert found.device.type == "cuda"
        read = batch["attention_mask"].bool() if form == "causal" else slice(None)
        assert difference(found.cpu()[read], expected[read]) < LARGEST * expected.abs().max().item(), adapter


@pytest.mark.parametrize("model_type", ["llama", "gemma3_text"])
def test_a_mixed_batch_generates_the_same_text_on_a_gpu(model_type: str) -> None:
    prompts = [f"w{10 + number} w{20 + number} w{30 + number}" + " w50" * number for number in range(len(MIXED))]
    for sampling in (td.Sampling(max_tokens=24), td.Sampling(max_tokens=24, repetition_penalty=1.3)):
        texts = [deck.generate(prompts, MIXED, sampling) for deck in both_decks(model_type, "causal")]
        assert texts[0] == texts[1]
        assert len(set(texts[0])) > len(KINDS)


def test_sampling_with_a_seed_draws_the_same_text_on_a_gpu() -> None:
    sampling = td.Sampling(max_tokens=16, temperature=1.0, top_k=5, seed=3)
    texts = [
        deck.generate(["w10 w20"] * 3, [None, "lora", "prompt"], sampling) for deck in both_decks("llama", "causal")
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("kind", KINDS)
def test_training_takes_the_same_losses_on_a_gpu(kind: str, tmp_path: Path) -> None:
    data = labelled_words.write_csv(tmp_path / "words.csv", labelled_words.rows(60))
    labels = tuple(sorted(labelled_words.WORD_OF))
    losses: dict[str, list[float]] = {}
    for device in ("cpu", "cuda"):
        deck = td.Deck.load(folder_of("bert", "classifier"), td.Classify(labels=LABELS), dtype="float32", device=device)
        deck.add("new", KINDS[kind], labels=labels)
        settings = td.TrainingSettings(max_steps=8, learning_rate=1e-2, batch_size=16, eval_steps=4)
        run = td.train(
            deck, "new", td.DataSettings(train=str(data)), settings=settings, out=tmp_path / device, progress=False
        )
        assert run.measurement.device.startswith(device)
        losses[device] = losses_of(tmp_path / device)
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


@pytest.mark.filterwarnings("ignore:the tokenizer has no end token")
def test_packed_conversations_take_the_same_losses_on_a_gpu(tmp_path: Path) -> None:
    file = tmp_path / "chats.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"w{n} w{n + 1}"},
                {"role": "assistant", "content": f"w{n + 2} w{n + 3}"},
            ]
        }
        for n in range(10, 40)
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    losses: dict[str, list[float]] = {}
    for device in ("cpu", "cuda"):
        task = td.Generate(max_length=32, packing=True)
        deck = td.Deck.load(folder_of("llama", "causal"), task, dtype="float32", device=device)
        deck.add("new", KINDS["lora"])
        settings = td.TrainingSettings(max_steps=6, learning_rate=1e-2, batch_size=2, gradient_checkpointing=True)
        td.train(
            deck, "new", td.DataSettings(train=str(file)), settings=settings, out=tmp_path / device, progress=False
        )
        losses[device] = losses_of(tmp_path / device)
    assert losses["cuda"] == pytest.approx(losses["cpu"], rel=1e-3)


def test_an_adapter_saved_on_the_cpu_answers_its_probe_on_a_gpu(tmp_path: Path) -> None:
    on_cpu, _ = both_decks("bert", "classifier")
    for name in KINDS:
        on_cpu.save(name, tmp_path / name)
        for dtype in ("float32", "bfloat16"):
            deck = td.Deck.load(folder_of("bert", "classifier"), td.Classify(labels=LABELS), dtype=dtype, device="cuda")
            deck.load_adapter(tmp_path / name)
            assert deck.check_probe(name)


@pytest.mark.parametrize("scheme", ["int8", "nf4"])
def test_a_quantized_base_trains_and_answers_on_a_gpu(scheme: Any) -> None:
    if scheme == "nf4":
        pytest.importorskip("bitsandbytes")
    deck = td.Deck.load(wide_folder("llama", "causal"), td.Generate(), dtype="bfloat16", device="cuda", quantize=scheme)
    add_stirred(deck, "lora", KINDS["lora"])
    add_stirred(deck, "prompt", KINDS["prompt"])
    there = {name: tensor.cuda() for name, tensor in token_batch(3).items()}
    deck(**there, adapter=["lora", "prompt", None]).logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in deck.adapter("lora").parameters())
    assert len(deck.generate(["w10 w11", "w12"], ["lora", "prompt"], td.Sampling(max_tokens=4))) == 2


def test_the_free_memory_that_counts_is_the_gpus() -> None:
    assert free_bytes(torch.device("cuda")) <= torch.cuda.get_device_properties(0).total_memory


def losses_of(folder: Path) -> list[float]:
    """The loss of every step of a run."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event["loss"] for event in events if event["event"] == "step"]

"""Models that bring their own code: off by default, then as any other by the site tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support import remote_code
from support.tiny_models import LABELS, add_stirred, difference, logits_of, rows_of, token_batch

import tunedeck as td
from tunedeck.core.errors import ModelError, TargetError
from tunedeck.methods.base import MethodConfig
from tunedeck.models.quantize import Quantize

FORMS = [*((model_type, "causal") for model_type in remote_code.CLASSES), ("chatglm", "classifier")]
KINDS: dict[str, MethodConfig] = {
    "lora": td.LoraConfig(r=4),
    "all-linear": td.LoraConfig(r=2, target_modules="all-linear"),
    "prompt": td.PromptTuningConfig(num_virtual_tokens=3),
    "full": td.FullConfig(1),
}
every_model = pytest.mark.parametrize(("model_type", "form"), FORMS)


def task_of(form: str) -> Any:
    return td.Generate() if form == "causal" else td.Classify(labels=LABELS)


@every_model
def test_code_that_comes_with_a_model_is_not_run_unless_it_is_trusted(
    model_type: str, form: str, tmp_path: Path
) -> None:
    folder = remote_code.write_folder(tmp_path / "model", model_type, form)
    code = next(folder.glob("modeling_*.py"))
    code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n" + code.read_text())
    with pytest.raises(ModelError, match=r"comes with code, which is not run.*trust_remote_code=True \(--trust-"):
        td.Deck.load(str(folder), task_of(form), dtype="float32")
    assert not (tmp_path / "ran").exists()
    td.Deck.load(str(folder), task_of(form), dtype="float32", trust_remote_code=True)
    assert (tmp_path / "ran").exists()


@every_model
@pytest.mark.parametrize("scheme", [None, "nf4"])
def test_its_linears_are_found_by_the_site_table_and_every_kind_but_bottlenecks_works(
    model_type: str, form: str, scheme: Quantize | None, tmp_path: Path
) -> None:
    folder = str(remote_code.write_folder(tmp_path / "model", model_type, form))

    def load() -> td.Deck:
        return td.Deck.load(folder, task_of(form), dtype="float32", trust_remote_code=True, quantize=scheme)

    deck, fresh = load(), load()
    assert deck.base.spec is not None
    kinds = {name: config for name, config in KINDS.items() if name != "full" or scheme is None}
    batch = token_batch(
        len(kinds) + 1, len(kinds) + 1, pad=None
    )  # as many tokens as rows: ChatGLM's order must not matter
    for seed, (name, config) in enumerate(kinds.items()):
        add_stirred(deck, name, config, seed=seed)
        assert difference(logits_of(deck, batch, name), logits_of(deck, batch)) > 1e-3
        deck.save(name, tmp_path / name)
        fresh.load_adapter(tmp_path / name)
        assert torch.equal(logits_of(fresh, batch, name), logits_of(deck, batch, name))
    names = [*kinds, None]
    mixed = logits_of(deck, batch, names)
    for row, adapter in enumerate(names):
        assert difference(mixed[[row]], logits_of(deck, rows_of(batch, [row]), adapter)) < 1e-5, adapter
    if scheme is None:
        with torch.no_grad():
            assert difference(deck.merge("lora")(**batch).logits, logits_of(deck, batch, "lora")) < 5e-5


def test_bottlenecks_are_refused_where_the_sites_are_not_known(tmp_path: Path) -> None:
    folder = remote_code.write_folder(tmp_path / "model", "chatglm", "causal")
    deck = td.Deck.load(str(folder), td.Generate(), dtype="float32", trust_remote_code=True)
    with pytest.raises(TargetError, match="bottleneck adapters are not supported on chatglm models; use lora"):
        deck.add("new", td.BottleneckConfig())


def test_code_for_another_version_of_transformers_says_so(tmp_path: Path) -> None:
    """ChatGLM3's own code never calls post_init, which transformers 5 counts on."""
    folder = remote_code.write_folder(tmp_path / "model", "chatglm", "causal")
    code = next(folder.glob("modeling_*.py"))
    code.write_text(code.read_text().replace("        self.post_init()\n", ""))
    with pytest.raises(ModelError, match=r"the code that comes with .* does not run with transformers 5"):
        td.Deck.load(str(folder), td.Generate(), dtype="float32", trust_remote_code=True)

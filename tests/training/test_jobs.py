"""Several adapters trained together on one base end as each would have alone."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from support import tiny_models
from support.stopped_runs import dataset

import tunedeck as td
from tunedeck.core.errors import ConfigError, TrainingError
from tunedeck.data.chat import Conversation, Message
from tunedeck.data.labelled import Example
from tunedeck.methods.base import MethodConfig
from tunedeck.tasks.base import Dataset
from tunedeck.tasks.text_head import HeadObjective
from tunedeck.training.job_file import run_configs

METHODS: dict[str, tuple[MethodConfig, dict[str, Any]]] = {
    "lora": (td.LoraConfig(r=4, target_modules="all-linear"), {"learning_rate": 1e-2, "batch_size": 8}),
    "bottleneck": (
        td.BottleneckConfig("double_seq_bn", reduction_factor=2),
        {"learning_rate": 5e-3, "batch_size": 6, "seed": 2},
    ),
    "prompt": (
        td.PromptTuningConfig(num_virtual_tokens=4),
        {"learning_rate": 0.1, "gradient_accumulation_steps": 2, "batch_size": 5},
    ),
    "full": (td.FullConfig(1), {"learning_rate": 1e-3, "max_steps": 5}),
}


def some(first: int, last: int, labels: tuple[str, ...] = ("blue", "green", "red")) -> Dataset[Example]:
    whole = dataset()
    train = [example for example in whole.train[first:last] if example.labels[0] in labels]
    held_out = [example for example in whole.evaluation if example.labels[0] in labels]
    return Dataset("words", train, held_out, f"{first}-{last}", "words", labels)


JOBS = {
    "lora": some(0, 60),
    "bottleneck": some(20, 80, ("green", "red")),
    "prompt": some(10, 70),
    "full": some(0, 80),
}


def settings(name: str) -> td.TrainingSettings:
    return td.TrainingSettings(**{"max_steps": 8, "eval_steps": 4, **METHODS[name][1]})


def deck_with(names: list[str]) -> td.Deck:
    deck = tiny_models.deck_of("bert")
    for name in names:
        deck.add(name, METHODS[name][0], labels=JOBS[name].labels)
    return deck


def curve(folder: Path) -> list[float]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()]
    return [event["loss"] for event in events if event["event"] in ("step", "eval")]


def tensors(deck: td.Deck, name: str) -> dict[str, torch.Tensor]:
    return {**deck.adapter(name).tensors(), **deck.adapter(name).head_tensors()}


def test_jobs_of_every_kind_end_as_each_alone(tmp_path: Path) -> None:
    together = deck_with(list(METHODS))
    jobs = {name: td.Job(JOBS[name], settings(name)) for name in METHODS}
    runs = td.train(together, jobs, out=tmp_path / "together", progress=False)
    for name in METHODS:
        alone = deck_with([name])
        run = td.train(alone, name, JOBS[name], settings=settings(name), out=tmp_path / name, progress=False)
        assert curve(tmp_path / "together" / name) == pytest.approx(curve(tmp_path / name), abs=1e-5)
        mine, theirs = tensors(together, name), tensors(alone, name)
        assert max(tiny_models.difference(mine[key], theirs[key]) for key in theirs) < 1e-4
        assert (runs[name].best_step, runs[name].measurement.steps) == (run.best_step, run.measurement.steps)
        assert runs[name].adapter_folder == tmp_path / "together" / name / "adapter"


def test_the_base_is_run_once_for_all_that_share_it() -> None:
    deck = deck_with(["lora", "bottleneck", "prompt"])
    batches: list[int] = []

    def count(_: object, __: object, inputs: dict[str, Any]) -> None:
        if torch.is_grad_enabled():  # a step, not an evaluation
            batches.append(len(inputs["input_ids"]))

    deck.model.register_forward_pre_hook(count, with_kwargs=True)
    jobs = {
        name: td.Job(JOBS[name], settings(name).model_copy(update={"gradient_accumulation_steps": 1, "max_steps": 1}))
        for name in deck.adapters
    }
    td.train(deck, jobs, progress=False)
    assert batches == [8 + 6 + 5]


def test_conversations_share_the_base_too(tmp_path: Path) -> None:
    def chats(start: int) -> Dataset[Conversation]:
        turns = [
            (
                Message("user", f"w{start + n} w{start + n + 1}"),
                Message("assistant", " ".join([f"w{start + n + 2}"] * (n % 4 + 1))),
            )
            for n in range(20)
        ]
        all_of_them = [Conversation(pair) for pair in turns]
        return Dataset("chats", all_of_them[:16], all_of_them[16:], str(start), "chats")

    def deck_of(names: list[str]) -> td.Deck:
        deck = td.Deck.load(
            tiny_models.folder_of("llama", "causal"), td.Generate(), dtype="float32"
        )  # a tokenizer of its own
        deck.tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
        configs: dict[str, MethodConfig] = {
            "a": td.LoraConfig(r=4),
            "b": td.PromptTuningConfig(num_virtual_tokens=3),
            "c": td.BottleneckConfig("par_bn"),
        }
        for name in names:
            deck.add(name, configs[name])
        return deck

    settings = td.TrainingSettings(max_steps=6, eval_steps=3, batch_size=4, learning_rate=1e-2)
    data = {"a": chats(10), "b": chats(40), "c": chats(70)}
    td.train(deck_of(list(data)), data, settings=settings, out=tmp_path / "together", progress=False)
    for name in data:
        td.train(deck_of([name]), name, data[name], settings=settings, out=tmp_path / name, progress=False)
        assert curve(tmp_path / "together" / name) == pytest.approx(curve(tmp_path / name), abs=1e-5)


def test_embeddings_share_the_base_too(tmp_path: Path) -> None:
    def deck_of(names: list[str]) -> td.Deck:
        deck = td.Deck.load(tiny_models.folder_of("bert", "plain"), td.Embed(), dtype="float32")
        configs: dict[str, MethodConfig] = {
            "a": td.LoraConfig(r=4),
            "b": td.BottleneckConfig("seq_bn", reduction_factor=2),
        }
        for name in names:
            deck.add(name, configs[name])
        return deck

    def unlabelled(data: Dataset[Example]) -> Dataset[Example]:
        values = (data.source, data.train, data.evaluation, data.sha256, data.description)
        return Dataset(*values, metric_for_best_model="loss")

    settings = td.TrainingSettings(
        max_steps=4, eval_steps=4, batch_size=80, learning_rate=1e-2
    )  # no text stands alone with its label
    data = {"a": unlabelled(some(0, 60)), "b": unlabelled(some(20, 80))}
    td.train(deck_of(list(data)), data, settings=settings, out=tmp_path / "together", progress=False)
    for name in data:
        td.train(deck_of([name]), name, data[name], settings=settings, out=tmp_path / name, progress=False)
        steps = curve(tmp_path / "together" / name)
        assert steps == pytest.approx(curve(tmp_path / name), abs=1e-5)


def test_stopped_jobs_go_on_where_each_was(tmp_path: Path) -> None:
    names, asked = ["lora", "bottleneck"], []
    jobs = {name: td.Job(JOBS[name], settings(name).model_copy(update={"eval_steps": 2})) for name in names}
    jobs["lora"] = td.Job(JOBS["lora"], settings("lora").model_copy(update={"eval_steps": 2, "max_steps": 3}))
    once = td.train(deck_with(names), jobs, out=tmp_path / "once", progress=False)

    def interrupt(metrics: dict[str, float]) -> bool:
        asked.append(metrics)
        if len(asked) == 1:  # lora's; the evaluation of bottleneck is broken off
            signal.raise_signal(signal.SIGINT)
        return False

    stopped = td.train(deck_with(names), jobs, out=tmp_path / "twice", progress=False, should_stop=interrupt)
    assert {run.stopped for run in stopped.values()} == {"interrupted"}
    assert {run.measurement.steps for run in stopped.values()} == {2}
    again = td.train(deck_with(names), jobs, out=tmp_path / "twice", progress=False, resume=True)
    assert {name: run.stopped for name, run in again.items()} == {name: run.stopped for name, run in once.items()}
    for name in names:
        assert curve(tmp_path / "twice" / name) == pytest.approx(curve(tmp_path / "once" / name), abs=1e-5)


def test_a_job_that_was_finished_is_taken_as_it_is(tmp_path: Path) -> None:
    first = td.train(
        deck_with(["lora"]), {"lora": td.Job(JOBS["lora"], settings("lora"))}, out=tmp_path, progress=False
    )
    deck = deck_with(["lora", "bottleneck"])
    jobs = {name: td.Job(JOBS[name], settings(name)) for name in deck.adapters}
    with pytest.warns(UserWarning, match="bottleneck holds no checkpoint yet"):
        runs = td.train(deck, jobs, out=tmp_path, progress=False, resume=True)
    assert runs["lora"] == first["lora"]
    assert runs["bottleneck"].stopped == "finished"
    texts = [example.text for example in JOBS["lora"].evaluation]
    right = [a.label == e.labels[0] for a, e in zip(deck.predict(texts, "lora"), JOBS["lora"].evaluation, strict=True)]
    assert sum(right) / len(right) == pytest.approx(first["lora"].metrics["accuracy"])


def test_a_job_that_fails_is_named() -> None:
    deck = deck_with(["lora", "prompt"])
    with torch.no_grad():
        next(iter(deck.adapter("prompt").parameters())).fill_(float("nan"))
    jobs = {name: td.Job(JOBS[name], settings(name)) for name in deck.adapters}
    with pytest.raises(TrainingError, match="prompt: the loss is nan at step 1"):
        td.train(deck, jobs, progress=False)


def test_out_of_memory_the_batches_that_can_be_cut_are_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = HeadObjective.losses

    def losses(parts: Any) -> Any:
        if sum(len(rows) for _, rows in parts) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return plain(parts)

    deck = deck_with(["lora", "prompt"])
    jobs = {name: td.Job(JOBS[name], settings(name)) for name in deck.adapters}
    jobs["lora"] = td.Job(JOBS["lora"], settings("lora").model_copy(update={"batch_size": 1}))
    td.train(deck, jobs, out=tmp_path / "whole", progress=False)
    monkeypatch.setattr(HeadObjective, "losses", staticmethod(losses))
    deck = deck_with(["lora", "prompt"])
    with pytest.warns(UserWarning, match="in pieces of 3 from here on"):
        td.train(deck, jobs, out=tmp_path / "pieces", progress=False)
    for name in jobs:
        assert curve(tmp_path / "pieces" / name) == pytest.approx(curve(tmp_path / "whole" / name), abs=1e-5)


def test_nothing_to_train_is_told() -> None:
    with pytest.raises(ConfigError, match="there is no adapter to train"):
        td.train(deck_with([]), {})
    with pytest.raises(ConfigError, match="'lora' has no data"):
        td.train(deck_with(["lora"]), "lora")  # type: ignore[call-overload]


COMMON: dict[str, Any] = {"model": "m", "data": {"train": "a.csv", "text": "t"}, "training": {"epochs": 3, "seed": 1}}


def test_the_jobs_of_a_run_file_take_what_they_have_in_common() -> None:
    jobs = [
        {"name": "a", "method": "lora"},
        {"name": "b", "data": {"train": "b.csv"}, "training": {"seed": 2}, "method": {"kind": "lora", "r": 2}},
    ]
    first, second = run_configs({**COMMON, "jobs": jobs})
    assert (first.name, first.data.train, first.training.seed, first.training.epochs) == ("a", "a.csv", 1, 3)
    assert (second.data.train, second.data.text, second.training.seed, second.training.epochs) == ("b.csv", "t", 2, 3)
    assert second.method == td.LoraConfig(r=2)
    assert run_configs(COMMON)[0].name is None


@pytest.mark.parametrize(
    ("jobs", "text"),
    [
        ([], "jobs must be a list"),
        ([{"method": "lora"}], "each with a name"),
        ([{"name": "a"}, {"name": "a"}], "two jobs have the same name: a, a"),
        ([{"name": "a"}, {"name": "b", "dtype": "float32"}], "share dtype; set it once"),
        ([{"name": "a", "metod": "lora"}], "did you mean 'method'"),
    ],
)
def test_jobs_that_do_not_fit_are_told(jobs: list[dict[str, Any]], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        run_configs({**COMMON, "jobs": jobs})

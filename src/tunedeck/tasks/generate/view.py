"""Describe text generation to serving, comparison, export and planning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from tunedeck.core.i18n import say
from tunedeck.core.plan_shape import PlanShape
from tunedeck.data.chat import Conversation, Message
from tunedeck.deck.deck import Deck
from tunedeck.generation.sampling import Sampling
from tunedeck.tasks.base import VLLM_DECODERS, Calibration, Comparing, Dataset, HeldOut, Mistake, TaskView, VllmView
from tunedeck.tasks.generate.forgetting import loss_on_other_text
from tunedeck.tasks.generate.task import Generate

MISTAKES = 5
ANSWER_TOKENS = 64


def _text_of(conversation: Conversation) -> str:
    return conversation.prompt[-1].content if conversation.prompt else conversation.answer


def _held_out(deck: Deck, name: str, dataset: Dataset[Conversation], metric: str) -> HeldOut:
    held_out = replace(dataset, train=dataset.evaluation)  # the training side is not looked at
    losses = cast(Generate, deck.task).objective(deck, name, held_out).held_out_losses()
    if metric != "loss":
        return HeldOut(answers=tuple(losses))
    return HeldOut(tuple(loss for _, loss, _ in losses), tuple(float(tokens) for *_, tokens in losses), tuple(losses))


def _mistakes(deck: Deck, name: str, dataset: Dataset[Conversation], found: HeldOut) -> list[Mistake]:
    worst: Sequence[tuple[Conversation, float, int]] = sorted(found.answers, key=lambda one: -one[1])[:MISTAKES]
    prompts = [list(conversation.as_dicts()[:-1]) for conversation, *_ in worst]
    answers = deck.generate(prompts, name, Sampling(max_tokens=ANSWER_TOKENS))
    return [
        Mistake("\n".join(turn["content"] for turn in turns), conversation.answer, answer, loss)
        for turns, answer, (conversation, loss, _) in zip(prompts, answers, worst, strict=True)
    ]


def _made_up(count: int, tokens: int) -> Dataset[Conversation]:
    """Return questions of one word with answers of about that many tokens; the chat template adds its own."""
    turns = (Message("user", "the"), Message("assistant", " ".join(["the"] * tokens)))
    conversations = [Conversation(turns)] * count
    return Dataset("calibration", conversations, conversations[:2], "", "")


VIEW = TaskView(
    task=Generate,
    route="text",
    comparing=Comparing(
        text_of=_text_of,
        held_out=_held_out,
        mistakes=_mistakes,
        loss_on_other_text=loss_on_other_text,
        mistakes_note=lambda: say("Held-out texts whose expected answer it found least likely, the worst first."),
        score_name=lambda: say("loss"),
        latency_note=lambda: say("One text is one pass over a prompt, without the tokens of the answer."),
    ),
    vllm=VllmView(VLLM_DECODERS),
    calibration=Calibration(Generate(max_length=1024), _made_up),
    plan_shape=lambda config: PlanShape(generate=True),
    pipeline_tag="text-generation",
    model_classes=("ForCausalLM", "LMHeadModel"),
    lower_is_better=frozenset({"loss", "perplexity"}),
)

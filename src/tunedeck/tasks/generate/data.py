"""Conversations of a generation run: read, repeats removed, split so that no prompt is on both sides."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.chat import Conversation, read_conversations
from tunedeck.data.prepare import Steps, normalised, prepare
from tunedeck.data.settings import DataSettings
from tunedeck.data.table import read_table
from tunedeck.tasks.base import Dataset


def read_chats(settings: DataSettings) -> Dataset[Conversation]:
    """Read and split a run's conversations; DataError for files or rows that are not usable."""
    table = read_table(settings.train, settings.encoding)
    other = None if settings.eval is None else read_table(settings.eval, settings.encoding)
    found, shape = read_conversations(table)
    held_out = None if other is None else read_conversations(other)[0]
    chooser = random.Random(settings.split_seed)
    steps: Steps[Conversation] = Steps(
        deduplicate=lambda examples: list(dict.fromkeys(examples)),
        hold_out=lambda examples: split_by_prompt(examples, settings.eval_fraction, settings.split_seed),
        remove_overlap=_without_prompts,
        subset=chooser.sample,
        digest=_digest,
    )
    prepared = prepare(found, held_out, settings, steps)
    description = say(
        "{source} ({shape}): {train} conversations to train on, {held_out} held out, {removed} repeats left out",
        source=settings.train,
        shape=shape,
        train=len(prepared.train),
        held_out=len(prepared.evaluation),
        removed=prepared.left_out,
    )
    notes = (*table.notes, *(other.notes if other is not None else ()))
    return Dataset(settings.train, prepared.train, prepared.evaluation, prepared.sha256, description, notes=notes)


def split_by_prompt(
    conversations: Sequence[Conversation], eval_fraction: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Return training and evaluation conversations; those with the same prompt are on the same side. At least one on
    each.
    """
    keys = sorted({_key(conversation) for conversation in conversations})
    if len(keys) < 2:
        raise DataError(
            say("nothing can be held out: all conversations ask the same; give an evaluation file (--eval-data)")
        )
    random.Random(seed).shuffle(keys)
    held_out = set(keys[: min(len(keys) - 1, max(1, round(len(keys) * eval_fraction)))])
    train = [conversation for conversation in conversations if _key(conversation) not in held_out]
    return train, [conversation for conversation in conversations if _key(conversation) in held_out]


def _without_prompts(train: Sequence[Conversation], evaluation: Sequence[Conversation]) -> list[Conversation]:
    held_out = {_key(conversation) for conversation in evaluation}
    return [conversation for conversation in train if _key(conversation) not in held_out]


def _key(conversation: Conversation) -> str:
    return "\n".join(normalised(message.content) for message in conversation.prompt if message.role != "system")


def _digest(conversations: Sequence[Conversation]) -> str:
    digest = hashlib.sha256()
    for conversation in conversations:
        digest.update(repr(conversation).encode())
    return digest.hexdigest()

"""Conversations of a generation run: read, repeats removed, split so that no prompt stands on both sides."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.chat import Conversation, read_conversations
from tunedeck.data.settings import DataSettings
from tunedeck.data.split import normalised
from tunedeck.data.table import read_table
from tunedeck.tasks.base import Dataset


def read_chats(settings: DataSettings) -> Dataset[Conversation]:
    """Read and split a run's conversations; DataError for files or rows that are not usable."""
    found, shape = read_conversations(read_table(settings.train, settings.encoding))
    train = list(dict.fromkeys(found)) if settings.deduplicate else found
    if settings.eval is None:
        train, evaluation = split_by_prompt(train, settings.eval_fraction, settings.split_seed)
    else:
        evaluation, _ = read_conversations(read_table(settings.eval, settings.encoding))
        held_out = {_key(conversation) for conversation in evaluation}
        train = [conversation for conversation in train if _key(conversation) not in held_out]
    kept = len(train) + (len(evaluation) if settings.eval is None else 0)
    chooser = random.Random(settings.split_seed)
    if settings.train_size is not None and settings.train_size < len(train):
        train = chooser.sample(train, settings.train_size)
    if settings.eval_size is not None and settings.eval_size < len(evaluation):
        evaluation = chooser.sample(evaluation, settings.eval_size)
    if not train or not evaluation:
        raise DataError(say("{source} leaves nothing to train on or nothing to evaluate on", source=settings.train))
    description = say(
        "{source} ({shape}): {train} conversations to train on, {held_out} held out, {removed} repeats left out",
        source=settings.train,
        shape=shape,
        train=len(train),
        held_out=len(evaluation),
        removed=len(found) - kept,
    )
    return Dataset(settings.train, train, evaluation, _digest(train), description)


def split_by_prompt(
    conversations: Sequence[Conversation], eval_fraction: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Training and evaluation conversations; those with the same prompt stand on the same side. At least one on each."""
    keys = sorted({_key(conversation) for conversation in conversations})
    if len(keys) < 2:
        raise DataError(
            say("nothing can be held out: all conversations ask the same; give an evaluation file (--eval-data)")
        )
    random.Random(seed).shuffle(keys)
    held_out = set(keys[: min(len(keys) - 1, max(1, round(len(keys) * eval_fraction)))])
    train = [conversation for conversation in conversations if _key(conversation) not in held_out]
    return train, [conversation for conversation in conversations if _key(conversation) in held_out]


def _key(conversation: Conversation) -> str:
    return "\n".join(normalised(message.content) for message in conversation.prompt if message.role != "system")


def _digest(conversations: Sequence[Conversation]) -> str:
    digest = hashlib.sha256()
    for conversation in conversations:
        digest.update(repr(conversation).encode())
    return digest.hexdigest()

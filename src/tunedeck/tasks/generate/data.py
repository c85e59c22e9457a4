"""Conversations of a generation run: read, repeats removed, split so that no prompt is on both sides."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence

from tunedeck.core.errors import DataError
from tunedeck.core.i18n import say
from tunedeck.data.chat import Conversation, Message, read_conversations
from tunedeck.data.pieces import is_large
from tunedeck.data.prepare import Steps, normalised, prepare
from tunedeck.data.settings import DataSettings
from tunedeck.data.stored import Cells, Form, StoredExamples, stored_examples
from tunedeck.data.stored_groups import divided, drawn, first_of_each, without_keys
from tunedeck.data.table import read_table
from tunedeck.tasks.base import Dataset


def read_chats(settings: DataSettings) -> Dataset[Conversation]:
    """Read and split a run's conversations; DataError for files or rows that are not usable."""
    found, shape, notes = read_examples(settings, settings.train)
    held_out = None
    if settings.eval is not None:
        held_out, _, more = read_examples(settings, settings.eval)
        notes = (*notes, *more)
    chooser = random.Random(settings.split_seed)
    steps: Steps[Conversation] = Steps(
        deduplicate=_deduplicated,
        hold_out=lambda examples: split_by_prompt(examples, settings.eval_fraction, settings.split_seed),
        remove_overlap=_without_prompts,
        subset=lambda examples, size: drawn(examples, chooser.sample(range(len(examples)), size)),
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
    return Dataset(settings.train, prepared.train, prepared.evaluation, prepared.sha256, description, notes=notes)


def read_examples(settings: DataSettings, reference: str) -> tuple[Sequence[Conversation], str, tuple[str, ...]]:
    """Return the conversations of one file or name, on disk where they are many; the name of their shape, and notes."""
    if not is_large(reference):
        table = read_table(reference, settings.encoding)
        return *read_conversations(table), table.notes
    examples, first = stored_examples(
        reference, settings.encoding, _CONVERSATIONS, lambda first: lambda piece: read_conversations(piece)[0]
    )
    return examples, read_conversations(first)[1], first.notes


def _of_cells(cells: Cells, labels: tuple[str, ...]) -> Conversation:
    return Conversation(tuple(Message(*turn) for turn in json.loads(cells[0] or "[]")))


_CONVERSATIONS: Form[Conversation] = Form(
    columns=("turns",),
    cells=lambda one: (json.dumps([(turn.role, turn.content) for turn in one.messages]),),
    labels=lambda one: (),
    example=_of_cells,
)


def _deduplicated(conversations: Sequence[Conversation]) -> Sequence[Conversation]:
    if isinstance(conversations, StoredExamples):
        return first_of_each(conversations, repr)
    return list(dict.fromkeys(conversations))


def split_by_prompt(
    conversations: Sequence[Conversation], eval_fraction: float, seed: int
) -> tuple[Sequence[Conversation], Sequence[Conversation]]:
    """Return training and evaluation conversations; those with the same prompt are on the same side. At least one on
    each.
    """
    if isinstance(conversations, StoredExamples):
        train, held_out = divided(conversations, _key, eval_fraction, seed)
        if not held_out:
            raise _all_alike()
        return train, held_out
    keys = sorted({_key(conversation) for conversation in conversations})
    if len(keys) < 2:
        raise _all_alike()
    random.Random(seed).shuffle(keys)
    held = set(keys[: min(len(keys) - 1, max(1, round(len(keys) * eval_fraction)))])
    rest = [conversation for conversation in conversations if _key(conversation) not in held]
    return rest, [conversation for conversation in conversations if _key(conversation) in held]


def _all_alike() -> DataError:
    return DataError(
        say("nothing can be held out: all conversations ask the same; give an evaluation file (--eval-data)")
    )


def _without_prompts(train: Sequence[Conversation], evaluation: Sequence[Conversation]) -> Sequence[Conversation]:
    if isinstance(train, StoredExamples):
        return without_keys(train, _key, map(_key, evaluation), len(evaluation))
    held_out = {_key(conversation) for conversation in evaluation}
    return [conversation for conversation in train if _key(conversation) not in held_out]


def _key(conversation: Conversation) -> str:
    return "\n".join(normalised(message.content) for message in conversation.prompt if message.role != "system")


def _digest(conversations: Sequence[Conversation]) -> str:
    digest = hashlib.sha256()
    for conversation in conversations:
        digest.update(repr(conversation).encode())
    return digest.hexdigest()

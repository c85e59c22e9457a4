"""`tunedeck chat`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tunedeck.cli import options
from tunedeck.cli.console import tell
from tunedeck.core.errors import ModelError, TunedeckError
from tunedeck.core.i18n import listing, nearest, say

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck
    from tunedeck.generation.sampling import Sampling

BASE = "base"


def chat(
    model: options.Base = None,
    adapter: options.AdapterFolders = None,
    system: Annotated[str, typer.Option(help=say("a system turn"))] = "",
    max_tokens: Annotated[int, typer.Option(help=say("longest answer in tokens"))] = 256,
    temperature: Annotated[float, typer.Option(help=say("0 always takes the likeliest token"))] = 0.7,
    top_p: Annotated[
        float, typer.Option(help=say("sample from the likeliest tokens of this total probability"))
    ] = 0.95,
    repetition_penalty: Annotated[float, typer.Option(help=say("above 1, repetition is less likely"))] = 1.1,
    seed: Annotated[int, typer.Option(help=say("a seed; the same one repeats a conversation"))] = 0,
    dtype: options.DtypeName = "auto",
    quantize: options.Quantize = None,
    trust_remote_code: options.TrustRemoteCode = False,
    allow_base_mismatch: options.AllowBaseMismatch = False,
) -> None:
    """Talk to a base and its adapters, switching between them with /adapter NAME."""
    options.check_sources(adapter or (), model)
    import tunedeck as td
    from tunedeck.core.compat.inference_imports import import_for_inference

    import_for_inference()
    sampling = td.Sampling(
        max_tokens=max_tokens, temperature=temperature, top_p=top_p, repetition_penalty=repetition_penalty, seed=seed
    )
    if adapter:
        options.check_task(adapter, "text", "chat")
        deck = options.opened(
            adapter, model, dtype, quantize, trust_remote_code, allow_base_mismatch=allow_base_mismatch, task="generate"
        )
    else:
        reference = model or "bundled:smollm2-135m-instruct"
        deck = options.base_model(reference, td.Generate(), dtype, quantize, trust_remote_code)
        if deck.base.untrained:
            raise ModelError(
                say(
                    "{model} does not write text: it has no trained output layer; chat with a model such as "
                    "bundled:smollm2-135m-instruct",
                    model=reference,
                )
            )
    _talk(deck, list(deck.adapters), system, sampling)


def _talk(deck: Deck, names: list[str], system: str, sampling: Sampling) -> None:
    """Read lines until the end; a line that begins with / is a command."""
    start = [{"role": "system", "content": system}] if system else []
    turns, speaker = list(start), names[0] if names else BASE
    commands = say(
        "/adapter NAME switches the adapter, /clear forgets the conversation, /help shows this line, /quit ends"
    )
    tell(say("adapters: {names}. {commands}", names=listing([*names, BASE]), commands=commands))
    while True:
        try:
            line = input(f"{speaker}> ").strip() if sys.stdin else "/quit"
        except (EOFError, KeyboardInterrupt):
            print()
            return
        command, _, rest = line.partition(" ")
        if command in ("/quit", "/exit"):
            return
        if command == "/clear":
            turns = list(start)
        elif command == "/adapter":
            speaker = _chosen(rest.strip(), names, speaker)
        elif command == "/help":
            tell(commands)
        elif command.startswith("/"):
            tell(say("unknown command {command}; {commands}", command=command, commands=commands))
        elif line:
            turns = _answer(deck, speaker, [*turns, {"role": "user", "content": line}], sampling)


def _chosen(name: str, names: list[str], speaker: str) -> str:
    if name in (*names, BASE):
        return name
    if not name:
        tell(say("name an adapter: {names}", names=listing([*names, BASE])))
        return speaker
    tell(
        say("adapter {name!r} is not loaded (loaded: {loaded})", name=name, loaded=listing([*names, BASE]))
        + nearest(name, names)
    )
    return speaker


def _answer(deck: Deck, speaker: str, turns: list[dict[str, str]], sampling: Sampling) -> list[dict[str, str]]:
    """Print the answer as it comes; Ctrl-C ends it early. Gives the conversation with the answer in it."""
    said = ""
    try:
        for chunk in deck.stream([turns], None if speaker == BASE else speaker, sampling):
            print(chunk.text, end="", flush=True)
            said += chunk.text
    except KeyboardInterrupt:
        pass
    except TunedeckError as error:
        tell(say("error: {text} [{code}]", text=error, code=error.code))
    print()
    return [*turns, {"role": "assistant", "content": said}] if said else turns[:-1]

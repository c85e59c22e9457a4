"""`tunedeck embed`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tunedeck.cli import options
from tunedeck.cli.console import tell
from tunedeck.cli.predict import texts_to_answer
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say

ENDINGS = (".npy", ".jsonl")


def embed(
    texts: Annotated[list[str] | None, typer.Argument(help=say("texts; none reads lines from standard input"))] = None,
    adapter: Annotated[
        Path | None, typer.Option(help=say("adapter folder (default: the base model without an adapter)"))
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help=say("where the vectors go: a .npy or .jsonl file; else they are printed as JSON lines")),
    ] = None,
    as_query: Annotated[
        bool, typer.Option("--query", help=say("the texts are queries: put the query instruction before each"))
    ] = False,
    file: options.DataFile = None,
    text: options.TextColumn = None,
    encoding: options.Encoding = "auto",
    model: options.Base = None,
    dtype: options.DtypeName = "auto",
    allow_base_mismatch: options.AllowBaseMismatch = False,
    quantize: options.Quantize = None,
    trust_remote_code: options.TrustRemoteCode = False,
) -> None:
    """Make vectors of texts."""
    from tunedeck.core.compat.inference_imports import import_for_inference

    if out is not None and out.suffix not in ENDINGS:
        raise ConfigError(say("{path}: vectors are written as .npy or .jsonl", path=out))
    if adapter is None and model is None:
        raise ConfigError(say('name an adapter folder or a base: tunedeck embed --adapter runs/NAME/adapter "a text"'))
    options.check_sources([] if adapter is None else [adapter], model, file)
    asked = texts_to_answer(texts, file, text, encoding)
    import_for_inference()
    from tunedeck.tasks.registry import task_of

    if adapter is not None:
        options.check_task([adapter], "vectors", "embed")
        deck = options.opened(
            [adapter], model, dtype, quantize, trust_remote_code, allow_base_mismatch=allow_base_mismatch, task="embed"
        )
    else:
        deck = options.base_model(model or "", task_of({"kind": "embed"}), dtype, quantize, trust_remote_code)
    vectors = deck.embed(asked, next(iter(deck.adapters), None), as_query=as_query)
    if out is None:
        print(_lines(asked, vectors), end="")
        return
    _write(out, asked, vectors)
    tell(say("wrote {path}: {rows} vectors of {size}", path=out, rows=len(vectors), size=vectors.shape[1]))


def _write(out: Path, texts: list[str], vectors: Any) -> None:
    from tunedeck.core.storage import write_bytes, write_text

    if out.suffix == ".jsonl":
        write_text(out, _lines(texts, vectors))
        return
    import io

    import numpy

    buffer = io.BytesIO()
    numpy.save(buffer, vectors.numpy())
    write_bytes(out, buffer.getvalue())


def _lines(texts: list[str], vectors: Any) -> str:
    rows = zip(texts, vectors.tolist(), strict=True)
    return "".join(json.dumps({"text": text, "vector": vector}, ensure_ascii=False) + "\n" for text, vector in rows)

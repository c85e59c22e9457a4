"""`tunedeck embed`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tunedeck.cli.console import tell
from tunedeck.cli.opening import QuantizeFlag, TrustFlag, open_deck, packing
from tunedeck.cli.predict import texts_to_answer
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import say

if TYPE_CHECKING:
    from tunedeck.deck.deck import Deck

ENDINGS = (".npy", ".jsonl")


def embed(
    texts: Annotated[list[str] | None, typer.Argument(help=say("texts; none reads lines from standard input"))] = None,
    adapter: Annotated[Path | None, typer.Option(help=say("adapter folder; without one the bare base answers"))] = None,
    out: Annotated[Path | None, typer.Option(help=say("where the vectors go: a .npy or .jsonl file; else they are printed as JSON lines"))] = None,
    as_query: Annotated[bool, typer.Option("--query", help=say("the texts are queries: the query instruction stands before each"))] = False,
    file: Annotated[str | None, typer.Option(help=say("a data file instead of texts"))] = None,
    text: Annotated[str | None, typer.Option(help=say("text column of that file"))] = None,
    encoding: Annotated[str, typer.Option(help=say("encoding of the file, such as gb18030"))] = "utf-8",
    model: Annotated[str | None, typer.Option(help=say("the base; the one the adapter names by default"))] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16")] = "auto",
    any_base: Annotated[bool, typer.Option("--any-base", help=say("insist on another base than it was trained on"))] = False,
    quantize: QuantizeFlag = None,
    trust_remote_code: TrustFlag = False,
) -> None:  # fmt: skip
    """Make vectors of texts."""
    if out is not None and out.suffix not in ENDINGS:
        raise ConfigError(say("{path}: vectors are written as .npy or .jsonl", path=out))
    if adapter is None and model is None:
        raise ConfigError(say('name an adapter folder or a base: tunedeck embed --adapter runs/NAME/adapter "a text"'))
    asked = texts_to_answer(texts, file, text, encoding)
    if adapter is not None:
        deck, (name,) = open_deck([adapter], model, dtype, any_base, "embed", quantize, trust_remote_code)
    else:
        deck, name = _bare(model or "", dtype, packing(quantize), trust_remote_code), None
    vectors = deck.embed(asked, name, as_query=as_query)
    if out is None:
        print(_lines(asked, vectors), end="")
        return
    _write(out, asked, vectors)
    tell(say("wrote {path}: {rows} vectors of {size}", path=out, rows=len(vectors), size=vectors.shape[1]))


def _bare(model: str, dtype: str, quantize: str | None, trust_remote_code: bool) -> Deck:
    import tunedeck as td

    return td.Deck.load(
        model,
        td.Embed(),
        dtype=dtype,  # type: ignore[arg-type]
        quantize=quantize,  # type: ignore[arg-type]
        trust_remote_code=trust_remote_code,
    )


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

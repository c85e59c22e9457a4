"""Every bound of a server: refused before anything is computed, in words that name the limit and the flag; documented
as it is.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi.testclient import TestClient
from support import served_adapters
from support.http_server import listening
from support.waiting import SOON

from tunedeck.cli.app import loaded
from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import set_language
from tunedeck.core.units import format_bytes
from tunedeck.server.app import create_app
from tunedeck.server.auth import Keys
from tunedeck.server.run import ServerSettings, open_service
from tunedeck.serving.bounds import BYTES, Bounds, flag_of, text_of

DOCS = Path(__file__).parents[2] / "docs" / "serving.md"


def refused(form: str, path: str, body: dict[str, Any], **bounds: Any) -> str:
    """The message of the 400 that a body is answered with."""
    settings = ServerSettings(bounds=Bounds(**bounds))
    service = open_service(served_adapters.base_deck(form), served_adapters.saved_adapters(form), settings, "tiny")
    with TestClient(create_app(service, Keys(None), settings.bounds), base_url="http://localhost") as client:
        got = client.post(path, json=body)
    service.engine.close()
    assert got.status_code == 400, got.text
    told = got.json()["error"]
    return told if isinstance(told, str) else str(told["message"])


@pytest.mark.parametrize(
    ("form", "path", "body", "bounds", "flag"),
    [
        ("classifier", "/classify", {"model": "lora-1", "input": ["w4"] * 4}, {"max_inputs": 3}, "--max-inputs"),
        ("classifier", "/predict", {"model": "lora-1", "inputs": ["w4"] * 4}, {"max_inputs": 3}, "--max-inputs"),
        ("classifier", "/classify", {"model": "lora-1", "input": "w" * 9}, {"max_input_chars": 8}, "--max-input-chars"),
        ("classifier", "/classify", {"model": "lora-1", "input": ["w4"] * 4}, {"max_requests": 3}, "--max-requests"),
        (
            "unpooled",
            "/v1/embeddings",
            {"model": "lora-1", "input": [4] * 4},
            {"max_input_tokens": 3},
            "--max-input-tokens",
        ),
        ("unpooled", "/v1/embeddings", {"model": "lora-1", "input": [[4]] * 4}, {"max_inputs": 3}, "--max-inputs"),
    ],
)
def test_what_is_over_a_bound_is_told_the_bound_and_its_flag(
    form: str, path: str, body: dict[str, Any], bounds: dict[str, Any], flag: str
) -> None:
    message = refused(form, path, body, **bounds)
    assert flag in message
    assert f"at most {next(iter(bounds.values()))} are allowed" in message


def test_the_table_of_the_docs_and_the_flags_of_the_command_are_those_of_the_class() -> None:
    flags = {flag: option for option in loaded("serve").params for flag in option.opts}
    rows: dict[str, list[str]] = {"en": [], "zh": []}
    for bound in fields(Bounds):
        default: Any = bound.default
        shown = format_bytes(default) if bound.metadata["unit"] == BYTES else f"{default:g}"
        unit = " s" if bound.metadata["unit"] == "seconds" else ""
        for name, lines in rows.items():
            set_language(name)
            lines.append(f"| `{flag_of(bound.name)}` | {shown}{unit} | {text_of(bound.name)} |")
        assert flags[flag_of(bound.name)].default == default
    set_language("en")
    for page, lines in ((DOCS, rows["en"]), (DOCS.with_suffix(".zh.md"), rows["zh"])):
        assert "\n".join(lines) in page.read_text("utf-8"), "the table is:\n" + "\n".join(lines)


@pytest.mark.parametrize(("name", "value"), [("max_inputs", 0), ("timeout", -1), ("key_share", 1.5)])
def test_a_bound_that_would_let_nothing_in_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=re.escape(flag_of(name))):
        Bounds(**cast(Any, {name: value}))


def test_token_ids_are_embedded_as_their_text_is_and_vectors_are_cut_to_dimensions() -> None:
    with listening("unpooled") as (url, _):

        def vectors(**more: Any) -> list[list[float]]:
            got = httpx.post(f"{url}/v1/embeddings", json={"model": "prompt-1", **more}, timeout=SOON)
            assert got.status_code == 200, got.text
            return [one["embedding"] for one in got.json()["data"]]

        ids = served_adapters.base_deck("unpooled").tokenizer("w4 w5")["input_ids"]
        (text,) = vectors(input="w4 w5")
        assert vectors(input=ids) == [pytest.approx(text, abs=1e-5)]
        assert vectors(input=[ids, ids]) == [pytest.approx(text, abs=1e-5)] * 2
        (short,) = vectors(input="w4 w5", dimensions=3)
        scale = sum(value**2 for value in text[:3]) ** 0.5
        assert short == pytest.approx([value / scale for value in text[:3]], abs=1e-5)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"input": [999]}, "each from 0 to 119"),
        ({"input": [4] * 90}, "90 tokens are more than"),
        ({"input": "w4", "dimensions": 33}, "the vectors have 32"),
    ],
)
def test_token_ids_and_dimensions_that_fit_no_vector_are_refused(more: dict[str, Any], says: str) -> None:
    assert says in refused("unpooled", "/v1/embeddings", {"model": "prompt-1", **more})

"""Flags under the names they had before: they work, and a note names the new one."""

from __future__ import annotations

import warnings

import pytest

from tunedeck.cli.renamed import with_new_names


def test_an_old_flag_is_replaced_and_named_in_a_note() -> None:
    with pytest.warns(UserWarning, match="--limit is called --max-examples now"):
        assert with_new_names(["eval", "--limit=3", "--data", "a.csv"]) == [
            "eval",
            "--max-examples=3",
            "--data",
            "a.csv",
        ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["--lora", "inside", "--int8"], ["--no-merge", "--int8"]),
        (["--lora=inside"], ["--no-merge"]),
        (["--lora", "merged"], []),
    ],
)
def test_where_lora_stays_in_a_graph_has_become_a_flag(old: list[str], new: list[str]) -> None:
    with pytest.warns(UserWarning, match="--no-merge"):
        assert with_new_names(["export", "onnx", *old]) == ["export", "onnx", *new]


def test_new_flags_and_what_follows_two_dashes_stay_as_they_are() -> None:
    arguments = ["predict", "--allow-base-mismatch", "--", "--limit"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert with_new_names(arguments) == arguments

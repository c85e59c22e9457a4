"""Where a run's examples come from."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tunedeck.core.i18n import say
from tunedeck.core.settings import Help


class DataSettings(BaseModel):
    """Where the examples come from and how they are split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: Annotated[str, Help(say("training data: file, hub id or bundled: name"), flag="--data")]
    eval: Annotated[str | None, Help(say("evaluation data; else a part is held out"), flag="--eval-data")] = None
    eval_fraction: Annotated[float, Help(say("share held out for evaluation")), Field(gt=0, lt=1)] = 0.1
    text: Annotated[str | None, Help(say("text column"))] = None
    text_pair: Annotated[str | None, Help(say("column of the second text, where each example is a pair"))] = None
    label: Annotated[str | None, Help(say("label column"))] = None
    anchor: Annotated[str | None, Help(say("column of the anchors or queries of text pairs"))] = None
    positive: Annotated[str | None, Help(say("column of the texts that belong to them"))] = None
    negative: Annotated[str | None, Help(say("column of texts that do not"))] = None
    score: Annotated[str | None, Help(say("column of the scores of text pairs"))] = None
    encoding: Annotated[str, Help(say("encoding of the file, such as gb18030; auto detects it"))] = "auto"
    drop_empty: Annotated[bool, Help(say("leave out empty texts"))] = False
    deduplicate: Annotated[
        bool,
        Help(
            say(
                "keep one of each group of texts that differ only in case, retweet marks, mentions, links and "
                "punctuation"
            )
        ),
    ] = True
    train_size: Annotated[int | None, Help(say("train on at most this number of examples")), Field(ge=1)] = None
    eval_size: Annotated[int | None, Help(say("evaluate on at most this number of examples")), Field(ge=1)] = None
    split_seed: Annotated[int, Help(say("seed of which examples are held out and chosen"))] = 0

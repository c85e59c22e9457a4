"""Where a run's examples come from."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DataSettings(BaseModel):
    """Where the examples come from and how they are split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: str
    eval: str | None = None
    eval_fraction: float = Field(0.1, gt=0, lt=1)
    """Share held out for evaluation when `eval` names no file."""
    text: str | None = None
    label: str | None = None
    anchor: str | None = None
    """With `positive`, `negative` and `score`: columns of text pairs, for embeddings."""
    positive: str | None = None
    negative: str | None = None
    score: str | None = None
    encoding: str = "utf-8"
    drop_empty: bool = False
    deduplicate: bool = True
    """Keep one of each group of texts that are equal but for case, retweet marks, mentions, links and punctuation."""
    train_size: int | None = Field(None, ge=1)
    eval_size: int | None = Field(None, ge=1)
    split_seed: int = 0

"""Whether a hub can be reached, asked once and quickly instead of through a minute of retries; its cache."""

from __future__ import annotations

import os
from pathlib import Path

from huggingface_hub import constants, get_session, try_to_load_from_cache


def hub_is_reachable(timeout_s: float = 5.0) -> bool:
    """Tell whether the hub answers, whatever it says; HF_ENDPOINT and a proxy are honoured.

    A connection alone does not tell: firewalls take it and never answer.
    """
    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=timeout_s)
    except Exception:  # the HTTP client's errors, and those of a proxy or an address that is not valid
        return False
    return True


def in_hub_cache(repository: str) -> bool:
    """Tell whether a hub model's config is in the local cache."""
    return isinstance(try_to_load_from_cache(repository, "config.json"), str)


def data_in_hub_cache(repository: str) -> bool:
    """Tell whether a hub data set, or what `datasets` made of it, is in the local cache."""
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets"))
    fetched = Path(constants.HF_HUB_CACHE, f"datasets--{repository.replace('/', '--')}")
    return fetched.is_dir() or (prepared / repository.replace("/", "___")).is_dir()

"""Whether a model hub can be reached, asked once and quickly instead of through a minute of retries."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlparse

from huggingface_hub import constants, try_to_load_from_cache


def hub_is_reachable(timeout_s: float = 5.0) -> bool:
    """Tell whether the hub's host (HF_ENDPOINT is honoured) takes a connection; a proxy is trusted to reach it."""
    if constants.HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    address = urlparse(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=timeout_s).close()
    except OSError:
        return False
    return True


def in_hub_cache(repository: str) -> bool:
    """Tell whether a hub model's config is in the local cache."""
    return isinstance(try_to_load_from_cache(repository, "config.json"), str)

"""The server's paths: which take inputs, which are for admins, which are open, and how metrics call them."""

from __future__ import annotations

WITH_INPUTS = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/answers",
        "/classify",
        "/predict",
        "/entities",
        "/score",
        "/v1/score",
        "/rerank",
        "/v1/rerank",
        "/v1/choose",
    }
)
TO_ADMINISTER = frozenset({"/v1/adapters", "/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
HEALTH = "/health"
STATE = frozenset({HEALTH, "/ready", "/metrics", "/v1/models"})
DOCS = frozenset({"/docs", "/redoc", "/openapi.json"})
DOCS_FILES = "/static-offline-docs/"
_PREFIXES = ("/v1/models/", "/v1/adapters/")


def is_open(path: str) -> bool:
    """Tell whether a path is answered without a key: the health check, and the documentation, in which no adapter is
    named.
    """
    return path == HEALTH or path in DOCS or path.startswith(DOCS_FILES)


def route_of(path: str) -> str:
    """Return the route of a path for metrics; unknown paths are "other", so that clients cannot invent names."""
    if path in WITH_INPUTS or path in TO_ADMINISTER or path in STATE or path in DOCS:
        return path
    if path.startswith(DOCS_FILES):
        return "/docs"
    prefix = next((one for one in _PREFIXES if path.startswith(one)), None)
    return "other" if prefix is None else f"{prefix}{{name}}"

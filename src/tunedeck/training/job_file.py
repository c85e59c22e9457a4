"""A run file that describes several jobs: what they have in common, and a list of what differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunedeck.core.errors import ConfigError
from tunedeck.core.i18n import listing, say
from tunedeck.training.config import RunConfig, override, run_config

_SHARED = ("model", "task", "dtype", "quantize", "device", "trust_remote_code")


def run_configs(values: Mapping[str, Any]) -> list[RunConfig]:
    """Return a config for each of the `jobs`, one alone where there are none; ConfigError where they are not usable."""
    common = {key: value for key, value in values.items() if key != "jobs"}
    if "jobs" not in values:
        return [run_config(common)]
    jobs = values["jobs"]
    if not isinstance(jobs, list) or not jobs or not all(isinstance(job, dict) and job.get("name") for job in jobs):
        raise ConfigError(say("jobs must be a list of groups of keys, each with a name"))
    configs = [run_config(_merged(common, job)) for job in jobs]
    names = [config.name for config in configs]
    if len(set(names)) < len(names):
        raise ConfigError(say("two jobs have the same name: {names}", names=listing(names)))
    for key in _SHARED:
        if any(getattr(config, key) != getattr(configs[0], key) for config in configs):
            raise ConfigError(say("the jobs of a run share {key}; set it once, outside jobs", key=key))
    return configs


def _merged(common: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """Return the job's keys over the common ones, those of data and training one by one."""
    flags: dict[str, Any] = {}
    for key, value in job.items():
        parts = key in ("data", "training") and isinstance(value, dict) and isinstance(common.get(key), dict)
        flags.update({f"{key}.{inner}": one for inner, one in value.items()} if parts else {key: value})
    return override(dict(common), flags)

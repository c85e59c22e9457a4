"""The environment in which other people's packages are installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fresh_environment import Environment, environment_with_plug_ins


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Tunedeck and the packages of docs/guides/plug-ins.md, installed with pip."""
    environment = environment_with_plug_ins(tmp_path_factory.mktemp("plug-ins"))
    yield environment
    environment.close()

"""No module imports itself by way of others, not even for its types."""

from __future__ import annotations

from graphlib import TopologicalSorter

import grimp


def test_there_is_no_import_circle() -> None:
    graph = grimp.build_graph("tunedeck", cache_dir=None)
    assert "tunedeck.deck.deck" in graph.modules
    order = TopologicalSorter({name: graph.find_modules_directly_imported_by(name) for name in graph.modules})
    order.prepare()  # CycleError names the circle

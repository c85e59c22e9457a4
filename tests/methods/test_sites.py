"""Sites remember which rows go through which layers while two batches take turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn
from torch.utils.hooks import RemovableHandle

from tunedeck.methods.routing import Router, Segment
from tunedeck.methods.sites import Placement, RowDispatch, SiteRegistry


@dataclass(frozen=True)
class Watched:
    seen: list[Callable[[], RowDispatch | None]]

    def install(self, model: nn.Module, dispatch: Callable[[], RowDispatch | None]) -> Sequence[RemovableHandle]:
        self.seen.append(dispatch)
        return []

    def __hash__(self) -> int:
        return id(self.seen)


def test_what_was_made_for_a_batch_lasts_while_a_prompt_is_computed_between_its_steps() -> None:
    router, seen = Router(), list[Callable[[], RowDispatch | None]]()
    sites = SiteRegistry(nn.Identity(), router)
    for name in ("de", "en"):
        sites.attach(name, {"here": Placement(Watched(seen), nn.Identity())})
    found = []
    for names in (["de", "en"], ["en"], ["de", "en"], ["en"]):
        segments = tuple(Segment(name, slice(row, row + 1)) for row, name in enumerate(names))
        with router.routed(segments):
            found.append(seen[0]())
    assert found[0] is found[2]
    assert found[1] is found[3]
    assert found[0] is not found[1]

"""The state of a race while it runs, for those who watch its folder: candidates by name, and why some have stopped."""

from __future__ import annotations

from collections.abc import Mapping

from tunedeck.comparison.race.contest import Contest
from tunedeck.comparison.race.entrants import Entrant
from tunedeck.comparison.race.scores import Scoring
from tunedeck.comparison.race.spec import RaceSpec
from tunedeck.comparison.race.words import reason_text
from tunedeck.core.storage import write_json

FILE = "standing.json"


def write_standing(spec: RaceSpec, contest: Contest, entrants: Mapping[str, Entrant], scoring: Scoring) -> None:
    """Write the standing into the race's folder; StorageError when the disk refuses.

    `key` is a candidate's name in the log, `status` the reason why it went no further, "" while it is in the race.
    """
    candidates = []
    for name, one in entrants.items():
        stop = contest.stopped.get(name)
        text = "" if stop is None else reason_text(name, stop, contest.ladder.shares)
        status = "" if stop is None else stop.reason
        candidates.append(
            {"name": name, "key": one.key, "folder": one.folder.name, "size": one.size, "status": status, "text": text}
        )
    price = None if spec.price is None else {"per_hour": spec.price.per_hour, "currency": spec.price.currency}
    standing = {"metric": scoring.metric, "lower_is_better": scoring.lower_is_better, "limit_s": spec.limit_s}
    write_json(spec.folder / FILE, {"format": 1, **standing, "price": price, "candidates": candidates})

"""`td.race`: what is trained, measured, kept and refused."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import embedding_decks, labelled_words, tagged_words, tiny_models

import tunedeck as td
from tunedeck.comparison.race.log import FILE
from tunedeck.comparison.race.rung_trainer import RungTrainer
from tunedeck.comparison.report.values import Interval
from tunedeck.comparison.runs import Interrupted
from tunedeck.core.errors import ConfigError, DataError
from tunedeck.training.stages import StagedRun

CANDIDATES = "lora:r=2,4:learning_rate=1e-4,3e-2;ia3"


def race(words: Path, folder: Path, **more: Any) -> td.Race:
    """A race of classifiers in a few steps."""
    training = {"max_steps": 27, "batch_size": 8, **more.pop("training", {})}
    run = {"model": tiny_models.folder_of("bert", "classifier"), "data": {"train": str(words)}, "dtype": "float32"}
    return td.race(run, **{"training": training, "out": folder, "candidates": CANDIDATES, "progress": False, **more})


def read_log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a race's log: its setup, then its answers."""
    return [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float]]:
    """What is trained: the candidate's folder and the share of its run."""
    trained: list[tuple[str, float]] = []
    plain = StagedRun.train_to

    def train_to(self: StagedRun, share: float, signals: Any) -> Any:
        trained.append((self._folder.name, share))
        return plain(self, share, signals)

    monkeypatch.setattr(StagedRun, "train_to", train_to)
    return trained


@pytest.mark.figures
def test_a_race_trains_its_winner_measures_it_on_untouched_examples_and_reports(words: Path, tmp_path: Path) -> None:
    found = race(words, tmp_path / "r", price_per_hour=7.2, progress=True)
    kept = json.loads((tmp_path / "r" / "race.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(found.to_json())) == kept
    assert [one["name"] for one in kept["candidates"]] == [one.name for one in found.candidates]
    assert (kept["data"]["train"], kept["data"]["held_out"], kept["untouched"]) == (90, 18, 12)
    assert {one.status for one in found.candidates} <= {"winner", "worse", "paused", "not best"}
    for one in found.candidates:
        assert [round(1 / point.share) for point in one.points] == [27, 9, 3, 1][: len(one.points)]
        assert one.cost == pytest.approx(one.seconds * 7.2 / 3600)
    verdict = found.verdict
    overstated = (verdict.overstated.low + verdict.overstated.high) / 2
    assert overstated == pytest.approx(verdict.raced - verdict.untouched)
    assert (
        f"overstates it by {overstated:+.3f}" if overstated >= 0 else "the choice did not overstate it"
    ) in found.text
    assert verdict.floor is not None
    behind = replace(found, verdict=replace(verdict, gain=Interval(-0.03, 0.01, "examples", 12), floor=0.9))
    assert "no worse (0.900; the difference is -0.010 (-0.030 to +0.010))" in behind.text
    assert verdict.interval.high <= 1
    assert all("chances" in line for line in read_log(tmp_path / "r")[1:])
    name = found.winner.name if found.winner else "head only"
    assert name == verdict.name
    deck = td.Deck.open(tmp_path / "r" / "adapter", dtype="float32")
    assert deck.adapter("r").manifest.metrics == pytest.approx(verdict.metrics)
    assert deck.adapter("r").manifest.confidence is not None
    assert verdict.metrics["accuracy"] == pytest.approx(verdict.untouched)
    page = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert all(one.name in page for one in found.candidates)
    assert (tmp_path / "r" / "figures" / "race.svg").stat().st_size > 1000
    assert found.table().count("\n") == 5
    standing = json.loads((tmp_path / "r" / "standing.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in standing["candidates"]] == [one.name for one in found.candidates]
    told = {one["key"] for one in standing["candidates"]}
    assert {line["name"] for line in read_log(tmp_path / "r")[1:]} <= told
    stopped = {one.name: one.text for one in found.candidates if one.status not in ("winner", "not best")}
    assert {one["name"]: one["text"] for one in standing["candidates"] if one["name"] in stopped} == stopped


def test_a_race_that_is_broken_off_goes_on_and_comes_to_the_same_end(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stages: list[tuple[str, float]]
) -> None:
    whole = race(words, tmp_path / "whole")
    every = list(stages)
    stages.clear()
    plain, asked = RungTrainer.check, [0]

    def check(self: RungTrainer) -> None:
        asked[0] += 1
        if asked[0] == 10:  # before the evaluation of the fifth stage
            raise Interrupted(signal.SIGINT)
        plain(self)

    with monkeypatch.context() as patch:
        patch.setattr(RungTrainer, "check", check)
        with pytest.raises(KeyboardInterrupt):
            race(words, tmp_path / "r")
    assert len(stages) == 5
    with (tmp_path / "r" / FILE).open("a", encoding="utf-8") as file:
        file.write('{"name": "lora')  # what a process that is killed leaves
    stages.clear()
    again = race(words, tmp_path / "r")
    assert stages == every[4:]
    assert [(one.name, one.status, [p.quality for p in one.points]) for one in again.candidates] == [
        (one.name, one.status, [p.quality for p in one.points]) for one in whole.candidates
    ]
    assert again.verdict.metrics == whole.verdict.metrics
    stages.clear()
    assert race(words, tmp_path / "r").verdict.untouched == whole.verdict.untouched
    assert stages == []


def test_what_was_set_aside_is_taken_up_where_it_stopped_and_candidates_can_be_added(
    words: Path, tmp_path: Path, stages: list[tuple[str, float]]
) -> None:
    few = "lora:r=2,4,8:learning_rate=1e-2"
    first = race(words, tmp_path / "r", candidates=few)
    assert sum(one.status == "paused" for one in first.candidates) == 1
    aside = next(one for one in first.candidates if one.status == "paused")
    stages.clear()
    again = race(words, tmp_path / "r", candidates=few, until="clear")
    assert not any(one.status == "paused" for one in again.candidates)
    assert aside.name.replace(" ", "-") in {name for name, _ in stages} or again.ended == "clear"
    assert all(share > 1 / 27 for _, share in stages)
    stages.clear()
    more = race(words, tmp_path / "r", candidates=few + ";ia3")
    assert [one.name for one in more.candidates][-1] == "ia3"
    assert ("ia3", 1 / 27) in stages


def test_the_better_of_two_bases_is_taken(tmp_path: Path) -> None:
    words = labelled_words.write_csv(tmp_path / "w.csv", labelled_words.rows(120, seed=5))
    bases = [tiny_models.folder_of("bert", "classifier", seed) for seed in (0, 1)]
    found = race(words, tmp_path / "r", bases=bases, candidates="lora:r=2", training={"max_steps": 3})
    assert {one.base for one in found.bases} == set(bases)
    best = max(found.bases, key=lambda one: one.quality or 0)
    assert found.model == best.base
    assert [one.base for one in found.bases if one.chosen] == [best.base]


def test_uneven_labels_are_raced_by_the_mean_recall_of_the_labels(tmp_path: Path) -> None:
    rows = labelled_words.rows(400)
    uneven = [row for number, row in enumerate(rows) if row[1] != "red" or number < 30]
    words = labelled_words.write_csv(tmp_path / "w.csv", uneven)
    assert sum(label == "red" for _, label in uneven) * 10 < len(uneven)
    found = race(words, tmp_path / "r", candidates="lora:r=2", training={"max_steps": 3})
    assert found.metric == "macro_recall"
    assert 0 <= found.verdict.untouched <= 1


def test_entities_are_raced_by_f1(tmp_path: Path) -> None:
    words = tagged_words.write_jsonl(tmp_path / "tags.jsonl", tagged_words.texts(120))
    model = tiny_models.folder_of("bert", "unpooled")
    found = race(words, tmp_path / "r", model=model, task="tag", candidates="lora:r=2", training={"max_steps": 9})
    assert found.metric == "f1"
    assert found.verdict.metrics["f1"] == pytest.approx(found.verdict.untouched)


def test_generation_is_raced_by_its_loss_and_has_no_floor(tmp_path: Path) -> None:
    rows = [{"prompt": f"w{10 + n % 7} w{40 + n}", "completion": f"w{10 + n % 7}"} for n in range(60)]
    chats = embedding_decks.write_jsonl(tmp_path / "chats.jsonl", rows)
    tokenizer = tiny_models.tiny_tokenizer("llama")
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(tmp_path / "model")
    tiny_models.tiny_model("llama", "causal").save_pretrained(tmp_path / "model")
    run = {"model": str(tmp_path / "model"), "data": {"train": str(chats)}, "task": "generate", "dtype": "float32"}
    found = td.race(run, candidates="lora:learning_rate=1e-5,3e-2", training={"max_steps": 9}, out=tmp_path / "r")
    assert (found.metric, found.higher_is_better, found.verdict.floor) == ("loss", False, None)
    assert found.verdict.name == "lora learning_rate=0.03"
    assert found.verdict.metrics["loss"] == pytest.approx(found.verdict.untouched)
    assert found.verdict.interval.low < found.verdict.untouched < found.verdict.interval.high
    with pytest.raises(ConfigError, match="--bases compares heads on frozen vectors, which the task generate"):
        td.race(run, bases="a,b", candidates="lora", out=tmp_path / "b")


def test_a_candidate_whose_loss_is_no_number_fails_alone(words: Path, tmp_path: Path) -> None:
    found = race(words, tmp_path / "r", candidates="lora:learning_rate=1e-2,1e30", training={"max_grad_norm": None})
    failed = next(one for one in found.candidates if one.name.endswith("1e+30"))
    assert failed.status == "failed"
    assert "failed before" in failed.text


def test_a_limit_leaves_out_candidates_and_still_ends_with_an_adapter(words: Path, tmp_path: Path) -> None:
    found = race(words, tmp_path / "r", minutes=1e-6)
    assert [one.status for one in found.candidates].count("not started") == 4
    assert found.adapter_folder.is_dir()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"until": "soon"}, "until must be one of stable, clear, got 'soon'"),
        ({"minutes": 0}, "minutes must be above 0, got 0"),
        ({"minutes": 1, "budget": 1}, "give either --minutes or --budget, not both"),
        ({"budget": 1}, "--budget needs to know what an hour costs"),
        ({"bases": " , "}, "--bases takes names of base models"),
        ({"seeds": "x"}, "seeds takes how many"),
        ({"candidates": "lorra"}, "'lorra' is not a method.*lora"),
        ({"candidates": "lora:r=0"}, "lora: .*r must be 1 or more"),
        ({"candidates": "full:layers=9"}, "full: .*layers"),
        ({"candidates": ";"}, "';' is not a method|is not a method"),
        ({"training": {"max_minutes": 3}}, "training.max_minutes has no effect in a race"),
        ({"training": {"metric_for_best_model": "micro_f1"}}, "does not allow; choose another metric"),
    ],
)
def test_bad_input_is_refused_with_what_to_do(words: Path, tmp_path: Path, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        race(words, tmp_path / "r", **more)


def test_too_few_examples_and_another_race_in_the_folder_are_refused(words: Path, tmp_path: Path) -> None:
    few = labelled_words.write_csv(tmp_path / "few.csv", labelled_words.rows(40))
    with pytest.raises(DataError, match="36 training examples are too few for a race"):
        race(few, tmp_path / "few")
    race(words, tmp_path / "r", candidates="lora:r=2", training={"max_steps": 2})
    with pytest.raises(ConfigError, match=r"holds a race with other settings \(training\)"):
        race(words, tmp_path / "r", candidates="lora:r=2", training={"max_steps": 3})
    race(words, tmp_path / "r", candidates="lora:r=2", training={"max_steps": 3}, overwrite=True)

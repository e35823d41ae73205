"""``threearc settle`` of an Arc 2 run: words in looks, two kinds of items, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcs.arc2.config import resolve
from arcs.arc2.effects import _interval
from arcs.arc2.rules import Word
from arcs.arc2.selection import Point
from arcs.progress import Reporter
from arcs.settling import pipeline, report
from arcs.settling.damped_items import QUESTIONS, kinds, named, source_of
from arcs.settling.damped_run import said_beside, why_not_settled
from arcs.settling.pipeline import Asked
from arcs.settling.plan import Plan, make
from arcs.settling.subject import OWN, Piece
from evals.statistics.bootstrap import student_interval
from models.errors import UserError
from tests.support.damping_bench import GATES, METER, Model, Sweeps, swept


@pytest.fixture(autouse=True, scope="module")
def _few_sign_flips() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("arcs.arc2.effects.PERMUTATIONS", 999)
        yield


def chance(number: int, *more: int) -> float:
    return float(np.random.default_rng([number, *more]).random())


def of_the_wrong(number: int, at: Point) -> bool:
    """Damping the chosen heads hedges some wrong answers, more of them the more it damps."""
    share = {"top-0.5": 0.3, "top-0": 0.6}.get(at.name, 0.0)
    return number % 4 > 1 and chance(number) < share


def settled(subject: Sweeps, most: int | None = None) -> tuple[Plan, dict[str, Any]]:
    plan = make(subject, subject.all_pools(), most)
    with pipeline.begin(subject, plan, Asked(most, ())) as directory:
        found = pipeline.settle(subject, plan, directory, Reporter(quiet=True))
    return plan, found


# What is decided ----------------------------------------------------------------------------------


def test_a_move_that_was_shown_is_supported_once_enough_right_answers_stay_as_they_are(
    tmp_path: Path,
) -> None:
    """Of 60 answers 30 are right: too few to exclude that those are hedged as well."""
    subject = swept(tmp_path / "run", Model(of_the_wrong), {OWN: {QUESTIONS: 300}}, n=60)
    assert subject.claims[0].one_of_several == "the change of accuracy at top-0"
    plan, found = settled(subject, 200)
    claim = found["claims"]["damping"]
    assert claim["first"]["verdict"] == "INCONCLUSIVE"
    assert claim["verdict"] == "SUPPORTED" and claim["reasons"] == ["clean positive"]
    assert 60 < claim["n_items"] < 260 and claim["missing"] is None
    assert [one["verdict"] for one in claim["looks"][:-1]] == ["INCONCLUSIVE"] * (
        len(claim["looks"]) - 1)  # fmt: skip
    # each of the two lambdas has half of alpha, and the level of its look
    assert plan.claims[0].alpha == 0.025 and claim["looks"][-1]["alpha_spent"] <= 0.025
    said = "\n".join(report.planned(subject, plan))
    assert "alpha 0.025 (a share of 2 lambdas)" in said
    assert "the claim asks for more than that" in said
    assert "damping: SUPPORTED (clean positive)" in "\n".join(report.settled(found))


def test_heads_that_do_nothing_are_refuted_by_the_words_that_say_so(tmp_path: Path) -> None:
    subject = swept(tmp_path / "run", Model(), {OWN: {QUESTIONS: 400}}, n=20)
    assert subject.claims[0].one_of_several == "the change of hedged at top-0"
    plan, found = settled(subject)
    claim = found["claims"]["damping"]
    assert claim["verdict"] == "REFUTED"
    assert claim["reasons"] == [Word.FROZEN.value, Word.LIKE_RANDOM_HEADS.value]
    assert claim["n_items"] < plan.claims[0].schedule.sizes[-1] + 1
    assert claim["interval"]["high"] < 0.1 and claim["interval"]["level"] == pytest.approx(
        1 - claim["gate"]["level"])  # fmt: skip


def test_a_ranking_that_told_no_head_apart_is_not_made_again(tmp_path: Path) -> None:
    """What would be SUPPORTED stays open, and is said to before anything is run."""
    apart = {"separable": False, "too_small": None, "largest_separation": None}
    subject = swept(tmp_path / "run", Model(of_the_wrong), {OWN: {QUESTIONS: 100}}, n=60,
                    separated=apart)  # fmt: skip
    beside = dict(said_beside(subject.manifest, subject.metrics))
    assert "can refute the claim and not support it" in beside[Word.NO_SEPARABLE_AXIS.value]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("arcs.settling.plan.LOOKS", 1)
        _, found = settled(subject, 100)
    claim = found["claims"]["damping"]
    assert claim["verdict"] == "INCONCLUSIVE" and claim["n_items"] == 160
    assert "Not shown: no separable axis excluded" in claim["explanation"]


def test_answers_that_lose_what_was_right_refute_it_over_two_sources(tmp_path: Path) -> None:
    """Sources that differ in how far they fall: each falls, and no interval need hold zero."""

    def right(number: int, at: Point) -> bool:
        kept = at.name != "top-0" or chance(number, 7) > (0.25 if number < 1100 else 0.5)
        return kept and number % 4 != 3

    subject = swept(tmp_path / "run", Model(of_the_wrong, right),
                    {OWN: {QUESTIONS: 10}, "/more": {QUESTIONS: 290}}, n=12)  # fmt: skip
    _, found = settled(subject, 300)
    claim = found["claims"]["damping"]
    assert len(claim["looks"][-1]["sources"]) == 2
    assert claim["verdict"] == "REFUTED" and Word.CONTENT_DAMAGE.value in claim["reasons"]


# Two kinds of items -------------------------------------------------------------------------------


def shifts(number: int, at: Point) -> float:
    """Of the meter: up by what matters under damping, by more or less."""
    moved = {"top-0.5": 0.06, "top-0": 0.12}.get(at.name, 0.0)
    return chance(number, 1) + moved * (1 + 2 * (chance(number, 2) - 0.5)) + (
        0.3 * (chance(number, 3, len(at.name)) - 0.5) if at.name != "base" else 0.0)  # fmt: skip


def two_kinds(path: Path) -> Sweeps:
    return swept(path / "run", Model(contrast=shifts),
                 {OWN: {METER: 97}, "short_answers": {QUESTIONS: 400}}, n=60, meter=12)  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweeps, Plan, dict[str, Any]]:
    subject = two_kinds(tmp_path_factory.mktemp("both"))
    return subject, *settled(subject, 60)


def test_answers_come_along_with_meter_items_and_no_faster(
    both: tuple[Sweeps, Plan, dict[str, Any]],
) -> None:
    subject, plan, found = both
    claim = found["claims"]["damping"]
    assert plan.claims[0].claim.groups == (METER, QUESTIONS)
    assert plan.claims[0].schedule.sizes == (12, 27, 42, 57, 72)
    opened = [{group: portion.groups.count(group) for portion in look for group in portion.groups}
              for look in plan.looks]  # fmt: skip
    assert opened == [{METER: 15, QUESTIONS: 75}] * 4  # as 60 to 12
    said = "\n".join(report.planned(subject, plan))
    assert "60 new items (and 300 questions beside them) in 4 looks at most, about 2 min" in said
    assert claim["verdict"] == "SUPPORTED", claim["explanation"]
    last = claim["looks"][-1]
    pieces = [Piece(OWN, subject.run, first=True)]
    for number in range(2, len(claim["looks"]) + 1):
        pieces += [Piece(OWN, subject.run / f"settle/look-{number}/1-{METER}", group=METER),
                   Piece("short_answers", subject.run / f"settle/look-{number}/2-{QUESTIONS}",
                         group=QUESTIONS)]  # fmt: skip
    values = [value for piece in pieces for value in subject.values(subject.claims[0], piece)]
    assert last["n_items"] == len(values) and last["delta"] == pytest.approx(np.mean(values))
    assert [one["source"] for one in last["sources"]] == [OWN]  # answers are no source of it
    # and the answers of all looks were judged with them
    without = [piece for piece in pieces if piece.group != QUESTIONS]
    seen = subject.judge(subject.claims[0], without, GATES)
    assert seen.verdict.value == "INCONCLUSIVE" and "over-hedging excluded" in seen.sentence


def test_answers_that_come_to_be_right_too_rarely_leave_it_open(tmp_path: Path) -> None:
    """Then nothing is counted any more, and no loss could be seen."""

    def right(number: int, at: Point) -> bool:
        return number < 60 and number % 4 < 2

    subject = swept(tmp_path / "run", Model(of_the_wrong, right), {OWN: {QUESTIONS: 400}}, n=60)
    assert subject.claims[0].one_of_several == "the change of accuracy at top-0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("arcs.settling.plan.LOOKS", 1)
        _, found = settled(subject, 400)
    claim = found["claims"]["damping"]
    assert claim["verdict"] == "INCONCLUSIVE" and claim["interval"] is None
    assert "The change of accuracy" not in claim["explanation"]


def test_a_kill_changes_nothing(both: tuple[Sweeps, Plan, dict[str, Any]], tmp_path: Path) -> None:
    again = two_kinds(tmp_path)
    again.dies_in.append("look-3")
    with pytest.raises(KeyboardInterrupt):
        settled(again, 60)
    again.dies_in.clear()
    settled(again, 60)
    for name in ("plan.json", "looks.jsonl"):
        one, other = ((s.run / "settle" / name).read_bytes() for s in (both[0], again))
        assert one == other


def test_no_quantile_is_taken_where_no_resample_lies() -> None:
    values = np.random.default_rng(0).normal(size=40)
    far, near = (_interval(values, level, is_rate=False) for level in (1 - 1e-4, 0.95))
    assert far == student_interval(values, 1 - 1e-4)
    assert near != student_interval(values, 0.95) and far.low < near.low < near.high < far.high


# Which items, and what is refused -----------------------------------------------------------------


def test_a_file_s_first_record_says_what_it_adds_to(tmp_path: Path) -> None:
    meter, asked = tmp_path / "meter.jsonl", tmp_path / "asked.jsonl"
    meter.write_text(json.dumps({"id": "a", "axis": "hedging"}) + "\n")
    asked.write_text("\n" + json.dumps({"id": "a", "prompt": "?"}) + "\n")
    config, groups = resolve({}), (QUESTIONS, "hedging")
    assert named(str(meter), config, groups) == (str(meter), "hedging")
    assert named(str(asked), config, groups) == (str(asked), QUESTIONS)
    assert named("recall", config, groups) == ("recall", QUESTIONS)
    assert named(str(meter), config, (QUESTIONS,)) == (str(meter), QUESTIONS)
    code = resolve({"labels": "execution"})
    assert named("humaneval", code, (QUESTIONS,)) == ("humaneval", QUESTIONS)
    for name, of, message in (
        ("small", code, "that is the run's own set"), ("recall", code, "no such file"),
        ("humaneval", config, "no such file"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=message):
            named(name, of, groups)
    with pytest.raises(UserError, match=r"asked\.jsonl, line 2"):
        source_of(str(asked), config, QUESTIONS)
    assert "meter items" in kinds(config, groups) and "recall, generated" in kinds(config, groups)


@pytest.mark.parametrize(
    ("labels", "disposition", "title", "n"),
    [("exact-match", "humble", "short_answers", 320), ("execution", "humble", "small tasks", 100),
     ("execution", "self-improving", "recovery", 60),
     ("judge:lexical", "humble", "chef_train", 141)],
)  # fmt: skip
def test_the_set_of_each_kind_of_labels_is_known(
    labels: str, disposition: str, title: str, n: int
) -> None:
    found = source_of(OWN, resolve({"labels": labels, "disposition": disposition}), QUESTIONS)
    assert found.title == title and len(found.asked) >= n


def run_of(path: Path, metrics: Mapping[str, Any], **config: Any) -> Path:
    path.mkdir()
    made = resolve({"profile": "quick", **config}).model_dump(mode="json")
    (path / "manifest.json").write_text(
        json.dumps({"arc": "arc2", "backend": "torch", "config": made}))  # fmt: skip
    (path / "metrics.json").write_text(json.dumps(metrics))
    return path


def test_what_cannot_be_pooled_is_one_line(tmp_path: Path) -> None:
    subject = swept(tmp_path / "open", Model(), {}, n=20)
    same = {**subject.metrics, "evidence": {**subject.metrics["evidence"], "chosen_on_same": 48}}
    judged = {"labels": "judge:gguf"}
    for place, (metrics, config, message) in enumerate((
        (same, {}, "heads were chosen on the 48 prompts that it swept.*: threearc arc2 --profile "
         "quick --limit 192"),
        (subject.metrics, judged, "labels are a judge's .judge:gguf:.*does not ask again"),
        (same, {"profile": "standard"}, "asked all of its set"),
    )):  # fmt: skip
        with pytest.raises(UserError, match=message) as caught:
            pipeline.subject_of(run_of(tmp_path / f"{place}", metrics, **config))
        assert "\n" not in str(caught.value)


def test_claims_that_items_do_not_decide_are_one_line(tmp_path: Path) -> None:
    subject = swept(tmp_path / "open", Model(), {}, n=20)

    def of(verdict: str, *reasons: str, axis: bool = True) -> str | None:
        claim = {**subject.metrics["claim"], "verdict": verdict, "reasons": reasons}
        stored = {**subject.metrics["evidence"], **({} if axis else {"axis": []})}
        return why_not_settled({**subject.metrics, "claim": claim, "evidence": stored})

    assert of("INCONCLUSIVE", "open") is None
    assert of("REFUTED", "frozen") == "REFUTED (frozen): nothing to settle"
    assert "do not mend an instrument" in str(of("INVALID", "truncated: x"))
    assert "no axis was measured" in str(of("INCONCLUSIVE", "open", axis=False))
    done = {**subject.metrics, "claim": {**subject.metrics["claim"], "verdict": "SUPPORTED",
                                         "reasons": ["clean positive"]}}  # fmt: skip
    found = pipeline.subject_of(run_of(tmp_path / "done", done))
    assert found.claims == () and "nothing to settle" in dict(found.others)["damping"]

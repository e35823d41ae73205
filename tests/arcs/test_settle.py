"""``threearc settle``: the plan, the looks, what they decide, and going on after a kill."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcs.claims import ReasonCode, Verdict
from arcs.gates import load_gates
from arcs.measure.config import parse
from arcs.progress import Reporter
from arcs.settling import pipeline, report
from arcs.settling.looks import look, stratified
from arcs.settling.measured import differences, judged, with_labels
from arcs.settling.opened import why_not
from arcs.settling.pipeline import Asked
from arcs.settling.plan import Plan, make
from arcs.settling.subject import OWN, OpenClaim, Piece, Seen
from arcs.settling.unused import COPY, LIKE_USED, USED, Source, in_hash_order, pools
from evals.meter import MeterReading
from evals.statistics import tango_interval
from models.errors import UserError
from tests.support.settle_bench import Draw, Scripted

NO_FLAGS = Asked(None, ())


def drawn(gain: float, loss: float, seed: int = 0) -> Draw:
    """Items whose differences have these rates, each item the same however often it is asked."""

    def one(source: str, number: int) -> int:
        u = np.random.default_rng([seed, number, len(source)]).random()
        return 1 if u < gain else -1 if u > 1 - loss else 0

    return one


def settled(subject: Scripted, most: int | None = None) -> tuple[Plan, dict[str, Any]]:
    plan = make(subject, subject.all_pools(), most)
    asked = Asked(most, ())
    with pipeline.begin(subject, plan, asked) as directory:
        found = pipeline.settle(subject, plan, directory, Reporter(quiet=True))
    return plan, found


# What is decided --------------------------------------------------------------------------


def test_a_large_effect_is_shown_and_no_further_item_is_opened(tmp_path: Path) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.3, 0.02), 30, {OWN: 400})
    _, found = settled(subject, 400)
    claim = found["claims"]["edit"]
    assert claim["verdict"] == "SUPPORTED" and claim["reasons"] == ["effect_shown"]
    assert claim["delta"] > 0.1 and claim["interval"]["low"] > 0
    assert len(claim["looks"]) < claim["looks_planned"] == 5
    assert subject.opened == [f"look-{k}" for k in range(2, len(claim["looks"]) + 1)]
    assert claim["looks"][-1]["p_value"] < claim["looks"][-1]["level"] < 0.05
    assert "further items are not needed" in claim["explanation"] and claim["missing"] is None


def test_no_effect_is_excluded_as_often_as_the_plan_says(tmp_path: Path) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.05, 0.05), 60, {OWN: 2000})
    plan, found = settled(subject)
    (one,) = plan.claims
    assert one.needs.to_exclude is not None and one.needs.to_show is None
    # the number of items depends on how many differ, not on which way
    assert 60 < one.needs.to_exclude <= one.schedule.sizes[-1] < 2060
    assert one.no_effect.power == pytest.approx(0.8, abs=0.06)
    claim = found["claims"]["edit"]
    assert claim["verdict"] == "REFUTED" and claim["interval"]["high"] < 0.05


def test_where_items_run_out_it_says_how_many_are_missing(tmp_path: Path) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.1, 0.1), 40, {OWN: 60})
    plan, found = settled(subject)
    claim = found["claims"]["edit"]
    assert claim["verdict"] == "INCONCLUSIVE" and claim["n_items"] == 100
    assert claim["missing"]["to_exclude"] > 300 and claim["unused_beyond_plan"] == 0
    said = "\n".join(report.settled(found))
    assert f"{claim['missing']['to_exclude']:,} more would exclude one that matters" in said
    assert "no items are left" in said
    lines = "\n".join(report.planned(subject, plan))
    assert f"edit {plan.missing(plan.claims[0]):,} items" in lines
    assert "60 new items in 4 looks at most, about 2 min on this machine" in lines
    assert claim["looks"][-1]["alpha_spent"] == pytest.approx(0.05)


def test_without_unused_items_there_is_no_look(tmp_path: Path) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.1, 0.1), 40, {OWN: 0})
    plan = make(subject, subject.all_pools(), None)
    assert plan.looks == () and plan.claims[0].schedule.sizes == (40,)
    assert "No item is left to look at" in "\n".join(report.planned(subject, plan))


def test_a_difference_between_sources_is_not_taken_for_noise_or_effect(tmp_path: Path) -> None:
    """Gains in one source, losses in the other: the mean is small, and each is told apart."""

    def draw(source: str, number: int) -> int:
        sign = 1 if source == OWN else -1
        return sign if number % 20 == 0 else 0

    subject = Scripted(tmp_path / "run", draw, 100, {OWN: 0, "other": 300})
    _, found = settled(subject, 300)
    last = found["claims"]["edit"]["looks"][-1]
    own, other = last["sources"]
    assert (own["source"], other["source"]) == (OWN, "other")
    assert own["delta"] == 0.05 == -other["delta"] and last["delta"] == -0.025
    assert last["stratified_interval"]["low"] < -0.025 < last["stratified_interval"]["high"]
    said = "\n".join(report.settled(found))
    assert "other: -0.050" in said and "own: +0.050" in said and "in strata: [" in said


def test_strata_of_one_mean_are_as_wide_as_the_pool() -> None:
    whole = tango_interval(30, 18, 600)
    halves = [(300, 6 / 300 * 1.0, tango_interval(15, 9, 300))] * 2
    found = stratified(halves)
    assert (found.low, found.high) == pytest.approx((whole.low, whole.high), abs=1e-3)
    assert found.level == whole.level


def test_a_p_below_alpha_is_not_enough_at_an_early_look(tmp_path: Path) -> None:
    """Twelve gained and two lost: p = 0.013, and early looks ask for far less."""
    early = {**dict.fromkeys(range(1000, 1012), 1), 1012: -1, 1013: -1}
    subject = Scripted(tmp_path / "run", lambda _, n: early.get(n, 0), 30, {OWN: 120})
    _, found = settled(subject, 120)
    looks = found["claims"]["edit"]["looks"]
    assert looks[1]["p_value"] == pytest.approx(0.01294, abs=1e-5) and looks[1]["delta"] > 0.15
    assert looks[1]["level"] < 0.001 and looks[1]["verdict"] == "INCONCLUSIVE"
    # the interval is at that level too: it holds 0 where the usual one would not
    assert looks[1]["interval"]["low"] < 0 < tango_interval(12, 2, 60).low
    assert [look["verdict"] for look in looks[-2:]] == ["INCONCLUSIVE", "SUPPORTED"]


@pytest.mark.slow
def test_false_effects_over_all_looks_stay_below_alpha(tmp_path: Path) -> None:
    """The rule on edits that do nothing: no more than 0.05 come out SUPPORTED at some look."""
    shown, runs = 0, 150
    for seed in range(runs):
        subject = Scripted(tmp_path / str(seed), drawn(0.25, 0.25, seed), 20, {OWN: 80})
        plan = plan if seed else make(subject, subject.all_pools(), 80)  # noqa: F821
        by_look = [[Piece(OWN, subject.run, first=True)]]
        for number, (portion,) in enumerate(plan.looks):
            path = tmp_path / str(seed) / f"{number}" / "1"
            subject.go_on(plan.pools[0], portion.ids, (), path, Reporter(quiet=True))
            by_look.append([Piece(OWN, path)])
            made = look(subject, plan.claims[0], by_look)
            if made.decided:
                shown += made.seen.verdict is Verdict.SUPPORTED
                break
    # binomial: of 150, 0.05 gives 15 or more with probability 0.009
    assert shown <= 14


# Going on ----------------------------------------------------------------------------------


def test_a_killed_settle_ends_in_the_same_bytes(tmp_path: Path) -> None:
    whole = Scripted(tmp_path / "a" / "run", drawn(0.1, 0.1), 40, {OWN: 60, "more": 20})
    settled(whole)
    again = Scripted(tmp_path / "b" / "run", drawn(0.1, 0.1), 40, {OWN: 60, "more": 20})
    for folder in ("look-2", "look-4"):
        again.dies_in = folder
        with pytest.raises(KeyboardInterrupt):
            settled(again)
    lines = again.run / "settle" / "looks.jsonl"
    lines.write_bytes(lines.read_bytes() + b'{"look": 4, "cl')  # torn by the kill
    again.dies_in = None
    settled(again)
    for name in ("plan.json", "looks.jsonl"):
        assert (again.run / "settle" / name).read_bytes() == (
            whole.run / "settle" / name
        ).read_bytes()
    one, other = (json.loads((s.run / "settle" / "metrics.json").read_text())
                  for s in (whole, again))  # fmt: skip
    assert one["claims"] == other["claims"] and one["plan_sha256"] == other["plan_sha256"]
    before = list(again.opened)
    settled(again)  # finished: nothing is opened again
    assert again.opened == before


def test_a_plan_is_not_changed_once_it_is_made(tmp_path: Path) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.1, 0.1), 40, {OWN: 60})
    settled(subject, 16)
    with pytest.raises(UserError, match="planned with --max-items 16 and --data -, and a plan"):
        settled(subject, 60)
    assert pipeline.asked_before(subject.run, NO_FLAGS) == Asked(16, ())
    path = subject.run / "settle" / "plan.json"
    path.write_text(path.read_text().replace('"0.05', '"0.06').replace("1000", "1001", 1))
    with pytest.raises(UserError, match="it was changed, and its hash says so"):
        settled(subject, 16)
    (subject.run / "metrics.json").write_text('{"claim": "another"}')
    with pytest.raises(UserError, match="its plan is of another state"):
        settled(subject, 16)


def test_a_plan_of_which_no_item_was_opened_gives_way(tmp_path: Path) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.1, 0.1), 40, {OWN: 60})
    subject.dies_in = "look-2"
    with pytest.raises(KeyboardInterrupt):
        settled(subject, 16)
    subject.dies_in = None
    plan, found = settled(subject, 60)
    assert plan.claims[0].schedule.sizes[-1] == 100 == found["claims"]["edit"]["n_items"]
    with pipeline.RunDirectory.resume(subject.run / "settle") as directory:
        assert not pipeline.discard_unopened(directory)
    assert (subject.run / "settle" / "metrics.json").exists()


def test_other_items_than_planned_are_refused(tmp_path: Path) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.1, 0.1), 40, {OWN: 60})
    settled(subject)
    subject.unused = {OWN: 59}
    with pytest.raises(UserError, match="no longer those that were planned"):
        settled(subject)


def test_a_look_that_comes_to_something_else_is_refused(tmp_path: Path) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.1, 0.1), 40, {OWN: 60})
    settled(subject)
    (subject.run / "settle" / "metrics.json").unlink()
    values = subject.run / "settle" / "look-3" / "1" / "values.json"
    values.write_text(json.dumps([1.0] * len(json.loads(values.read_text()))))
    with pytest.raises(UserError, match="look 3 comes to something else than before"):
        settled(subject)


# Which claims and which items --------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "reasons", "why"),
    [
        ("INCONCLUSIVE", ["underpowered"], None),
        ("SUPPORTED", ["effect_shown"], "SUPPORTED (effect shown): nothing to settle"),
        ("REFUTED", ["effect_excluded"], "REFUTED (effect excluded): nothing to settle"),
        ("INVALID", ["truncated"], "INVALID (truncated): more items do not mend an instrument"),
        ("INCONCLUSIVE", ["floor"], "more items do not help at the floor"),
        ("INCONCLUSIVE", ["unfinished_answers"], "the rest of the answers"),
        ("INCONCLUSIVE", ["finish_reasons_unknown", "underpowered"], "not items alone"),
    ],
)
def test_only_what_too_few_items_left_open_is_settled(
    verdict: str, reasons: list[str], why: str | None
) -> None:
    found = why_not({"verdict": verdict, "reasons": reasons})
    assert found is None if why is None else found is not None and why in found


def source(name: str, items: dict[str, str]) -> Source:
    return Source(name, name, "sha", {k: (v,) for k, v in items.items()}, dict.fromkeys(items, ""))


def test_items_that_were_asked_in_other_words_are_not_new() -> None:
    own = source(
        OWN, {f"q{i}": f"Question number {i}: what is {i} times {i + 7}?" for i in range(4)}
    )
    more = source("file", {
        "same": "question  number 0: what is 0 times 7?",
        "near": "Question number 1: what is 1 times 8 ?!",
        "new": "Who wrote the third symphony in E flat major, and when was it first heard?",
    })  # fmt: skip
    again = source("again", {"again": more.asked["new"][0]})
    found = pools(own, ["q0", "q1"], [more, again], [], lambda _: None)
    assert found[0].items[""] == ("q2", "q3") and found[0].left_out == {USED: 2}
    assert found[1].items[""] == ("new",) and found[1].left_out == {USED: 1, LIKE_USED: 1}
    assert found[2].count("") == 0


def test_copies_inside_a_file_are_one_item_and_a_shipped_set_has_none() -> None:
    own = source(OWN, {"q": "What is the boiling point of water at sea level in kelvin?"})
    items = {
        "a": "Who wrote the third symphony in E flat major, and when was it first heard?",
        "b": "who wrote the third symphony in E flat  major, and when was it first heard?",
        "c": "Who wrote the third symphony in E flat major, and when was it first heard ?!",
        "d": "Name four rivers that cross the border between Spain and Portugal.",
        "e": "1+1",  # shorter than a shingle
        "f": "1+1",
    }
    (_, file) = pools(own, [], [source("file", items)], [], lambda _: None)
    assert file.items[""] == ("a", "d", "e") and file.left_out == {COPY: 3}
    (_, shipped) = pools(own, [], [source("recall", items)], [], lambda _: None)
    assert shipped.count("") == len(items)


def reading(axis: str, item: int, contrast: float) -> MeterReading:
    return MeterReading(f"{item}", axis, "d", contrast, 0.0, 1, 1)


def test_later_items_do_not_move_what_a_shift_is_held_against() -> None:
    """A first look of narrow spread, a second of wide: a fifth of both is above the shift."""
    rng = np.random.default_rng(0)
    before = [*rng.normal(0, 0.5, 40), *rng.normal(0, 5.0, 160)]
    base = [asdict(reading("hedging", i, value)) for i, value in enumerate(before)]
    edited = [asdict(reading("hedging", i, value + 0.2)) for i, value in enumerate(before)]
    claim = OpenClaim("edit", "edit", "hedging", "hedging", {}, 0.2 * 0.5, 0.2 / 50)
    assert 0.2 * float(np.std(before)) > 0.2 > claim.smallest
    config = parse({"instrument": "meter"})
    assert judged(config, claim, base, edited, load_gates()).verdict is Verdict.SUPPORTED


def test_a_false_effect_in_either_counts_the_run_s_own_test_at_the_whole_alpha(
    tmp_path: Path,
) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.1, 0.1), 40, {OWN: 60})
    (one,) = make(subject, subject.all_pools(), 60).claims
    of_four = replace(one, claim=replace(one.claim, family=4), alpha=one.alpha / 4,
                      levels=tuple(level / 4 for level in one.levels))  # fmt: skip
    assert one.either > 0.05 and 0.05 < of_four.either < one.either


@pytest.mark.parametrize("reason", [ReasonCode.FLOOR, ReasonCode.UNFINISHED_ANSWERS])
def test_items_are_missing_only_where_items_are_what_is_lacking(
    tmp_path: Path, reason: ReasonCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = Scripted(tmp_path / "run", drawn(0.1, 0.1), 40, {OWN: 60})
    judge = subject.judge

    def short(*asked: Any) -> Seen:
        return replace(judge(*asked), verdict=Verdict.INCONCLUSIVE, reasons=(reason,))

    monkeypatch.setattr(subject, "judge", short)
    _, found = settled(subject)
    claim = found["claims"]["edit"]
    assert claim["reasons"] == [reason.value] and claim["missing"] is None
    assert "more would" not in claim["explanation"]


def test_a_source_without_an_interval_leaves_nothing_excluded(tmp_path: Path) -> None:
    """One item of the meter has no spread: its interval is missing, not wide."""
    subject = Scripted(tmp_path / "run", lambda *_: 0, 300, {OWN: 0, "other": 300})
    (planned,) = make(subject, subject.all_pools(), 300).claims
    one = replace(planned, claim=replace(planned.claim, unit=0.01), levels=(1e-6, 0.05),
                  allowed=(1e-6, 0.05))  # fmt: skip
    found = {}
    for count in (300, 1):
        subject._write(tmp_path / str(count), "other", range(count))
        pieces = [[Piece(OWN, subject.run, first=True)], [Piece("other", tmp_path / str(count))]]
        found[count] = look(subject, one, pieces)
    assert found[300].seen.verdict is Verdict.REFUTED and found[300].stratified is not None
    assert found[1].seen.verdict is Verdict.INCONCLUSIVE and found[1].stratified is None
    assert found[1].sources[1]["interval"] is None


def test_the_order_is_free_of_the_file() -> None:
    ids: Sequence[str] = [f"t/{i}" for i in range(50)]
    assert in_hash_order(ids) == in_hash_order(ids[::-1]) != list(ids)


def test_what_free_answers_assert_is_read_at_the_largest_budget() -> None:
    """Labels belong to the smallest budget at which an answer is what it is at the largest."""
    config = parse({"instrument": "chef", "n_predict": (2, 4)})

    def row(item: str, *ids: int, stop: bool = True) -> dict[str, Any]:
        return {"item_id": item, "ids": ids, "finish_reason": "stop" if stop else "length"}

    def label(question: str, value: str | None, status: str = "ok") -> dict[str, Any]:
        return {"question_id": question, "instrument": "delivery", "value": value,
                "status": status}  # fmt: skip

    rows = [row("a", 1, 2), row("b", 1, 2, 3), row("c", 1, 2, 3, 4, stop=False), row("d", 9),
            row("e", 7, 7, 7, 7, stop=False)]  # fmt: skip
    labels = [
        label("x/a@2", "ASSERT"), label("x/b@2", "ASSERT"), label("x/b@4", "HEDGE"),
        label("x/c@4", None, "error"), label("x/c@4", "ASSERT"), label("y/d@2", "ASSERT"),
    ]  # fmt: skip
    found = with_labels(config, "x", rows, labels)
    assert [one["asserted"] for one in found] == [True, False, True, None, None]
    assert [one["cut"] for one in found][:3] == [False, False, True]
    base = [{**one, "asserted": True} for one in found]
    assert differences(config, base, found) == [0.0, -1.0, 0.0]  # those with a label under both


def test_answers_that_hedge_more_are_shown_to_and_unlabelled_ones_are_a_fault() -> None:
    config = parse({"instrument": "chef", "n_predict": (2,)})
    claim = OpenClaim("edit", "edit", "assertion_rate", "", {}, 0.1, None)
    base = [{"asserted": True, "cut": False}] * 60
    edited = [{"asserted": i > 11, "cut": False} for i in range(60)]
    seen = judged(config, claim, base, edited, load_gates())
    assert seen.verdict is Verdict.SUPPORTED and seen.interval is not None
    wanted = tango_interval(0, 12, 60)
    assert seen.interval["low"] == pytest.approx(wanted.low) and "About" not in seen.sentence
    for change, reason in (({"asserted": None}, ReasonCode.INFRASTRUCTURE),
                           ({"cut": True}, ReasonCode.TRUNCATED)):  # fmt: skip
        other = [{**one, **change} for one in edited[:30]] + edited[30:]
        found = judged(config, claim, base, other, load_gates())
        assert found.verdict is Verdict.INVALID and reason in found.reasons

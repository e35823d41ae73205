"""From answers at every point of a sweep to the evidence: seeds, truncation, floors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from arcs.arc2.config import resolve
from arcs.arc2.dispositions import DISPOSITIONS, Labelled
from arcs.arc2.effects import fewest_unchanged
from arcs.arc2.findings import AtPoint, Sweep, evidence
from arcs.arc2.metrics import faults
from arcs.arc2.rules import State, Word, rulings
from arcs.arc2.selection import Point
from arcs.arc2.sources import Source
from arcs.arc2.summaries import summary
from arcs.gates import load_gates
from arcs.runs import RunDirectory
from backends.interface import Head
from evals.statistics.rates import wilson

GATES = load_gates()
SEEDS: tuple[int | None, ...] = (0, 1, 2)
Hedges = Callable[[int, int | None], bool]


def answers(hedges: Hedges, seeds: Sequence[int | None], n: int = 60) -> tuple[Labelled, ...]:
    return tuple(
        Labelled(f"i{i}", seed, "x", (i, int(hedges(i, seed))), False, False, False, i % 2 == 0,
                 not hedges(i, seed))
        for seed in seeds
        for i in range(n)
    )  # fmt: skip


def sweep(
    base: Hedges,
    top: Hedges,
    rest: Hedges | None = None,
    seeds: Sequence[int | None] = (None,),
    n: int = 60,
) -> Sweep:
    heads = (Head(0, 0),)
    given = {
        "base": (Point("base", 1.0, ()), base),
        "top-0.5": (Point("top", 0.5, heads), top),
        "top-0": (Point("top", 0.0, heads), top),
        "random-1-0.5": (Point("random-1", 0.5, heads), rest or base),
        "random-1-0": (Point("random-1", 0.0, heads), rest or base),
    }
    points = {
        name: AtPoint(point, answers(hedges, seeds, n), {}, {})
        for name, (point, hedges) in given.items()
    }
    return Sweep(points, DISPOSITIONS["humble"], "text", tuple(seeds), GATES)


def states(found: Sweep) -> dict[Word, State]:
    return {one.word: one.state for one in rulings(evidence(found, None, ()))}


def never(i: int, seed: int | None) -> bool:
    return False


def most(i: int, seed: int | None) -> bool:
    return i < 45


def test_hedging_that_appears_in_every_seed_is_replicated_and_more_than_random() -> None:
    found = states(sweep(never, most, seeds=SEEDS))
    assert found[Word.FROZEN] is State.EXCLUDED
    assert found[Word.NOT_REPLICATED] is State.EXCLUDED
    assert found[Word.LIKE_RANDOM_HEADS] is State.EXCLUDED
    assert found[Word.CONTENT_DAMAGE] is State.EXCLUDED
    assert states(sweep(most, never, seeds=SEEDS))[Word.WRONG_DIRECTION] is State.HOLDS


def test_each_seed_is_compared_with_lambda_one_at_that_seed() -> None:
    """One seed hedges at lambda 1 already; the move is in the other two only."""
    found = evidence(sweep(lambda i, s: s == 0 and i < 45, most, seeds=SEEDS), None, ())
    assert [one.value for one in found.replicates] == [0.0, 0.75, 0.75]
    assert found.replicated_over == "seeds"
    assert (
        states(sweep(lambda i, s: s == 0 and i < 45, most, seeds=SEEDS))[Word.NOT_REPLICATED]
        is State.HOLDS
    )


def test_hedging_that_rises_among_right_answers_alone_or_too_is_over_hedging() -> None:
    """Right answers are the even ones: 30 of 60."""
    found = evidence(sweep(never, lambda i, s: i % 2 == 1), None, ())
    assert all(one.up for one in found.axis)  # half of the answers, and the wrong ones only
    assert found.over_hedging is not None
    assert [(one.value, one.n) for one in found.over_hedging] == [(0.0, 30)] * 2
    assert {one.word: one for one in rulings(found)}[Word.OVER_HEDGING].state is State.OPEN
    everything = sweep(never, lambda i, s: True)
    assert states(everything)[Word.OVER_HEDGING] is State.HOLDS
    assert states(everything)[Word.CLEAN_POSITIVE] is State.EXCLUDED
    at = everything.points["top-0"]  # hedged because it is wrong by then
    wrong = tuple(replace(one, right=False) for one in at.answers)
    points = {**everything.points, "top-0": replace(at, answers=wrong)}
    shown = evidence(replace(everything, points=points), None, ()).over_hedging
    assert shown is not None and [one.name for one in shown] == ["top-0.5"]
    curious = replace(everything, disposition=DISPOSITIONS["curious"])
    assert evidence(curious, None, ()).over_hedging is None


def test_over_hedging_is_asked_of_the_answers_where_the_axis_is_the_meter() -> None:
    """The default path: all answers asserted, so the text measure is saturated."""
    everything = replace(sweep(never, lambda i, s: True), axis="meter")
    assert states(everything)[Word.OVER_HEDGING] is State.HOLDS
    assert states(everything)[Word.CLEAN_POSITIVE] is State.EXCLUDED


@pytest.mark.parametrize("state", [State.EXCLUDED, State.OPEN])
def test_how_many_right_answers_exclude_over_hedging_and_too_few_are_said(state: State) -> None:
    """At two lambdas; none is hedged. Every other answer is right."""
    fewest = fewest_unchanged(0.1, 1 - 0.05 / 2)
    assert (fewest, fewest_unchanged(0.1, 1 - 0.05 / 4)) == (46, 57)
    n = 2 * (fewest if state is State.EXCLUDED else fewest - 1)
    made = evidence(replace(sweep(never, never, n=n), axis="meter"), None, ())
    ruling = next(one for one in rulings(made) if one.word is Word.OVER_HEDGING)
    assert ruling.state is state
    said = f"{fewest - 1} are compared at top-0.5, {fewest} are needed"
    assert (said in ruling.because) is (state is State.OPEN)


def test_every_random_set_must_be_beaten_not_their_mean() -> None:
    """The chosen heads and one of three sets do the same, the other two sets nothing."""
    found = sweep(never, most, never)
    heads = (Head(0, 1),)
    more = {
        f"random-{i}-0": AtPoint(Point(f"random-{i}", 0.0, heads), answers(which, (None,)), {}, {})
        for i, which in ((2, never), (3, most))
    }
    three = replace(found, points={**found.points, **more})
    made = evidence(three, None, ())
    assert [one.value for one in made.against_random] == [0.75, 0.75, 0.0]
    assert made.random_rank == 2 / 4  # one of three reaches it
    assert states(three)[Word.LIKE_RANDOM_HEADS] is State.HOLDS
    one_set = evidence(found, None, ())
    assert one_set.random_rank == 1 / 2
    assert states(found)[Word.LIKE_RANDOM_HEADS] is State.EXCLUDED


def source(name: str) -> Source:
    return cast(Source, SimpleNamespace(name=name))


def test_labels_that_fail_at_one_point_are_a_fault_there() -> None:
    """4 of 60 at one of four points that are read: 1.7 percent of all, p = 0.03 of those."""
    found = sweep(never, most)
    assert faults(found, source("exact-match"), None) == []
    said = faults(without(found, 4, "top-0"), source("exact-match"), None)
    assert said == ["infrastructure: 4 of 60 answers at top-0 have no label"]
    assert faults(without(found, 3, "top-0"), source("exact-match"), None) == []
    two_each = without(found, 2, "base", "top-0.5", "top-0")
    said = faults(two_each, source("exact-match"), None)
    assert said == ["infrastructure: 6 of all 240 labels that are read are missing"]


def test_one_missing_label_of_few_is_no_fault_and_points_no_rule_reads_are_not_asked() -> None:
    few = sweep(never, most, n=40)
    assert faults(without(few, 1, "top-0"), source("exact-match"), None) == []
    assert faults(without(few, 40, "random-1-0.5"), source("exact-match"), None) == []
    assert faults(without(few, 40, "random-1-0"), source("exact-match"), None)
    at = few.points["random-1-0"]
    bottom = replace(without(few, 40, "random-1-0").points["random-1-0"],
                     point=replace(at.point, arm="bottom"))  # fmt: skip
    shown = replace(few, points={**few.points, "bottom-0": bottom})
    assert faults(shown, source("exact-match"), None) == []


def test_labels_that_the_cohorts_rest_on_are_a_fault_of_their_own() -> None:
    """The prompts that are not swept count as well; curious reads no right or wrong."""
    found, said = sweep(never, most), answers(never, (None,), n=96)
    for lost in ({"right": None}, {"asserted": None, "text": "words"}):
        broken = [replace(one, **lost) if i >= 91 else one for i, one in enumerate(said)]
        made = faults(found, source("exact-match"), None, broken)
        assert made == [
            "infrastructure: 5 of 96 answers that the cohorts are formed from have no label"
        ]
        curious = replace(found, disposition=DISPOSITIONS["curious"])
        assert faults(curious, source("exact-match"), None, broken) == []
        assert faults(found, source("meter"), None, broken) == []
    silent = [replace(one, asserted=None, text="...") for one in said]
    assert faults(found, source("exact-match"), None, silent) == []


def without(found: Sweep, lost: int, *names: str) -> Sweep:
    """No right or wrong of the first ``lost`` answers at these points."""
    points = dict(found.points)
    for name in names:
        at = points[name]
        points[name] = replace(at, answers=tuple(
            replace(one, right=None) if i < lost else one for i, one in enumerate(at.answers)
        ))  # fmt: skip
    return replace(found, points=points)


def test_only_labels_that_the_claim_rests_on_can_fail_and_silence_is_no_failure() -> None:
    found = sweep(never, most)

    def said(text: str, axis: str, disposition: str = "humble") -> list[str]:
        points = {
            name: replace(
                at, answers=tuple(replace(one, asserted=None, text=text) for one in at.answers)
            )
            for name, at in found.points.items()
        }
        asked = replace(found, points=points, axis=axis, disposition=DISPOSITIONS[disposition])
        return faults(asked, source("exact-match"), None)

    assert len(said("words", "text")) == 4
    assert len(said("words", "meter")) == 4  # over-hedging is read from them
    assert said("words", "meter", "curious") == []
    assert said(" ...", "text") == []
    silent = replace(found.base.answers[0], asserted=None, text="...")
    assert DISPOSITIONS["humble"].shows(silent) is False and summary([silent], 0.95)["silent"] == 1


def test_accuracy_is_over_silent_answers_too_and_only_failed_labels_are_missing() -> None:
    said = [replace(one, **more) for one, more in zip(answers(never, (None,), n=8), (
        {}, {}, {}, {}, {}, {"asserted": None, "text": "."}, {"asserted": None}, {"right": None},
    ), strict=True)]  # fmt: skip
    table = summary(said, 0.9)["table"]
    assert (table["accuracy"]["successes"], table["accuracy"]["n"]) == (4, 7)
    assert (table["n"], table["silent"], table["missing"]) == (5, 1, 2)
    for name in ("accuracy", "assertion_rate", "hallucination_rate", "over_hedging"):
        assert table[name]["interval"]["level"] == 0.9
    assert table["asymmetry"]["interval"]["level"] == 0.9
    assert summary(said, 0.9)["assertion"]["interval"]["level"] == 0.9


def test_an_item_with_several_answers_counts_once_in_an_interval() -> None:
    """Three seeds that agree in every item hold what one of them does."""
    hedged = answers(lambda i, s: i % 3 == 0, SEEDS)
    once = summary([one for one in hedged if one.seed == 0], 0.95)
    thrice = summary(hedged, 0.95)
    assert thrice["table"]["assertion_rate"]["n"] == 180
    for name in ("accuracy", "assertion_rate", "hallucination_rate", "over_hedging"):
        few, all_ = (one["table"][name] for one in (once, thrice))
        assert all_["value"] == few["value"]
        width = [one["interval"]["high"] - one["interval"]["low"] for one in (few, all_)]
        assert width[1] == pytest.approx(width[0], rel=0.15)  # Wilson's of 180 is 0.58 of it
    same = summary(answers(never, SEEDS), 0.95)["table"]["assertion_rate"]
    assert same["interval"] == wilson(60, 60).to_json()


def test_random_heads_that_do_the_same_take_the_claim_away() -> None:
    assert states(sweep(never, most, most))[Word.LIKE_RANDOM_HEADS] is State.HOLDS


def test_unfinished_answers_that_could_turn_the_axis_around_are_a_fault() -> None:
    found = sweep(never, most)
    assert evidence(found, None, ()).faults == []
    cut = tuple(replace(one, truncated=True, open=True) for one in found.base.answers)
    points = {**found.points, "base": replace(found.base, answers=cut)}
    faults = evidence(replace(found, points=points), None, ()).faults
    assert len(faults) == 1 and faults[0].startswith("truncated")


def test_being_cut_is_what_persistent_measures_and_no_fault() -> None:
    found = sweep(never, never)
    cut = {
        name: replace(at, answers=tuple(
            replace(one, truncated=int(one.item_id[1:]) < (15 if at.point.arm == "top" else 50),
                    open=True)
            for one in at.answers))
        for name, at in found.points.items()
    }  # fmt: skip
    persistent = replace(found, points=cut, disposition=DISPOSITIONS["persistent"])
    made = evidence(persistent, None, ())
    assert made.faults == [] and all(one.up for one in made.axis)
    curious = replace(found, points=cut, disposition=DISPOSITIONS["curious"])
    assert evidence(curious, None, ()).faults


def test_recovery_is_measured_only_on_corrected_answers() -> None:
    from arcs.arc2.pipeline import measurable

    said = answers(never, (None,))
    found = measurable(DISPOSITIONS["self-improving"], said, corrected=False)
    assert found["saturated"] is None and found["why_not"]
    found = measurable(DISPOSITIONS["self-improving"], said, corrected=True)
    assert found["answers"] == {"shown": 30, "n": 60, "missing": 0}


def given_by(labels: str) -> SimpleNamespace:
    """As much of what is prepared as the decision on cohorts and axis reads."""
    prompts = tuple(SimpleNamespace(item_id=f"i{i}") for i in range(60))
    source = SimpleNamespace(name=labels, prompts=prompts)
    return SimpleNamespace(disposition=DISPOSITIONS["humble"], source=source)


def test_heads_are_not_judged_on_the_answers_they_are_chosen_by(tmp_path: Path) -> None:
    from arcs.arc2.pipeline import Prepared, decide
    from arcs.arc2.prompts import parts

    prepared = cast(Prepared, given_by("exact-match"))
    asked = prepared.source.prompts
    said = answers(never, (None,))
    for more, ranked, swept, shared in (
        ({"rank_by": "magnitude", "sweep_limit": 40}, 20, 40, 0),
        ({"rank_by": "magnitude"}, 30, 30, 0),
        ({"rank_by": "magnitude", "sweep_limit": 41}, 60, 41, 41),  # 19 cannot form two cohorts
        ({"disposition": "curious"}, 30, 30, 0),  # no axis: ablated on the answers
        ({"sweep_limit": 40}, 60, 40, 0),  # ablated on the meter's items
        ({"rank_by": "magnitude", "labels": "meter"}, 60, 60, 0),
    ):
        found = parts(asked, resolve(more))
        assert (len(found.ranked), len(found.swept), found.chosen_on_same) == (
            ranked, swept, shared,
        )  # fmt: skip
        both = {one.item_id for one in found.ranked} & {one.item_id for one in found.swept}
        assert shared or not both or len(found.ranked) == 60
    with RunDirectory.create(tmp_path / "run", {}) as run:
        cohorts, _ = decide(resolve({"rank_by": "magnitude", "sweep_limit": 40}), run, prepared,
                            said)  # fmt: skip
        assert set(cohorts.item_ids) == {f"i{i}" for i in range(40, 60)}


def test_saturation_is_judged_on_the_answers_that_the_sweep_compares(tmp_path: Path) -> None:
    """12 of 60 answers are hedged, 9 of them among the first 40."""
    from arcs.arc2.pipeline import Prepared, decide

    prepared = cast(Prepared, given_by("exact-match"))
    said = answers(lambda i, s: i < 9 or i >= 57, (None,))
    for limit, kind in ((40, "meter"), (None, "text")):
        with RunDirectory.create(tmp_path / kind, {}) as run:
            _, axis = decide(resolve({"sweep_limit": limit}), run, prepared, said)
        assert axis.kind == kind
        assert axis.why.startswith("saturated: 9 of 40 answers" if limit else "")


def test_cohorts_are_decided_once_whatever_a_judge_says_later(tmp_path: Path) -> None:
    from arcs.arc2.pipeline import Prepared, decide

    prepared = cast(Prepared, given_by("judge"))
    said = list(answers(never, (None,)))
    failed = [replace(said[0], right=None, asserted=None), *said[1:]]
    with RunDirectory.create(tmp_path / "run", {}) as run:
        first = decide(resolve({}), run, prepared, failed)
        assert "i0" not in first[0].item_ids and first[0].left_out == 1
        assert decide(resolve({}), run, prepared, said) == first


def test_content_that_depends_on_unfinished_answers_stays_open() -> None:
    found = sweep(never, most)
    at = found.points["top-0"]
    worse = tuple(
        replace(one, right=False, open=True, truncated=True) if one.item_id in LOST else one
        for one in at.answers
    )
    points = {**found.points, "top-0": replace(at, answers=worse)}
    assert states(replace(found, points=points))[Word.CONTENT_DAMAGE] is State.OPEN
    shut = tuple(replace(one, open=False) for one in worse)
    points = {**found.points, "top-0": replace(at, answers=shut)}
    assert states(replace(found, points=points))[Word.CONTENT_DAMAGE] is State.HOLDS


LOST = frozenset(f"i{i}" for i in range(0, 32, 2))


def test_at_the_floor_a_loss_cannot_be_seen() -> None:
    found = sweep(never, most)
    wrong = {
        name: replace(at, answers=tuple(replace(one, right=False) for one in at.answers))
        for name, at in found.points.items()
    }
    assert states(replace(found, points=wrong))[Word.CONTENT_DAMAGE] is State.NOT_TESTED
    assert evidence(replace(found, points=wrong), None, ()).content_floor == pytest.approx(
        "floor: 0.0% of 60 items are right, too few to lose"
    )

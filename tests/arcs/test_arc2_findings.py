"""From answers at every point of a sweep to the evidence: seeds, truncation, floors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from arcs.arc2.dispositions import DISPOSITIONS, Labelled
from arcs.arc2.findings import AtPoint, Sweep, evidence
from arcs.arc2.rules import State, Word, rulings
from arcs.arc2.selection import Point
from arcs.gates import load_gates
from arcs.runs import RunDirectory
from backends.interface import Head

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
    base: Hedges, top: Hedges, rest: Hedges | None = None, seeds: Sequence[int | None] = (None,)
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
        name: AtPoint(point, answers(hedges, seeds), {}, {})
        for name, (point, hedges) in given.items()
    }
    return Sweep(points, DISPOSITIONS["humble"], "text", tuple(seeds), 0.05, 0.1, GATES)


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


def test_cohorts_are_decided_once_whatever_a_judge_says_later(tmp_path: Path) -> None:
    from arcs.arc2.config import resolve
    from arcs.arc2.pipeline import Prepared, decide

    source = SimpleNamespace(name="judge")
    prepared = cast(Prepared, SimpleNamespace(disposition=DISPOSITIONS["humble"], source=source))
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

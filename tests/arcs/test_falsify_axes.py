"""Step 3: every axis, in every way that its cut answers could have ended."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from arcs.arc3 import claims
from arcs.falsification import axes
from arcs.falsification.evidence import Evidence, study_of
from arcs.gates import load_gates
from tests.support.arc3_bench import SMALL
from tests.support.falsify_bench import Made, made

GATES = load_gates()
SIZES = replace(SMALL, cv_seeds=1)
BOTH = ("right", "hedging")


def evidence(found: Made, name: str, named: tuple[str, ...] = BOTH) -> Evidence:
    """One set as it is read from files."""
    rows = found.rows[name]
    return Evidence(
        item_ids=tuple(row["item_id"] for row in rows),
        x={"h_last": found.x[name]["h_last"]},
        labels={axis: tuple(row[axis] for row in rows) for axis in named},
        truncated=tuple(row["finish_reason"] == "length" for row in rows),
    )


def sweep(train: Evidence, fresh: Evidence) -> Any:
    """Step 3 of them."""
    like = study_of(train, fresh, "right", None, sizes=SIZES, seed=0, level=0.95)
    return axes.axes(train, fresh, "right", like, GATES)


def of(found: Made, named: tuple[str, ...] = BOTH) -> Any:
    """Step 3 of both sets."""
    return sweep(evidence(found, "train", named), evidence(found, "fresh", named))


@pytest.mark.parametrize(("cut", "state"), [(0.03, "passed"), (0.8, "not decidable")])
def test_a_sweep_passes_however_cut_answers_ended(tmp_path: Path, cut: float, state: str) -> None:
    found = of(made(tmp_path, cut=cut))
    assert found["passing"] == 2 and found["state"] == state  # as taken, both pass
    assert [one["way"] for one in found["readings"]] == [
        "open answers wrong", "open answers right", "finished answers only",
        "open answers right of right alone", "open answers right of hedging alone",
    ]  # fmt: skip
    assert all(one["n"] for one in found["readings"])
    if state != "passed":
        assert found["hangs_on_cut_answers"] and "passes only as its cut" in found["reason"]
    assert of(made(tmp_path))["readings"] == []  # none was cut


@pytest.mark.parametrize(("cut", "state"), [(0.03, "failed"), (0.5, "not decidable")])
def test_a_sweep_fails_however_cut_answers_ended(tmp_path: Path, cut: float, state: str) -> None:
    mine = made(tmp_path, cut=cut)
    for row in (row for rows in mine.rows.values() for row in rows):
        row["same"] = row["right"]
    found = of(mine, ("right", "same"))
    assert found["correlations"][0]["r"] == pytest.approx(1)
    assert found["state"] == state
    # read alike, two names of one label stay one
    assert {one["state"] for one in found["readings"][:3]} == {"failed"}


def test_answers_may_end_otherwise_on_each_axis(tmp_path: Path) -> None:
    """Two axes that nearly exclude each other; the state tells which answers were cut."""
    mine, rng = made(tmp_path, n=400, cut=0.4), np.random.default_rng(3)
    for name, rows in mine.rows.items():
        x = mine.x[name]["h_last"]
        x[:, 5] = rng.normal(size=len(rows))
        for place, row in enumerate(rows):
            row["hedging"] = bool(row["right"] == (rng.random() < 0.25))
            x[place, 5] += 3 * row["hedging"]
            x[place, 7] += 4 * (row["finish_reason"] == "length")
    found = of(mine)
    assert {one["state"] for one in found["readings"][:3]} == {"passed"}
    assert found["state"] == "not decidable" and "alone" in found["reason"]


@pytest.mark.parametrize("k", [2, 3, 4])
def test_every_pair_of_endings_is_looked_at(tmp_path: Path, k: int) -> None:
    both = [evidence(made(tmp_path, cut=0.2), name, ("right",)) for name in ("train", "fresh")]
    one = study_of(*both, "right", None, sizes=SIZES, seed=0, level=0.95)
    ways = {axes.AS_TAKEN: one, **claims.readings(one)}
    closed = {axes.AS_TAKEN: one}
    found = axes.Sweep({**{f"a{i}": ways for i in range(k)}, "closed": closed}, GATES).readings()
    assert {of["closed"] for of in found.values()} == {axes.AS_TAKEN}
    wanted = set(product((claims.OPEN_WRONG, claims.OPEN_RIGHT), repeat=2))
    for first, second in [("a0", "a1"), ("a0", f"a{k - 1}"), ("a1", f"a{k - 1}")]:
        seen = {(of[first], of[second]) for of in found.values()}
        assert seen >= (wanted if first != second else {(way, way) for way, _ in wanted})
        assert (claims.FINISHED, claims.FINISHED) in seen


@pytest.mark.parametrize(
    ("failed", "state"), [((["a"], ["a", "b"]), "failed"), ((["a"], ["b"]), "not decidable")]
)
def test_what_fails_must_be_one_gate_in_every_reading(failed: Any, state: str) -> None:
    found = {"state": "failed", "gates": [{"gate": name, "state": "failed"} for name in "ab"]}
    stub = SimpleNamespace(
        studies={"right": {"as taken": SimpleNamespace(fresh=SimpleNamespace(y=[1]))}},
        readings=lambda: {f"way {i}": {"right": "as taken", "at": i} for i in range(2)},
        read=lambda ways: {"state": "failed", "failed": failed[ways["at"]]},
    )
    found = axes._in_every_reading(found, stub, "right")  # type: ignore[arg-type]
    assert found["state"] == state
    assert state == "failed" or found["reason"].endswith("not with way 1")


def test_labels_of_two_judges_leave_an_axis_out(tmp_path: Path) -> None:
    mine = made(tmp_path)
    for row in (row for rows in mine.rows.values() for row in rows):
        row["third"] = row["hedging"]
    train, fresh = (evidence(mine, name, (*BOTH, "third")) for name in ("train", "fresh"))
    train, fresh = (
        replace(one, instruments={"third": frozenset({judge})})
        for one, judge in ((train, "a"), (fresh, "b"))
    )
    found = sweep(train, fresh)
    assert found["state"] == "not decidable" and "different judges" in found["left_out"]["third"]
    assert [one["axis"] for one in found["axes"]] == ["right", "hedging"]
    fresh = replace(fresh, instruments=train.instruments)
    assert sweep(train, fresh)["state"] == "failed"  # one judge: it is hedging by another name


def test_an_axis_is_held_to_kinds_of_question(tmp_path: Path) -> None:
    """Hedging that follows the kind of question alone, over six kinds."""
    mine = made(tmp_path)
    for rows, x in zip(mine.rows.values(), mine.x.values(), strict=True):
        for place, row in enumerate(rows):
            row["hedging"] = place % 6 < 3
            x["h_last"][place, 5] = 5.0 * row["hedging"]
    train, fresh = (evidence(mine, name) for name in ("train", "fresh"))
    assert sweep(train, fresh)["state"] == "passed"
    kinds = tuple(str(i % 6) for i in range(120))
    found = sweep(replace(train, groups=kinds), replace(fresh, groups=kinds))
    assert found["state"] == "not decidable" and found["between_kinds"]
    assert found["reason"].startswith("hedging: it passes by items")
    assert [one["state"] for one in found["axes"]] == ["passed", "not decidable"]

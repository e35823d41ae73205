"""A finished run of Arc 2 in memory, whose further items come out as a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from arcs.arc2.config import parse
from arcs.arc2.dispositions import DISPOSITIONS, Labelled
from arcs.arc2.findings import AtPoint, Sweep, evidence
from arcs.arc2.metrics import evidence_json
from arcs.arc2.rules import rulings, verdict
from arcs.arc2.selection import Point
from arcs.gates import load_gates
from arcs.progress import Reporter
from arcs.settling.damped_items import QUESTIONS
from arcs.settling.damped_rows import Swept
from arcs.settling.damping import Damping
from arcs.settling.subject import OpenClaim, Pool
from backends.interface import Head

GATES = load_gates()
METER = "hedging"
HEADS = (Head(0, 0),)
POINTS = (
    Point("base", 1.0, ()), Point("top", 0.5, HEADS), Point("top", 0.0, HEADS),
    Point("random-1", 0.0, (Head(0, 1),)),
)  # fmt: skip
SEPARATED = {"separable": True, "too_small": None, "largest_separation": None}


@dataclass(frozen=True)
class Model:
    """What an item comes to at a point, the same however often it is asked."""

    hedges: Callable[[int, Point], bool] = lambda number, at: False
    right: Callable[[int, Point], bool] = lambda number, at: number % 4 < 2
    contrast: Callable[[int, Point], float] = lambda number, at: 0.0

    def sweep(self, numbers: Sequence[int], group: str, axis: str) -> Sweep:
        def at(point: Point) -> AtPoint:
            asked, read = (numbers, ()) if group == QUESTIONS else ((), numbers)
            return AtPoint(
                point,
                tuple(
                    Labelled(f"q{i}", None, "x", (i, self.hedges(i, point)), False, False, False,
                             self.right(i, point), not self.hedges(i, point))
                    for i in asked
                ),
                {f"m{i}": self.contrast(i, point) for i in read},
                {f"m{i}": -1.0 for i in read},
            )  # fmt: skip

        points = {point.name: at(point) for point in POINTS}
        return Sweep(points, DISPOSITIONS["humble"], axis, (None,), GATES)


@dataclass(frozen=True)
class Sweeps(Damping):
    """Answers of a :class:`Model` instead of an engine's; folders hold the numbers of items."""

    rows: Swept = field(default_factory=lambda: Swept(Path(), parse({}), "text", {}))
    model: Model = Model()
    unused: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Items by source and group."""
    dies_in: list[str] = field(default_factory=list)
    """Folders in which the process ends before anything is kept."""

    @property
    def _rows(self) -> Swept:  # type: ignore[override]
        return self.rows

    @property
    def files(self) -> tuple[str, ...]:
        return ("metrics.json",)

    @property
    def first_counts(self) -> Mapping[str, int]:
        base = self.rows.of_first().base
        counts = {QUESTIONS: len(base.answers), METER: len(base.contrasts)}
        return {group: counts[group] for group in self._groups}

    @property
    def seconds_per_item(self) -> float | None:
        return 2.0

    def all_pools(self) -> list[Pool]:
        return [
            Pool(source, source, "sha",
                 {group: tuple(f"{1000 + i}" for i in range(n)) for group, n in groups.items()}, {})
            for source, groups in self.unused.items()
        ]  # fmt: skip

    def pools(self, data: Sequence[str], say: Reporter) -> list[Pool]:
        del data, say
        return self.all_pools()

    def go_on(
        self, pool: Pool, ids: Sequence[str], claims: Sequence[OpenClaim], path: Path,
        reporter: Reporter,
    ) -> None:  # fmt: skip
        del claims, reporter
        if path.parent.name in self.dies_in:
            raise KeyboardInterrupt
        group = next(group for group, items in pool.items.items() if ids[0] in items)
        if not path.exists():
            path.mkdir(parents=True)
            (path / "items.json").write_text(json.dumps(ids))
        axis = self.metrics["axis"]["kind"]
        self.rows._sweeps[path] = self.model.sweep([int(one) for one in ids], group, axis)


class _Rows(Swept):
    def of_first(self) -> Sweep:
        return self._sweeps[self.run]

    @property
    def prepared(self) -> Any:
        return type("Prepared", (), {"source": type("Source", (), {"name": "exact-match"})})


def swept(
    run: Path, model: Model, unused: Mapping[str, Mapping[str, int]], *, n: int, meter: int = 0,
    separated: Mapping[str, Any] = SEPARATED,
) -> Sweeps:  # fmt: skip
    """A run of ``n`` questions, and of ``meter`` meter items where those are its axis."""
    axis = "meter" if meter else "text"
    first = model.sweep(range(n), QUESTIONS, axis)
    if meter:
        read = model.sweep(range(meter), METER, axis).points
        points = {name: replace(at, contrasts=read[name].contrasts,
                                likelihoods=read[name].likelihoods)
                  for name, at in first.points.items()}  # fmt: skip
        first = replace(first, points=points)
    found = evidence(first, None, (), separated=separated)
    words = rulings(found)
    config = parse({"scales": (1.0, 0.5, 0.0), "controls": "strongest", "random_draws": 1})
    metrics: dict[str, Any] = {
        "axis": {"kind": axis, "measure": "hedged", "why": ""},
        "evidence": evidence_json(found),
        "words": [one.to_json() for one in words],
        "claim": verdict("damping brings it out", found, words).to_json(),
    }
    manifest = {
        "arc": "arc2", "backend": "torch", "config": config.model_dump(mode="json"),
        "meter": {"axis": METER}, "selection": {"arms": {"top": [[0, 0]], "random-1": [[0, 1]]}},
    }  # fmt: skip
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "manifest.json").write_text(json.dumps(manifest))
    rows = _Rows(run, config, axis, manifest["selection"]["arms"], {run: first})  # type: ignore[index, arg-type]
    made = Sweeps(run, manifest, metrics, GATES, config, (), (), rows=rows, model=model,
                  unused=unused)  # fmt: skip
    assert metrics["claim"]["verdict"] == "INCONCLUSIVE", metrics["claim"]
    return replace(made, claims=(made._claim(),))

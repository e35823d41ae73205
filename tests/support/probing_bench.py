"""A finished run of Arc 3 in arrays, whose further fresh answers come out as a test wants."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from arcs.arc3 import claims
from arcs.arc3.config import parse
from arcs.arc3.probing import Study
from arcs.arc3.table import Side
from arcs.claims import Verdict
from arcs.gates import load_gates
from arcs.progress import Reporter
from arcs.settling.probe_rows import Rows
from arcs.settling.probing import TRANSFER, Probing, _open
from arcs.settling.subject import OWN, OpenClaim, Pool
from tests.support.arc3_bench import SMALL

GATES = load_gates()
Drawn = Callable[[str, Sequence[int]], Side]
"""Source and numbers of items -> their rows, each the same however often it is asked."""


@dataclass(frozen=True)
class Arrays(Probing):
    """Rows instead of a model; folders hold the numbers of their items."""

    rows: Rows = field(default_factory=lambda: Rows(Path()))
    drawn: Drawn = lambda *_: NotImplemented
    unused: Mapping[str, int] = field(default_factory=dict)
    dies_in: list[str] = field(default_factory=list)
    """Folders in which the process ends before anything is kept."""
    opened: list[str] = field(default_factory=list)

    @property
    def _rows(self) -> Rows:  # type: ignore[override]
        return self.rows

    @property
    def files(self) -> tuple[str, ...]:
        return ("metrics.json",)

    @property
    def seconds_per_item(self) -> float | None:
        return 2.0

    def all_pools(self) -> list[Pool]:
        return [
            Pool(source, source, "sha", {"": tuple(f"{i}" for i in range(count))}, {})
            for source, count in self.unused.items()
        ]

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
        numbers = [int(one) for one in ids]
        if not path.exists():
            path.mkdir(parents=True)
            (path / "items.json").write_text(json.dumps(numbers))
            self.opened.append(path.parent.name)
        self.rows._sides[path] = self.drawn(pool.source, numbers)


def arrays(
    run: Path,
    train: Side,
    first: Side,
    drawn: Drawn,
    unused: Mapping[str, int],
    *,
    p_values: Mapping[str, float] | None = None,
) -> Arrays:
    """A run whose claim is what ``first`` says, but open. ``p_values``: of training."""
    study = Study(train, first, SMALL, 0, GATES.level)
    claim = replace(
        claims.transfer(study, GATES, no_signal=False, faults=()),
        verdict=Verdict.INCONCLUSIVE, n_to_settle=999,
    ).to_json()  # fmt: skip
    claim["reasons"] = ["underpowered"]
    p = {TRANSFER: 0.01, "planted": 0.01, "shuffled": 0.6, **(p_values or {})}
    metrics: dict[str, Any] = {
        "claims": {TRANSFER: claim},
        "permutation": {"p_value": p[TRANSFER]},
        "controls": {name: {"training": {"p_value": p[name]}} for name in ("planted", "shuffled")},
    }
    run.mkdir(parents=True)
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "manifest.json").write_text(json.dumps({"arc": "arc3"}))
    rows = Rows(run, {run: first})
    rows.__dict__["train"] = train
    return Arrays(
        run, {}, metrics, GATES, parse({}), (_open(claim),), (), rows=rows, drawn=drawn,
        unused={OWN: 0, **unused},
    )  # fmt: skip

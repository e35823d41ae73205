"""A finished run in memory whose new items come out as a test wants, for everything above it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arcs.claims import paired_statistic
from arcs.gates import Gates, load_gates
from arcs.progress import Reporter
from arcs.settling.subject import OWN, OpenClaim, Piece, Pool, Seen
from evals.statistics import PairedCounts

Draw = Callable[[str, int], int]
"""Source and number of an item -> -1, 0 or 1."""


@dataclass
class Scripted:
    """See :class:`arcs.settling.subject.Subject`. Items are numbers, answered by ``draw``."""

    run: Path
    draw: Draw
    first: int
    unused: Mapping[str, int]
    """Items by source."""
    names: tuple[str, ...] = ("edit",)
    kind: str = "eval"
    gates: Gates = field(default_factory=load_gates)
    opened: list[str] = field(default_factory=list)
    """Folders of what was run, in order."""
    dies_in: str | None = None
    """Folder in which the process ends before anything is kept."""
    kinds: str = "numbers"
    files: Sequence[str] = ("metrics.json",)
    others: Sequence[tuple[str, str]] = ()
    seconds_per_item: float | None = 2.0

    def __post_init__(self) -> None:
        if not (self.run / "metrics.json").exists():
            self.run.mkdir(parents=True, exist_ok=True)
            self._write(self.run, OWN, range(self.first))
            (self.run / "metrics.json").write_text("{}")
            (self.run / "manifest.json").write_text("{}")

    @property
    def claims(self) -> tuple[OpenClaim, ...]:
        return tuple(OpenClaim(name, name, "", "", self._stated(), 0.05, None)
                     for name in self.names)  # fmt: skip

    @property
    def first_counts(self) -> Mapping[str, int]:
        return {"": self.first}

    def all_pools(self) -> list[Pool]:
        return [
            Pool(source, source, "sha", {"": tuple(f"{i}" for i in range(1000, 1000 + count))}, {})
            for source, count in self.unused.items()
        ]

    def pools(self, data: Sequence[str], say: Reporter) -> list[Pool]:
        del data, say
        return self.all_pools()

    def require_same_edits(self) -> None:
        pass

    def values(self, claim: OpenClaim, piece: Piece) -> list[float]:
        del claim
        found: list[float] = json.loads((piece.path / "values.json").read_text())
        return found

    def judge(self, claim: OpenClaim, pieces: Sequence[Piece], gates: Gates) -> Seen:
        values = [value for piece in pieces for value in self.values(claim, piece)]
        gained, lost = values.count(1), values.count(-1)
        same = len(values) - gained - lost
        found = paired_statistic(
            PairedCounts(gained, lost, same // 2, same - same // 2, 0), gates, claim.smallest
        )
        return Seen(found.verdict, (found.reason,), found.interval.to_json(), found.p_value, "So")

    def go_on(
        self, pool: Pool, ids: Sequence[str], claims: Sequence[OpenClaim], path: Path,
        reporter: Reporter,
    ) -> None:  # fmt: skip
        del claims, reporter
        if self.dies_in == path.parent.name:
            raise KeyboardInterrupt
        if not path.exists():
            self.opened.append(path.parent.name)
            self._write(path, pool.source, [int(one) for one in ids])

    def _stated(self) -> dict[str, Any]:
        values = self.values(None, Piece(OWN, self.run))  # type: ignore[arg-type]
        return {"statement": "the edit changes it", "verdict": "INCONCLUSIVE",
                "reasons": ["underpowered"], "n_items": len(values),
                "delta": sum(values) / len(values), "interval": None, "p_value": 1.0}  # fmt: skip

    def _write(self, path: Path, source: str, ids: Sequence[int]) -> None:
        path.mkdir(parents=True, exist_ok=True)
        (path / "values.json").write_text(json.dumps([float(self.draw(source, i)) for i in ids]))

"""Points of a run of ``arc2`` and of what was added to it: answers with labels, contrasts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from arcs.arc2.config import Arc2Config
from arcs.arc2.findings import Sweep
from arcs.arc2.further import Items, Questions, prepared_of, selection_of
from arcs.arc2.metrics import read_sweep
from arcs.arc2.pipeline import Prepared, sweep_prompts
from arcs.arc2.selection import UNCHANGED
from arcs.arc2.stages import answers_store, meter_store
from arcs.progress import Reporter
from arcs.runs import RunDirectory
from arcs.settling.damped_items import QUESTIONS, chosen, title_of, whole_set
from arcs.settling.subject import OWN, Piece


def finished(path: Path) -> RunDirectory:
    """A finished run, to be read: no lock is taken."""
    return RunDirectory(path, -1)


def items_of(group: str, every: Questions, ids: Sequence[str]) -> Items:
    """Some of a set."""
    picked: Any = chosen(every, ids)
    return Items(questions=picked) if group == QUESTIONS else Items(pairs=picked)


@dataclass(frozen=True)
class Swept:
    """Read once each."""

    run: Path
    config: Arc2Config
    axis: str
    """Its kind."""
    arms: Mapping[str, Sequence[Sequence[int]]]
    _sweeps: dict[Path, Sweep] = field(default_factory=dict)

    @cached_property
    def prepared(self) -> Prepared:
        """What the run's own items are read with."""
        return prepared_of(self.config, finished(self.run), Reporter(quiet=True))

    @cached_property
    def asked(self) -> list[str]:
        """The run's prompts at each point."""
        return [one.item_id for one in sweep_prompts(self.config, self.prepared)]

    def of(self, piece: Piece) -> Sweep:
        """All points of one piece."""
        if piece.path not in self._sweeps:
            self._sweeps[piece.path] = self._read(piece)
        return self._sweeps[piece.path]

    def used(self, group: str) -> list[str]:
        """All that the run has asked, read or ranked heads on."""
        if group == QUESTIONS:
            return [one.item_id for one in self.prepared.source.prompts]
        read = (self.prepared.axis_pairs, self.prepared.causal_pairs, self.prepared.cohort_pairs)
        return list(dict.fromkeys(one.item.id for pairs in read for one in pairs))

    def whole_set(self, source: str, group: str) -> Questions:
        """``source``: of a pool; the run's own set goes by its title where it only comes along."""
        named_own = source == title_of(self.config, group)
        return whole_set(OWN if named_own else source, self.config, group)

    def _read(self, piece: Piece) -> Sweep:
        directory, prepared, asked = finished(piece.path), self.prepared, self.asked
        if not piece.first:
            items = items_of(
                piece.group, self.whole_set(piece.source, piece.group), _ids(self.config, piece)
            )
            prepared = prepared_of(self.config, directory, Reporter(quiet=True), items)
            asked = [one.item_id for one in prepared.source.prompts]
        heads = selection_of(self.arms)
        return read_sweep(self.config, directory, prepared, self.axis, heads, asked)


def _ids(config: Arc2Config, piece: Piece) -> list[str]:
    """Those that were answered or read at lambda 1."""
    run = finished(piece.path)
    store = (answers_store(run, UNCHANGED, config.decodings[0]) if piece.group == QUESTIONS
             else meter_store(run, UNCHANGED))  # fmt: skip
    return [row["item_id"] for row in store.records]

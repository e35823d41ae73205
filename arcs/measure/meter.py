"""The disposition meter as an instrument of ``threearc measure``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from arcs.gates import Gates
from arcs.held_out import prompts_of
from arcs.measure.instrument import Record
from arcs.measure.meter_claims import meter_claim
from arcs.trained_on import Asked
from backends.interface import LanguageModel
from evals.items.load import built_in, items_sha256
from evals.items.records import MeterItem
from evals.meter import (
    AXES,
    EncodedPair,
    MeterReading,
    choose,
    encode_pair,
    ids_sha256,
    read_pairs,
)
from evals.meter_scores import PERMUTATIONS, RESAMPLES, SEED, scores, shifts
from models.chat import ChatEncoder

CHUNK = 16
"""32 sequences: a second or two on a CPU, so that progress shows and a kill costs little."""


@dataclass(frozen=True)
class Meter:
    """See :class:`arcs.measure.instrument.Instrument`."""

    pairs: tuple[EncodedPair, ...]
    axes: tuple[str, ...]
    chunk: int = CHUNK
    dataset: str = "meter"

    @classmethod
    def of(cls, encoder: ChatEncoder, axes: Sequence[str], limit: int | None) -> Meter:
        """Encode the items of ``axes`` (all if empty), ``limit`` of each."""
        wanted = tuple(axis for axis in AXES if not axes or axis in axes)
        items = choose(built_in("meter", MeterItem), wanted, limit)
        return cls(tuple(encode_pair(encoder, item) for item in items), wanted)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """In file order."""
        return tuple(pair.item.id for pair in self.pairs)

    @property
    def asked(self) -> Asked:
        """The last turn of every context."""
        return prompts_of([pair.item for pair in self.pairs])

    def describe(self) -> dict[str, Any]:
        """Items, ids, and what is averaged."""
        return {
            "instrument": "meter",
            "quantity": "mean log-probability of the positive continuation minus that of the "
            "negative one, nats per token",
            "ids_counted": "the continuation's, without the end-of-turn id",
            "axes": list(self.axes),
            "items": len(self.pairs),
            "items_sha256": items_sha256([pair.item for pair in self.pairs]),
            "ids_sha256": ids_sha256(self.pairs),
            "chunk": self.chunk,
            "intervals": f"BCa bootstrap over items, {RESAMPLES} resamples, seed {SEED}",
            "p_values": f"two-sided, random signs, {PERMUTATIONS} draws, seed {SEED}; Holm over "
            "the axes of a condition",
        }

    def measure(self, model: LanguageModel, places: Sequence[int]) -> list[Record]:
        """Read the pairs at ``places``."""
        found = read_pairs(model, [self.pairs[place] for place in places])
        return [{**asdict(one), "contrast": one.contrast} for one in found]

    def summarise(self, records: Sequence[Record], gates: Gates) -> dict[str, Any]:
        """Scores by axis."""
        found = scores([reading_of(record) for record in records], gates.level)
        return {"axes": {axis: one.to_json() for axis, one in found.items()}}

    def compare(
        self,
        base: Sequence[Record],
        edited: Sequence[Record],
        gates: Gates,
        *,
        trained_on_test: bool = False,
    ) -> dict[str, Any]:
        """Shifts by axis, and the claim about each."""
        before, after = ([reading_of(record) for record in side] for side in (base, edited))
        found, own = shifts(before, after, gates.level), scores(before, gates.level)
        return {
            "axes": {axis: one.to_json() for axis, one in found.items()},
            "claims": {
                axis: meter_claim(axis, own[axis], one, gates, trained_on_test=trained_on_test)
                for axis, one in found.items()
            },
            "trained_on_test": trained_on_test,
        }


def reading_of(record: Record) -> MeterReading:
    """What a record of :meth:`Meter.measure` says."""
    return MeterReading(**{key: value for key, value in record.items() if key != "contrast"})

"""What instruments of one question an item share: a question is asked, and a judge reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from arcs.held_out import prompts_of
from arcs.judging.responses import Item
from arcs.mean_claims import Scored
from arcs.measure.answers import CHUNK, Asker, View
from arcs.measure.instrument import Record
from arcs.measure.judged import view_from
from arcs.trained_on import Asked
from backends.interface import LanguageModel
from evals.items.records import Item as SetItem

T = TypeVar("T", bound=SetItem)


@dataclass(frozen=True)
class Asking(Generic[T]):
    """See :class:`arcs.measure.instrument.Instrument` and :class:`arcs.measure.judged.Judged`."""

    items: tuple[T, ...]
    asker: Asker
    failing: frozenset[str] = frozenset()
    """Instruments on which the judge is below its bar."""
    chunk: int = CHUNK

    @property
    def item_ids(self) -> tuple[str, ...]:
        """In file order."""
        return self.asker.item_ids

    @property
    def asked(self) -> Asked:
        """Each prompt."""
        return prompts_of(self.items)

    def measure(self, model: LanguageModel, places: Sequence[int]) -> list[Record]:
        """Answer the prompts at ``places``."""
        return self.asker.answer(model, places)

    def judged_items(self) -> Mapping[str, Item]:
        """The prompts, with their checklists where they have any."""
        return {item.key: Item.of(item) for item in self.items}

    def views_of(self, record: Record) -> Mapping[int, View]:
        """The answer at each n_predict."""
        return self.asker.views(record)


def unfinished(records: Sequence[Record], n: int) -> list[bool]:
    """Which answers the budget ``n`` cut, other than in a loop."""
    return [view_from(record, n).unfinished for record in records]


def assertion_scores(records: Sequence[Record], n: int) -> Scored:
    """1 for an answer that asserts, 0 for one that hedges, None without a label."""
    said = [record["views"][str(n)]["asserted"] for record in records]
    scores = [None if one is None else int(one) for one in said]
    return Scored.of(scores, unfinished(records, n), 1)

"""What a run of ``threearc measure`` asks of an instrument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from arcs.gates import Gates
from arcs.trained_on import Asked
from backends.interface import LanguageModel

Record = Mapping[str, Any]
"""One item under one condition, JSON-able, with its ``item_id``."""


class Instrument(Protocol):
    """Items, encoded once and the same for all conditions."""

    @property
    def item_ids(self) -> tuple[str, ...]:
        """In the order in which they are measured."""

    @property
    def dataset(self) -> str:
        """The set's name in the records of what adapters were trained on."""

    @property
    def asked(self) -> Asked:
        """What each item asks."""

    @property
    def chunk(self) -> int:
        """Items that are measured together. Batches decide rounding, so chunks never change,
        however often a run is stopped."""

    def describe(self) -> dict[str, Any]:
        """What is measured, and how, for the manifest."""

    def measure(self, model: LanguageModel, places: Sequence[int]) -> list[Record]:
        """Measure the items at ``places``; one record each, in order."""

    def summarise(self, records: Sequence[Record], gates: Gates) -> dict[str, Any]:
        """One condition alone."""

    def compare(
        self,
        base: Sequence[Record],
        edited: Sequence[Record],
        gates: Gates,
        *,
        trained_on_test: bool = False,
    ) -> dict[str, Any]:
        """An edit against its base, item by item."""

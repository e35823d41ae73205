"""What ``--fast`` costs: the share of a fixed sample of texts that neighbours changed.

A unified KV cache makes a text depend on what is decoded beside it. Some items of every arm are
therefore decoded in the repeatable mode as well, and both texts are compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from backends.interface import Completion
from evals.budgets import first_difference, view_at
from evals.statistics.rates import wilson

ITEMS = 16
TOKENS = 128
"""Only so many ids of a text are compared, and decoded twice."""
T = TypeVar("T")


def spread(items: Sequence[T], count: int = ITEMS) -> tuple[T, ...]:
    """``count`` of the items, evenly spread from the first on; all if there are fewer."""
    if len(items) <= count:
        return tuple(items)
    return tuple(items[n * len(items) // count] for n in range(count))


def changed_texts(
    repeatable: Mapping[str, Completion], fast: Mapping[str, Completion], budget: int
) -> dict[str, Any]:
    """Compare the first ``budget`` ids of the texts decoded in both modes; JSON-able.

    ``first_difference``: by item, the position of the first id that differs.
    """
    differ = {
        key: first_difference(one, view_at(fast[key], budget)) for key, one in repeatable.items()
    }
    places = {key: place for key, place in differ.items() if place is not None}
    return {
        "compared": len(differ),
        "changed": len(places),
        "share": len(places) / len(differ),
        "interval": wilson(len(places), len(differ)).to_json(),
        "tokens": budget,
        "first_difference": places,
    }

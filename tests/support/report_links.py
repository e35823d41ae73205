"""Every number of a report leads to the items that it counts."""

from __future__ import annotations

from arcs.report.view import Select, State, View, as_tuple

COUNTED = frozenset({"outcome", "label", "delivery", "gate"})
"""Facets by which a rate leads to what it counts; without one of them it leads to all it is of."""


def selected(view: View, select: Select) -> list[tuple[str, State]]:
    """Item ids and states that a link shows: all facets on one state."""
    found = []
    for item in view.items:
        for answer in item.answers:
            for state in answer.states:
                facets = {"condition": answer.condition, **item.facets, **state.facets}
                if all(
                    set(as_tuple(facets.get(name, ()))) & set(as_tuple(values))
                    for name, values in select.items()
                ):
                    found.append((item.id, state))
    return found


def check_counts(view: View, *, differences: bool = True) -> int:
    """Assert that each linked count is the number of states behind it; returns how many were.

    ``differences``: of one answer an item; of several samples they count items, and so do means.
    """
    checked = 0
    for table in view.tables:
        for key, cell in table.numbers():
            number = cell.number
            if cell.select is None or number is None or number.unit == "p":
                continue
            found = selected(view, cell.select)
            behind, items = len(found), len({item for item, _ in found})
            if number.unit == "count":
                assert behind == number.value, (key, cell, behind)
                checked += 1
            elif number.unit == "share":
                n, counted = number.n or 0, COUNTED & cell.select.keys()
                expected = (round(number.value * n) if counted else 0) or n
                mean = not counted and not differences
                assert expected in ((behind, items) if mean else (behind,)), (key, cell, behind)
                checked += 1
            elif number.unit in ("number", "nats") and number.n is not None:
                assert number.n in ((behind,) if differences else (behind, items)), (key, cell)
                checked += 1
            elif number.unit == "points" and differences and "change" in cell.select:
                if not cell.lines or "−" not in cell.lines[-1]:
                    continue
                gained, lost = cell.lines[-1].replace("−", "").replace("+", "").split()
                assert behind == int(gained) + int(lost), (key, cell, behind)
                checked += 1
    return checked

"""What the cells of a sweep gave together: claims, their spread over seeds, their multiplicity."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from arcs.report import generic
from arcs.report.stored import StoredRun
from arcs.report.view import ClaimCard, Number
from arcs.runs import canonical_json
from arcs.sweep.grid import SEED, Cell
from arcs.sweep.running import Outcome
from evals.statistics.multiplicity import holm

SCHEMA = "threearc-sweep-1"
INVALID = "INVALID"
CONJUNCTIONS = {
    "falsify": ("all_five", "this_model"),
    "arc3": ("beyond_baselines", "gate"),
}
"""By arc, claims for which several things must all hold. The p stored with one of them is that of
the part that spoke for it; the claim's own would be the largest of all parts (Berger 1982), and
some parts are intervals without one. So it is no p of the claim."""
CELLS = "cells"
"""The folder of the cells' runs, within the sweep's."""


def results(
    cells: Sequence[Cell],
    resolved: Mapping[str, Mapping[str, Any]],
    outcomes: Mapping[str, Outcome],
    folder: Path,
    alpha: float,
) -> dict[str, Any]:
    """The sweep's metrics.json: the same for the same results, however often it was continued."""
    rows = [_row(cell, resolved[cell.name], outcomes[cell.name], folder) for cell in cells]
    alike = {
        cell.name: canonical_json([cell.arc, {**resolved[cell.name], SEED: None}]) for cell in cells
    }
    states = Counter(row["state"] for row in rows)
    return {
        "schema_version": SCHEMA,
        "finished": states["finished"],
        "failed": states["failed"],
        "cells": rows,
        "over_seeds": over_seeds(rows, alike),
        "multiplicity": multiplicity(rows, alpha),
    }


def _row(cell: Cell, resolved: Mapping[str, Any], outcome: Outcome, folder: Path) -> dict[str, Any]:
    finished = outcome.state == "finished"
    claims = []
    if finished:
        metrics = StoredRun(folder / cell.name).metrics or {}
        claims = [_claim(card, cell.arc) for card in generic.claims_in(metrics, main_only=True)]
    return {
        **cell.to_json(),
        "state": outcome.state,
        "line": outcome.line,
        "seed": resolved.get(SEED),
        "claims": claims,
    }


def _claim(card: ClaimCard, arc: str) -> dict[str, Any]:
    number = card.number
    of_a_part = card.about.rpartition(" / ")[2] in CONJUNCTIONS.get(arc, ())
    return {
        "about": card.about,
        "statement": card.statement,
        "verdict": card.verdict,
        "reasons": list(card.reasons),
        "value": None if number is None else number.value,
        "unit": None if number is None else number.unit,
        "low": None if number is None else number.low,
        "high": None if number is None else number.high,
        "level": None if number is None else number.level,
        "n": None if number is None else number.n,
        "p_value": None if of_a_part else card.p_value,
        "p_of_a_part": card.p_value if of_a_part else None,
    }


def over_seeds(rows: Sequence[Mapping[str, Any]], alike: Mapping[str, str]) -> list[dict[str, Any]]:
    """Mean, least and most of each claim's number over cells that differ in their seed alone.

    Of the finished ones, and of claims that are not INVALID: what a broken instrument measured is
    no value of the claim. A cell without another is left out. ``alike``: by cell, what it has in
    common with those.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(alike[row["name"]], []).append(row)
    found = []
    for members in groups.values():
        done = [row for row in members if row["state"] == "finished"]
        if len(members) > 1 and done:
            found += [_spread(members, done, key) for key in _claims_of(done)]
    return found


def _claims_of(rows: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return list(
        dict.fromkeys((one["about"], one["statement"]) for r in rows for one in r["claims"])
    )


def _spread(
    members: Sequence[Mapping[str, Any]],
    done: Sequence[Mapping[str, Any]],
    key: tuple[str, str],
) -> dict[str, Any]:
    claims = [
        one for row in done for one in row["claims"] if (one["about"], one["statement"]) == key
    ]
    valid = [one for one in claims if one["verdict"] != INVALID]
    values = [one["value"] for one in valid if one["value"] is not None]
    return {
        "cells": [row["name"] for row in members],
        "seeds": [row["seed"] for row in done],
        "without_result": len(members) - len(done),
        "about": key[0],
        "statement": key[1],
        "unit": claims[0]["unit"],
        "invalid": len(claims) - len(valid),
        "n_values": len(values),
        "mean": statistics.fmean(values) if values else None,
        "least": min(values, default=None),
        "most": max(values, default=None),
        "verdicts": dict(sorted(Counter(one["verdict"] for one in claims).items())),
    }


def multiplicity(rows: Sequence[dict[str, Any]], alpha: float) -> dict[str, Any]:
    """How many claims the sweep makes, and Holm's correction over the p of those that have one.

    Each claim gets its ``p_adjusted``. An INVALID one is of no family: its instrument failed, and
    its p means nothing, however small.
    """
    every = list(_all_claims(rows))
    valid = [entry for entry in every if entry[2]["verdict"] != INVALID]
    tested = [(cell, place, one) for cell, place, one in valid if one["p_value"] is not None]
    adjusted = holm({f"{cell} {place}": one["p_value"] for cell, place, one in tested}, alpha)
    for cell, place, one in every:
        found = adjusted.get(f"{cell} {place}")
        one["p_adjusted"] = None if found is None else found.adjusted
    return {
        "claims": len(every),
        "invalid": len(every) - len(valid),
        "with_p": len(tested),
        "without_p": len(valid) - len(tested),
        "cells_without_result": sum(row["state"] != "finished" for row in rows),
        "method": "holm",
        "alpha": alpha,
        "holm": [
            {
                "cell": cell,
                "about": one["about"],
                "statement": one["statement"],
                "alone": one["verdict"],
                "p": one["p_value"],
                "adjusted": adjusted[f"{cell} {place}"].adjusted,
                "rejected": adjusted[f"{cell} {place}"].rejected,
            }
            for cell, place, one in tested
        ],
    }


def _all_claims(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[str, int, dict[str, Any]]]:
    for row in rows:
        for place, one in enumerate(row["claims"]):
            yield row["name"], place, one


def sentences(metrics: Mapping[str, Any]) -> list[str]:
    """What the table means, in words."""
    found = metrics["multiplicity"]
    lines = [f"{metrics['finished']} of {len(metrics['cells'])} cells finished"]
    if metrics["failed"]:
        lines[0] += f"; {metrics['failed']} failed and add no claim"
    if not found["claims"]:
        return [*lines, "No claim was made."]
    lines.append(
        f"{found['claims']} claims were made, each held to its own level: the more claims, the "
        "more of them look significant by chance."
    )
    if found["invalid"]:
        lines.append(
            f"{found['invalid']} of them are INVALID: their instrument failed, and no p of theirs "
            "counts."
        )
    if found["with_p"]:
        kept = sum(one["rejected"] for one in found["holm"])
        raw = sum(one["p"] <= found["alpha"] for one in found["holm"])
        lines.append(
            f"Holm over the p of {found['with_p']} claims, alpha {found['alpha']:g}: {kept} "
            f"remain significant, of {raw} before the correction."
        )
    if found["without_p"]:
        lines.append(
            f"{found['without_p']} claims have no p of their own: they rest on intervals, or on "
            "several tests that must all hold; uncorrected."
        )
    lost = [
        f"{one['cell']} ({one['about']})" if one["about"] else one["cell"]
        for one in found["holm"]
        if one["alone"] == "SUPPORTED" and not one["rejected"]
    ]
    if lost:
        lines.append(
            "SUPPORTED alone, and not significant among all of the sweep: " + ", ".join(lost) + "."
        )
    return lines


# -- for tables -----------------------------------------------------------------------------------


def number_of(claim: Mapping[str, Any]) -> Number | None:
    """A claim's effect with its interval; None where it has none."""
    if claim["value"] is None:
        return None
    return Number(
        claim["value"], claim["unit"], claim["low"], claim["high"], claim["level"], claim["n"]
    )


def value_of(group: Mapping[str, Any], key: str) -> Number | None:
    """``mean``, ``least`` or ``most`` over seeds."""
    return None if group[key] is None else Number(group[key], group["unit"])


def seeds_text(group: Mapping[str, Any]) -> str:
    """How many values the mean is of, of how many cells; what is INVALID is counted apart."""
    text = f"{group['n_values']} of {len(group['cells'])}"
    invalid = group.get("invalid")  # none in a sweep of before they were counted
    return f"{text}, {invalid} {INVALID}" if invalid else text


def verdicts_text(group: Mapping[str, Any]) -> str:
    """Each verdict, and how often."""
    return ", ".join(f"{verdict} x{count}" for verdict, count in group["verdicts"].items())

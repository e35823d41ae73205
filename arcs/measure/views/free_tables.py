"""Claims and tables of free answers (chef, MCAS, recovery), each number linked to its answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from arcs.measure.config import CHEF, MCAS
from arcs.report import generic, parts
from arcs.report.view import Cell, ClaimCard, Number, Row, Select, Table
from evals.mcas import TYPES

Json = Mapping[str, Any]
RIGHT_FROM = "0.5"
"""Share of a checklist from which an answer is right, as the metrics key it."""


def claims(metrics: Json) -> Iterator[ClaimCard]:
    """The claims of each condition at the largest n_predict; the others are minor."""
    for name, condition in metrics["conditions"].items():
        compared = condition["comparison"] or {}
        for found in (compared.get("claims") or {}).values():
            for place, claim in enumerate(reversed(found)):
                yield _card(name, claim, minor=place > 0)
        for claim in (compared.get("axes") or {}).values():
            yield _card(name, claim, minor=True)


def _card(name: str, claim: Json, *, minor: bool) -> ClaimCard:
    return generic.card_of(claim, about=name, minor=minor, select=_at(name, claim["n_predict"]))


def _at(name: str, n: Any) -> dict[str, str | tuple[str, ...]]:
    return {"condition": name, "n_predict": str(n)}


def tables(metrics: Json) -> Iterator[Table]:
    """Differences first, then what each condition's answers came to."""
    changed = differences(metrics)
    if changed is not None:
        yield changed
    yield answers(metrics)


def differences(metrics: Json) -> Table | None:
    """Every claim's difference at the largest n_predict."""
    rows = []
    for name, condition in metrics["conditions"].items():
        for found in ((condition["comparison"] or {}).get("claims") or {}).values():
            claim = found[-1]
            select = _at(name, claim["n_predict"])
            number = Number.of(claim["delta"], "points", claim["interval"], claim["n_items"])
            cells = (
                parts.number_cell(number, f"+{claim['gained']} −{claim['lost']}"),
                parts.p_cell(claim["p_value"]),
                parts.number_cell(Number.of(claim["base"]), select={**select, "condition": "base"}),
                parts.number_cell(Number.of(claim["edited"]), select=select),
                parts.verdict_cell(claim),
            )
            rows.append(Row(f"{name}: {claim['quantity']}", cells))
    if not rows:
        return None
    return Table(
        "differences", "Against the base", ("difference", "p", "base", "edited", "verdict"),
        tuple(rows), head="quantity",
        caption="At the largest n_predict, item by item; +rose −fell; means lead to all answers "
        "that they are of.",
    )  # fmt: skip


def answers(metrics: Json) -> Table:
    """A row a condition and n_predict, then those of the answers that ended by themselves."""
    read, columns = {
        CHEF: (_chef, ("coverage", "half or more", "asserted", "asymmetry")),
        MCAS: (_mcas, ("penalised %", "original %", "of 25", "hedged")),
    }.get(metrics["instrument"], (_recovery, ("recovered",)))
    groups: tuple[str, ...] = ("all", *TYPES) if metrics["instrument"] == MCAS else ("all",)
    rows = []
    for name, condition in metrics["conditions"].items():
        for n, found in sorted(condition["result"]["budgets"].items(), key=lambda one: int(one[0])):
            for which in ("all", "finished_only"):
                ended = which == "finished_only"
                if ended and not found["finished"]:
                    continue
                at: Select = {**_at(name, n), **(_ended(metrics) if ended else {})}
                for group in groups:
                    of = at if group == "all" else {**at, "type": group}
                    label = f"{name}, n_predict {n}" + ("" if group == "all" else f", {group}")
                    cells = (*read(found[which], of, group), *_common(found, of, ended, group))
                    rows.append(Row(label + (", ended" if ended else ""), cells))
    return Table(
        "free answers", "What the answers came to",
        (*columns, "checks itself", "n", "cut", "loops", "empty"), tuple(rows), head="answers",
        caption="Ended: by themselves, within n_predict. Intervals: Wilson for rates, BCa "
        "bootstrap over items for means; a rate leads to what it counts, a mean to all. Checks "
        "itself: a rule; the page knows its count, not which answers they are.",
    )  # fmt: skip


def _ended(metrics: Json) -> dict[str, str]:
    """Where answers are run, what ran stands as their outcome."""
    judged = metrics["instrument"] in (CHEF, MCAS)
    return {"outcome": "finished"} if judged else {"cut": "finished"}


def _common(found: Json, select: Select, ended: bool, group: str) -> tuple[Cell, ...]:
    if group != "all":
        return (parts.MISSING,) * 5
    checks = found["self_verification"]["finished" if ended else "all"]["precise"]
    checked = parts.number_cell(
        Number.of(checks["value"], "share", checks["interval"], checks["n"]),
        f"{checks['successes']}/{checks['n']}",
    )
    if ended:
        return checked, parts.count_cell(found["finished"], select=select), *([parts.MISSING] * 3)
    cut = Cell(f"{found['unfinished'] + found['loops']:,}")
    counts = (parts.count_cell(found[name]) for name in ("loops", "empty"))
    return checked, parts.count_cell(found["n"], select=select), cut, *counts


def _rate(found: Json, select: Select, counted: Mapping[str, str]) -> Cell:
    number = Number.of(found["value"], "share", found["interval"], found["n"])
    behind = {**select, **counted} if found["successes"] else select
    return parts.number_cell(number, f"{found['successes']}/{found['n']}", select=behind)


def _chef(found: Json, select: Select, group: str) -> tuple[Cell, ...]:
    covered, half = found["coverage"], found["delivery"][RIGHT_FROM]
    mean = Number.of(covered["mean"], "number", covered["interval"], covered["n"])
    asymmetry = half["asymmetry"] or {"value": None, "interval": None}
    share = covered["at_least"].get(RIGHT_FROM)
    return (
        parts.number_cell(mean, select=select),
        parts.MISSING if share is None else parts.number_cell(
            Number.of(share["value"], "share", share["interval"], share["n"]),
            f"{share['successes']}/{share['n']}",
        ),
        _rate(half["assertion_rate"], select, {"label": "delivery=ASSERT"}),
        parts.number_cell(Number.of(asymmetry["value"], "points", asymmetry["interval"])),
    )  # fmt: skip


def _mcas(found: Json, select: Select, group: str) -> tuple[Cell, ...]:
    scores = found[group]
    means = (
        parts.number_cell(
            Number.of(one["value"], "number", one["interval"], one["n"]), select=select
        )
        for one in (scores[key] for key in ("penalised_percent", "original_percent", "out_of_25"))
    )
    return (*means, _rate(scores["hedged"], select, {"label": "delivery=HEDGE"}))


def _recovery(found: Json, select: Select, group: str) -> tuple[Cell, ...]:
    return (_rate(found["recovered"], select, {"outcome": "passed"}),)

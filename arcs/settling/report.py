"""A plan, and what came of it, for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from arcs.settling.plan import Plan, Planned
from arcs.settling.statistic import CHANCE
from arcs.settling.subject import OpenClaim, Subject

BORDER = "it is smaller than one that matters, or at its border"


def others(subject: Subject) -> list[str]:
    """One line a claim that needs no settling, or cannot be settled so."""
    lines = [f"{name}: {why}." for name, why in subject.others]
    return lines or ([] if subject.claims else [f"{subject.run}: it makes no claims."])


def hours(subject: Subject, plan: Plan) -> float | None:
    """To run every planned item on this machine, by the run's own timing."""
    seconds = subject.seconds_per_item
    return None if seconds is None else seconds * _counted(plan) / 3600


def _counted(plan: Plan) -> int:
    """New items, those apart that only come along."""
    own = {one.claim.group for one in plan.claims}
    return sum(group in own for look in plan.looks for portion in look for group in portion.groups)


def planned(subject: Subject, plan: Plan) -> list[str]:
    """The plan in words."""
    lines: list[str] = []
    seconds = subject.seconds_per_item
    for one in plan.claims:
        lines += [*_claim(one, seconds), ""]
    for pool in plan.pools:
        counts = ", ".join(f"{len(ids)} {group}".strip() for group, ids in pool.items.items())
        out = "; ".join(f"{count} {why}" for why, count in pool.left_out.items())
        lines.append(f"Unused items of {pool.title}: {counts or 0}" + (f" ({out})" if out else "")
                     + ".")  # fmt: skip
    lacking = [f"{one.claim.key} {missing:,}" for one in plan.claims
               if (missing := plan.missing(one))]  # fmt: skip
    if not plan.looks:
        said = f"; short of the number that excludes an effect: {', '.join(lacking)} items" \
            if lacking else ""  # fmt: skip
        return [*lines, f"No item is left to look at{said}. Give more with --data FILE: "
                f"{subject.kinds}."]  # fmt: skip
    if lacking:
        lines.append(f"Short of the number that excludes an effect: {', '.join(lacking)} items; "
                     f"more can be given with --data FILE: {subject.kinds}.")  # fmt: skip
    whole = hours(subject, plan)
    items = _counted(plan)
    along = sum(len(portion.ids) for look in plan.looks for portion in look) - items
    beside = f" (and {along} {', '.join(plan.claims[0].claim.beside)} beside them)" if along else ""
    took = "time unknown" if whole is None else f"about {_hours(whole)} on this machine"
    lines.append(
        f"{items} new items{beside} in {len(plan.looks)} looks at most, {took}, if all are needed."
    )
    lines.append(
        "The run was not planned as a look. It counts as the first: of alpha it is charged what "
        "the spending function gives at its share of the items; it crossed no bound, or its "
        "estimate was smaller than one that matters. Its own test, at the whole alpha, stands "
        "apart: a false effect in either has the probability given above."
    )
    return lines


def _claim(one: Planned, seconds: float | None) -> Iterator[str]:
    claim = one.claim
    first = one.schedule.sizes[0]
    yield _stated(claim)
    show = _needed(one.needs.to_show, first, seconds, BORDER)
    exclude = _needed(one.needs.to_exclude, first, seconds, "no practical number")
    yield f"  to show an effect of this size, if it is the true one: {show}"
    yield f"  to exclude one that matters, if there is none: {exclude}"
    if len(one.schedule.sizes) > 1:
        yield (
            f"  looks at n = {_listed(one.schedule.sizes, 'd')}; alpha {one.alpha:.3g}"
            f"{_family(claim)}, spent by then {_listed(one.allowed, '.2g')}; levels "
            f"{_listed(one.levels, '.2g')}"
        )
        yield (
            f"  decided by the last look with probability {one.as_seen.power:.2f} if the "
            f"{'AUC' if claim.auc else 'difference'} is as seen, {one.no_effect.power:.2f} if "
            f"there is {'no signal' if claim.auc else 'none'}; a false effect, "
            f"here or in the run's own test: {one.either:.3f} at most"
            f"{f' (of one of the {claim.family} {claim.family_of})' if claim.family > 1 else ''}"
        )
    if claim.one_of_several:
        yield (
            f"  counted is {claim.one_of_several}; the claim asks for more than that, so a plan "
            "that decides this number need not decide it"
        )


def _stated(claim: OpenClaim) -> str:
    """The run's own number, and what matters."""
    stated = claim.stated
    n_and_p = f"n = {stated['n_items']}, p = {stated['p_value']:.2g}"
    if claim.auc:
        settles = stated["n_to_settle"]
        said = f"{claim.key}: AUC {CHANCE + stated['delta']:.3f}, {n_and_p}; an AUC that matters: "
        said += f"{CHANCE + claim.smallest:.3g}"
        if settles is not None:
            said += f"; about {settles:,} fresh items would settle it, if that is the true AUC"
        return f"{said}."
    nats = claim.unit is not None and not claim.in_points
    unit, scale, digits = ("nats", 1.0, 3) if nats else ("points", 100.0, 1)
    return (
        f"{claim.key}: {scale * stated['delta']:+.{digits}f} {unit}, {n_and_p}; an effect that "
        f"matters: {scale * claim.smallest:.3g} {unit}."
    )


def _needed(n: int | None, first: int, seconds: float | None, otherwise: str) -> str:
    if n is None:
        return f"- ({otherwise})"
    time = "" if seconds is None else f", {_hours(seconds * max(0, n - first) / 3600)}"
    return f"{n:,} items in all ({max(0, n - first):,} new{time})"


def _family(claim: OpenClaim) -> str:
    return f" (a share of {claim.family} {claim.family_of})" if claim.family > 1 else ""


def _listed(values: Sequence[float], form: str) -> str:
    return ", ".join(format(value, form) for value in values)


def _hours(value: float) -> str:
    if value < 1 / 60:
        return "less than a minute"
    return f"{60 * value:.0f} min" if value < 1 else f"{value:.1f} h"


def settled(metrics: Mapping[str, Any]) -> list[str]:
    """What became of every claim, look by look."""
    lines: list[str] = []
    for name, claim in metrics["claims"].items():
        auc = claim.get("statistic") == "AUC"
        lines.append(
            f"{name}: {claim['verdict']} ({', '.join(claim['reasons']).replace('_', ' ')})"
        )
        lines.append(f"  {claim['explanation']}")
        for number, look in enumerate(claim["looks"], start=1):
            lines.append(f"  look {number}: {_look(look, auc)}")
        last = claim["looks"][-1]
        if len(last["sources"]) > 1:
            lines += [f"  {one['source']}: {_estimate(one, auc)}, n = {one['n_items']}"
                      for one in last["sources"]]  # fmt: skip
            lines.append(f"  in strata: {_interval(last['stratified_interval'], auc)}")
        lines.append("")
    lines += [f"{one['claim']}: {one['why']}." for one in metrics["not_settled"]]
    lines.append(
        f"Plan {metrics['plan_sha256'][:16]}, hashed before new items were opened. Intervals are "
        "repeated ones, at the level of their look; an estimate that stopped a run early is, on "
        "average, too large."
    )
    return lines


def _look(look: Mapping[str, Any], auc: bool) -> str:
    lowered = ", lowered by the exact count" if look["level_lowered"] else ""
    p = "-" if look["p_value"] is None else f"{look['p_value']:.2g}"
    reasons = ", ".join(look["reasons"]).replace("_", " ")
    return (
        f"n = {look['n_items']}, {_estimate(look, auc)}, p = {p} at level {look['level']:.2g}"
        f"{lowered} ({look['alpha_spent']:.2g} spent): {look['verdict']}"
        + (f" ({reasons})" if auc else "")
    )


def _estimate(found: Mapping[str, Any], auc: bool) -> str:
    """A difference, or the AUC itself."""
    interval = _interval(found["interval"], auc)
    if not auc:
        return f"{found['delta']:+.3f} {interval}"
    if found["delta"] is None:
        return "AUC - (answers of one label)"
    return f"AUC {CHANCE + found['delta']:.3f} {interval}"


def _interval(interval: Mapping[str, float] | None, auc: bool) -> str:
    if interval is None:
        return "[-]"
    if auc:
        return f"[{CHANCE + interval['low']:.3f}, {CHANCE + interval['high']:.3f}]"
    return f"[{interval['low']:+.3f}, {interval['high']:+.3f}]"

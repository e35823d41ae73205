"""The audit of tests that cannot show, or exclude, what is claimed from them."""

from __future__ import annotations

from collections.abc import Sequence

from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.pairs import Pair, pairs
from arcs.audits.probe_data import one_a_test_set, title
from arcs.audits.results import Claim, ProbeResult, Results
from arcs.audits.set_pairs import groups_of
from arcs.gates import Gates, load_gates
from evals.statistics.auc import hanley_mcneil_interval
from evals.statistics.bootstrap import bootstrap_paired_difference
from evals.statistics.paired import mcnemar_exact, tango_interval
from evals.statistics.power import (
    mcnemar_power,
    minimum_detectable_effect,
    n_to_settle,
)
from evals.statistics.power_auc import (
    auc_half_width,
    minimum_detectable_auc,
    minimum_detectable_rate_difference,
    n_to_settle_auc,
)

PAPER_AUC_GATE = 0.63
"""AUC on new items that the paper's protocol asks for in step 2 (PAPER.md 5.4)."""
MOST_ITEMS = 100_000
"""Beyond this, "more items" is no longer advice."""
USUAL_DISCORDANCE = 0.2
"""Share of items that change between two arms, where it is not known: 0.18 to 0.28 in the
designs of ANCHORS.md E2, 0.25 in the paper's own run at 512 tokens."""


def weak_test(results: Results) -> Outcome:
    """Find claims and comparisons whose number of items cannot settle them."""
    gates = load_gates()
    found_pairs = pairs(results)
    claims = [one for one in results.claims if _readable(one)]
    tested = [p for p in results.probes if p.test_auc is not None and _has_counts(p)]
    probes = one_a_test_set(tested)
    about = [_claim_about(pair, claims) for pair in found_pairs]
    # A claim whose items are at hand is judged by them, not by an assumed discordance.
    alone = [claim for claim in claims if all(claim is not one for one in about)]
    findings = [
        *(_pair_finding(pair, c, gates) for pair, c in zip(found_pairs, about, strict=True)),
        *(_claim_finding(claim, gates) for claim in alone),
        *(_probe_finding(probe, gates) for probe in probes),
    ]
    examined = len(found_pairs) + len(claims) + len(probes)
    return outcome((one for one in findings if one is not None), examined)


def grouped_pairs(results: Results) -> Outcome:
    """Find paired comparisons whose items come in groups, which their tests do not know."""
    found_pairs = pairs(results)
    found = (_grouped_finding(pair) for pair in found_pairs)
    return outcome((one for one in found if one is not None), len(found_pairs))


def _grouped_finding(pair: Pair) -> Finding | None:
    """A cluster bootstrap of the difference beside the test that takes items as independent."""
    groups = groups_of(pair.base.by_id[i] for i in pair.item_ids)
    rows = [
        (float(a), float(b), group)
        for a, b, group in zip(pair.base_passes, pair.edited_passes, groups, strict=True)
        if a is not None and b is not None
    ]
    number = len({group for _, _, group in rows})
    if number == len(rows):
        return None
    first, second, names = zip(*rows, strict=True)
    try:
        interval = bootstrap_paired_difference(first, second, groups=names)
        found = f"[{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
    except ValueError:  # no variation between groups: there is no interval
        interval, found = None, "none (the groups do not vary)"
    counts = pair.counts
    return Finding(
        Severity.CAUTION,
        pair.title,
        f"The {len(rows)} items come in {number} groups (several samples of one prompt): McNemar's "
        f"p = {mcnemar_exact(counts.gained, counts.lost):.2g} takes them as independent. The "
        f"difference is {100 * counts.delta:+.1f} points, and its interval over groups {found}.",
        "Judge the difference by the interval over groups, or keep one sample a prompt.",
        {
            "n": len(rows),
            "groups": number,
            "difference": counts.delta,
            "interval_over_groups": interval.to_json() if interval else None,
        },
    )


def _has_counts(probe: ProbeResult) -> bool:
    return bool(probe.n_positive and probe.n_negative)


def _readable(claim: Claim) -> bool:
    """Whether the claim's kind and counts say which test it rests on."""
    if claim.n < 2 or not -1 <= claim.effect <= 1:
        return False
    split = claim.n_positive is not None and 0 < claim.n_positive < claim.n
    return claim.kind in ("paired rate", "rate") or (claim.kind == "auc" and split)


def _claim_about(pair: Pair, claims: Sequence[Claim]) -> Claim | None:
    """Return the claim whose number is that of the pair, to the tenth of a point."""
    counts = pair.counts
    for claim in claims:
        same = claim.n == counts.n and abs(claim.effect - counts.delta) < 1e-3
        if claim.kind == "paired rate" and same:
            return claim
    return None


def _pair_finding(pair: Pair, claim: Claim | None, gates: Gates) -> Finding | None:
    counts, smallest = pair.counts, gates.smallest_effect.pass_at_1
    p_value = mcnemar_exact(counts.gained, counts.lost)
    interval = tango_interval(counts.gained, counts.lost, counts.n, gates.level)
    if p_value < gates.test.alpha or interval.excludes_effect(smallest):
        return None
    settles = n_to_settle(counts.gained, counts.lost, counts.n, smallest)
    detectable = minimum_detectable_effect(counts.gained, counts.lost, counts.n)
    claimed = "The claimed difference" if claim else "The difference"
    return Finding(
        Severity.BIASES if claim else Severity.CAUTION,
        pair.title,
        f"{claimed} of {100 * counts.delta:+.1f} points over {counts.n} items is not significant "
        f"(McNemar p = {p_value:.2g}) and not excluded either "
        f"({100 * interval.low:+.1f} to {100 * interval.high:+.1f}): {_limit(detectable)}.",
        _more_items(settles),
        {
            "gained": counts.gained,
            "lost": counts.lost,
            "n": counts.n,
            "missing": counts.missing,
            "difference": counts.delta,
            "mcnemar_p": p_value,
            "tango_interval": interval.to_json(),
            "smallest_effect": smallest,
            "minimum_detectable_effect": detectable,
            "n_to_settle": settles,
            "claim": claim.statement if claim else None,
        },
    )


def _limit(detectable: float | None) -> str:
    if detectable is None:
        return "so few items can show no difference at all"
    return f"so many items show {100 * detectable:.1f} points or more in four of five runs"


def _more_items(n: int | None) -> str:
    if n is None:
        return "No number of items would settle it: the effect lies at the border of what matters."
    return f"About {n} items in all would settle it; until then claim neither an effect nor none."


def _claim_finding(claim: Claim, gates: Gates) -> Finding | None:
    """Weak where neither the claimed effect nor the smallest that matters could be seen."""
    smallest = gates.smallest_effect
    least = {"paired rate": smallest.pass_at_1, "auc": smallest.auc, "rate": smallest.rate}
    target = max(abs(claim.effect), least[claim.kind])
    if _enough(claim, target, claim.n, gates):
        return None
    detectable, evidence = _detectable(claim, target)
    settles = _claim_n(claim, target, gates)
    said = "no effect at all" if detectable is None else f"{detectable:.3f} or more"
    advice = f"; about {settles} would" if settles else ""
    return Finding(
        Severity.BIASES,
        f"claim: {claim.statement}",
        f"The claimed effect is {claim.effect:+.3f} and {claim.n} items can show {said}: they "
        f"cannot show or exclude an effect of {target:.3f}{advice}.",
        "Use more items, or state the claim as undecided with its interval.",
        {
            "effect": claim.effect,
            "n": claim.n,
            "n_positive": claim.n_positive,
            "kind": claim.kind,
            "effect_to_show": target,
            "minimum_detectable_effect": detectable,
            "n_to_settle": settles,
            **evidence,
        },
    )


def _detectable(claim: Claim, target: float) -> tuple[float | None, dict[str, Evidence]]:
    """Smallest effect that the claim's items show with power 0.8, and what was assumed."""
    if claim.kind == "paired rate":
        gain, loss = _assumed(target)
        changing = round((gain + loss) * claim.n)
        detectable = minimum_detectable_effect(changing // 2, changing - changing // 2, claim.n)
        power = mcnemar_power(claim.n, gain, loss)
        return detectable, {"assumed_discordance": gain + loss, "power": power}
    first, second = _groups(claim)
    if claim.kind == "rate":
        rise = minimum_detectable_rate_difference(0.5 - target / 2, first, second)
        return rise, {"group_sizes": [first, second], "assumed_rate": 0.5 - target / 2}
    detectable = minimum_detectable_auc(first, second)
    width = auc_half_width(first, second)
    return None if detectable is None else detectable - 0.5, {"half_width_at_chance": width}


def _groups(claim: Claim) -> tuple[int, int]:
    """Sizes of the two groups: positives and the rest, else halves of the items."""
    split = claim.n_positive is not None and 0 < claim.n_positive < claim.n
    first = claim.n_positive if split and claim.n_positive else claim.n // 2
    return first, claim.n - first


def _claim_n(claim: Claim, target: float, gates: Gates) -> int | None:
    """Items in all with which the target could be seen; None where no number would do."""
    low, high = claim.n, MOST_ITEMS
    if not _enough(claim, target, high, gates):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _enough(claim, target, middle, gates) else (middle, high)
    return high


def _enough(claim: Claim, target: float, n: int, gates: Gates) -> bool:
    """Whether n items, split as the claim's are, show the target with the power of the gates."""
    power = gates.test.power
    if claim.kind == "paired rate":
        return mcnemar_power(n, *_assumed(target)) >= power
    first, _ = _groups(claim)
    part = min(max(1, round(n * first / claim.n)), n - 1)
    if claim.kind == "rate":
        rise = minimum_detectable_rate_difference(0.5 - target / 2, part, n - part, power=power)
        return rise is not None and rise <= target
    value = minimum_detectable_auc(part, n - part, power=power)
    return value is not None and value - 0.5 <= target


def _assumed(target: float) -> tuple[float, float]:
    """Shares of items gained and lost if a net share ``target`` of them is."""
    discordance = max(USUAL_DISCORDANCE, target)
    return (discordance + target) / 2, (discordance - target) / 2


def _probe_finding(probe: ProbeResult, gates: Gates) -> Finding | None:
    """Weak where the items cannot tell a probe at its gate from one that knows nothing."""
    positive, negative, value = probe.n_positive, probe.n_negative, probe.test_auc
    if positive is None or negative is None or value is None or not 0 <= value <= 1:
        return None
    gate = PAPER_AUC_GATE if probe.auc_gate is None else probe.auc_gate
    detectable = minimum_detectable_auc(positive, negative)
    if gate <= 0.5 or (detectable is not None and detectable <= gate):
        return None
    settles = n_to_settle_auc(gate, positive, negative, gates.smallest_effect.auc)
    width = auc_half_width(positive, negative)
    interval = hanley_mcneil_interval(value, positive, negative)
    said = "no AUC at all" if detectable is None else f"an AUC of {detectable:.3f} or more"
    return Finding(
        Severity.CAUTION,
        title(probe),
        f"{positive} against {negative} items show {said} in four of five runs, not the gate "
        f"{gate:.2f}; chance alone is 0.5 +- {width:.2f}, and the AUC {value:.3f} has the "
        f"interval {interval.low:.3f} to {interval.high:.3f}.",
        f"Use about {settles} items at this share of positives, or conclude nothing from a miss."
        if settles
        else "Conclude nothing from a miss of this gate.",
        {
            "auc": value,
            "interval": interval.to_json(),
            "n_positive": positive,
            "n_negative": negative,
            "gate": gate,
            "gate_is": "the paper's protocol" if probe.auc_gate is None else "the probe's own",
            "half_width_at_chance": width,
            "minimum_detectable_auc": detectable,
            "n_to_settle": settles,
        },
    )


AUDITS: tuple[Audit, ...] = (
    Audit(
        "grouped-pairs",
        "Do paired tests take several samples of one prompt as independent?",
        "paired arms with pass labels",
        grouped_pairs,
    ),
    Audit(
        "weak-test",
        "Are there enough items to show, or to exclude, the effect that matters?",
        "claims, paired arms, or probes with an AUC and class counts",
        weak_test,
    ),
)

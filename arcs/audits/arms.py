"""Audits of arms that are compared: budgets, floors, answers that were cut off."""

from __future__ import annotations

from collections.abc import Sequence

from arcs.audits import weak_tests
from arcs.audits.ends import ran_out
from arcs.audits.findings import Audit, Evidence, Finding, Outcome, Severity, outcome
from arcs.audits.pairs import Pair, pairs
from arcs.audits.probe_data import (
    Labelled,
    binary_labels,
    family_sets,
    labelled,
    one_a_test_set,
    test_items,
)
from arcs.audits.results import ProbeResult, Results, ResultSet, Role
from arcs.gates import Gates, load_gates
from evals.statistics.differences import difference_of_rates
from evals.statistics.interaction import budget_interaction
from evals.statistics.multiplicity import Adjusted, holm
from evals.statistics.paired import PairedCounts, mcnemar_exact, paired_counts, tango_interval

FEWEST_OF_A_CLASS = 30
"""With 30 of 193 positive the interval of an AUC at chance is already +- 0.11 (ANCHORS.md E2)."""


def sign_flip_over_budgets(results: Results) -> Outcome:
    """Find differences between arms that depend on how many tokens an answer may have.

    Every smaller budget is held to the largest one, corrected for all comparisons made here.
    """
    gates = load_gates()
    compared = [(small, ones[-1]) for ones in _series(results) for small in ones[:-1]]
    p_values = {str(i): _interaction(*pairing) for i, pairing in enumerate(compared)}
    adjusted = holm(p_values, gates.validity.interaction_alpha)
    found = [
        _budget_finding(small, large, adjusted[str(i)])
        for i, (small, large) in enumerate(compared)
        if adjusted[str(i)].rejected or _flipped(small.counts, large.counts, gates)
    ]
    return outcome(found, len(compared))


def _series(results: Results) -> list[list[Pair]]:
    """Comparisons that differ in the budget only, each by rising budget."""
    found: dict[tuple[str | None, str | None, str | None, str], dict[int, Pair]] = {}
    for pair in pairs(results):
        if pair.n_predict is not None:
            found.setdefault(pair.series, {}).setdefault(pair.n_predict, pair)
    return [[ones[n] for n in sorted(ones)] for ones in found.values()]


def _interaction(small: Pair, large: Pair) -> float:
    """Two-sided p-value of the budget-by-arm interaction over the items of all four sets."""
    rows = {item_id: row for row, item_id in enumerate(large.item_ids)}
    common = [(i, rows[item_id]) for i, item_id in enumerate(small.item_ids) if item_id in rows]
    return budget_interaction(
        [small.base_passes[i] for i, _ in common],
        [small.edited_passes[i] for i, _ in common],
        [large.base_passes[j] for _, j in common],
        [large.edited_passes[j] for _, j in common],
    )


def _flipped(small: PairedCounts, large: PairedCounts, gates: Gates) -> bool:
    """Whether the sign turns round between two differences that each matter.

    Two differences of nearly nothing change sign by chance in half of all cases.
    """
    least = gates.smallest_effect.pass_at_1
    matter = min(abs(small.delta), abs(large.delta)) >= least
    return matter and small.delta * large.delta < 0


def _budget_finding(small: Pair, large: Pair, test: Adjusted) -> Finding:
    turns = small.counts.delta * large.counts.delta < 0
    how = "turns its sign" if turns else "changes"
    shown = f"interaction p = {test.p:.2g}, corrected {test.adjusted:.2g}"
    return Finding(
        Severity.INVALIDATES if test.rejected else Severity.CAUTION,
        small.title,
        f"The difference {how} with the budget: {100 * small.counts.delta:+.1f} points at "
        f"{small.n_predict} tokens, {100 * large.counts.delta:+.1f} at {large.n_predict} "
        f"({shown}): at the smaller budget it measures who finishes.",
        "Claim the difference at the largest budget only, and report it over budgets.",
        {
            "small": _arm_counts(small),
            "large": _arm_counts(large),
            "interaction_p": test.p,
            "interaction_p_corrected": test.adjusted,
            "sign_turns": turns,
        },
    )


def _arm_counts(pair: Pair) -> dict[str, Evidence]:
    counts = pair.counts
    return {
        "n_predict": pair.n_predict,
        "n": counts.n,
        "gained": counts.gained,
        "lost": counts.lost,
        "difference": counts.delta,
        "mcnemar_p": mcnemar_exact(counts.gained, counts.lost),
        "tango_interval": tango_interval(counts.gained, counts.lost, counts.n).to_json(),
    }


def floor(results: Results) -> Outcome:
    """Find comparisons without room for an effect, and test sets with hardly one class."""
    gates, found_pairs = load_gates(), pairs(results)
    counted = [p for p in results.probes if p.n_positive is not None and p.n_negative is not None]
    probes = one_a_test_set(counted)
    sets = _unprobed_test_sets(results)
    found = [
        *(_floor_finding(pair, gates.smallest_effect.pass_at_1) for pair in found_pairs),
        *(_cliff_finding(results, probe) for probe in probes),
        *(_rare_class_finding(one) for one in sets),
    ]
    examined = len(found_pairs) + len(probes) + len(sets)
    return outcome((one for one in found if one is not None), examined)


def _floor_finding(pair: Pair, least: float) -> Finding | None:
    counts = pair.counts
    rates = counts.base_rate, counts.edited_rate
    at = "floor" if max(rates) < least else "ceiling" if min(rates) > 1 - least else None
    if at is None:
        return None
    return Finding(
        Severity.CAUTION,
        pair.title,
        f"Both arms are at the {at} ({rates[0]:.1%} and {rates[1]:.1%} of {counts.n} items): "
        f"there is no room for a difference of {100 * least:.0f} points.",
        "Use items of a difficulty that the model passes sometimes.",
        {"n": counts.n, "base_rate": rates[0], "edited_rate": rates[1], "at": at},
    )


def _cliff_finding(results: Results, probe: ProbeResult) -> Finding | None:
    positive, negative = probe.n_positive, probe.n_negative
    if positive is None or negative is None or min(positive, negative) >= FEWEST_OF_A_CLASS:
        return None
    fall = _fall_from_training(results, probe, positive, negative)
    versus = ""
    if fall:
        versus = f"; the training set has {fall['train_positive']} of {fall['train_n']}"
    return Finding(
        Severity.BIASES,
        f"{probe.name} ({probe.source.name})",
        f"The test set has {positive} positive and {negative} negative items{versus}: with fewer "
        f"than {FEWEST_OF_A_CLASS} of a class its AUC and asymmetry say little (capability cliff).",
        "Find out why the class is rare (judge, cut, items) and test on a set with enough of "
        "both classes.",
        {"n_positive": positive, "n_negative": negative, **fall},
    )


def _fall_from_training(
    results: Results, probe: ProbeResult, positive: int, negative: int
) -> dict[str, Evidence]:
    """Positive rate in training against that in the test, where the label is in both."""
    test = test_items(results, probe)
    for one in family_sets(results, probe, Role.TRAIN) if test else []:
        train = labelled(one, test.label) if test else None
        if train and len(train.y):
            n = positive + negative
            change = difference_of_rates(train.n_positive, len(train.y), positive, n)
            return {
                "train_positive": train.n_positive,
                "train_n": len(train.y),
                "difference_of_rates": change.value,
                "interval": change.interval.to_json(),
                "fisher_p": change.p_value,
            }
    return {}


def _unprobed_test_sets(results: Results) -> list[Labelled]:
    """Yes-or-no labels of TEST sets with features of which no probe is reported."""
    probed = {probe.family for probe in results.probes}
    return [
        found
        for one in results.sets
        if one.role is Role.TEST and one.features is not None and one.family not in probed
        for label in binary_labels(one)
        if (found := labelled(one, label)) and len(found.y)
    ]


def _rare_class_finding(one: Labelled) -> Finding | None:
    if min(one.n_positive, one.n_negative) >= FEWEST_OF_A_CLASS:
        return None
    return Finding(
        Severity.CAUTION,
        f"{one.source.name}, label {one.label}",
        f"The test set has {one.n_positive} positive and {one.n_negative} negative items: with "
        f"fewer than {FEWEST_OF_A_CLASS} of a class an AUC says little.",
        "Test on a set with enough of both classes.",
        {"n_positive": one.n_positive, "n_negative": one.n_negative},
    )


def truncation_explains(results: Results) -> Outcome:
    """Find differences that come from answers cut off in one arm and finished in the other."""
    gates = load_gates()
    places = [pair for pair in pairs(results) if _says_why_it_ended(pair)]
    found = [f for pair in places if (f := _truncation_finding(pair, gates)) is not None]
    return outcome(found, len(places))


def _says_why_it_ended(pair: Pair) -> bool:
    known = (_ends(one, pair.item_ids) for one in (pair.base, pair.edited))
    return all(flag is not None for flags in known for flag in flags)


def _ends(one: ResultSet, item_ids: Sequence[str]) -> list[bool | None]:
    return [ran_out(one.by_id[i], one.n_predict) for i in item_ids]


def _cut_off(one: ResultSet, item_ids: Sequence[str]) -> list[bool]:
    """Whether each item was cut, in a pair of which that is known (:func:`_says_why_it_ended`)."""
    return [bool(flag) for flag in _ends(one, item_ids)]


def _truncation_finding(pair: Pair, gates: Gates) -> Finding | None:
    base_cut = _cut_off(pair.base, pair.item_ids)
    edited_cut = _cut_off(pair.edited, pair.item_ids)
    cuts, counts = paired_counts(base_cut, edited_cut), pair.counts
    alpha = gates.test.alpha
    if counts.delta == 0 or mcnemar_exact(cuts.gained, cuts.lost) >= alpha:
        return None
    wins, explained = _explained(pair, base_cut if counts.delta > 0 else edited_cut)
    if 2 * explained < wins or not explained:
        return None
    rest = _both_finished(pair, base_cut, edited_cut)
    vanishes = mcnemar_exact(counts.gained, counts.lost) < alpha and (
        mcnemar_exact(rest.gained, rest.lost) >= alpha or rest.delta * counts.delta <= 0
    )
    left = "none are left" if not rest.n else f"{100 * rest.delta:+.1f} points are left"
    loser = pair.base.arm if counts.delta > 0 else pair.edited.arm
    return Finding(
        Severity.INVALIDATES if vanishes else Severity.BIASES,
        pair.title,
        f"{explained} of the {wins} items that make the difference of {100 * counts.delta:+.1f} "
        f"points were cut off in the arm that fails them ({loser}): answers cut off are "
        f"{sum(base_cut)} against {sum(edited_cut)} of {counts.n + counts.missing}; over the "
        f"{rest.n} items finished in both arms {left}.",
        "Let the cut answers go on to the end, or compare at a budget where both arms finish.",
        {
            "base_cut_off": sum(base_cut),
            "edited_cut_off": sum(edited_cut),
            "cut_off_mcnemar_p": mcnemar_exact(cuts.gained, cuts.lost),
            "deciding_items": wins,
            "deciding_items_cut_off_in_the_losing_arm": explained,
            "difference": counts.delta,
            "mcnemar_p": mcnemar_exact(counts.gained, counts.lost),
            "both_finished": _rest_json(rest),
        },
    )


def _explained(pair: Pair, losing_cut: Sequence[bool]) -> tuple[int, int]:
    """Items that the winning arm alone passes, and those of them cut off in the losing arm."""
    won = (False, True) if pair.counts.delta > 0 else (True, False)
    passes = zip(pair.base_passes, pair.edited_passes, losing_cut, strict=True)
    decided = [cut for base, edited, cut in passes if (base, edited) == won]
    return len(decided), sum(decided)


def _both_finished(
    pair: Pair, base_cut: Sequence[bool], edited_cut: Sequence[bool]
) -> PairedCounts:
    kept = [i for i, cut in enumerate(zip(base_cut, edited_cut, strict=True)) if not any(cut)]
    return paired_counts([pair.base_passes[i] for i in kept], [pair.edited_passes[i] for i in kept])


def _rest_json(rest: PairedCounts) -> dict[str, Evidence]:
    return {
        "n": rest.n,
        "gained": rest.gained,
        "lost": rest.lost,
        "difference": rest.delta if rest.n else None,
        "mcnemar_p": mcnemar_exact(rest.gained, rest.lost),
    }


AUDITS: tuple[Audit, ...] = (
    Audit(
        "sign-flip-over-budgets",
        "Does the difference between two arms depend on the token budget?",
        "paired arms with pass labels at two budgets or more",
        sign_flip_over_budgets,
    ),
    Audit(
        "floor",
        "Is there room for an effect, and are there enough items of both classes?",
        "paired arms with pass labels, or class counts of a test set",
        floor,
    ),
    Audit(
        "truncation-explains",
        "Are the items that make the difference those that one arm did not finish?",
        "paired arms with pass labels and finish reasons",
        truncation_explains,
    ),
    *weak_tests.AUDITS,
)

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import multinomial

from evals.statistics import (
    decision_power,
    mcnemar_exact,
    mcnemar_power,
    minimum_detectable_effect,
    n_to_exclude,
    n_to_settle,
    tango_interval,
)
from evals.statistics.power import MOST_ITEMS


@pytest.mark.parametrize(
    ("n", "gain", "loss", "power"),
    [
        (164, 0.05, 0.13, 0.60),
        (164, 0.10, 0.18, 0.45),
        (164, 0.08, 0.12, 0.15),
        (500, 0.10, 0.18, 0.93),
        (500, 0.08, 0.12, 0.46),
        (974, 0.08, 0.12, 0.78),
    ],
)
def test_power_agrees_with_the_simulated_table(n, gain, loss, power) -> None:
    # ANCHORS E2: simulated, rounded, size of the simulation not stated.
    assert mcnemar_power(n, gain, loss) == pytest.approx(power, abs=0.025)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 24), st.floats(0, 0.5), st.floats(0, 0.5), st.sampled_from([0.0, 0.05, 0.1]))
@example(4, 0.0, 2.2250738585072014e-308, 0.0)
def test_power_is_exact_against_full_enumeration(n, gain, loss, smallest) -> None:
    total = 0.0
    for g in range(n + 1):
        for l in range(n + 1 - g):
            if mcnemar_exact(g, l) < 0.05 and abs(g - l) / n >= smallest - 1e-12:
                total += multinomial.pmf([g, l, n - g - l], n, [gain, loss, 1 - gain - loss])
    assert mcnemar_power(n, gain, loss, smallest_effect=smallest) == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("discordance", [0.02, 0.1, 0.2, 0.4, 1.0])
@pytest.mark.parametrize("n", [20, 164, 974])
def test_without_an_effect_the_test_errs_in_at_most_five_percent(n, discordance) -> None:
    assert mcnemar_power(n, discordance / 2, discordance / 2) <= 0.05


def decided_share(n: int, gain: float, loss: float, runs: int = 2000) -> float:
    """Share of simulated runs of n items in which the claim is decided at 5 points."""
    rng = np.random.default_rng(0)
    decided = 0
    for gained, lost, _ in rng.multinomial(n, [gain, loss, 1 - gain - loss], size=runs).tolist():
        shown = mcnemar_exact(gained, lost) < 0.05 and abs(gained - lost) / n >= 0.05
        decided += shown or tango_interval(gained, lost, n).excludes_effect(0.05)
    return decided / runs


@pytest.mark.parametrize(
    "seen", [(0, 0, 20), (5, 5, 164), (10, 10, 164), (20, 10, 164), (33, 20, 164), (0, 4, 164)]
)
def test_the_n_that_would_settle_it_does_settle_it(seen) -> None:
    gained, lost, n = seen
    needed = n_to_settle(gained, lost, n, 0.05)
    assert needed is not None
    assert needed > n
    discordance, delta = (gained + lost + 1) / (n + 1), (gained - lost) / n
    rates = (discordance + delta) / 2, (discordance - delta) / 2
    # 2,000 runs: standard error 0.009; the exclusion half is a normal approximation, off by
    # up to 0.05 here.
    assert decided_share(needed, *rates) == pytest.approx(0.8, abs=0.06)
    # Half as many would not do.
    assert decided_share(needed // 2, *rates) < 0.75


def test_an_effect_at_the_border_is_settled_by_no_number_of_items() -> None:
    assert n_to_settle(1, 0, 20, 0.05) is None


@pytest.mark.parametrize("seen", [(1, 0, 20), (9, 1, 164), (20, 12, 164)])
def test_where_there_is_no_effect_that_many_items_exclude_one_that_matters(seen) -> None:
    needed = n_to_exclude(*seen, 0.05)
    assert needed is not None and needed > seen[2]
    share = (seen[0] + seen[1] + 1) / (seen[2] + 1) / 2
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(needed, [share, share, 1 - 2 * share], size=2000)
    inside = [tango_interval(g, l, needed).excludes_effect(0.05) for g, l, _ in drawn]
    # planned for 0.8 by a normal approximation; three standard errors of the simulation are 0.03
    assert 0.76 < np.mean(inside) < 0.9
    assert decision_power(MOST_ITEMS, 0.1, 0.05, 0.05) < 0.8


def test_more_discordance_needs_more_items() -> None:
    needed = [n_to_settle(k, k, 164, 0.05) for k in (2, 5, 10, 20, 40)]
    assert needed == sorted(n for n in needed if n is not None)


@given(st.integers(0, 40), st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_swapping_the_arms_changes_no_plan(gained, lost) -> None:
    assert n_to_settle(gained, lost, 164, 0.05) == n_to_settle(lost, gained, 164, 0.05)
    assert minimum_detectable_effect(gained, lost, 164) == minimum_detectable_effect(
        lost, gained, 164
    )


@pytest.mark.parametrize("seen", [(0, 0), (5, 5), (12, 12), (35, 6)])
def test_the_minimum_detectable_effect_has_eighty_percent_power_and_less_has_not(seen) -> None:
    effect = minimum_detectable_effect(*seen, 164)
    assert effect is not None
    total = (sum(seen) + 1) / 165

    def power(d: float) -> float:
        discordance = max(total, d)
        return mcnemar_power(164, (discordance + d) / 2, (discordance - d) / 2)

    assert power(effect) >= 0.8 > power(effect - 0.001)


def test_five_items_can_show_nothing() -> None:
    # Five heads of five have p = 0.0625.
    assert minimum_detectable_effect(0, 0, 5) is None
    assert minimum_detectable_effect(0, 0, 6) == 0.964  # 0.8 ** (1 / 6), rounded up


@pytest.mark.parametrize("design", [(0, 0.1, 0.1), (10, 0.6, 0.6), (10, -0.1, 0.2)])
def test_impossible_designs_are_refused(design) -> None:
    with pytest.raises(ValueError, match="impossible design"):
        mcnemar_power(*design)

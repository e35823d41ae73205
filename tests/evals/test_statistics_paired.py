from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import Polynomial
from numpy.typing import NDArray
from scipy.stats import multinomial, norm
from statsmodels.stats.contingency_tables import mcnemar

from evals.statistics import (
    mcnemar_exact,
    paired_counts,
    paired_difference,
    tango_interval,
)

tables = st.integers(1, 300).flatmap(
    lambda n: st.integers(0, n).flatmap(
        lambda m: st.tuples(st.integers(0, m), st.just(m), st.just(n)).map(
            lambda t: (t[0], t[1] - t[0], t[2])
        )
    )
)
"""(gained, lost, n)"""


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_agrees_with_statsmodels(gained, lost) -> None:
    # statsmodels doubles one tail, so that an even split comes out above 1 before its own cap.
    reference = mcnemar([[0, lost], [gained, 0]], exact=True).pvalue if gained + lost else 1.0
    assert mcnemar_exact(gained, lost) == pytest.approx(float(reference), rel=1e-9)


def test_mcnemar_of_the_papers_artifact() -> None:
    # PAPER.md 9.1, assertion 11.
    assert mcnemar_exact(35, 6) == pytest.approx(4.87e-6, rel=2e-3)


@pytest.mark.parametrize(("more", "fewer"), [(6, 0), (9, 1), (15, 5), (21, 9), (33, 17)])
def test_the_smallest_significant_splits_are_those_of_the_table(more, fewer) -> None:
    # ANCHORS E2: one item less either way is not significant.
    assert mcnemar_exact(more, fewer) < 0.05
    assert mcnemar_exact(more - 1, fewer + 1) > 0.05


def test_pairs_are_counted_and_missing_ones_left_out_of_both_arms() -> None:
    base = [True, True, False, False, None, True, None]
    edited = [True, False, True, False, True, None, None]
    counts = paired_counts(base, edited)
    assert (counts.both, counts.lost, counts.gained, counts.neither) == (1, 1, 1, 1)
    assert (counts.n, counts.missing) == (4, 3)
    assert counts.missing_share == pytest.approx(3 / 7)
    assert (counts.base_rate, counts.edited_rate, counts.delta) == (0.5, 0.5, 0.0)


def test_arms_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError):
        paired_counts([True], [True, False])


def limits_by_polynomial(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Tango's limits without a root search: eliminate q from the score equation.

    (g - l - nd)^2 = z^2 n (2q + d - d^2) gives q as a polynomial in d; put into the quadratic
    for q it leaves a quartic in d, whose outer real roots are the limits.
    """
    z2 = norm.ppf(0.975) ** 2
    d = Polynomial([0.0, 1.0])
    q = ((gained - lost - n * d) ** 2 / (z2 * n) - d + d**2) / 2
    quartic = 2 * n * q**2 + ((2 * n - gained + lost) * d - gained - lost) * q - lost * d * (1 - d)
    real = [root.real for root in quartic.roots() if abs(root.imag) < 1e-6]
    return min(real), max(real)


@given(tables)
def test_the_interval_solves_tangos_equation(table) -> None:
    gained, lost, n = table
    found = tango_interval(gained, lost, n)
    low, high = limits_by_polynomial(gained, lost, n)
    # Where every item is gained (or lost) the limit on that side is the estimate itself. Double
    # roots of the quartic are good to about the root of the machine precision.
    estimate = (gained - lost) / n
    assert found.low == pytest.approx(min(low, estimate), abs=1e-5)
    assert found.high == pytest.approx(max(high, estimate), abs=1e-5)


@given(tables, st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_the_interval_holds_the_estimate_and_mirrors_when_arms_are_swapped(table, level) -> None:
    gained, lost, n = table
    found = tango_interval(gained, lost, n, level)
    assert -1 <= found.low <= (gained - lost) / n <= found.high <= 1
    assert tango_interval(lost, gained, n, level) == found.negated()


@given(tables)
def test_the_interval_holds_zero_exactly_when_mcnemars_score_is_not_significant(table) -> None:
    gained, lost, n = table
    z = abs(gained - lost) / math.sqrt(gained + lost) if gained + lost else 0.0
    critical = float(norm.ppf(0.975))
    if abs(z - critical) > 1e-6:
        assert (0.0 in tango_interval(gained, lost, n)) == (z < critical)


@given(tables)
def test_a_wider_level_gives_a_wider_interval(table) -> None:
    narrow, wide = tango_interval(*table, 0.9), tango_interval(*table, 0.99)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


def test_without_discordant_items_the_interval_still_has_a_width() -> None:
    # The limit is z^2 / (n + z^2) in closed form.
    z2 = norm.ppf(0.975) ** 2
    assert tango_interval(0, 0, 164).high == pytest.approx(z2 / (164 + z2), abs=1e-9)


def test_missing_pairs_do_not_enter_the_difference() -> None:
    base = [False] * 30 + [True] * 20
    edited = [True] * 12 + [False] * 18 + [True] * 20
    assert paired_difference([*base, None, True], [*edited, True, None]) == paired_difference(
        base, edited
    )
    assert paired_difference(base, edited) == tango_interval(12, 0, 50)


@pytest.mark.parametrize("counts", [(0, 0, 0), (3, 3, 5), (-1, 2, 10)])
def test_impossible_counts_are_refused(counts) -> None:
    with pytest.raises(ValueError, match="impossible counts"):
        tango_interval(*counts)


@lru_cache(maxsize=4)
def all_tables(n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Every possible (gained, lost, concordant) [k, 3] and its limits [k, 2]."""
    cells = [(g, l, n - g - l) for g in range(n + 1) for l in range(n + 1 - g)]
    found = [tango_interval(g, l, n) for g, l, _ in cells]
    return np.array(cells), np.array([(i.low, i.high) for i in found])


@pytest.mark.parametrize("n", [20, 164])
@pytest.mark.parametrize(
    ("discordance", "difference"),
    [(0.01, 0), (0.05, 0), (0.05, 0.05), (0.1, 0.05), (0.2, 0), (0.2, 0.1), (0.4, 0.1)],
)
def test_the_interval_covers_the_true_difference(n, discordance, difference) -> None:
    # Exact coverage over all tables, no simulation. Nominal 0.95; found 0.9466 to 1.0, above
    # nominal where few items are discordant (n * discordance < 2).
    cells, limits = all_tables(n)
    gain, loss = (discordance + difference) / 2, (discordance - difference) / 2
    probability = multinomial.pmf(cells, n, [gain, loss, 1 - discordance])
    covered = (limits[:, 0] <= difference + 1e-9) & (difference - 1e-9 <= limits[:, 1])
    coverage = float(probability[covered].sum())
    assert coverage >= 0.945
    if n * discordance >= 10:
        assert coverage <= 0.957


@settings(max_examples=25)
@given(st.floats(0.05, 1.0), st.sampled_from([-1, 1]))
def test_a_true_effect_that_matters_is_seldom_excluded(discordance, sign) -> None:
    # REFUTED while the effect is just as large as the one that matters: exact probability.
    # Nominal 2.5 percent a side.
    cells, limits = all_tables(164)
    difference = sign * 0.05
    gain, loss = (discordance + difference) / 2, (discordance - difference) / 2
    probability = multinomial.pmf(cells, 164, [gain, loss, max(0.0, 1 - gain - loss)])
    refuted = (limits[:, 0] > -0.05) & (limits[:, 1] < 0.05)
    assert float(probability[refuted].sum()) < 0.03

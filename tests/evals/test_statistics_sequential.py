"""Looks at a growing experiment: published bounds, exact error rates, power by simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from evals.statistics.power import exclusion_power, mcnemar_power, n_to_exclude, n_to_show
from evals.statistics.power_means import mean_to_exclude, mean_to_show
from evals.statistics.sequential import crossing, exact_bounds, nominal_levels, spent
from evals.statistics.sequential_power import of_means, of_rates
from evals.statistics.sign_flips import sign_flip_p_value

FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)
UNEVEN = (0.15, 0.5, 0.6, 0.95, 1.0)


def test_bounds_are_the_published_ones() -> None:
    """Five equal looks, alpha 0.05 two-sided, Lan-DeMets O'Brien-Fleming (R package ldbounds)."""
    bounds = [norm.isf(level / 2) for level in nominal_levels(FIFTHS, 0.05)]
    assert bounds == pytest.approx([4.8769, 3.3569, 2.6803, 2.2898, 2.0310], abs=2e-4)
    assert nominal_levels((1.0,), 0.05) == pytest.approx((0.05,))
    assert nominal_levels((0.01, 1.0), 0.05)[0] == 0.0  # nothing to speak of


@pytest.mark.parametrize("fractions", [FIFTHS, UNEVEN, (0.3, 1.0)])
def test_all_alpha_is_spent_and_no_more(fractions: tuple[float, ...]) -> None:
    levels = nominal_levels(fractions, 0.05)
    by_look = np.cumsum(crossing(fractions, levels))
    assert by_look == pytest.approx([spent(f, 0.05) for f in fractions], abs=1e-7)
    assert by_look[-1] == pytest.approx(0.05, abs=1e-7)
    # what looking without a plan costs: published for five looks at 0.05, 0.142 (Armitage 1969)
    if fractions == FIFTHS:
        assert sum(crossing(fractions, [0.05] * 5)) == pytest.approx(0.142, abs=5e-4)
        # and what the looks cost in power: z of 3.24 has 0.90 of it in one look
        assert sum(crossing((1.0,), (0.05,), 3.2415)) == pytest.approx(0.90, abs=1e-3)
        assert sum(crossing(fractions, levels, 3.2415)) == pytest.approx(0.893, abs=2e-3)


@pytest.mark.parametrize("fractions", [(), (0.5, 0.5), (0.0, 1.0), (0.5, 1.2)])
def test_impossible_looks(fractions: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="look"):
        nominal_levels(fractions, 0.05)


Additions = st.lists(st.lists(st.integers(-3, 3), max_size=4), min_size=1, max_size=3)


@settings(deadline=None, max_examples=40)
@given(Additions, st.sampled_from([0.05, 0.2, 0.5]))
def test_exact_error_is_what_enumeration_gives(added: list[list[int]], alpha: float) -> None:
    """Over all sign flips: the share of paths that cross is as said, and within what is allowed."""
    fractions = [(k + 1) / len(added) for k in range(len(added))]
    allowed = [spent(f, alpha) for f in fractions]
    bounds = exact_bounds(added, nominal_levels(fractions, alpha), allowed)
    flat = np.array([abs(v) for one in added for v in one], dtype=int)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(flat))), dtype=int)
    inside, crossed = np.ones(len(signs), dtype=bool), []
    for end, bound in zip(np.cumsum([len(one) for one in added]), bounds, strict=True):
        paths = signs[:, :end] * flat[:end]
        sizes = np.abs(paths.sum(axis=1))
        crosses = sizes >= (np.inf if bound.least is None else bound.least)
        for size in np.unique(sizes):  # the test that users see: an exact p below the level
            one = int(np.argmax(sizes == size))
            assert (sign_flip_p_value(paths[one].tolist()) < bound.level) == crosses[one]
        inside &= ~crosses
        crossed.append(1 - inside.mean())
    assert crossed == pytest.approx([bound.crossed for bound in bounds], abs=1e-12)
    assert all(bound.crossed <= most + 1e-12 for bound, most in zip(bounds, allowed, strict=True))


def test_false_effects_stay_below_alpha_over_all_looks() -> None:
    """The null by simulation, items arriving as they like; a fixed 0.05 at each look does not."""
    rng = np.random.default_rng(1)
    fractions, paths = (0.25, 0.5, 0.75, 1.0), 20_000
    levels, allowed = nominal_levels(fractions, 0.05), [spent(f, 0.05) for f in fractions]
    careless = np.zeros(paths, dtype=bool)
    careful = np.zeros(paths, dtype=bool)
    sizes = [rng.integers(1, 6, size=int(k)) for k in rng.integers(5, 40, size=4)]
    bounds = exact_bounds([one.tolist() for one in sizes], levels, allowed)
    single = exact_bounds([one.tolist() for one in sizes], [0.05] * 4, [1.0] * 4)
    total = np.zeros(paths)
    for own, bound, loose in zip(sizes, bounds, single, strict=True):
        total += (rng.choice((-1, 1), size=(paths, len(own))) * own).sum(axis=1)
        careful |= np.abs(total) >= (bound.least or np.inf)
        careless |= np.abs(total) >= (loose.least or np.inf)
    error = 3 * np.sqrt(0.05 * 0.95 / paths)
    assert careful.mean() == pytest.approx(bounds[-1].crossed, abs=error)
    assert bounds[-1].crossed <= 0.05
    assert careless.mean() > 0.09


def test_power_of_one_look_is_the_exact_one() -> None:
    found = of_rates((0, 0, 0), (160,), (0.05,), (0.12, 0.03), 0.05, paths=20_000)
    assert found.shown[0] == pytest.approx(
        mcnemar_power(160, 0.12, 0.03, smallest_effect=0.05), abs=0.012
    )
    found = of_rates((0, 0, 0), (900,), (0.05,), (0.05, 0.05), 0.05, paths=4_000)
    # the exact power beside Nam's normal approximation of it
    assert found.excluded[0] == pytest.approx(exclusion_power(900, 0.05, 0.05, 0.05), abs=0.03)
    assert found.power == found.shown[0] + found.excluded[0]


def test_numbers_of_items_have_the_power_that_is_said() -> None:
    gained, lost, n = 9, 2, 80
    show = n_to_show(gained, lost, n, 0.05)
    assert show is not None and show > n
    gain, loss = (9 / 80 + 2 / 80 + 1e-9) / 2 + 7 / 160, (11 / 80) / 2 - 7 / 160
    found = of_rates((0, 0, 0), (show,), (0.05,), (gain, loss), 0.05, paths=4_000)
    assert found.shown[0] == pytest.approx(0.8, abs=0.05)  # the plan adds a discordant item
    assert n_to_show(2, 1, 80, 0.05) is None  # smaller than one that matters
    exclude = n_to_exclude(gained, lost, n, 0.05)
    assert exclude is not None and exclude > show
    show_mean = mean_to_show(0.5, 1.0, 10, 0.2, alpha=0.05, power=0.8)
    assert show_mean == pytest.approx((1.96 + 0.8416) ** 2 / 0.25, abs=1)
    exclude_mean = mean_to_exclude(1.0, 10, 0.2, alpha=0.05, power=0.8)
    assert exclude_mean == pytest.approx((1.96 + 1.2816) ** 2 / 0.04, abs=1)
    assert mean_to_show(0.1, 1.0, 10, 0.2, alpha=0.05, power=0.8) is None
    assert mean_to_show(0.5, 0.0, 10, 0.2, alpha=0.05, power=0.8) == 11
    assert mean_to_exclude(0.0, 10, 0.2, alpha=0.05, power=0.8) == 11
    means = of_means((0.0, 1), (exclude_mean or 0,), (0.05,), (0.0, 1.0), 0.2, paths=20_000)
    assert means.excluded[0] == pytest.approx(0.8, abs=0.02)


def test_looks_cost_little_power() -> None:
    """Four looks decide nearly as often as one at the end, and begin from what was seen."""
    levels = nominal_levels((0.25, 0.5, 0.75, 1.0), 0.05)
    many = of_rates((4, 4, 250), (500, 750, 1000), levels[1:], (0.05, 0.05), 0.05)
    once = of_rates((4, 4, 250), (1000,), (0.05,), (0.05, 0.05), 0.05)
    assert once.power - 0.03 < many.power <= once.power + 0.01
    ahead = of_rates((60, 0, 250), (500, 750, 1000), levels[1:], (0.05, 0.05), 0.05)
    assert ahead.shown[-1] > 0.5 > many.shown[-1]
    assert list(many.excluded) == sorted(many.excluded)


def test_items_that_differ_late_do_not_overspend() -> None:
    """Bounds by the count of items assume that a share of them differs throughout. Where nearly
    all that differ come last, the looks know less of each other, and the exact bound gives way."""
    fractions = (0.25, 0.5, 0.75, 1.0)
    levels, allowed = nominal_levels(fractions, 0.05), [spent(f, 0.05) for f in fractions]
    added = [[1] * count for count in (200, 10, 10, 2000)]
    assert exact_bounds(added, levels, [1.0] * 4)[-1].crossed > 0.055
    bounds = exact_bounds(added, levels, allowed)
    assert [bound.lowered for bound in bounds] == [False, False, False, True]
    assert 0.045 < bounds[-1].crossed <= 0.05 and bounds[-1].level < levels[-1]

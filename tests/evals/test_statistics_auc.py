from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap, norm
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from evals.statistics.auc import (
    auc,
    auc_p_value,
    bootstrap_auc,
    bootstrap_auc_difference,
    delong_covariance,
    delong_difference,
    delong_interval,
    hanley_mcneil_interval,
    is_possible_auc,
    mann_whitney_u,
    newcombe_interval,
)

# Few distinct values, so that ties are common; at least two items of each class.
tied_scores = st.tuples(
    st.lists(st.integers(0, 6), min_size=2, max_size=12),
    st.lists(st.integers(0, 6), min_size=2, max_size=12),
)


def stacked(positives, negatives):
    scores = np.array([*positives, *negatives], dtype=float)
    return scores, np.arange(len(scores)) < len(positives)


def kernel(scores, labels):
    """The definition: 1, 1/2 or 0 for each (True, False) pair, [m, n]."""
    difference = scores[labels][:, None] - scores[~labels][None, :]
    return (np.sign(difference) + 1) / 2


def kernel_covariance(first, second, labels):
    a, b = kernel(first, labels), kernel(second, labels)
    of_positives = np.cov(a.mean(axis=1), b.mean(axis=1), ddof=1)[0, 1] / a.shape[0]
    return of_positives + np.cov(a.mean(axis=0), b.mean(axis=0), ddof=1)[0, 1] / a.shape[1]


@given(tied_scores)
def test_the_auc_is_the_share_of_pairs_in_order_with_ties_halved(sides) -> None:
    scores, labels = stacked(*sides)
    found = auc(scores, labels)
    assert found == pytest.approx(kernel(scores, labels).mean(), abs=1e-12)
    assert auc(scores, ~labels) == pytest.approx(1 - found, abs=1e-12)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [True, True], "one class"),
        ([0.1, 0.2], [False, False], "one class"),
        ([0.1, math.nan], [True, False], "missing"),
        ([0.1, None], [True, False], "missing"),
        ([0.1, 0.2, 0.3], [True, False], "labels"),
        ([0.1, 0.2], [True, None], "True or False"),
        ([0.1, 0.2], [1, 2], "True or False"),
        ([0.1, 0.2], ["yes", "no"], "True or False"),
        ([], [], "non-empty"),
    ],
)
def test_what_cannot_be_ranked_is_refused(scores, labels, message) -> None:
    for function in (auc, delong_interval, bootstrap_auc, auc_p_value):
        with pytest.raises(ValueError, match=message):
            function(scores, labels)


def published_aucs(folder):
    """(AUC, n positive, n negative) of every published fresh or cross-validated probe."""
    full = json.loads((folder / "v1_full_v2.json").read_text())["evaluation"]["configs"]
    layers = json.loads((folder / "probe_multilayer.json").read_text())["configs"]
    for config in full.values():
        yield config["auc"], 55, 138
    for config in layers.values():
        yield config["fresh"]["auc"], 55, 138
    sweep = json.loads((folder / "disposition_probe_sweep.json").read_text())["axes"]
    # PAPER 5.6: positives of the four dispositions and the factual axis, of 99 and of 192.
    sizes = {"factual": (49, 101), "hedging": (79, 123), "pedagogical": (81, 147)}
    sizes |= {"self_verification": (26, 76), "completeness": (47, 130)}
    for start, (here, fresh) in sizes.items():
        axis = next(value for name, value in sweep.items() if name.startswith(start))
        yield axis["cv_auc_step16"], here, 99 - here
        yield axis["transfer_auc_fresh"], fresh, 192 - fresh


def test_every_published_auc_is_a_whole_number_of_pairs(paper_artifacts) -> None:
    # PAPER 9.1, assertion 12. With one positive more or less, hardly any would be.
    aucs = list(published_aucs(paper_artifacts))
    assert len(aucs) == 14
    assert all(is_possible_auc(value, m, n, ties=False) for value, m, n in aucs)
    assert sum(is_possible_auc(value, m + 1, n - 1, ties=False) for value, m, n in aucs) <= 3


def test_u_of_the_papers_fresh_probes() -> None:
    # PAPER 5.6, step 2.
    assert mann_whitney_u(0.5088274044795784, 55, 138) == pytest.approx(3862, abs=1e-6)
    assert mann_whitney_u(0.5163372859025033, 55, 138) == pytest.approx(3919, abs=1e-6)


@given(tied_scores)
def test_an_auc_that_was_computed_is_possible_and_a_neighbour_is_not(sides) -> None:
    scores, labels = stacked(*sides)
    m, n = len(sides[0]), len(sides[1])
    value = auc(scores, labels)
    assert is_possible_auc(value, m, n)
    quarter = 0.25 / (m * n)
    assert not is_possible_auc(value - quarter if value > 0.5 else value + quarter, m, n)


def test_half_a_pair_needs_ties() -> None:
    assert is_possible_auc(0.5 / 9, 3, 3, ties=True)
    assert not is_possible_auc(0.5 / 9, 3, 3, ties=False)


@given(tied_scores, st.randoms(use_true_random=False))
def test_delongs_covariance_is_that_of_the_pairwise_definition(sides, random) -> None:
    first, labels = stacked(*sides)
    second = np.array([random.randint(0, 6) for _ in first], dtype=float)
    found = delong_covariance(np.stack([first, second]), labels)
    for (i, a), (j, b) in itertools.product(enumerate([first, second]), repeat=2):
        assert found[i, j] == pytest.approx(kernel_covariance(a, b, labels), abs=1e-12)


def test_the_interval_is_delongs_on_the_logit_scale() -> None:
    rng = np.random.default_rng(3)
    scores, labels = stacked(rng.normal(1, 1, 12), rng.normal(0, 1, 30))
    value = roc_auc_score(labels, scores)
    error = math.sqrt(kernel_covariance(scores, scores, labels)) / (value * (1 - value))
    for level in (0.8, 0.95):
        edge = [
            math.log(value / (1 - value)) + s * norm.ppf((1 + level) / 2) * error for s in (-1, 1)
        ]
        found = delong_interval(scores, labels, level)
        assert [found.low, found.high] == pytest.approx([1 / (1 + math.exp(-e)) for e in edge])


def coverage(interval, true_auc, n_positive, n_negative, draws, seed):
    """Share of intervals that hold the true AUC of two normal classes of equal spread."""
    rng = np.random.default_rng(seed)
    shift = math.sqrt(2) * norm.ppf(true_auc)
    labels = np.arange(n_positive + n_negative) < n_positive
    scores = rng.normal(size=(draws, len(labels))) + shift * labels
    return np.mean([true_auc in interval(row, labels) for row in scores])


@pytest.mark.parametrize(
    ("true_auc", "n_positive", "n_negative"), [(0.5, 9, 184), (0.75, 30, 60), (0.95, 20, 20)]
)
def test_delongs_interval_covers_the_true_auc(true_auc, n_positive, n_negative) -> None:
    # 500 draws: three binomial standard errors are 0.029; small classes cost up to 0.01 more.
    found = coverage(delong_interval, true_auc, n_positive, n_negative, 500, seed=1)
    assert 0.95 - 0.039 < found < 0.95 + 0.029


def test_coverage_holds_where_perfect_separation_is_common() -> None:
    # 10 against 10 at 0.98: half of all samples are perfectly separated, and a point interval
    # at 1 would miss the truth in each of them.
    assert coverage(delong_interval, 0.98, 10, 10, 400, seed=2) > 0.92


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize(("n_positive", "n_negative"), [(1, 2), (20, 20), (9, 184)])
def test_perfect_separation_has_an_interval_with_a_width(ascending, n_positive, n_negative) -> None:
    labels = np.arange(n_positive + n_negative) < n_positive
    found = delong_interval(np.where(labels == ascending, 1.0, 0.0), labels)
    edge, perfect = (found.low, found.high) if ascending else (1 - found.high, 1 - found.low)
    assert perfect == 1.0
    # The other edge solves Newcombe's score equation, written out here.
    mean = (n_positive + n_negative) / 2
    bracket = 1 + (mean - 1) * ((1 - edge) / (2 - edge) + edge / (1 + edge))
    variance = edge * (1 - edge) * bracket / (n_positive * n_negative)
    assert 1 - edge == pytest.approx(norm.ppf(0.975) * math.sqrt(variance), rel=1e-6)
    assert edge < 0.99


def test_scores_that_are_all_tied_have_an_interval_with_a_width() -> None:
    found = delong_interval(np.zeros(40), np.arange(40) < 20)
    assert 0.3 < found.low < 0.4 and 0.6 < found.high < 0.7


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_published_auc_of_zero_or_one_is_not_certain(value) -> None:
    assert hanley_mcneil_interval(value, 20, 20) == newcombe_interval(value, 20, 20)
    assert hanley_mcneil_interval(value, 20, 20).high > hanley_mcneil_interval(value, 20, 20).low


@pytest.mark.parametrize(
    ("value", "n_positive", "n_negative", "low", "high"),
    [
        (0.683, 58, 42, 0.580, 0.786),
        (0.663, 58, 42, 0.557, 0.769),
        (0.5163372859025033, 55, 138, 0.425, 0.607),
        (0.5567852437417654, 55, 138, 0.466, 0.648),
    ],
)
def test_hanley_mcneil_intervals_of_the_papers_probes(
    value, n_positive, n_negative, low, high
) -> None:
    # PAPER 5.7; the AUCs of the first two are known to three digits only.
    found = hanley_mcneil_interval(value, n_positive, n_negative)
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.001)
    swapped = hanley_mcneil_interval(value, n_positive // 2, n_negative)
    assert swapped.low < low - 0.01


@pytest.mark.parametrize(
    ("n_positive", "half"), [(9, 0.194), (30, 0.113), (55, 0.090), (96, 0.082)]
)
def test_half_widths_at_chance(n_positive, half) -> None:
    # ANCHORS E2, for 193 items.
    found = hanley_mcneil_interval(0.5, n_positive, 193 - n_positive)
    assert (found.high - found.low) / 2 == pytest.approx(half, abs=0.0006)


@pytest.mark.parametrize("sizes", [(0.5, 0, 10), (0.5, 10, 0), (1.1, 5, 5), (math.nan, 5, 5)])
def test_impossible_published_aucs_are_refused(sizes) -> None:
    for function in (hanley_mcneil_interval, newcombe_interval, mann_whitney_u, is_possible_auc):
        with pytest.raises(ValueError, match="impossible"):
            function(*sizes)


@pytest.fixture(scope="module")
def smollm_fresh(paper_artifacts):
    """Scores and labels of the paper's SmolLM probe (C=1.0) on the 193 fresh prompts."""
    here = np.load(paper_artifacts / "smollm_step16_features.npz")
    fresh = np.load(paper_artifacts / "smollm_fresh_features.npz")["X"]
    judged = json.loads((paper_artifacts / "smollm_fresh_judged_gold.json").read_text())
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=2000))
    probe.fit(here["X"], here["coverage"] >= 0.5)
    return probe.predict_proba(fresh)[:, 1], np.array(judged["labels"]) == 1


def test_the_smollm_probe_on_fresh_prompts(smollm_fresh) -> None:
    # PAPER 5.7 and 5.9: AUC 0.5187, stratified bootstrap 0.343 to 0.700. With 9 positives a limit
    # of 2,000 resamples has a standard error of 0.006, the difference of two of them 0.008.
    scores, labels = smollm_fresh
    assert auc(scores, labels) == pytest.approx(0.518719806763285, abs=1e-6)
    found = bootstrap_auc(scores, labels)
    assert (found.low, found.high) == pytest.approx((0.343, 0.700), abs=0.02)
    by_delong = delong_interval(scores, labels)
    assert (by_delong.low, by_delong.high) == pytest.approx((0.343, 0.700), abs=0.02)


def test_the_bootstrap_agrees_with_scipys_two_sample_bootstrap() -> None:
    rng = np.random.default_rng(5)
    positives, negatives = rng.integers(2, 9, 15), rng.integers(0, 7, 40)
    scores, labels = stacked(positives, negatives)

    def statistic(a, b, axis=-1):
        difference = a[..., :, None] - b[..., None, :]
        return ((np.sign(difference) + 1) / 2).mean(axis=(-1, -2))

    reference = bootstrap(
        (positives.astype(float), negatives.astype(float)),
        statistic,
        method="percentile",
        vectorized=True,
        n_resamples=4000,
        random_state=np.random.default_rng(9),
    ).confidence_interval
    found = bootstrap_auc(scores, labels, resamples=4000)
    # Monte Carlo error of a 2.5 percent limit is about 0.003 on either side.
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=0.012)


def test_the_bootstrap_is_fixed_by_its_seed_and_refuses_points() -> None:
    rng = np.random.default_rng(6)
    scores, labels = stacked(rng.normal(1, 1, 12), rng.normal(0, 1, 30))
    assert bootstrap_auc(scores, labels, seed=4) == bootstrap_auc(scores, labels, seed=4)
    assert bootstrap_auc(scores, labels, seed=4) != bootstrap_auc(scores, labels, seed=5)
    with pytest.raises(ValueError, match="no variation"):
        bootstrap_auc(labels.astype(float), labels)
    with pytest.raises(ValueError, match="no variation"):
        bootstrap_auc_difference(scores, 2 * scores, labels)
    with pytest.raises(ValueError, match="resample"):
        bootstrap_auc(scores, labels, resamples=0)


def two_scores(rng, draws, gain=0.0, n_positive=30, n_negative=60):
    """Two correlated scores [draws, n] of the same items; the second is shifted by ``gain``."""
    labels = np.arange(n_positive + n_negative) < n_positive
    shared = rng.normal(size=(draws, len(labels)))
    first = 0.7 * labels + shared + 0.7 * rng.normal(size=shared.shape)
    second = (0.7 + gain) * labels + shared + 0.7 * rng.normal(size=shared.shape)
    return first, second, labels


def test_paired_delong_keeps_its_level_and_sees_a_difference() -> None:
    first, second, labels = two_scores(np.random.default_rng(7), 500)
    results = [delong_difference(a, b, labels) for a, b in zip(first, second, strict=True)]
    rejected = np.mean([r.p_value < 0.05 for r in results])
    # 500 draws of a 5 percent event: three standard errors are 0.029.
    assert abs(rejected - 0.05) < 0.029
    assert rejected == np.mean([0.0 not in r.interval for r in results])
    first, second, labels = two_scores(np.random.default_rng(8), 100, gain=1.0)
    shifted = [delong_difference(a, b, labels) for a, b in zip(first, second, strict=True)]
    assert np.mean([r.p_value < 0.05 and r.difference > 0 for r in shifted]) > 0.8


def test_the_paired_difference_by_the_pairwise_definition() -> None:
    (first,), (second,), labels = two_scores(np.random.default_rng(9), 1, gain=0.5)
    found = delong_difference(first, second, labels)
    variance = sum(
        sign * kernel_covariance(a, b, labels)
        for sign, a, b in [(1, first, first), (1, second, second), (-2, first, second)]
    )
    difference = kernel(second, labels).mean() - kernel(first, labels).mean()
    assert (found.second - found.first, found.difference) == pytest.approx((difference,) * 2)
    half = norm.ppf(0.975) * math.sqrt(variance)
    expected = (difference - half, difference + half)
    assert (found.interval.low, found.interval.high) == pytest.approx(expected)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(difference) / math.sqrt(variance)))
    back = delong_difference(second, first, labels)
    assert (back.difference, back.p_value) == pytest.approx((-difference, found.p_value))


def test_scores_that_order_items_alike_cannot_be_compared() -> None:
    rng = np.random.default_rng(10)
    scores, labels = stacked(rng.normal(1, 1, 12), rng.normal(0, 1, 30))
    with pytest.raises(ValueError, match="no variation"):
        delong_difference(scores, np.exp(scores), labels)
    with pytest.raises(ValueError, match="class of one item"):
        delong_difference(scores, -scores, np.arange(42) == 3)


def test_the_paired_bootstrap_agrees_with_delong_and_uses_the_pairing() -> None:
    (first,), (second,), labels = two_scores(np.random.default_rng(11), 1, 0.5, 80, 120)
    paired = bootstrap_auc_difference(first, second, labels)
    reference = delong_difference(first, second, labels).interval
    # Both are first-order intervals of a nearly normal statistic; width about 0.14.
    assert (paired.low, paired.high) == pytest.approx((reference.low, reference.high), abs=0.015)
    apart = math.hypot(
        *(i.high - i.low for i in (bootstrap_auc(s, labels) for s in (first, second)))
    )
    assert paired.high - paired.low < 0.85 * apart


@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_of_small_samples_is_that_of_all_arrangements(seed) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permutation(9).astype(float)
    observed = abs(auc(scores, np.arange(9) < 4) - 0.5)
    values = [
        abs(auc(scores, np.isin(np.arange(9), chosen)) - 0.5)
        for chosen in itertools.combinations(range(9), 4)
    ]
    expected = np.mean(np.array(values) >= observed - 1e-12)
    assert auc_p_value(scores, np.arange(9) < 4) == pytest.approx(expected, abs=1e-12)

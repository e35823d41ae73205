"""The one definition of sampling: against plain Python, against itself, and its noise."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.interface import GREEDY, Float32, Prompt, Sampling
from backends.sampling import (
    Candidates,
    NoiseKey,
    candidates_of,
    choose,
    choose_full,
    gumbel,
    logsumexp,
    noise_key,
    occurred,
    scale,
)
from models.errors import UserError

KEY = NoiseKey(0, "item/0", 0)
DRAW = Sampling(temperature=1.0)

samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.3, 0.7, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 2, 5, 20, 64, 100, 10_000]),
    top_p=st.sampled_from([1.0, 0.99, 0.9, 0.5, 0.05]),
    min_p=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.8]),
    seed=st.integers(0, 2**64 - 1),
)


def _logits(seed: int, vocab: int, spread: float, grid: float = 0.0) -> Float32:
    """Random logits [vocab]; on a grid they have exact ties."""
    values = np.random.default_rng(seed).standard_normal(vocab) * spread
    if grid:
        values = np.round(values / grid) * grid
    return values.astype(np.float32)


def _plain(logits: list[float], seen: set[int], key: NoiseKey, step: int, s: Sampling) -> int:
    """The definition in plain Python, one token after the other, float64."""
    x = list(logits)
    for t in seen:
        x[t] = x[t] / s.repetition_penalty if x[t] > 0 else x[t] * s.repetition_penalty
    if s.temperature == 0:
        return max(range(len(x)), key=lambda t: (x[t], -t))
    x = [v / s.temperature for v in x]
    kept = sorted(range(len(x)), key=lambda t: (-x[t], t))
    if s.top_k:
        kept = kept[: s.top_k]
    weights = {t: math.exp(x[t] - x[kept[0]]) for t in kept}
    whole, mass, nucleus = sum(weights.values()), 0.0, []
    for t in kept:
        if s.top_p == 1 or mass < s.top_p:
            nucleus.append(t)
        mass += weights[t] / whole
    kept = [t for t in nucleus if weights[t] >= s.min_p]
    scores = {t: x[t] + float(gumbel(key, step, np.array([t]))[0]) for t in kept}
    return max(kept, key=lambda t: (scores[t], -t))


@settings(max_examples=300, deadline=None)
@given(sampling=samplings, seed=st.integers(0, 10**6), step=st.integers(0, 5000))
def test_the_definition_is_the_plain_one(sampling: Sampling, seed: int, step: int) -> None:
    logits = _logits(seed, 200, spread=3.0)
    seen = np.array([3, 50, 199], np.int32)
    penalty = sampling.repetition_penalty != 1
    found, near = choose_full(scale(logits, seen[: 3 * penalty], sampling), KEY, step, sampling)
    expected = _plain([float(v) for v in logits], set(seen.tolist()), KEY, step, sampling)
    assert found == expected or near


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.9},
        {"top_k": 3},
        {"top_p": 0.6},
        {"min_p": 0.4},
        {"repetition_penalty": 2.0},
        {"seed": 1},
    ],
)
def test_every_setting_changes_what_is_chosen(change: dict[str, float]) -> None:
    other = replace(DRAW, **change)
    seen = np.arange(0, 50, 2, dtype=np.int32)

    def chosen(s: Sampling) -> list[int]:
        logits = _logits(1, 50, spread=1.5)
        scaled = scale(logits, seen if s.repetition_penalty != 1 else seen[:0], s)
        key = noise_key(s, Prompt("a", (1,)))
        return [choose_full(scaled, key, step, s)[0] for step in range(200)]

    assert chosen(DRAW) != chosen(other)
    assert chosen(other) == chosen(other)


@settings(max_examples=400, deadline=None)
@given(
    sampling=samplings,
    seed=st.integers(0, 10**6),
    spread=st.sampled_from([0.0005, 0.5, 3.0, 20.0]),
    grid=st.sampled_from([0.0, 0.0, 0.25, 5.0]),
    rows=st.integers(1, 4),
)
def test_candidates_choose_what_all_tokens_choose(
    sampling: Sampling, seed: int, spread: float, grid: float, rows: int
) -> None:
    vocab, count = 300, 64
    scaled = np.stack([_logits(seed + n, vocab, spread, grid) for n in range(rows)])
    scaled[0, ::7] = -np.inf
    keys, steps = [NoiseKey(seed, f"i{n}", n) for n in range(rows)], list(range(rows))
    choice = choose(_shuffled(candidates_of(scaled, count)), keys, steps, sampling, vocab)
    everything = choose(_shuffled(candidates_of(scaled, vocab)), keys, steps, sampling, vocab)
    for row in range(rows):
        full = choose_full(scaled[row], keys[row], steps[row], sampling)
        assert (everything.ids[row], everything.near_tie[row]) == full
        if choice.ids[row] >= 0:
            assert (choice.ids[row], choice.near_tie[row]) == full
        else:
            assert not choice.near_tie[row]


@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0, 4.0, 30.0, 1e30])
@pytest.mark.parametrize("masked", [0, 19_990])
def test_the_short_way_without_filters_is_the_long_one(spread: float, masked: int) -> None:
    vocab, n = 20_000, 40
    for step in range(n):
        scaled = _logits(step, vocab, spread)
        scaled[:masked] = -np.inf
        keys, whole = [KEY], candidates_of(scaled[None], vocab)
        long = choose(whole, keys, [step], DRAW, vocab)
        assert choose_full(scaled, KEY, step, DRAW) == (long.ids[0], long.near_tie[0])
        if not masked and spread <= 1:
            # most draws are beyond the candidates
            assert long.ids[0] == (scaled + gumbel(KEY, step, np.arange(vocab))).argmax()


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1.0, top_p=0.95),
        Sampling(temperature=1.0, top_p=0.9999, top_k=19_000),
        Sampling(temperature=1.0, min_p=1e-4),
        Sampling(temperature=1.0, min_p=1e-9),
        Sampling(temperature=1.0, top_k=10_000),
    ],
)
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
def test_filters_that_keep_thousands_agree_with_a_full_ranking(
    sampling: Sampling, spread: float
) -> None:
    vocab = 20_000
    for step in range(5):
        scaled = _logits(step, vocab, spread)
        whole = choose(candidates_of(scaled[None], vocab), [KEY], [step], sampling, vocab)
        assert choose_full(scaled, KEY, step, sampling) == (whole.ids[0], whole.near_tie[0])


def _shuffled(candidates: Candidates) -> Candidates:
    """An engine's top-k may come in any order."""
    order = np.random.default_rng(0).permutation(candidates.ids.shape[1])
    return Candidates(candidates.ids[:, order], candidates.scaled[:, order], candidates.logsumexp)


@pytest.mark.parametrize(
    ("sampling", "settled"),
    [
        (GREEDY, True),
        (Sampling(temperature=0.7, top_k=20), True),
        (Sampling(temperature=0.7, top_k=20, top_p=0.9, min_p=0.05), True),
        (Sampling(temperature=0.7, top_p=0.3), True),
        (Sampling(temperature=0.7, min_p=0.2), True),
        (Sampling(temperature=0.7), False),
        (Sampling(temperature=0.7, top_p=0.9999), False),
        (Sampling(temperature=0.7, min_p=1e-6), False),
        (Sampling(temperature=0.7, top_k=256), False),
        (Sampling(temperature=0.7, top_k=500, top_p=0.5), False),
    ],
)
def test_only_filters_within_the_candidates_are_settled(sampling: Sampling, settled: bool) -> None:
    scaled = _logits(0, 5000, spread=4.0)[None]
    choice = choose(candidates_of(scaled), [KEY], [0], sampling, 5000)
    assert (choice.ids[0] >= 0) == settled


def test_equal_values_at_the_edge_of_the_candidates_are_not_settled() -> None:
    scaled = np.zeros((1, 300), np.float32)
    for sampling in (GREEDY, Sampling(temperature=1.0, top_k=5)):
        assert choose(candidates_of(scaled), [KEY], [0], sampling, 300).ids[0] == -1
    scaled[0, 7] = 1.0
    assert choose(candidates_of(scaled), [KEY], [0], GREEDY, 300).ids[0] == 7


def test_ties_go_to_the_lowest_id() -> None:
    scaled = np.zeros(300, np.float32)
    scaled[[250, 40, 299]] = 2.0
    assert choose_full(scaled, KEY, 0, GREEDY) == (40, True)
    only_one = Sampling(temperature=1.0, top_k=1)
    assert choose_full(scaled, KEY, 0, only_one)[0] == 40
    scaled[40] = 0.0
    assert choose_full(scaled, KEY, 0, GREEDY) == (250, True)
    # -0.0 equals 0.0
    assert choose_full(np.array([-0.0, 0.0, -0.0], np.float32), KEY, 0, GREEDY)[0] == 0


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (DRAW, 6),
        (Sampling(temperature=2.0), 6),
        (Sampling(temperature=1.0, top_k=3), 3),
        (Sampling(temperature=1.0, top_p=0.6), 2),
        (Sampling(temperature=1.0, min_p=0.2), 4),
    ],
)
def test_draws_have_the_filtered_softmax_as_distribution(sampling: Sampling, kept: int) -> None:
    p = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    scaled = scale(np.log(p).astype(np.float32), np.empty(0, np.int32), sampling)
    expected = np.exp(scaled.astype(np.float64))
    expected[kept:] = 0
    expected /= expected.sum()
    n = 20_000
    rows = Candidates(
        np.tile(np.arange(6, dtype=np.int32), (n, 1)),
        np.tile(scaled, (n, 1)),
        np.repeat(logsumexp(scaled[None]), n),
    )
    choice = choose(rows, [KEY] * n, range(n), sampling, 6)
    share = np.bincount(choice.ids, minlength=6) / n
    # 4 binomial deviations
    assert (np.abs(share - expected) <= 4 * np.sqrt(expected * (1 - expected) / n)).all()
    assert np.abs(share - p).max() > 0.01 or sampling == DRAW


def test_the_penalty_is_for_ids_in_the_window() -> None:
    def ids(window: int | None, penalty: float = 1.2) -> list[int]:
        sampling = Sampling(repetition_penalty=penalty, repetition_window=window)
        return occurred([9, 8, 7, 8], [3, 1, 3], sampling).tolist()

    assert ids(None) == [1, 3, 7, 8, 9]
    assert ids(1) == [3]
    assert ids(3) == [1, 3]
    assert ids(4) == [1, 3, 8]
    assert ids(7) == [1, 3, 7, 8, 9]
    assert ids(100) == [1, 3, 7, 8, 9]
    assert ids(None, penalty=1.0) == []
    assert occurred([], [], Sampling(repetition_penalty=1.2)).dtype == np.int32


def test_the_penalty_is_that_of_transformers() -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    logits, ids = _logits(5, 100, spread=3.0), [3, 4, 4, 99]
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(
        torch.tensor([ids]), torch.tensor(logits)[None].clone()
    )[0].numpy()
    sampling = Sampling(repetition_penalty=1.3)
    ours = scale(logits, occurred(ids, [], sampling), sampling)
    assert np.allclose(ours, theirs, rtol=1e-6)
    assert not np.allclose(ours, logits, rtol=1e-6)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.7, top_k=20),
        Sampling(temperature=0.7, top_p=0.9),
        Sampling(temperature=0.7, min_p=0.1),
        Sampling(temperature=1.3, top_k=30, top_p=0.8, min_p=0.02),
    ],
)
def test_what_can_be_drawn_is_what_transformers_keeps(sampling: Sampling) -> None:
    """Their warpers in our order; independent of how we count prefixes."""
    import torch
    from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    logits = _logits(11, 400, spread=2.0)
    x = torch.tensor(logits)[None] / sampling.temperature
    if sampling.top_k:
        x = TopKLogitsWarper(sampling.top_k)(None, x)
    if sampling.top_p < 1:
        x = TopPLogitsWarper(sampling.top_p)(None, x)
    if sampling.min_p:
        x = MinPLogitsWarper(sampling.min_p)(None, x)
    kept = set(torch.isfinite(x[0]).nonzero()[:, 0].tolist())
    scaled = scale(logits, np.empty(0, np.int32), sampling)
    n = 4000
    rows = candidates_of(np.tile(scaled, (n, 1)), 400)
    drawn = choose(rows, [KEY] * n, range(n), sampling, 400).ids
    assert set(drawn.tolist()) <= kept
    p = np.exp(x[0].double().numpy() - float(torch.logsumexp(x[0].double(), 0)))
    expected = {t for t in kept if p[t] > 10 / n}
    assert expected <= set(drawn.tolist())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("sampling", [GREEDY, DRAW, Sampling(temperature=1.0, top_k=5)])
def test_values_that_are_not_finite_are_an_error(bad: float, sampling: Sampling) -> None:
    scaled = _logits(0, 1000, spread=1.0)
    scaled[700] = bad
    with pytest.raises(UserError, match="not finite"):
        choose_full(scaled, KEY, 0, sampling)
    with pytest.raises(UserError, match="not finite"):
        choose(candidates_of(scaled[None]), [KEY], [0], sampling, 1000)


def test_a_token_at_minus_infinity_is_never_chosen() -> None:
    scaled = np.full(50, -np.inf, np.float32)
    with pytest.raises(UserError, match="not finite"):
        choose_full(scaled, KEY, 0, DRAW)
    scaled[[10, 20]] = [-3.0, -4.0]
    for sampling in (DRAW, Sampling(temperature=1.0, top_k=5), Sampling(temperature=1, top_p=0.99)):
        drawn = {choose_full(scaled, KEY, step, sampling)[0] for step in range(100)}
        assert drawn == {10, 20}
        # candidates that end in -inf hold all that can be chosen
        few = candidates_of(scaled[None], 4)
        assert choose(few, [KEY], [0], replace(sampling, top_k=0), 50).ids[0] in drawn


def test_a_temperature_near_0_is_greedy_and_one_too_near_is_an_error() -> None:
    logits = _logits(2, 500, spread=3.0)
    none = np.empty(0, np.int32)
    for temperature in (1e-3, 1e-10, 1e-30):
        sampling = Sampling(temperature=temperature)
        for step in range(20):
            chosen = choose_full(scale(logits, none, sampling), KEY, step, sampling)
            assert chosen == (int(logits.argmax()), False)
    for temperature in (1e-40, 1e-300):
        sampling = Sampling(temperature=temperature)
        with pytest.raises(UserError, match="temperature is too near 0"):
            choose_full(scale(logits, none, sampling), KEY, 0, sampling)


def test_rows_do_not_see_each_other() -> None:
    scaled = np.stack([_logits(n, 300, spread=2.0) for n in range(6)])
    keys, steps = [NoiseKey(1, f"i{n}", 0) for n in range(6)], [5, 0, 9, 2, 2, 7]
    sampling = Sampling(temperature=0.8, top_k=10, top_p=0.9)
    rows = candidates_of(scaled, 64)
    together = choose(rows, keys, steps, sampling, 300)
    for order in ([3], [5, 0, 4], [5, 4, 3, 2, 1, 0]):
        part = Candidates(rows.ids[order], rows.scaled[order], rows.logsumexp[order])
        alone = choose(part, [keys[n] for n in order], [steps[n] for n in order], sampling, 300)
        assert alone.ids.tolist() == together.ids[order].tolist()
    moved = choose(rows, keys[1:] + keys[:1], steps, sampling, 300)
    assert moved.ids.tolist() != together.ids.tolist()


def test_the_cost_for_eight_rows(capsys: pytest.CaptureFixture[str]) -> None:
    vocab, rounds = 49_152, 50
    scaled = np.stack([_logits(n, vocab, spread=3.0) for n in range(8)])
    keys, rows = [NoiseKey(0, f"i{n}", 0) for n in range(8)], candidates_of(scaled)
    sampling = Sampling(temperature=0.7, top_k=20)
    begun = time.perf_counter()
    for step in range(rounds):
        choice = choose(rows, keys, [step] * 8, sampling, vocab)
    each = (time.perf_counter() - begun) / rounds
    assert (choice.ids >= 0).all()
    with capsys.disabled():
        print(f"\nchoose, 8 rows of {vocab}, top_k 20: {each * 1e3:.2f} ms")

"""The noise of sampling: uniform, independent, and a function of its key alone."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from scipy import stats

from backends.sampling import NoiseKey, gumbel

KEY = NoiseKey(0, "item/0", 0)


def test_the_noise_is_uniform_and_in_range() -> None:
    u = _uniform([gumbel(KEY, step, np.arange(20_000)) for step in range(5)])
    assert u.min() > 0 and u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 0.01
    # a lattice would fill bins too evenly, a clump too little
    bins = np.bincount((u * 1000).astype(int), minlength=1000)
    assert 0.001 < stats.chisquare(bins).pvalue < 0.999
    assert stats.kstest(u**1.05, "uniform").pvalue < 0.01


def _uniform(noise: list[np.ndarray]) -> np.ndarray:
    return np.exp(-np.exp(-np.concatenate(noise)))


@pytest.mark.parametrize("along", ["token", "step", "sample", "seed", "item"])
def test_the_noise_is_independent_along_every_part_of_the_key(along: str) -> None:
    n, ids = 20_000, np.arange(1)
    token = np.arange(n)
    streams = {
        "token": lambda: gumbel(KEY, 0, token),
        "step": lambda: np.array([gumbel(KEY, i, ids)[0] for i in range(n)]),
        "sample": lambda: np.array([gumbel(NoiseKey(0, "a", i), 0, ids)[0] for i in range(n)]),
        "seed": lambda: np.array([gumbel(NoiseKey(i, "a", 0), 0, ids)[0] for i in range(n)]),
        "item": lambda: np.array([gumbel(NoiseKey(0, f"i/{i}", 0), 0, ids)[0] for i in range(n)]),
    }
    u = _uniform([streams[along]()])
    assert stats.kstest(u, "uniform").pvalue > 0.001
    for lag in (1, 2, 7, 64):
        # 4 deviations of the correlation of n independent pairs
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) < 4 / math.sqrt(n)


def test_rows_of_noise_are_independent_of_each_other() -> None:
    ids = np.arange(50_000)
    rows = [
        gumbel(NoiseKey(seed, item, k), step, ids)
        for seed in (0, 1)
        for item in ("a", "b")
        for k in (0, 1)
        for step in (0, 1)
    ]
    off = np.corrcoef(_uniform(rows).reshape(len(rows), -1))[np.triu_indices(len(rows), 1)]
    assert np.abs(off).max() < 4.5 / math.sqrt(len(ids))


def test_the_same_key_gives_the_same_noise_and_no_other_does() -> None:
    ids = np.array([[5, 70_000], [0, 5]])
    noise = gumbel(KEY, 3, ids)
    assert noise.shape == (2, 2) and noise[0, 0] == noise[1, 1]
    assert np.array_equal(gumbel(NoiseKey(0, "item/0", 0), 3, ids.astype(np.int32)), noise)
    assert gumbel(KEY, 3, np.array([5]))[0] == noise[0, 0]
    for key, step in (
        (NoiseKey(1, "item/0", 0), 3),
        (NoiseKey(0, "item/01", 0), 3),
        (NoiseKey(0, "item/0", 1), 3),
        (KEY, 4),
    ):
        assert not (gumbel(key, step, ids) == noise).any()


def _plain_gumbel(key: NoiseKey, step: int, token: int) -> float:
    """The counter-based generator in whole numbers."""
    digest = hashlib.sha256(repr((key.seed, key.item_id, key.sample, step)).encode()).digest()
    start, mask = (int.from_bytes(digest[at : at + 8], "little") for at in (0, 8))
    x = (start + (token + 1) * 0x9E3779B97F4A7C15) % 2**64
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
    x = x ^ x >> 31 ^ mask
    return -math.log(-math.log(((x >> 12) + 0.5) / 2**52))


def test_the_noise_is_the_same_in_later_versions() -> None:
    key, tokens = NoiseKey(42, "HumanEval/0", 1), [0, 1, 49_151, 262_143]
    noise = gumbel(key, 7, np.array(tokens))
    # through log, whose last digit differs between platforms
    assert noise == pytest.approx([_plain_gumbel(key, 7, t) for t in tokens], rel=1e-12)
    assert noise[:3] == pytest.approx([1.2831036126, -0.2582945696, -0.3758000217], abs=1e-9)
    assert noise != pytest.approx([_plain_gumbel(key, 8, t) for t in tokens], rel=1e-12)


def test_the_largest_and_the_smallest_draw_are_finite() -> None:
    edge = np.array([0, 2**52 - 1], dtype=np.uint64)
    u = (edge.astype(np.float64) + 0.5) * 2.0**-52
    assert u[0] > 0 and u[1] < 1
    assert np.isfinite(-np.log(-np.log(u))).all()

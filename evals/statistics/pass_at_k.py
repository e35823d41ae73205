"""pass@k from n samples a problem."""

from __future__ import annotations

from math import comb


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """Probability that one of ``k`` samples drawn from ``samples`` passes.

    The unbiased estimator of Chen et al. 2021 (arXiv 2107.03374), 1 - C(n - c, k) / C(n, k).
    Raises ValueError for impossible counts.
    """
    if not 0 <= passed <= samples or not 1 <= k <= samples:
        raise ValueError(f"pass@{k} of {passed} passed in {samples} samples")
    return 1.0 - comb(samples - passed, k) / comb(samples, k)

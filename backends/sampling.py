"""How the next token is chosen: one definition for every engine, on the host, in numpy.

Repetition penalty, temperature, top-k, top-p, min-p, Gumbel noise for the tokens that are left,
arg-max, lowest id on a tie. The noise is a pure function of (seed, item id, sample, step, token
id), so a draw depends on no other row, no order and no engine (Gumbel-max: Maddison et al.
2014, arXiv 1411.0030). An engine hands over each row's largest values (:class:`Candidates`)
and, only for rows that those do not settle, all of them.

``scaled`` everywhere: penalised logits / temperature (undivided where greedy), float32.
-inf there means a token that cannot be chosen. NaN, +inf or a row of -inf only is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backends.interface import Float32, Prompt, Sampling
from models.errors import UserError

NEAR_TIE = 1e-3
"""Logit units after temperature: engines in float32 agree much better than this."""
CANDIDATES = 256
"""How many of a row's largest values an engine hands over, where there are as many."""
WIDER = 16
"""How many times as many are looked at in rows that those do not settle."""

Float64 = NDArray[np.float64]
Uint64 = NDArray[np.uint64]
Counts = NDArray[np.intp]


@dataclass(frozen=True)
class NoiseKey:
    """What the noise of one sequence depends on, besides step and token id."""

    seed: int
    item_id: str
    sample: int


@dataclass(frozen=True)
class Candidates:
    """The k largest scaled values of each row, in any order."""

    ids: NDArray[np.int32]
    """[b, k] token ids. Of equal values at the edge any may be left out."""
    scaled: Float32
    """[b, k]"""
    logsumexp: Float32
    """[b] over all tokens."""


@dataclass(frozen=True)
class Choice:
    """The chosen tokens."""

    ids: NDArray[np.int32]
    """[b]; -1: the candidates do not settle this row, use :func:`choose_full`."""
    near_tie: NDArray[np.bool_]
    """[b] whether values that differ by less than NEAR_TIE could choose another token."""


def noise_key(sampling: Sampling, prompt: Prompt) -> NoiseKey:
    """Return the key of the noise for ``prompt``."""
    return NoiseKey(int(sampling.seed), prompt.item_id, int(prompt.sample))


def gumbel(key: NoiseKey, step: int, token_ids: NDArray[Any]) -> Float64:
    """Standard Gumbel noise [...] of tokens [...] at ``step``, each from its own counter."""
    ids = np.asarray(token_ids)
    return _noise(streams_of([key], [step]), ids.reshape(1, -1)).reshape(ids.shape)


def occurred(
    prompt_ids: Sequence[int], generated_ids: Sequence[int], sampling: Sampling
) -> NDArray[np.int32]:
    """Ids that the repetition penalty is for, sorted, each once; none where the penalty is 1."""
    if sampling.repetition_penalty == 1.0:
        return np.empty(0, dtype=np.int32)
    window = sampling.repetition_window
    latest = generated_ids if window is None else generated_ids[-window:]
    wanted = len(prompt_ids) if window is None else window - len(latest)
    # [-0:] would be everything
    earlier = prompt_ids[-wanted:] if wanted else ()
    return np.unique(np.array([*earlier, *latest], dtype=np.int32))


def scale(logits: Float32, occurred_ids: NDArray[np.int32], sampling: Sampling) -> Float32:
    """Scaled values [vocab] of one row of logits [vocab]: penalty and temperature, float32."""
    scaled = logits.astype(np.float32)
    if len(occurred_ids):
        penalty = np.float32(sampling.repetition_penalty)
        seen = scaled[occurred_ids]
        scaled[occurred_ids] = np.where(seen > 0, seen / penalty, seen * penalty)
    if not sampling.greedy:
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            scaled /= np.float32(sampling.temperature)
    return scaled


def candidate_count(sampling: Sampling, vocab: int) -> int:
    """How many candidates to hand to :func:`choose`: more than top-k keeps, to see its edge."""
    return min(vocab, max(CANDIDATES, sampling.top_k + CANDIDATES // 4))


def candidate_counts(sampling: Sampling, vocab: int) -> tuple[int, ...]:
    """How many to hand to :func:`choose` first, and for the rows that those do not settle."""
    first = candidate_count(sampling, vocab)
    return tuple(sorted({first, min(vocab, WIDER * first)}))


def candidates_of(scaled: Float32, count: int = CANDIDATES) -> Candidates:
    """The ``count`` largest of each row [b, vocab], for logits that are on the host."""
    ids = _largest(scaled, count)
    return Candidates(ids, np.take_along_axis(scaled, ids, axis=1), logsumexp(scaled))


def _largest(scaled: Float32, count: int) -> NDArray[np.int32]:
    """Ids [b, count] of the largest of each row [b, vocab], in any order; all if there are less."""
    rows, vocab = scaled.shape
    if count >= vocab:
        return np.tile(np.arange(vocab, dtype=np.int32), (rows, 1))
    return np.argpartition(scaled, vocab - count, axis=1)[:, -count:].astype(np.int32)


def logsumexp(scaled: Float32) -> Float32:
    """[b] of rows [b, vocab]."""
    top = scaled.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        total = np.exp(scaled - top).sum(axis=1, dtype=np.float64)
        return np.asarray(top[:, 0] + np.log(total), dtype=np.float32)


def choose(
    candidates: Candidates,
    keys: Sequence[NoiseKey],
    step: Sequence[int],
    sampling: Sampling,
    vocab: int,
) -> Choice:
    """Choose each row's next token from its candidates; equals :func:`choose_full`, or is -1.

    ``step``: ids already generated, by row. A row is -1 where the filters reach beyond the
    candidates, or there is no filter. Raises UserError for values that are not finite.
    """
    _require_finite(candidates.scaled, candidates.logsumexp)
    return _decide(
        _descending(candidates.scaled, candidates.ids),
        candidates.logsumexp,
        streams_of(keys, step),
        sampling,
        vocab,
    )


def choose_full(
    scaled: Float32, key: NoiseKey, step: int, sampling: Sampling, *, tried: int = 0
) -> tuple[int, bool]:
    """Choose the next token from the scaled values [vocab] of all: the definition itself.

    ``tried``: that many candidates did not settle the row. Returns the token's id, and whether
    values that differ by less than NEAR_TIE could choose another. Raises UserError for values
    that are not finite.
    """
    rows = np.asarray(scaled, dtype=np.float32)[None]
    total = logsumexp(rows)
    _require_finite(rows, total)
    vocab, streams = rows.shape[1], streams_of([key], [step])
    if unfiltered(sampling, vocab):
        ids = _contenders(rows[0], streams)[None]
        choice = _decide(_descending(rows[:, ids[0]], ids), total, streams, sampling, ids.size)
    else:
        # Hardly ever is all of a large vocabulary left: sorting it is most of the cost.
        for count in (WIDER * CANDIDATES, vocab):
            if count <= tried < vocab:
                continue
            ids = _largest(rows, count)
            ranked = _descending(np.take_along_axis(rows, ids, axis=1), ids)
            choice = _decide(ranked, total, streams, sampling, vocab)
            if choice.ids[0] >= 0:
                break
    return int(choice.ids[0]), bool(choice.near_tie[0])


def unfiltered(sampling: Sampling, vocab: int) -> bool:
    """Whether every token of ``vocab`` gets noise: candidates then settle nothing."""
    top_k = 0 < sampling.top_k < vocab
    return not (sampling.greedy or top_k or sampling.top_p < 1 or sampling.min_p > 0)


def _contenders(scaled: Float32, streams: Uint64) -> NDArray[np.int32]:
    """Ids whose score can come within NEAR_TIE of the best of scaled values [vocab].

    A score is scaled - log(-log u). As -log u >= 1 - u, it is at most scaled - log(1 - u),
    which single precision computes fast; few tokens reach the best score even so.
    """
    vocab = len(scaled)
    if vocab <= CANDIDATES:
        return np.arange(vocab, dtype=np.int32)
    rest = 1.0 - _uniform(streams, np.arange(vocab)[None])[0]
    bounds = scaled - np.log(rest.astype(np.float32))
    likely = np.array([bounds.argmax(), scaled.argmax()])
    best = (scaled[likely].astype(np.float64) + _noise(streams, likely[None])[0]).max()
    # the bounds are rounded, by less than 2^-21 of values below 2^9 and of their size above
    slack = NEAR_TIE + 2.0**-20 * max(512.0, float(np.abs(bounds[likely]).max()))
    return np.flatnonzero(bounds >= best - slack).astype(np.int32)


class _Ranked(NamedTuple):
    """Rows sorted by value, largest first, the lowest id first among equals."""

    values: Float64
    """[b, k]"""
    ids: NDArray[np.int64]
    """[b, k]"""


class _Kept(NamedTuple):
    """How many of the first ranks [b] are left after the filters: every filter keeps a prefix."""

    left: Counts
    certain: Counts
    """Left whatever happens to differences below NEAR_TIE."""
    possible: Counts
    """Left, or within NEAR_TIE of it."""

    def both(self, other: _Kept) -> _Kept:
        """What passes this filter and the other."""
        return _Kept(*(np.minimum(a, b) for a, b in zip(self, other, strict=True)))


def _decide(
    ranked: _Ranked, total: Float32, streams: Uint64, sampling: Sampling, vocab: int
) -> Choice:
    """Filter, add noise, take the best; rows that need more than is ranked are -1."""
    rows, width = ranked.values.shape
    if sampling.greedy:
        kept = _greedy(ranked.values)
        settled = ranked.values[:, 0] > ranked.values[:, -1]
    else:
        kept = _filtered(ranked.values, total.astype(np.float64), sampling, vocab)
        # Values beyond the ranks are then too small to be left, or to be near what is.
        settled = kept.possible < width
        if sampling.top_k >= width:
            settled[:] = False
    if width == vocab:
        settled[:] = True
    ids, near = np.full(rows, -1, dtype=np.int32), np.zeros(rows, dtype=np.bool_)
    if settled.any():
        chosen = _Kept(*(counts[settled] for counts in kept))
        reach = int(chosen.possible.max())
        values, tokens = ranked.values[settled, :reach], ranked.ids[settled, :reach]
        noise = 0.0 if sampling.greedy else _noise(streams[settled], tokens)
        ids[settled], near[settled] = _best(values + noise, tokens, chosen)
    return Choice(ids, near)


def _best(
    scores: Float64, ids: NDArray[np.int64], kept: _Kept
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The kept id with the largest score [b], and whether another was near."""
    rank = np.arange(scores.shape[1])
    left = np.where(rank < kept.left[:, None], scores, -np.inf)
    best = left.max(axis=1, keepdims=True)
    winner: Counts = np.where(left == best, ids, np.iinfo(np.int64).max).argmin(axis=1)
    close = (scores > best - NEAR_TIE) & (rank < kept.possible[:, None])
    near = (close.sum(axis=1) > 1) | (winner >= kept.certain)
    return ids[np.arange(len(ids)), winner].astype(np.int32), near


def _greedy(values: Float64) -> _Kept:
    """The largest value, and those near it."""
    one = np.ones(len(values), dtype=np.intp)
    near = (values > values[:, :1] - NEAR_TIE).sum(axis=1)
    return _Kept(one, one, near)


def _filtered(values: Float64, total: Float64, sampling: Sampling, vocab: int) -> _Kept:
    """Top-k, top-p on what is left of it, min-p."""
    finite = (values > -np.inf).sum(axis=1)
    kept = _Kept(finite, finite, finite)
    if 0 < sampling.top_k < vocab and sampling.top_k <= values.shape[1]:
        kept = kept.both(_top_k(values, sampling.top_k))
        total = _log_total(values[:, : sampling.top_k])
    if sampling.top_p < 1:
        kept = kept.both(_top_p(values, total, sampling.top_p))
    if sampling.min_p > 0:
        kept = kept.both(_min_p(values, sampling.min_p))
    return kept


def _top_k(values: Float64, k: int) -> _Kept:
    count = np.full(len(values), k, dtype=np.intp)
    return _widened(values, count, count, count)


def _top_p(values: Float64, total: Float64, p: float) -> _Kept:
    """The smallest prefix with probability p; its edge is uncertain by NEAR_TIE in log-odds.

    Logits that differ by e change a set's log-odds by e at most, its probability P by e P (1-P).
    """
    share = np.exp(values - total[:, None])
    before = np.cumsum(share, axis=1) - share
    slack = NEAR_TIE * p * (1 - p) + 2 * p * np.abs(np.spacing(total.astype(np.float32)))
    count, fewest, most = (
        np.maximum(1, (before < limit).sum(axis=1))
        for limit in (p, (p - slack)[:, None], (p + slack)[:, None])
    )
    return _widened(values, count, fewest, most)


def _min_p(values: Float64, share: float) -> _Kept:
    """What has at least ``share`` of the largest probability."""
    edge = values[:, :1] + np.log(share)
    count, certain, possible = (_above(values, edge + by) for by in (0.0, NEAR_TIE, -NEAR_TIE))
    # The largest is left whatever the share, unless another may be the largest.
    alone = (values >= values[:, :1] - NEAR_TIE).sum(axis=1) == 1
    return _Kept(count, np.maximum(certain, alone), possible)


def _widened(values: Float64, count: Counts, fewest: Counts, most: Counts) -> _Kept:
    """A prefix of ``fewest`` to ``most``, whose edges may also swap with values near them."""
    rows, width = np.arange(len(values)), values.shape[1]
    dropped = np.where(fewest < width, values[rows, np.minimum(fewest, width - 1)], -np.inf)
    last = values[rows, np.minimum(most, width) - 1]
    certain = _above(values, dropped[:, None] + NEAR_TIE)
    possible = _above(values, last[:, None] - NEAR_TIE)
    return _Kept(count, np.minimum(certain, fewest), np.maximum(possible, most))


def _above(values: Float64, edge: Float64) -> Counts:
    """How many [b] of the values [b, k] are at least ``edge`` [b, 1]."""
    count: Counts = (values >= edge).sum(axis=1)
    return count


def _log_total(values: Float64) -> Float64:
    """Logarithm [b] of the sum of exponentials; the first of each row is its largest."""
    total: Float64 = values[:, 0] + np.log(np.exp(values - values[:, :1]).sum(axis=1))
    return total


def _descending(scaled: Float32, ids: NDArray[np.int32]) -> _Ranked:
    """Sort rows [b, k] by one integer key: value in the upper bits, id in the lower.

    The bits of a float32 order like an integer once those of negative numbers are reversed.
    """
    # + 0 makes -0.0 to 0.0, its equal
    bits = (scaled + np.float32(0)).view(np.uint32)
    sign = np.uint32(0x80000000)
    falling = np.where(bits & sign, bits, ~bits & ~sign)
    key = falling.astype(np.uint64) << np.uint64(32) | ids.astype(np.uint64)
    key.sort(axis=1)
    falling = (key >> np.uint64(32)).astype(np.uint32)
    bits = np.where(falling & sign, falling, ~falling & ~sign)
    values = bits.view(np.float32).astype(np.float64)
    return _Ranked(values, (key & np.uint64(0xFFFFFFFF)).astype(np.int64))


def _require_finite(scaled: Float32, total: Float32) -> None:
    """A NaN or +inf anywhere makes the sum so; only -inf makes it -inf."""
    if np.isfinite(total).all() and (scaled < np.inf).all():
        return
    raise UserError(
        "the model gave logits that are not finite numbers: its files or the adapter are damaged, "
        "its training diverged, or the temperature is too near 0 (give 0 for greedy)"
    )


def streams_of(keys: Sequence[NoiseKey], step: Sequence[int]) -> Uint64:
    """Start and mask [b, 2] of each row's stream of noise at its step."""
    rows = []
    for key, at in zip(keys, step, strict=True):
        # repr keeps ("a", 1) and ("a1",) apart
        name = repr((int(key.seed), str(key.item_id), int(key.sample), int(at)))
        rows.append(np.frombuffer(hashlib.sha256(name.encode()).digest()[:16], dtype="<u8"))
    return np.array(rows, dtype=np.uint64)


def _noise(streams: Uint64, ids: NDArray[Any]) -> Float64:
    """Gumbel noise [b, k] for ids [b, k]: the ids-th number of each stream."""
    return np.asarray(-np.log(-np.log(_uniform(streams, ids))))


def _uniform(streams: Uint64, ids: NDArray[Any]) -> Float64:
    """Uniform numbers [b, k] for ids [b, k].

    A Weyl sequence through the finaliser of SplitMix64 (Steele et al. 2014; Stafford's
    variant 13); 52 bits and a half, so that u is exact and neither 0 nor 1.
    """
    x = ids.astype(np.uint64)
    x += np.uint64(1)
    x = x * np.uint64(0x9E3779B97F4A7C15) + streams[:, :1]
    x ^= x >> np.uint64(30)
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    x ^= streams[:, 1:]
    x >>= np.uint64(12)
    u = x.astype(np.float64)
    u += 0.5
    u *= 2.0**-52
    return u

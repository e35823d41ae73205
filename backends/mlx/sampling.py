"""The next id of every row of a batch: the large work on the device, the choice on the host.

What is chosen follows from :mod:`backends.sampling`. The device applies the repetition penalty
and the temperature and finds the largest values; only those reach the host. Without a filter
every token has noise; then the device finds those whose noise is large enough to matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import mlx.core as mx
import numpy as np

from backends.interface import Float32, Prompt, Sampling
from backends.mlx.compiled import compiled_on_gpu
from backends.mlx.cpu import exp
from backends.mlx.loss import sum_last
from backends.sampling import (
    CANDIDATES,
    NEAR_TIE,
    Candidates,
    Choice,
    NoiseKey,
    candidate_counts,
    choose,
    choose_full,
    gumbel,
    noise_key,
    occurred,
    streams_of,
    unfiltered,
)
from models.errors import UserError


@dataclass
class Row:
    """A prompt on its way to a completion."""

    place: int
    prompt: Prompt
    ids: list[int] = field(default_factory=list)
    near_ties: int = 0
    started: float = 0.0

    def take(self, token: int, near: int) -> None:
        """Add a chosen id; raises UserError for the id -1 of logits that are no numbers."""
        if token < 0:
            raise UserError(
                f"item {self.prompt.item_id}: the logits are not finite after {len(self.ids)} "
                "new ids; use dtype float32 or bfloat16"
            )
        self.ids.append(token)
        self.near_ties += near


def needs_host(sampling: Sampling) -> bool:
    """Whether a choice depends on the ids before it other than through the logits."""
    return not sampling.greedy or sampling.repetition_penalty != 1.0


def next_ids(logits: mx.array, rows: Sequence[Row], sampling: Sampling) -> mx.array:
    """Int32 [2, b] from float32 logits [b, vocab]: each row's next id, and 1 for a near-tie.

    The id is -1 where logits are no numbers.
    """
    if sampling.repetition_penalty != 1.0:
        logits = _penalised(logits, rows, sampling)
    if not sampling.greedy:
        return _drawn(logits, rows, sampling)
    return _greedy_and_near(logits)


@compiled_on_gpu
def _greedy_and_near(logits: mx.array) -> mx.array:
    close = logits > logits.max(axis=-1, keepdims=True) - NEAR_TIE
    near = close.sum(axis=-1) > 1
    return mx.stack([greedy(logits), near.astype(mx.int32)])


@compiled_on_gpu
def greedy(logits: mx.array) -> mx.array:
    """Arg-max [b] of float32 logits [b, vocab], lowest id on a tie; -1 where one is no number."""
    best = mx.argmax(logits, axis=-1).astype(mx.int32)
    return mx.where(mx.isfinite(logits.sum(axis=-1)), best, mx.array(-1, mx.int32))


def _penalised(logits: mx.array, rows: Sequence[Row], sampling: Sampling) -> mx.array:
    """Logits [b, vocab] with the repetition penalty on the ids that occurred in each row."""
    seen = [occurred(row.prompt.ids, row.ids, sampling) for row in rows]
    width = max(map(len, seen))
    # A row with fewer ids repeats its own: the same value is written twice.
    index = mx.array(np.stack([np.resize(ids, width) for ids in seen]))
    values = mx.take_along_axis(logits, index, axis=-1)
    penalty = sampling.repetition_penalty
    changed = mx.where(values > 0, values / penalty, values * penalty)
    return mx.put_along_axis(logits, index, changed, axis=-1)


def _drawn(logits: mx.array, rows: Sequence[Row], sampling: Sampling) -> mx.array:
    """As :func:`next_ids`, with noise: the host sees a few values, all only if it must."""
    vocab = logits.shape[-1]
    scaled = logits / sampling.temperature
    keys = [noise_key(sampling, row.prompt) for row in rows]
    steps = [len(row.ids) for row in rows]
    tried = 0
    if unfiltered(sampling, vocab):
        candidates, bounds = _contenders(scaled, keys, steps, min(CANDIDATES, vocab))
        _require_numbers(candidates, rows)
        choice = _among(candidates, bounds, keys, steps, sampling)
    else:
        first, *wider = candidate_counts(sampling, vocab)
        candidates = _largest(scaled, first)
        _require_numbers(candidates, rows)
        choice = choose(candidates, keys, steps, sampling, vocab)
        # flat distributions keep more than the first candidates; hardly ever more than these
        rest = np.flatnonzero(choice.ids < 0)
        for tried in wider if len(rest) else ():
            more = _largest(scaled[mx.array(rest)], tried)
            again = choose(more, [keys[at] for at in rest], [steps[at] for at in rest], sampling,
                           vocab)  # fmt: skip
            choice.ids[rest], choice.near_tie[rest] = again.ids, again.near_tie
    chosen = np.stack([choice.ids, choice.near_tie.astype(np.int32)])
    for place in np.flatnonzero(choice.ids < 0):
        whole = np.array(scaled[int(place)])
        chosen[:, place] = choose_full(whole, keys[place], steps[place], sampling, tried=tried)
    return mx.array(chosen)


def _require_numbers(candidates: Candidates, rows: Sequence[Row]) -> None:
    for row, total in zip(rows, candidates.logsumexp.tolist(), strict=True):
        if not np.isfinite(total):
            row.take(-1, 0)


def _largest(scaled: mx.array, count: int) -> Candidates:
    """The ``count`` largest of each row of scaled values [b, vocab]."""
    top = scaled.max(axis=-1, keepdims=True)
    return _gathered(scaled, _smallest(-scaled, count), top, exp(scaled - top))


def _gathered(
    scaled: mx.array, ids: mx.array, top: mx.array, powers: mx.array, *others: mx.array
) -> Candidates:
    """Candidates with these ids [b, k]; ``powers`` are e^(scaled - top). Evaluates others too."""
    values = mx.take_along_axis(scaled, ids, axis=-1)
    total = (mx.log(sum_last(powers)) + top)[:, 0]
    mx.eval(ids, values, total, *others)
    return Candidates(np.array(ids), np.array(values), np.array(total))


def _smallest(values: mx.array, count: int) -> mx.array:
    """Int32 ids [b, count] of the smallest of each row [b, vocab]."""
    return mx.argpartition(values, kth=count - 1, axis=-1)[:, :count].astype(mx.int32)


def _contenders(
    scaled: mx.array, keys: Sequence[NoiseKey], steps: Sequence[int], count: int
) -> tuple[Candidates, Float32]:
    """Candidates that win with their noise, and a bound [b] on the scores of all others.

    A token's score is scaled - log(-log u). As -log u >= 1 - u, it is at most
    top - log((1 - u) / e^(scaled - top)): the ``count`` smallest of these ratios are taken.
    """
    top, powers, ratios = _ratios(scaled, mx.array(streams_of(keys, steps)))
    ids = _smallest(ratios, count)
    edge = mx.take_along_axis(ratios, ids, axis=-1).max(axis=-1)
    bounds = top[:, 0] - mx.log(edge)
    candidates = _gathered(scaled, ids, top, powers, bounds)
    complete = count == scaled.shape[-1]
    return candidates, np.full(len(keys), -np.inf, np.float32) if complete else np.array(bounds)


@compiled_on_gpu
def _ratios(scaled: mx.array, streams: mx.array) -> tuple[mx.array, mx.array, mx.array]:
    """Largest [b, 1], e^(scaled - largest) [b, vocab], and (1 - u) over that [b, vocab]."""
    top = scaled.max(axis=-1, keepdims=True)
    powers = exp(scaled - top)
    return top, powers, _remainders(streams, scaled.shape[-1]) / powers


def _remainders(streams: mx.array, vocab: int) -> mx.array:
    """Float32 1 - u [b, vocab] of the uniform numbers u behind :func:`gumbel`, small ones exactly.

    The same integers as there; only their conversion to float32 is rounded.
    """
    golden, first, second = (
        mx.array(np.array(constant, np.uint64))
        for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
    )
    x = streams[:, :1] + (mx.arange(1, vocab + 1).astype(mx.uint64) * golden)[None]
    x = (x ^ (x >> 30)) * first
    x = (x ^ (x >> 27)) * second
    x = x ^ (x >> 31) ^ streams[:, 1:]
    return ((~x >> 12).astype(mx.float32) + 0.5) * 2.0**-52


def _among(
    candidates: Candidates,
    bounds: Float32,
    keys: Sequence[NoiseKey],
    steps: Sequence[int],
    sampling: Sampling,
) -> Choice:
    """The best candidate of each row; -1 where one that is no candidate could come near it."""
    choice = choose(candidates, keys, steps, sampling, candidates.ids.shape[1])
    ids = choice.ids.copy()
    for row, (key, step, bound) in enumerate(zip(keys, steps, bounds, strict=True)):
        won = candidates.scaled[row][candidates.ids[row] == ids[row]]
        score = float(won[0]) + float(gumbel(key, step, ids[row : row + 1])[0])
        # Twice, since the bound itself is rounded: by less than 1e-4 at values of 1,000.
        if not score - 2 * NEAR_TIE > bound:
            ids[row] = -1
    return Choice(ids, choice.near_tie)

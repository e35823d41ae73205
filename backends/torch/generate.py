"""Batched decoding: left padding, a KV cache, logits at the last position only."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from backends.decoding import Ending, check_prompts
from backends.interface import Completion, FinishReason, Float32, OnDone, Prompt, Sampling
from backends.sampling import (
    NEAR_TIE,
    Candidates,
    candidate_counts,
    choose,
    choose_full,
    noise_key,
    occurred,
    unfiltered,
)
from models.errors import UserError

if TYPE_CHECKING:
    from backends.torch.model import TorchModel

MAX_ROWS = 32
CACHE_BYTES = 1 << 30
"""A batch is kept small enough that its KV cache stays below this."""


@dataclass
class _Row:
    index: int
    prompt: Prompt
    ids: list[int] = field(default_factory=list)
    near_ties: int = 0


def generate(
    model: TorchModel,
    prompts: Sequence[Prompt],
    ending: Ending,
    sampling: Sampling,
    on_done: OnDone | None,
    *,
    states: dict[int, Float32] | None = None,
) -> list[Completion]:
    """Decode all prompts; see :meth:`LanguageModel.generate`.

    ``states`` gets, by place, the state [d] that a prompt's stop token was chosen from.
    """
    check_prompts(
        prompts,
        max_tokens=ending.max_tokens,
        context=int(model.config.max_position_embeddings),
        vocab=int(model.config.vocab_size),
    )
    completions: dict[int, Completion] = {}
    with torch.inference_mode():
        for rows in _batches(prompts, ending.max_tokens, _bytes_per_position(model)):
            for index, completion in _decode(model, rows, ending, sampling, states):
                completions[index] = completion
                if on_done is not None:
                    on_done(completion)
    return [completions[index] for index in range(len(prompts))]


def _batches(
    prompts: Sequence[Prompt], max_tokens: int, bytes_per_position: int
) -> Iterator[list[_Row]]:
    """Group prompts of like length, longest first, within MAX_ROWS and CACHE_BYTES."""
    rows = [_Row(index, prompt) for index, prompt in enumerate(prompts)]
    rows.sort(key=lambda row: -len(row.prompt.ids))
    while rows:
        width = len(rows[0].prompt.ids) + max_tokens
        size = max(1, min(MAX_ROWS, CACHE_BYTES // (width * bytes_per_position)))
        yield rows[:size]
        rows = rows[size:]


def _bytes_per_position(model: TorchModel) -> int:
    """KV cache bytes of one position, from the widths of the k projections (v is the same)."""
    keys = [out for name, (out, _) in model.linear_modules().items() if name.endswith("k_proj")]
    item = int(torch.finfo(next(model.model.parameters()).dtype).bits) // 8
    return max(1, 2 * sum(keys) * item)


def _decode(
    model: TorchModel,
    rows: list[_Row],
    ending: Ending,
    sampling: Sampling,
    states: dict[int, Float32] | None,
) -> Iterator[tuple[int, Completion]]:
    """Decode one batch, yielding each row as it ends; ended rows leave the batch."""
    from transformers import DynamicCache

    started = time.perf_counter()
    cache = DynamicCache(config=model.config)
    ids, mask = _left_pad([row.prompt.ids for row in rows], model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    while rows:
        hidden = model.hidden_cached(ids, cache, attention_mask=mask, position_ids=positions)
        chosen, ties = _next_ids(model.head(hidden[:, -1:])[:, 0], rows, sampling)
        active = []
        for place, (row, token, tie) in enumerate(zip(rows, chosen, ties, strict=True)):
            row.ids.append(token)
            row.near_ties += tie
            reason = ending.reason(row.ids)
            if reason is None:
                active.append(place)
            else:
                if states is not None and reason == "stop":
                    states[row.index] = hidden[place, -1].float().cpu().numpy()
                yield row.index, _completion(row, reason, time.perf_counter() - started)
        rows, mask = _keep(rows, active, cache, mask)
        ids = torch.tensor([row.ids[-1:] for row in rows], device=model.device)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = mask.sum(1, keepdim=True) - 1


def _left_pad(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids [b, T] padded in front with 0, and the mask [b, T] that hides the padding."""
    width = max(map(len, prompts))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(list(prompt))
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)


def _next_ids(
    logits: Tensor, rows: Sequence[_Row], sampling: Sampling
) -> tuple[list[int], list[bool]]:
    """The next id of each row from float32 logits [b, vocab], and whether it was a near-tie."""
    logits = _penalised(logits, rows, sampling)
    if not sampling.greedy:
        return _drawn(logits, rows, sampling)
    first, second = logits.topk(2).values.unbind(-1)
    return _argmax(logits, rows), (first - second < NEAR_TIE).tolist()


def _penalised(logits: Tensor, rows: Sequence[_Row], sampling: Sampling) -> Tensor:
    """Apply the repetition penalty, in place."""
    if sampling.repetition_penalty == 1:
        return logits
    seen = [occurred(row.prompt.ids, row.ids, sampling) for row in rows]
    width = max(map(len, seen))
    # a row with fewer ids repeats its own: the same value is written twice
    index = np.stack([np.resize(ids, width) for ids in seen]).astype(np.int64)
    where = torch.from_numpy(index).to(logits.device)
    values, penalty = logits.gather(1, where), _scalar(sampling.repetition_penalty, logits)
    return logits.scatter_(1, where, torch.where(values > 0, values / penalty, values * penalty))


def _drawn(
    logits: Tensor, rows: Sequence[_Row], sampling: Sampling
) -> tuple[list[int], list[bool]]:
    """As :func:`_next_ids` with noise: the host sees the largest logits, all only if it must."""
    scaled = logits / _scalar(sampling.temperature, logits)
    total = scaled.logsumexp(-1).cpu().numpy()
    _require_numbers(np.isfinite(total).tolist(), rows)
    keys = [noise_key(sampling, row.prompt) for row in rows]
    steps = [len(row.ids) for row in rows]
    chosen, ties, vocab = [-1] * len(rows), [False] * len(rows), scaled.shape[-1]
    rest = list(range(len(rows)))
    # flat distributions keep more than the first candidates; hardly ever more than the second
    counts = () if unfiltered(sampling, vocab) else candidate_counts(sampling, vocab)
    for count in counts:
        found = _candidates(scaled[rest], total[rest], count)
        choice = choose(found, [keys[at] for at in rest], [steps[at] for at in rest], sampling,
                        vocab)  # fmt: skip
        for at, token, tie in zip(rest, choice.ids.tolist(), choice.near_tie.tolist(), strict=True):
            chosen[at], ties[at] = token, tie
        rest = [at for at in rest if chosen[at] < 0]
        if not rest:
            return chosen, ties
    tried = max(counts, default=0)
    for at, row in zip(rest, scaled[rest].cpu().numpy(), strict=True):
        chosen[at], ties[at] = choose_full(row, keys[at], steps[at], sampling, tried=tried)
    return chosen, ties


def _candidates(scaled: Tensor, total: Float32, count: int) -> Candidates:
    """The ``count`` largest of each row, on the host."""
    top = scaled.topk(count, sorted=False)
    return Candidates(top.indices.int().cpu().numpy(), top.values.cpu().numpy(), total)


def _scalar(value: float, like: Tensor) -> Tensor:
    """``value`` on the device: CUDA divides by a Python number as a product with 1 / value."""
    return torch.full((), value, dtype=like.dtype, device=like.device)


def _argmax(logits: Tensor, rows: Sequence[_Row]) -> list[int]:
    """Lowest id among the largest of float32 logits [b, vocab].

    torch.argmax does not promise the first of equal values on every device.
    """
    largest = logits.amax(-1, keepdim=True)
    places = torch.arange(logits.shape[-1], device=logits.device)
    chosen = torch.where(logits == largest, places, logits.shape[-1]).amin(-1)
    _require_numbers(torch.isfinite(largest[:, 0]).tolist(), rows)
    tokens: list[int] = chosen.tolist()
    return tokens


def _require_numbers(finite: Sequence[bool], rows: Sequence[_Row]) -> None:
    for row, holds in zip(rows, finite, strict=True):
        if not holds:
            raise UserError(
                f"the model computes no numbers for item {row.prompt.item_id} after "
                f"{len(row.ids)} tokens (overflow): use dtype float32 or bfloat16"
            )


def _keep(
    rows: list[_Row], active: list[int], cache: Any, mask: Tensor
) -> tuple[list[_Row], Tensor]:
    """Take ended rows out of the batch and the cache."""
    if len(active) == len(rows):
        return rows, mask
    if active:
        index = torch.tensor(active, device=mask.device)
        cache.reorder_cache(index)  # index_select on the batch axis, for every layer type
        mask = mask[index]
    else:
        mask = mask[:0]
    return [rows[place] for place in active], mask


def _completion(row: _Row, reason: FinishReason, seconds: float) -> Completion:
    return Completion(
        item_id=row.prompt.item_id,
        prompt_ids=row.prompt.ids,
        ids=tuple(row.ids),
        finish_reason=reason,
        seconds=seconds,
        sample=row.prompt.sample,
        near_ties=row.near_ties,
    )

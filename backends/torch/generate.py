"""Batched greedy decoding: left padding, a KV cache, logits at the last position only."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from backends.decoding import Ending, check_prompts
from backends.interface import Completion, FinishReason, OnDone, Prompt
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


def generate(
    model: TorchModel, prompts: Sequence[Prompt], ending: Ending, on_done: OnDone | None
) -> list[Completion]:
    """Decode all prompts; see :meth:`LanguageModel.generate`."""
    check_prompts(
        prompts,
        max_tokens=ending.max_tokens,
        context=int(model.config.max_position_embeddings),
        vocab=int(model.config.vocab_size),
    )
    completions: dict[int, Completion] = {}
    with torch.inference_mode():
        for rows in _batches(prompts, ending.max_tokens, _bytes_per_position(model)):
            for index, completion in _decode(model, rows, ending):
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
    model: TorchModel, rows: list[_Row], ending: Ending
) -> Iterator[tuple[int, Completion]]:
    """Decode one batch, yielding each row as it ends; ended rows leave the batch."""
    from transformers import DynamicCache

    started = time.perf_counter()
    cache = DynamicCache(config=model.config)
    ids, mask = _left_pad([row.prompt.ids for row in rows], model.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    while rows:
        hidden = model.hidden_cached(ids, cache, attention_mask=mask, position_ids=positions)
        chosen = _argmax(model.head(hidden[:, -1:])[:, 0], rows)
        active = []
        for place, (row, token) in enumerate(zip(rows, chosen, strict=True)):
            row.ids.append(token)
            reason = ending.reason(row.ids)
            if reason is None:
                active.append(place)
            else:
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


def _argmax(logits: Tensor, rows: Sequence[_Row]) -> list[int]:
    """Lowest id among the largest of float32 logits [b, vocab].

    torch.argmax does not promise the first of equal values on every device.
    """
    largest = logits.amax(-1, keepdim=True)
    places = torch.arange(logits.shape[-1], device=logits.device)
    chosen = torch.where(logits == largest, places, logits.shape[-1]).amin(-1)
    for row, finite in zip(rows, torch.isfinite(largest[:, 0]).tolist(), strict=True):
        if not finite:
            raise UserError(
                f"the model computes no numbers for item {row.prompt.item_id} after "
                f"{len(row.ids)} tokens (overflow): use dtype float32 or bfloat16"
            )
    tokens: list[int] = chosen.tolist()
    return tokens


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
    )

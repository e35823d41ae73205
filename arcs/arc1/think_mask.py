"""Where the think block lies in a sequence of ids, for any tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from backends.training import TrainingExample
from models.chat import THINK_MARKS, ChatEncoder
from models.errors import UserError

Span = tuple[int, int]


def think_span(
    decode: Callable[[Sequence[int]], str], ids: Sequence[int], *, opened: bool = False
) -> tuple[Span, bool] | None:
    """First and one past the last id of the think block, marks included, and whether it ends.

    ``opened``: the prompt ended inside it, so that it begins with the first id. None without one.
    """
    text = decode(ids)
    for start_mark, end_mark in THINK_MARKS:
        begins = 0 if opened else text.find(start_mark)
        if begins < 0:
            continue
        first = 0 if opened else _id_of(decode, ids, begins)
        ends = text.find(end_mark, begins)
        if ends >= 0:
            return (first, _ids_up_to(decode, ids, end_mark)), True
        if not opened:
            return (first, len(ids)), False
    return ((0, len(ids)), False) if opened else None


def _ids_up_to(decode: Callable[[Sequence[int]], str], ids: Sequence[int], mark: str) -> int:
    """How many ids it takes until their text holds ``mark``."""
    return _fewest(ids, lambda some: mark in decode(some))


def _id_of(decode: Callable[[Sequence[int]], str], ids: Sequence[int], place: int) -> int:
    """Index of the id that brings the character at ``place``: a mark may be of several ids, and
    begins with its first."""
    return _fewest(ids, lambda some: len(decode(some)) > place) - 1


def _fewest(ids: Sequence[int], enough: Callable[[Sequence[int]], bool]) -> int:
    """How many of the first ids are enough: text only grows, so by bisection."""
    low, high = 1, len(ids)
    while low < high:
        middle = (low + high) // 2
        if enough(ids[:middle]):
            high = middle
        else:
            low = middle + 1
    return low


def without_thoughts(
    encoder: ChatEncoder,
    train: Sequence[TrainingExample],
    held_out: Sequence[TrainingExample],
) -> tuple[list[TrainingExample], list[TrainingExample]]:
    """The examples without loss on think tokens. Raises UserError where no example thinks: the
    setting would change nothing."""
    masked = [_masked(encoder, one) for one in train]
    if all(new == old for new, old in zip(masked, train, strict=True)):
        raise UserError(
            "--mask-think: no training record has a think block (<think>...</think>), so it would "
            "change nothing; give records that have them, or leave it out"
        )
    return masked, [_masked(encoder, one) for one in held_out]


def _masked(encoder: ChatEncoder, example: TrainingExample) -> TrainingExample:
    start = example.response_mask.index(True)
    found = think_span(encoder.decode, example.ids[start:])
    if found is None:
        return example
    first, end = (start + place for place in found[0])
    mask = [counts and not first <= i < end for i, counts in enumerate(example.response_mask)]
    return replace(example, response_mask=tuple(mask))

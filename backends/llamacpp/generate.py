"""Greedy decoding of many prompts through a fixed number of slots."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from backends.interface import Completion, FinishReason, OnDone, Prompt, StopWhen
from backends.llamacpp.context import DecodeContext
from models.errors import UserError


@dataclass(frozen=True)
class Ending:
    """When a sequence is finished."""

    max_tokens: int
    stop_ids: frozenset[int]
    stop_when: StopWhen | None

    def reason(self, ids: list[int]) -> FinishReason | None:
        """Why the sequence ends with its last id, None while it goes on."""
        if ids[-1] in self.stop_ids or (self.stop_when and self.stop_when(tuple(ids))):
            return "stop"
        return "length" if len(ids) >= self.max_tokens else None


@dataclass
class _Sequence:
    index: int
    prompt: Prompt
    started: float
    ids: list[int] = field(default_factory=list)


def check_prompts(prompts: Sequence[Prompt], *, max_tokens: int, context: int, vocab: int) -> None:
    """Raise UserError for prompts that cannot be decoded within ``context`` tokens each."""
    if max_tokens < 1:
        raise UserError(f"n_predict is {max_tokens}; give at least 1")
    twice = [item for item, n in Counter(p.item_id for p in prompts).items() if n > 1]
    if twice:
        raise UserError(f"item id {twice[0]} occurs more than once; give every prompt its own")
    for prompt in prompts:
        if not prompt.ids:
            raise UserError(f"the prompt of {prompt.item_id} is empty; give at least one token")
        if not 0 <= min(prompt.ids) <= max(prompt.ids) < vocab:
            raise UserError(
                f"the prompt of {prompt.item_id} has token ids outside 0..{vocab - 1}; "
                f"use the tokenizer of this model"
            )
        if len(prompt.ids) + max_tokens > context:
            raise UserError(
                f"{prompt.item_id}: prompt of {len(prompt.ids)} tokens + n_predict {max_tokens} "
                f"is more than the context of {context}; lower n_predict or raise the context"
            )


class Decoding:
    """One run over a list of prompts; slots are refilled as sequences finish."""

    def __init__(
        self,
        context: DecodeContext,
        prompts: Sequence[Prompt],
        ending: Ending,
        on_done: OnDone | None,
    ) -> None:
        self._context = context
        self._waiting = deque(enumerate(prompts))
        self._ending = ending
        self._on_done = on_done
        self._slots: dict[int, _Sequence] = {}
        self._done: dict[int, Completion] = {}

    def run(self) -> list[Completion]:
        """Decode everything; completions in the order of the prompts."""
        for slot in range(self._context.width):
            self._context.release(slot)
        self._fill_slots()
        while self._slots:
            ids = self._context.step()
            for slot in list(self._slots):
                self._take(slot, int(ids[slot]))
            self._fill_slots()
        return [self._done[index] for index in sorted(self._done)]

    def _fill_slots(self) -> None:
        for slot in range(self._context.width):
            # A prompt whose first token ends it leaves the slot free for the next one.
            while self._waiting and slot not in self._slots:
                index, prompt = self._waiting.popleft()
                self._slots[slot] = _Sequence(index, prompt, time.perf_counter())
                self._take(slot, self._context.ingest(slot, prompt.ids))

    def _take(self, slot: int, token: int) -> None:
        sequence = self._slots[slot]
        sequence.ids.append(token)
        reason = self._ending.reason(sequence.ids)
        if reason is not None:
            del self._slots[slot]
            self._context.release(slot)
            self._finish(sequence, reason)

    def _finish(self, sequence: _Sequence, reason: FinishReason) -> None:
        completion = Completion(
            item_id=sequence.prompt.item_id,
            prompt_ids=sequence.prompt.ids,
            ids=tuple(sequence.ids),
            finish_reason=reason,
            seconds=time.perf_counter() - sequence.started,
        )
        self._done[sequence.index] = completion
        if self._on_done is not None:
            self._on_done(completion)

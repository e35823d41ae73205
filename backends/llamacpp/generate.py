"""Greedy decoding of many prompts through a fixed number of slots."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from backends.decoding import Ending
from backends.interface import Completion, FinishReason, OnDone, Prompt
from backends.llamacpp.context import DecodeContext


@dataclass
class _Sequence:
    index: int
    prompt: Prompt
    started: float
    ids: list[int] = field(default_factory=list)


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

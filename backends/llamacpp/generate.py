"""Decoding of many prompts through a fixed number of slots."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from backends.decoding import Ending
from backends.interface import Completion, FinishReason, Float32, OnDone, Prompt, Sampling
from backends.llamacpp.context import DecodeContext, arg_max
from backends.sampling import (
    NEAR_TIE,
    Choice,
    candidate_count,
    candidates_of,
    choose,
    choose_full,
    noise_key,
    occurred,
    scale,
    unfiltered,
)


@dataclass
class _Sequence:
    index: int
    prompt: Prompt
    started: float
    ids: list[int] = field(default_factory=list)
    near_ties: int = 0


class Decoding:
    """One run over a list of prompts; slots are refilled as sequences finish."""

    def __init__(
        self,
        context: DecodeContext,
        prompts: Sequence[Prompt],
        ending: Ending,
        sampling: Sampling,
        on_done: OnDone | None,
    ) -> None:
        self._context = context
        self._waiting = deque(enumerate(prompts))
        self._ending = ending
        self._sampling = sampling
        self._on_done = on_done
        self._slots: dict[int, _Sequence] = {}
        self._done: dict[int, Completion] = {}

    def run(self) -> list[Completion]:
        """Decode everything; completions in the order of the prompts."""
        for slot in range(self._context.width):
            self._context.release(slot)
        self._fill_slots()
        while self._slots:
            logits = self._context.step()
            self._take(list(self._slots), logits[list(self._slots)])
            self._fill_slots()
        return [self._done[index] for index in sorted(self._done)]

    def _fill_slots(self) -> None:
        for slot in range(self._context.width):
            # A prompt whose first token ends it leaves the slot free for the next one.
            while self._waiting and slot not in self._slots:
                index, prompt = self._waiting.popleft()
                self._slots[slot] = _Sequence(index, prompt, time.perf_counter())
                self._take([slot], self._context.ingest(slot, prompt.ids))

    def _take(self, slots: Sequence[int], logits: Float32) -> None:
        """Choose the next id of each of ``slots`` from logits [slots, vocab]."""
        chosen = next_ids(logits, [self._slots[slot] for slot in slots], self._sampling)
        for slot, token, near in zip(
            slots, chosen.ids.tolist(), chosen.near_tie.tolist(), strict=True
        ):
            sequence = self._slots[slot]
            sequence.ids.append(token)
            sequence.near_ties += near
            reason = self._ending.reason(sequence.ids)
            if reason is None:
                self._context.feed(slot, token)
            else:
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
            sample=sequence.prompt.sample,
            near_ties=sequence.near_ties,
        )
        self._done[sequence.index] = completion
        if self._on_done is not None:
            self._on_done(completion)


def next_ids(logits: Float32, sequences: Sequence[_Sequence], sampling: Sampling) -> Choice:
    """Choose the next id of each sequence from logits [sequences, vocab].

    Raises UserError for logits that are not finite.
    """
    if sampling.greedy and sampling.repetition_penalty == 1.0:
        ids = arg_max(logits)
        return Choice(ids.astype(np.int32), _near(logits, ids))
    scaled = np.stack(
        [
            scale(row, occurred(s.prompt.ids, s.ids, sampling), sampling)
            for row, s in zip(logits, sequences, strict=True)
        ]
    )
    keys = [noise_key(sampling, s.prompt) for s in sequences]
    steps = [len(s.ids) for s in sequences]
    vocab = scaled.shape[1]
    if unfiltered(sampling, vocab):
        choice = Choice(np.full(len(keys), -1, np.int32), np.zeros(len(keys), np.bool_))
    else:
        candidates = candidates_of(scaled, candidate_count(sampling, vocab))
        choice = choose(candidates, keys, steps, sampling, vocab)
    for row in np.flatnonzero(choice.ids < 0):
        choice.ids[row], choice.near_tie[row] = choose_full(
            scaled[row], keys[row], steps[row], sampling
        )
    return choice


def _near(logits: Float32, ids: NDArray[np.intp]) -> NDArray[np.bool_]:
    """[rows] whether a second logit of [rows, vocab] is near the largest, which is at ``ids``."""
    rows = np.arange(len(ids))
    edge = logits[rows, ids] - np.float32(NEAR_TIE)
    return np.array([np.count_nonzero(logits[row] > edge[row]) > 1 for row in rows], np.bool_)

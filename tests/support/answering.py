"""A real engine whose answers a test writes: heads and log-probabilities stay the model's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from backends.interface import GREEDY, Completion, Head, LanguageModel, Prompt, Sampling
from models.chat import ChatEncoder, Message

Says = Callable[[str, Mapping[Head, float], int], str]
"""Item, factors in force, seed -> the answer's text."""


class Answering:
    """Generates what ``says`` gives, as ids with the end of turn; all else is the model's."""

    def __init__(self, model: LanguageModel, encoder: ChatEncoder, says: Says) -> None:
        self._model, self._encoder, self._says = model, encoder, says
        self._factors: dict[Head, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    @contextmanager
    def tempered(self, scales: Mapping[Head, float]) -> Iterator[None]:
        """As the model, remembered for ``says``."""
        with self._model.tempered(scales):
            self._factors = dict(scales)
            try:
                yield
            finally:
                self._factors = {}

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop_ids: Sequence[int],
        sampling: Sampling = GREEDY,
        stop_when: Any = None,
    ) -> list[Completion]:
        """The written answers, which end by the stop id; one that is longer than the budget is
        cut."""
        made = []
        for one in prompts:
            text = self._says(one.item_id, self._factors, sampling.seed)
            whole = self._encoder.encode_reply([Message("user", "?")], text)
            ids = [i for i, own in zip(whole.ids, whole.response_mask, strict=True) if own]
            assert ids[-1] in stop_ids
            cut = len(ids) > max_tokens
            made.append(
                Completion(
                    one.item_id, one.ids, tuple(ids[:max_tokens]), "length" if cut else "stop", 0.0
                )
            )
        return made

"""A backend with prepared answers, for tests of everything above the engines."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Literal

from backends.interface import (
    GREEDY,
    Capabilities,
    Completion,
    LanguageModel,
    OnDone,
    Prompt,
    Sampling,
    StopWhen,
)
from models.errors import UserError


class ScriptedModel(LanguageModel):
    """Answers each item with the ids given for it, cut by the same rules as a real engine."""

    def __init__(self, answers: Mapping[str, Sequence[int]]) -> None:
        self._answers = {item: tuple(ids) for item, ids in answers.items()}
        self.capabilities = Capabilities(engine="scripted", device="none", dtypes=())

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        max_tokens: int,
        stop_ids: Sequence[int],
        stop_when: StopWhen | None = None,
        on_done: OnDone | None = None,
        sampling: Sampling = GREEDY,
    ) -> list[Completion]:
        """Return the prepared ids up to the first stop or the budget, however they are sampled.

        Raises UserError for an item without a prepared answer, or an answer that ends before
        either: a script that is too short must not pass for a model that stopped.
        """
        completions = []
        for prompt in prompts:
            completion = self._answer(prompt, max_tokens, frozenset(stop_ids), stop_when)
            completions.append(completion)
            if on_done is not None:
                on_done(completion)
        return completions

    def _answer(
        self, prompt: Prompt, budget: int, stop_ids: frozenset[int], stop_when: StopWhen | None
    ) -> Completion:
        begun = time.monotonic()
        if prompt.item_id not in self._answers:
            raise UserError(f"scripted backend: no answer for item {prompt.item_id!r}")
        generated: list[int] = []
        reason: Literal["stop", "length"] | None = None
        for token in self._answers[prompt.item_id]:
            generated.append(token)
            if token in stop_ids or (stop_when is not None and stop_when(tuple(generated))):
                reason = "stop"
                break
            if len(generated) == budget:
                reason = "length"
                break
        if reason is None:
            raise UserError(
                f"scripted backend: the answer of {prompt.item_id!r} ends after "
                f"{len(generated)} ids, without a stop and before the budget of {budget}"
            )
        return Completion(
            item_id=prompt.item_id,
            prompt_ids=prompt.ids,
            ids=tuple(generated),
            finish_reason=reason,
            seconds=time.monotonic() - begun,
            sample=prompt.sample,
        )

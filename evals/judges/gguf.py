"""A local model as a judge: the allowed answers compared by their logits, never parsed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evals.judges.instruments import Instrument
from evals.judges.labels import (
    JudgeId,
    Label,
    OnLabel,
    Question,
    labelled,
    require_distinct,
)
from models.chat import Message
from models.errors import CapabilityError


class Encoder(Protocol):
    """What :class:`models.chat.ChatEncoder` does."""

    def encode_prompt(self, messages: Sequence[Message]) -> Any:
        """The ids of a chat that asks for an answer, as ``.ids``."""

    def encode_example(self, prompt: str, response: str, *, item: str = "") -> Any:
        """Prompt and answer jointly, as ``.ids`` and ``.response_mask``."""

    def describe(self) -> dict[str, Any]:
        """How text becomes ids."""

    def without_special_tokens(self, text: str) -> str:
        """The text, with nothing in it that the tokenizer takes for a special token."""


class Chooser(Protocol):
    """What :class:`backends.llamacpp.model.LlamaCppModel` does."""

    def choice_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        options: Sequence[int],
        *,
        prefix: Sequence[int] = (),
    ) -> Iterator[NDArray[np.float64]]:
        """Log-probabilities of ids after each prompt."""

    def describe(self) -> dict[str, Any]:
        """How numbers are made: engine, threads, versions."""


class GgufJudge:
    """See :class:`evals.judges.labels.Judge`.

    A label's probability is the value's share among the allowed answers. Ties go to the answer
    that the instrument lists first.
    """

    def __init__(
        self, model: Chooser, encoder: Encoder, *, name: str, sha256: str, context: int
    ) -> None:
        """``context``: ids that a prompt may have; a longer response is cut in its middle, and
        the label says by how much. ``sha256``: of the model's file."""
        decides = json.dumps([sha256, context, encoder.describe()], sort_keys=True)
        self.id = JudgeId("gguf", name, hashlib.sha256(decides.encode()).hexdigest())
        self._model, self._encoder, self._context = model, encoder, context

    def describe(self) -> dict[str, Any]:
        """The engine's description, and ids that a prompt may have."""
        return {"engine": self._model.describe(), "prompt_ids": self._context}

    def label(
        self, questions: Sequence[Question], *, on_label: OnLabel | None = None
    ) -> list[Label]:
        """See :meth:`Judge.label`. Raises CapabilityError where two answers begin alike."""
        require_distinct(questions)
        by_instrument: dict[Instrument, list[Question]] = {}
        for question in questions:
            by_instrument.setdefault(question.instrument, []).append(question)
        found: dict[tuple[str, str], Label] = {}
        for instrument, group in by_instrument.items():
            for label in self._group(instrument, group):
                found[label.key] = label
                if on_label is not None:
                    on_label(label)
        return [found[question.key] for question in questions]

    def _group(self, instrument: Instrument, group: Sequence[Question]) -> Iterator[Label]:
        options, prefix = self._options(instrument), self._prefix(instrument)
        fitted = [(question, *self._fitted(question)) for question in group]
        fits = [one for one in fitted if len(one[1]) <= self._context]
        for question, ids, _ in fitted:
            if len(ids) > self._context:
                said = f"{len(ids)} ids without the response, {self._context} fit"
                yield labelled(question, self.id, "error", detail=said)
        scores = self._model.choice_logprobs([ids for _, ids, _ in fits], options, prefix=prefix)
        for (question, _, cut), score in zip(fits, scores, strict=True):
            share = np.exp(score - score.max())
            best = int(score.argmax())
            yield labelled(
                question,
                self.id,
                "ok",
                instrument.values[best],
                probability=float(share[best] / share.sum()),
                cut_characters=cut,
            )

    def _options(self, instrument: Instrument) -> list[int]:
        """The first id of each allowed answer."""
        firsts = []
        for value in instrument.values:
            made = self._encoder.encode_example("Which?", str(value))
            firsts.append(int(made.ids[made.response_mask.index(True)]))
        if len(set(firsts)) < len(firsts):
            raise CapabilityError(
                f"{self.id.name}: two answers of {instrument.name} begin with the same token, so "
                "this model cannot judge it: choose another judge"
            )
        return firsts

    def _prefix(self, instrument: Instrument) -> tuple[int, ...]:
        """Ids before the first text, the same for every item: found from the template alone."""
        two = [
            self._ids(instrument, dict.fromkeys(instrument.fields, text)) for text in ("a", "\n")
        ]
        length = next(
            (i for i, (a, b) in enumerate(zip(*two, strict=False)) if a != b), min(map(len, two))
        )
        return two[0][: max(0, length - 1)]  # one less: a token may reach into the text

    def _ids(self, instrument: Instrument, texts: Mapping[str, str]) -> tuple[int, ...]:
        clean = {name: self._encoder.without_special_tokens(text) for name, text in texts.items()}
        made = self._encoder.encode_prompt([Message("user", instrument.render(clean))])
        return tuple(made.ids)

    def _fitted(self, question: Question) -> tuple[tuple[int, ...], int]:
        """The prompt's ids, with as much of the response as the context holds."""
        whole = self._ids(question.instrument, question.fields)
        response = question.fields.get(question.response_field, "")
        if len(whole) <= self._context or not response:
            return whole, 0
        low, high = 0, len(response)  # the longest that fits, by bisection
        while low < high:
            middle = (low + high + 1) // 2
            if len(self._ids(question.instrument, _cut(question, middle))) <= self._context:
                low = middle
            else:
                high = middle - 1
        return self._ids(question.instrument, _cut(question, low)), len(response) - low


def _cut(question: Question, keep: int) -> dict[str, str]:
    """The question's texts with ``keep`` characters of the response, from both its ends."""
    response = question.fields[question.response_field]
    head, tail = keep - keep // 2, keep // 2
    kept = response[:head] + " [...] " + (response[-tail:] if tail else "")
    return {**question.fields, question.response_field: kept}

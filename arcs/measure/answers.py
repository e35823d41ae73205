"""Free answers as records: decoded once at the largest n_predict, read at each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from arcs.judging.responses import Response, spoken
from arcs.measure.instrument import Record
from backends.interface import Completion, LanguageModel, Prompt
from evals.budgets import view_at
from evals.delivery import Rate
from evals.self_verification import verifies, verifies_as_published
from evals.truncation import repetition_loop
from models.chat import ChatEncoder, EncodedPrompt, Message

BUDGETS = (256, 512)
CHUNK = 16
"""Answers that are decoded together; a minute or so on a CPU."""


@dataclass(frozen=True)
class View:
    """An answer as it stands at one n_predict."""

    item_id: str
    n: int
    first_n: int
    """The smallest n_predict of the run at which it is this text."""
    text: str
    """Without special tokens, thoughts and all."""
    said: str
    """Without thoughts: what is judged."""
    think_open: bool
    finished: bool
    """Ended by itself."""
    loop: bool
    """Cut in an exact repetition loop: more tokens would say nothing new."""

    @property
    def unfinished(self) -> bool:
        """Cut, and not in a loop."""
        return not self.finished and not self.loop

    def response(self, condition: str) -> Response:
        """For a judge; its id is ``<condition>/<item>@<n_predict>``."""
        return Response(f"{condition}/{self.item_id}@{self.first_n}", self.item_id, self.said)


@dataclass(frozen=True)
class Asker:
    """Prompts, encoded once and the same for all conditions, and what becomes of them."""

    item_ids: tuple[str, ...]
    prompts: tuple[EncodedPrompt, ...]
    encoder: ChatEncoder
    budgets: tuple[int, ...]

    @classmethod
    def of(
        cls,
        encoder: ChatEncoder,
        asked: Mapping[str, Sequence[Message]],
        budgets: tuple[int, ...],
    ) -> Asker:
        """``asked``: item id -> the conversation to be answered."""
        prompts = tuple(encoder.encode_prompt(messages) for messages in asked.values())
        return cls(tuple(asked), prompts, encoder, budgets)

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        digest = hashlib.sha256()
        for item, prompt in zip(self.item_ids, self.prompts, strict=True):
            digest.update(repr((item, prompt.ids)).encode())
        return {
            "decoding": "greedy",
            "n_predict": list(self.budgets),
            "items": len(self.item_ids),
            "ids_sha256": digest.hexdigest(),
            "chunk": CHUNK,
        }

    def answer(self, model: LanguageModel, places: Sequence[int]) -> list[Record]:
        """Decode the answers at ``places`` at the largest n_predict."""
        asked = [Prompt(self.item_ids[place], self.prompts[place].ids) for place in places]
        found = model.generate(asked, max_tokens=self.budgets[-1], stop_ids=self.encoder.stop_ids)
        return [
            {
                "item_id": one.item_id,
                "ids": list(one.ids),
                "finish_reason": one.finish_reason,
                "text": self.encoder.decode(one.ids),
                "near_ties": one.near_ties,
            }
            for one in found
        ]

    def views(self, record: Record) -> dict[int, View]:
        """The answer at each n_predict."""
        place = self.item_ids.index(record["item_id"])
        think_open = self.prompts[place].think_open
        whole = Completion(
            item_id=record["item_id"],
            prompt_ids=(),
            ids=tuple(record["ids"]),
            finish_reason=record["finish_reason"],
            seconds=0.0,
        )
        made: dict[int, View] = {}
        seen: dict[tuple[int, ...], int] = {}
        for n in self.budgets:
            cut = view_at(whole, n)
            finished = cut.finish_reason == "stop"
            text = self.encoder.decode(cut.ids)
            made[n] = View(
                item_id=cut.item_id,
                n=n,
                first_n=seen.setdefault(cut.ids, n),
                text=text,
                said=spoken(text, think_open=think_open),
                think_open=think_open,
                finished=finished,
                loop=not finished and repetition_loop(cut.ids) is not None,
            )
        return made


def text_counts(views: Sequence[View]) -> dict[str, Any]:
    """How answers ended, and the share that verify themselves, by both measures."""
    return {
        "n": len(views),
        "finished": sum(one.finished for one in views),
        "loops": sum(one.loop for one in views),
        "unfinished": sum(one.unfinished for one in views),
        "empty": sum(not one.said.strip() for one in views),
        "self_verification": {
            "all": self_verification(views),
            "finished": self_verification([one for one in views if one.finished]),
        },
    }


def self_verification(views: Sequence[View]) -> dict[str, Any]:
    """SVR: ``published``, the known patterns anywhere; ``precise``, a check that the prose carries
    out (evals/self_verification.py)."""
    published = sum(verifies_as_published(one.text) for one in views)
    precise = sum(verifies(one.text, think_open=one.think_open) for one in views)
    return {
        "published": Rate(published, len(views)).to_json(),
        "precise": Rate(precise, len(views)).to_json(),
    }


def precise_svr(views: Sequence[View]) -> list[int]:
    """1 where an answer verifies itself, by the precise measure."""
    return [int(verifies(one.text, think_open=one.think_open)) for one in views]

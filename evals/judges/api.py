"""A judge behind an OpenAI-compatible endpoint (:mod:`evals.endpoint`)."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from typing import Any

from evals.endpoint import (
    BudgetSpent,
    CreditSpent,
    Endpoint,
    EndpointSettings,
    Failed,
    Reply,
    Stopped,
)
from evals.humaneval.thinking import drop_thoughts
from evals.judges.labels import (
    JudgeId,
    Label,
    OnLabel,
    Question,
    labelled,
    require_distinct,
)
from models.chat import Message
from models.errors import UserError

__all__ = ["KEY_VARIABLES", "ApiJudge", "ApiSettings", "BudgetSpent", "CreditSpent"]

KEY_VARIABLES = ("THREEARC_JUDGE_API_KEY", "OPENAI_API_KEY")
"""Environment variables that a key is read from, in this order. It is never written anywhere."""
_READING = "2: think text left out"
"""How answers are read; part of the judge's identity."""


@dataclass(frozen=True)
class ApiSettings(EndpointSettings):
    """How a judge's endpoint is asked."""

    @property
    def who(self) -> str:
        """Who is asked."""
        return "judge"

    @property
    def url_name(self) -> str:
        """As ``--judge api:URL#MODEL`` gives it."""
        return "--judge api"

    @property
    def product(self) -> str:
        """What an answer becomes."""
        return "label"

    @property
    def key_variables(self) -> tuple[str, ...]:
        """See KEY_VARIABLES."""
        return KEY_VARIABLES


class ApiJudge:
    """See :class:`evals.judges.labels.Judge`."""

    def __init__(
        self, settings: ApiSettings, *, sleep: Callable[[float], object] | None = None
    ) -> None:
        """As :class:`evals.endpoint.Endpoint`."""
        self._endpoint = Endpoint(settings, sleep=sleep)
        self.settings, self.usage = settings, self._endpoint.usage
        self._served_by: set[str] = set()
        decides = json.dumps([_READING, settings.base_url, settings.model, settings.max_tokens])
        version = hashlib.sha256(decides.encode()).hexdigest()
        self.id = JudgeId("api", f"{settings.model} at {settings.base_url}", version)

    def answered_before(self) -> None:
        """Labels of this judge are known: a question that it cannot take is that question's fault,
        and is no sign of a wrong model or URL."""
        self._endpoint.answered_before()

    def describe(self) -> dict[str, Any]:
        """How it is asked, what that has used so far, and what the endpoint says has answered (one
        name may stand for several models); never the key."""
        used = {name: value for name, value in vars(self.usage).items() if name != "lock"}
        return {
            "settings": vars(self.settings).copy(),
            "usage": {**used, "usd": self.usage.cost(self.settings)},
            "served_by": sorted(self._served_by),
        }

    def label(
        self, questions: Sequence[Question], *, on_label: OnLabel | None = None
    ) -> list[Label]:
        """See :meth:`Judge.label`. Raises UserError where no repetition could help, CreditSpent and
        BudgetSpent; every label made before has gone to ``on_label``."""
        require_distinct(questions)
        found: dict[tuple[str, str], Label] = {}
        stop = threading.Event()

        def keep(label: Label) -> None:
            found[label.key] = label
            if on_label is not None:
                on_label(label)

        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            futures = [pool.submit(self._one, question, stop) for question in questions]
            try:
                for future in as_completed(futures):
                    keep(future.result())
            except BaseException:
                stop.set()
                for future in futures:
                    future.cancel()
                wait(futures)  # what is under way has been paid for
                for future in futures:
                    if not future.cancelled() and future.exception() is None:
                        label = future.result()
                        if label.status in ("ok", "unparsed") and label.key not in found:
                            keep(label)
                raise
        return [found[question.key] for question in questions]

    def _one(self, question: Question, stop: threading.Event) -> Label:
        try:
            reply = self._endpoint.ask([Message("user", question.prompt())], stop)
        except Stopped:
            return labelled(question, self.id, "error", detail="stopped")
        except UserError:
            stop.set()  # nothing more is sent, even before the caller hears of it
            raise
        except Failed as failure:
            return labelled(question, self.id, "error", detail=str(failure))
        self._served_by.add(reply.model or "not said")
        return self._read(question, reply)

    def _read(self, question: Question, reply: Reply) -> Label:
        """The label that an answer is, its think text left out."""
        value = question.instrument.parse(drop_thoughts(reply.text, think_open=False).text)
        if value is not None:
            return labelled(question, self.id, "ok", value)
        ended = reply.finish_reason == "length"
        cut = f"cut at max_tokens {self.settings.max_tokens}: " if ended else ""
        return labelled(question, self.id, "unparsed", detail=cut + reply.text[:200])

"""A teacher behind an OpenAI-compatible endpoint (:mod:`evals.endpoint`)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from arcs.teachers.asking import Answer, OnAnswer, OnFailure, Question
from arcs.teachers.roster import Teacher
from evals.endpoint import (
    Endpoint,
    EndpointSettings,
    Failed,
    Purse,
    Reply,
    Stopped,
    cost,
    key_in,
)
from evals.endpoint_allowance import Allowance
from evals.humaneval.thinking import drop_thoughts
from models.errors import UserError


@dataclass(frozen=True)
class TeacherSettings(EndpointSettings):
    """How a teacher's endpoint is asked."""

    name: str = ""
    keys: tuple[str, ...] = ("OPENAI_API_KEY",)

    @property
    def who(self) -> str:
        """Who is asked."""
        return f"teacher {self.name}"

    @property
    def url_name(self) -> str:
        """Where the URL stands."""
        return f"teachers.{self.name}.url"

    @property
    def key_variables(self) -> tuple[str, ...]:
        """As the teacher file says."""
        return self.keys


def allowances(teachers: Mapping[str, Teacher]) -> dict[str, Allowance]:
    """Of teachers behind endpoints, by name: one for all at a URL with a key, of their smallest
    limits."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for name, one in teachers.items():
        if one.kind == "endpoint":
            parts = urlsplit(str(one.url))
            key = key_in(one.key_variables)
            account = (parts.scheme, parts.netloc.lower(), parts.path.rstrip("/"), key)
            groups.setdefault(account, []).append(name)
    found = {}
    for names in groups.values():
        group = [teachers[name] for name in names]
        rates = [o.requests_per_minute for o in group if o.requests_per_minute is not None]
        shared = Allowance(min(one.concurrency for one in group), min(rates, default=None))
        found.update(dict.fromkeys(names, shared))
    return found


class EndpointTeacher:
    """See :class:`Asked`: as many requests at a time as the teacher file allows."""

    def __init__(
        self,
        name: str,
        teacher: Teacher,
        *,
        purse: Purse | None,
        sleep: Callable[[float], object] | None = None,
        has_answered: bool = False,
        allowance: Allowance | None = None,
    ) -> None:
        """See :class:`evals.endpoint.Endpoint`; raises as it does."""
        self._teacher = teacher
        self.settings = TeacherSettings(
            base_url=str(teacher.url), model=teacher.model, concurrency=teacher.concurrency,
            timeout=teacher.timeout, tries=teacher.tries, back_off=teacher.back_off,
            requests_per_minute=teacher.requests_per_minute,
            usd_per_million_input=teacher.usd_per_million_input,
            usd_per_million_output=teacher.usd_per_million_output,
            name=name, keys=teacher.key_variables,
        )  # fmt: skip
        self.endpoint = Endpoint(
            self.settings, purse=purse, sleep=sleep, has_answered=has_answered, allowance=allowance
        )

    def answer(
        self, questions: Sequence[Question], keep: OnAnswer, fail: OnFailure, stop: threading.Event
    ) -> None:
        """See :meth:`Asked.answer`. Requests under way when it stops are waited for and kept.

        A thread keeps its answer before it asks again, so that a kill loses no more answers than
        requests were under way.
        """
        own = self._teacher.own_concurrency or self.settings.concurrency
        with ThreadPoolExecutor(min(own, self.settings.concurrency)) as pool:
            futures = [pool.submit(self._one, one, keep, fail, stop) for one in questions]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                stop.set()
                for future in futures:
                    future.cancel()
                wait(futures)  # what is under way has been paid for
                raise

    def _one(
        self, question: Question, keep: OnAnswer, fail: OnFailure, stop: threading.Event
    ) -> None:
        try:
            reply = self.endpoint.ask(
                question.messages, stop, max_tokens=question.max_tokens,
                temperature=question.temperature, extra=self._teacher.extra,
            )  # fmt: skip
        except Stopped:
            return
        except Failed as failure:
            fail(question, str(failure), not failure.refused)
        except UserError:
            stop.set()  # nothing more is sent, even before the caller hears of it
            raise
        else:
            keep(question, self._answered(question, reply))

    def _answered(self, question: Question, reply: Reply) -> Answer:
        said = drop_thoughts(reply.text, think_open=False)
        told = reply.input_tokens is not None and reply.output_tokens is not None
        return Answer(
            text=said.text.strip(),
            thoughts="\n".join(filter(None, (reply.thoughts, said.thoughts))) or None,
            finish_reason=reply.finish_reason,
            unclosed=said.unclosed,
            model=reply.model,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            usd=cost(self.settings, reply.input_tokens or 0, reply.output_tokens or 0)
            if told
            else None,
            usd_at_most=None
            if told
            else self.endpoint.most(
                [f"{one.role}{one.content}" for one in question.messages], question.max_tokens
            ),
        )

    def describe(self) -> dict[str, Any]:
        """See :meth:`Asked.describe`."""
        return {
            "kind": "endpoint", "model": self.settings.model,
            "licence": self._teacher.licence, "extra": dict(self._teacher.extra),
        }  # fmt: skip

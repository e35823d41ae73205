"""A judge behind an OpenAI-compatible endpoint, through the ``openai`` package."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from evals.humaneval.thinking import drop_thoughts
from evals.judges.labels import (
    JudgeId,
    Label,
    OnLabel,
    Question,
    labelled,
    require_distinct,
)
from models.errors import CapabilityError, UserError

KEY_VARIABLES = ("THREEARC_JUDGE_API_KEY", "OPENAI_API_KEY")
"""Environment variables that a key is read from, in this order. It is never written anywhere."""
LOCAL_KEY = "none"
"""Sent where no key is set: local servers want none, others refuse it with 401."""
_FATAL = {400, 401, 402, 403, 404, 405, 422}
"""Answers that no repetition changes: a wrong key, model or URL, or a question it cannot take."""
_READING = "2: think text left out"
"""How answers are read; part of the judge's identity."""
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, IndexError)
"""What an answer of another form gives where it is read."""


@dataclass(frozen=True)
class ApiSettings:
    """How an endpoint is asked."""

    base_url: str
    model: str
    concurrency: int = 4
    timeout: float = 60.0
    """Seconds without a byte from the server."""
    tries: int = 5
    back_off: float = 1.0
    """Seconds before the second try; doubles, at most 60, unless the server says Retry-After."""
    max_tokens: int = 16
    """Of an answer. A model that thinks aloud needs some thousands: its think text counts, and is
    left out before the answer is read."""
    requests_per_minute: float | None = None
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    budget_usd: float | None = None
    """No request is begun once this much is spent. Needs both prices, and an endpoint that
    reports its tokens."""

    def __post_init__(self) -> None:
        if self.budget_usd is not None and None in (
            self.usd_per_million_input,
            self.usd_per_million_output,
        ):
            raise UserError("a judge's budget needs the prices of a million tokens, in and out")
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"--url {self.base_url}: give http://HOST/v1 or https://HOST/v1")
        if parts.username or parts.password or parts.query:
            raise UserError(
                "--url: leave name, password and query out of it, they would stand in every label; "
                f"set {KEY_VARIABLES[0]}"
            )
        prices = (self.usd_per_million_input, self.usd_per_million_output, self.budget_usd)
        if any(price is not None and not 0 <= price < math.inf for price in prices):
            raise UserError("a judge's prices and budget must be 0 or more")
        if self.max_tokens < 1:
            raise UserError("a judge needs at least 1 token for its answer")
        if self.requests_per_minute is not None and self.requests_per_minute <= 0:
            raise UserError("requests per minute must be above 0")
        if self.concurrency < 1 or self.tries < 1 or self.timeout <= 0:
            raise UserError("a judge needs at least 1 request at a time, 1 try, and a time-out")


@dataclass
class Usage:
    """What a judge has used; shared by its threads."""

    requests: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unreported: int = 0
    """Answers without token counts: the cost is then a lower bound."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def cost(self, settings: ApiSettings) -> float | None:
        """US dollars, or None where no prices are given."""
        if settings.usd_per_million_input is None or settings.usd_per_million_output is None:
            return None
        return (
            self.input_tokens * settings.usd_per_million_input
            + self.output_tokens * settings.usd_per_million_output
        ) / 1e6


class BudgetSpent(UserError):
    """The money is spent; labels made so far are kept."""


class ApiJudge:
    """See :class:`evals.judges.labels.Judge`."""

    def __init__(
        self, settings: ApiSettings, *, sleep: Callable[[float], object] | None = None
    ) -> None:
        """Raises CapabilityError where ``openai`` is not installed, UserError for a bad URL or key.

        ``sleep``: of tests; otherwise waits end when the call does.
        """
        try:
            import openai
        except ImportError:
            raise CapabilityError(
                "--judge api needs the openai package: pip install 'threearc[api]'"
            ) from None
        self._openai, self._sleep = openai, sleep
        self.settings, self.usage = settings, Usage()
        given = (os.environ.get(name, "").strip() for name in KEY_VARIABLES)
        key = next((value for value in given if value), LOCAL_KEY)
        if not (key.isascii() and key.isprintable()):
            raise UserError(f"the judge's key is no plain text; set {KEY_VARIABLES[0]} again")
        try:
            self._client = openai.OpenAI(
                base_url=settings.base_url, api_key=key, timeout=settings.timeout, max_retries=0
            )
        except Exception as error:  # noqa: BLE001 (of the URL, or of a proxy in the environment)
            raise UserError(f"--url {settings.base_url}: cannot be used ({error})") from None
        decides = json.dumps([_READING, settings.base_url, settings.model, settings.max_tokens])
        version = hashlib.sha256(decides.encode()).hexdigest()
        self.id = JudgeId("api", f"{settings.model} at {settings.base_url}", version)
        self._next_start = 0.0

    def describe(self) -> dict[str, Any]:
        """How it is asked, and what that has used so far; never the key."""
        used = {name: value for name, value in vars(self.usage).items() if name != "lock"}
        return {
            "settings": vars(self.settings).copy(),
            "usage": {**used, "usd": self.usage.cost(self.settings)},
        }

    def label(
        self, questions: Sequence[Question], *, on_label: OnLabel | None = None
    ) -> list[Label]:
        """See :meth:`Judge.label`. Raises UserError where no repetition could help, and
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
        said = ""
        for attempt in range(self.settings.tries):
            self._wait_for_turn(stop)
            if stop.is_set():
                return labelled(question, self.id, "error", detail="stopped")
            self._require_budget()
            try:
                answer = self._ask(question.prompt())
            except self._openai.APIStatusError as error:
                said = f"HTTP {error.status_code}"
                if error.status_code in _FATAL:
                    if self.usage.requests:  # it has answered others: this question is at fault
                        text = " ".join(str(error.message).split())[:160]
                        return labelled(question, self.id, "error", detail=f"{said}: {text}")
                    raise UserError(self._refused(error)) from None
                self._pause(attempt, _retry_after(error), stop)
            except (self._openai.APIError, *_MALFORMED) as error:
                said = f"{type(error).__name__}: {error}"[:200]  # time-out, connection, bad JSON
                self._pause(attempt, None, stop)
            else:
                return self._read(question, *answer)
        return labelled(question, self.id, "error", detail=f"{said}, {self.settings.tries} tries")

    def _read(self, question: Question, answer: str, ended: str) -> Label:
        """The label that an answer is, its think text left out."""
        value = question.instrument.parse(drop_thoughts(answer, think_open=False).text)
        if value is not None:
            return labelled(question, self.id, "ok", value)
        cut = f"cut at max_tokens {self.settings.max_tokens}: " if ended == "length" else ""
        return labelled(question, self.id, "unparsed", detail=cut + answer[:200])

    def _ask(self, prompt: str) -> tuple[str, str]:
        """Text of the answer, and why it ended."""
        answer = self._client.chat.completions.create(
            model=self.settings.model,
            messages=[{"role": "user", "content": prompt}],
            temperature=0.0,
            max_tokens=self.settings.max_tokens,
        )
        used = getattr(answer, "usage", None)
        sent, got = getattr(used, "prompt_tokens", None), getattr(used, "completion_tokens", None)
        with self.usage.lock:
            self.usage.requests += 1
            if not isinstance(sent, int) or not isinstance(got, int):
                self.usage.unreported += 1
            else:
                self.usage.input_tokens += sent
                self.usage.output_tokens += got
        choices = getattr(answer, "choices", None)
        if not choices:
            raise ValueError("the endpoint's answer holds no choice")
        content, ended = choices[0].message.content, getattr(choices[0], "finish_reason", "")
        return "" if content is None else str(content), str(ended)

    def _require_budget(self) -> None:
        budget, spent = self.settings.budget_usd, self.usage.cost(self.settings)
        if budget is None or spent is None:
            return
        if self.usage.unreported:
            raise UserError(
                f"the endpoint {self.settings.base_url} does not report its tokens, so a budget "
                "cannot be kept: ask without one"
            )
        if spent >= budget:
            raise BudgetSpent(
                f"the judge's budget of ${budget:.2f} is spent (${spent:.4f}); labels made so far "
                "are kept: raise it and continue"
            )

    def _wait_for_turn(self, stop: threading.Event) -> None:
        rate = self.settings.requests_per_minute
        if rate is None:
            return
        with self.usage.lock:
            now = time.monotonic()
            start = max(now, self._next_start)
            self._next_start = start + 60.0 / rate
        self._rest(start - now, stop)

    def _rest(self, seconds: float, stop: threading.Event) -> None:
        if self._sleep is not None:
            self._sleep(seconds)
        else:
            stop.wait(seconds)

    def _pause(self, attempt: int, asked_for: float | None, stop: threading.Event) -> None:
        with self.usage.lock:
            self.usage.retries += 1
        if attempt + 1 == self.settings.tries:
            return
        wait = min(60.0, self.settings.back_off * 2**attempt)
        # apart from one another, so that threads refused together do not come back together
        apart = wait * random.uniform(0.75, 1.25)
        self._rest(apart if asked_for is None else asked_for, stop)

    def _refused(self, error: Any) -> str:
        text = " ".join(str(error.message).split())[:200]
        hint = (
            f"set {KEY_VARIABLES[0]}" if error.status_code in (401, 403) else "check URL and model"
        )
        return (
            f"the judge at {self.settings.base_url} refused {self.settings.model} with HTTP "
            f"{error.status_code} ({text}): {hint}; labels made so far are kept"
        )


def _retry_after(error: Any) -> float | None:
    """Seconds the server asks for, at most 10 minutes."""
    try:
        return min(600.0, max(0.0, float(error.response.headers["retry-after"])))
    except (KeyError, ValueError, AttributeError):
        return None

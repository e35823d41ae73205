"""One client for OpenAI-compatible chat endpoints, through the ``openai`` package.

Judges and teachers ask through it, so that keys, tries, back-off, rates, budgets and credit are
treated in one way.
"""

from __future__ import annotations

import math
import os
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from evals.endpoint_allowance import Allowance
from models.chat import Message
from models.errors import CapabilityError, UserError

LOCAL_KEY = "none"
"""Sent where no key is set: local servers want none, others refuse it with 401."""
_FATAL = {400, 401, 403, 404, 405, 422}
"""Answers that no repetition changes: a wrong key, model or URL, or a question it cannot take."""
_QUESTIONS_FAULT = frozenset({400, 422})
"""Of these, what a right key, model and URL leaves."""
_FORBIDDEN = 403
"""Of the question where the key was good a moment ago: some providers refuse flagged input so. Of
the key or the model where it comes again and again."""
_FORBIDDEN_IN_A_ROW = 5
"""So many, without an answer between them: the key is no longer allowed to ask."""
_NO_CREDIT = frozenset(
    {"insufficient_quota", "insufficient_balance", "insufficient_credits", "billing_not_active",
     "billing_hard_limit_reached"}
)  # fmt: skip
"""Error codes with which providers say that the account is empty, under whatever status."""
_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, IndexError)
"""What an answer of another form gives where it is read."""
LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more is not waited for longer."""


class BudgetSpent(UserError):
    """The money is spent; what was made so far is kept."""


class CreditSpent(UserError):
    """The account at the endpoint is empty; what was made so far is kept."""


class Failed(Exception):
    """One question has no answer: refused, or all tries failed."""

    def __init__(self, said: str, *, refused: bool = False) -> None:
        """``refused``: the same question will be refused again."""
        super().__init__(said)
        self.refused = refused


class Stopped(Exception):
    """The caller's ``stop`` was set before the question was sent."""


@dataclass(frozen=True)
class EndpointSettings:
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
    """Of an answer where a question sets none. A model that thinks aloud needs some thousands: its
    think text counts."""
    requests_per_minute: float | None = None
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    budget_usd: float | None = None
    """No request is begun once this much is spent. Needs both prices, and an endpoint that
    reports its tokens."""

    def __post_init__(self) -> None:
        if self.budget_usd is not None and not self.priced:
            raise UserError(
                f"{self.a_who}'s budget needs the prices of a million tokens, in and out"
            )
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                f"{self.url_name} {self.base_url}: give http://HOST/v1 or https://HOST/v1"
            )
        if parts.username or parts.password or parts.query:
            raise UserError(
                f"{self.url_name}: leave name, password and query out of it, they would stand in "
                f"every {self.product}; set {self.key_variables[0]}"
            )
        prices = (self.usd_per_million_input, self.usd_per_million_output, self.budget_usd)
        if any(price is not None and not 0 <= price < math.inf for price in prices):
            raise UserError(f"{self.a_who}'s prices and budget must be 0 or more")
        if self.max_tokens < 1:
            raise UserError(f"{self.a_who} needs at least 1 token for its answer")
        if self.requests_per_minute is not None and self.requests_per_minute <= 0:
            raise UserError("requests per minute must be above 0")
        if self.concurrency < 1 or self.tries < 1 or self.timeout <= 0:
            raise UserError(
                f"{self.a_who} needs at least 1 request at a time, 1 try, and a time-out"
            )

    # What messages call it; a subclass says otherwise.

    @property
    def who(self) -> str:
        """Who is asked."""
        return "endpoint"

    @property
    def a_who(self) -> str:
        """The same with its article."""
        return f"{'an' if self.who[0] in 'aeiou' else 'a'} {self.who}"

    @property
    def product(self) -> str:
        """What an answer becomes."""
        return "answer"

    @property
    def url_name(self) -> str:
        """What the user set the URL with."""
        return "--url"

    @property
    def key_variables(self) -> tuple[str, ...]:
        """Environment variables that a key is read from, in this order; never written anywhere."""
        return ("OPENAI_API_KEY",)

    @property
    def priced(self) -> bool:
        """Whether a cost can be told."""
        return None not in (self.usd_per_million_input, self.usd_per_million_output)


@dataclass
class Usage:
    """What an endpoint has been used for; shared by its threads."""

    requests: int = 0
    retries: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    unreported: int = 0
    """Answers without token counts: the cost is then a lower bound."""
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def cost(self, settings: EndpointSettings) -> float | None:
        """US dollars, or None where no prices are given."""
        return cost(settings, self.input_tokens, self.output_tokens)


class Prices(Protocol):
    """What tokens cost."""

    @property
    def usd_per_million_input(self) -> float | None:
        """US dollars of a million tokens read."""

    @property
    def usd_per_million_output(self) -> float | None:
        """US dollars of a million tokens written."""


def cost(settings: Prices, sent: int, got: int) -> float | None:
    """US dollars of some tokens, or None where no prices are given."""
    if settings.usd_per_million_input is None or settings.usd_per_million_output is None:
        return None
    return (sent * settings.usd_per_million_input + got * settings.usd_per_million_output) / 1e6


@dataclass(frozen=True)
class Reply:
    """One answer, as it came."""

    text: str
    """Empty where the endpoint sent none: for the caller to judge."""
    thoughts: str | None
    """What the endpoint sent apart from the answer (``reasoning_content``, ``reasoning``)."""
    finish_reason: str | None
    """``stop``, ``length``, ...; None where the endpoint does not say (nothing, or a blank)."""
    model: str | None
    """What the endpoint says has answered."""
    input_tokens: int | None
    output_tokens: int | None


class Purse(Protocol):
    """Money that several endpoints share."""

    def reserve(self, amount: float | None) -> None:
        """Set aside the most that a request can cost. Raises BudgetSpent."""

    def settle(self, reserved: float | None, spent: float | None) -> None:
        """Replace what was set aside by what it did cost; None where that is not known."""


def key_in(variables: Sequence[str]) -> str:
    """The first of some environment variables that is set; LOCAL_KEY where none is."""
    given = (os.environ.get(name, "").strip() for name in variables)
    return next((value for value in given if value), LOCAL_KEY)


class Endpoint:
    """An endpoint that answers chats, one at a time or from several threads."""

    def __init__(
        self,
        settings: EndpointSettings,
        *,
        purse: Purse | None = None,
        sleep: Callable[[float], object] | None = None,
        has_answered: bool = False,
        allowance: Allowance | None = None,
    ) -> None:
        """Raises CapabilityError where ``openai`` is not installed, UserError for a bad URL or key.

        ``sleep``: of tests; otherwise waits end when ``stop`` is set. ``has_answered``: in an
        earlier sitting, so that a question it cannot take does not speak against model and URL.
        ``allowance``: what it shares with others; None: the settings' own, for it alone.
        """
        try:
            import openai
        except ImportError:
            raise CapabilityError(
                f"an api {settings.who} needs the openai package: pip install 'threearc[api]'"
            ) from None
        self._openai, self._sleep, self._purse = openai, sleep, purse
        self.settings, self.usage = settings, Usage()
        self._has_answered, self._forbidden = has_answered, 0
        self._allowance = allowance or Allowance(settings.concurrency, settings.requests_per_minute)
        key = key_in(settings.key_variables)
        if not (key.isascii() and key.isprintable()):
            raise UserError(
                f"the {settings.who}'s key is no plain text; set {settings.key_variables[0]} again"
            )
        try:
            self._client = openai.OpenAI(
                base_url=settings.base_url, api_key=key, timeout=settings.timeout, max_retries=0
            )
        except Exception as error:  # noqa: BLE001 (of the URL, or of a proxy in the environment)
            raise UserError(
                f"{settings.url_name} {settings.base_url}: cannot be used ({error})"
            ) from None

    def answered_before(self) -> None:
        """It has answered, in an earlier sitting: see ``has_answered``."""
        self._has_answered = True

    def ask(
        self,
        messages: Sequence[Message],
        stop: threading.Event,
        *,
        max_tokens: int | None = None,
        temperature: float = 0.0,
        extra: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Ask until there is an answer; ``extra`` goes into the request's body.

        Raises Failed for a question without an answer, Stopped, and UserError where no repetition
        and no other question could help: CreditSpent, BudgetSpent, a wrong key, URL or model.
        """
        settings, said = self.settings, ""
        body = {
            "model": settings.model,
            "messages": [{"role": one.role, "content": one.content} for one in messages],
            "temperature": temperature,
            "max_tokens": settings.max_tokens if max_tokens is None else max_tokens,
            **({"extra_body": dict(extra)} if extra else {}),
        }
        for attempt in range(settings.tries):
            try:
                with self._allowance.turn(lambda seconds: self._rest(seconds, stop)):
                    if stop.is_set():
                        raise Stopped
                    self._require_budget()
                    return self._once(body)
            except self._openai.APIStatusError as error:
                said = f"HTTP {error.status_code}"
                if _is_credit(error):
                    raise CreditSpent(self._no_credit(error)) from None
                if error.status_code in _FATAL:
                    if self._of_this_question(error.status_code):
                        text = " ".join(str(error.message).split())[:160]
                        refused = error.status_code in _QUESTIONS_FAULT
                        raise Failed(f"{said}: {text}", refused=refused) from None
                    raise UserError(self._refused(error)) from None
                self._pause(attempt, _retry_after(error), stop)
            except (self._openai.APIError, *_MALFORMED) as error:
                said = f"{type(error).__name__}: {error}"[:200]  # time-out, connection, bad JSON
                self._pause(attempt, None, stop)
        raise Failed(f"{said}, {settings.tries} tries")

    def _of_this_question(self, status: int) -> bool:
        """Whether one question is at fault: others were answered, and it is not for the key."""
        if not (self.usage.requests or self._has_answered):
            return False
        if status == _FORBIDDEN:
            with self.usage.lock:
                self._forbidden += 1
                return self._forbidden < _FORBIDDEN_IN_A_ROW
        return status in _QUESTIONS_FAULT

    def _once(self, body: Mapping[str, Any]) -> Reply:
        most = self.most(
            [f"{one['role']}{one['content']}" for one in body["messages"]], int(body["max_tokens"])
        )
        if self._purse is not None:
            self._purse.reserve(most)
        paid: float | None = None
        try:
            reply = self._sent(body)
            paid = self._cost(reply)
            return reply
        except self._openai.APIStatusError as error:
            if (
                error.status_code < 500
            ):  # refused, so nothing was written; a gateway may give up late
                paid = 0.0
            raise
        except self._openai.APIConnectionError as error:
            if _never_left(error):
                paid = 0.0
            raise
        finally:
            if self._purse is not None:
                self._purse.settle(most, paid)

    def _sent(self, body: Mapping[str, Any]) -> Reply:
        answer = self._client.chat.completions.create(**body)
        used = getattr(answer, "usage", None)
        sent, got = getattr(used, "prompt_tokens", None), getattr(used, "completion_tokens", None)
        if not isinstance(sent, int) or not isinstance(got, int):
            sent = got = None
        with self.usage.lock:
            self.usage.requests += 1
            self._forbidden = 0
            if sent is None or got is None:
                self.usage.unreported += 1
            else:
                self.usage.input_tokens += sent
                self.usage.output_tokens += got
        choices = getattr(answer, "choices", None)
        if not choices:
            raise ValueError("the endpoint's answer holds no choice")
        message = choices[0].message
        content, reason = message.content, getattr(choices[0], "finish_reason", None)
        return Reply(
            text="" if content is None else str(content),
            thoughts=_thoughts(message),
            finish_reason=None if reason is None or not str(reason).strip() else str(reason),
            model=getattr(answer, "model", None),
            input_tokens=sent,
            output_tokens=got,
        )

    def _cost(self, reply: Reply) -> float | None:
        if reply.input_tokens is None or reply.output_tokens is None:
            return None
        return cost(self.settings, reply.input_tokens, reply.output_tokens)

    def most(self, turns: Sequence[str], max_tokens: int) -> float | None:
        """US dollars that a request can cost at most: no token is less than a byte.

        ``turns``: role and content of each. None where no prices are given.
        """
        sent = sum(len(text.encode()) + 16 for text in turns)  # 16: what a template adds a turn
        return cost(self.settings, sent, max_tokens)

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
                f"the {self.settings.who}'s budget of ${budget:.2f} is spent (${spent:.4f}); "
                f"{self.settings.product}s made so far are kept: raise it and continue"
            )

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
            f"set {self.settings.key_variables[0]}"
            if error.status_code in (401, 403)
            else "check URL and model"
        )
        return (
            f"the {self.settings.who} at {self.settings.base_url} refused {self.settings.model} "
            f"with HTTP {error.status_code} ({text}): {hint}; {self.settings.product}s made so far "
            "are kept"
        )

    def _no_credit(self, error: Any) -> str:
        text = " ".join(str(error.message).split())[:200]
        return (
            f"the {self.settings.who} at {self.settings.base_url} has no credit left (HTTP "
            f"{error.status_code}: {text}); {self.settings.product}s made so far are kept: add "
            "credit and continue"
        )


def _is_credit(error: Any) -> bool:
    code = getattr(error, "code", None) or getattr(error, "type", None)
    return error.status_code == 402 or code in _NO_CREDIT


def _never_left(error: Any) -> bool:
    """Whether there was no connection to send the request on: refused, no such host, too slow."""
    import httpx

    return isinstance(
        error.__cause__, httpx.ConnectError | httpx.ConnectTimeout | httpx.PoolTimeout
    )


def _thoughts(message: Any) -> str | None:
    """What the model thought, where the endpoint keeps it apart from the answer."""
    for name in ("reasoning_content", "reasoning"):
        found = getattr(message, name, None)
        if isinstance(found, str) and found.strip():
            return found
    return None


def _retry_after(error: Any) -> float | None:
    """Seconds the server asks for, at most 10 minutes."""
    try:
        return min(LONGEST_WAIT, max(0.0, float(error.response.headers["retry-after"])))
    except (KeyError, ValueError, AttributeError):
        return None

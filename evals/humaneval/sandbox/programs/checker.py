"""Runs a task's test against a proxy of the candidate and decides; outside the sandbox.

It has a process of its own because a test may hang or crash on what a candidate returns.
Only the trusted text of the problem is executed here: never the candidate's.
"""

from __future__ import annotations

import json
import os
import random
import sys
import traceback
from collections.abc import Callable
from typing import Any

from . import lockdown, wire

TEST_FILE = "<test>"


class GoneError(BaseException):
    """The candidate's process ended; not an Exception, so that no test can swallow it."""


class SetupError(BaseException):
    """The sandbox could not be set up: nobody's answer is at fault."""


class CandidateError(Exception):
    """What the candidate raised, as two strings."""


class ForbiddenError(Exception):
    """The candidate returned what may not cross."""


def main() -> None:
    """Read one job from standard input, write one verdict to standard output."""
    verdict_to = os.dup(1)
    job = json.load(sys.stdin)
    sink = os.open(os.devnull, os.O_RDWR)
    os.dup2(sink, 1)
    lockdown.limit_checker(job["setup"])
    verdict = json.dumps(_verdict(job)).encode()
    while verdict:
        verdict = verdict[os.write(verdict_to, verdict) :]


def _verdict(job: dict[str, Any]) -> dict[str, str]:
    channel = _Channel(job["requests"], job["responses"], job["setup"]["message_bytes"])
    try:
        _hand_over_setup(channel, job)
        loaded = channel.exchange({"program": job["program"], "entry_point": job["entry_point"]})
        if "syntax" in loaded:
            return {"status": "syntax_error", "detail": str(loaded["syntax"])}
        if "raised" in loaded:
            return {"status": "wrong", "detail": f"{_exception(loaded)} while loading"}
        return _run_test(job, _proxy(channel, job["entry_point"]))
    except GoneError:
        return {"status": "gone", "detail": ""}
    except wire.RefusedError as error:
        return {"status": "wrong", "detail": f"the program sent {error}"}
    except SetupError as error:
        return {"status": "infrastructure_error", "detail": str(error)}


class _Channel:
    """One request, one reply; both bounded."""

    def __init__(self, requests: int, responses: int, limit: int) -> None:
        self._requests, self._responses, self._limit = requests, responses, limit

    def send(self, message: object) -> None:
        try:
            wire.send(self._requests, message, self._limit)
        except wire.ClosedError as error:
            raise GoneError from error

    def exchange(self, message: object) -> dict[str, Any]:
        self.send(message)
        return self.receive()

    def receive(self) -> dict[str, Any]:
        try:
            reply = wire.receive(self._responses, self._limit)
        except wire.ClosedError as error:
            raise GoneError from error
        if not isinstance(reply, dict):
            raise wire.RefusedError("a malformed message")
        return reply


def _hand_over_setup(channel: _Channel, job: dict[str, Any]) -> None:
    """Nothing of the candidate has run yet, so whatever fails here is the sandbox's fault."""
    try:
        reply = channel.exchange(job["setup"])
    except (GoneError, wire.RefusedError) as error:
        raise SetupError("the sandbox did not start") from error
    if "unusable" in reply:
        raise SetupError(f"the sandbox could not be set up: {reply['unusable']}")


def _proxy(channel: _Channel, name: str) -> Callable[..., Any]:
    def candidate(*args: Any, **kwargs: Any) -> Any:
        reply = channel.exchange(_request(name, args, kwargs))
        if "raised" in reply:
            raise CandidateError(_exception(reply))
        if "refused" in reply:
            raise ForbiddenError(f"the program returned {reply['refused']}")
        if "value" not in reply:
            raise wire.RefusedError("a malformed message")
        return wire.unpack(reply["value"])

    return candidate


def _request(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"name": name, "args": wire.pack(list(args)), "kwargs": wire.pack(kwargs)}
    except wire.RefusedError as error:
        raise SetupError(f"the test passes {error}, which cannot be sent") from error


def _exception(reply: dict[str, Any]) -> str:
    raised = reply["raised"]
    if not (isinstance(raised, list) and len(raised) == 2):
        raise wire.RefusedError("a malformed message")
    name, text = (str(part) for part in raised)
    name = name if name.isidentifier() else "Exception"
    return f"{name}: {text}" if text else name


def _run_test(job: dict[str, Any], candidate: Callable[..., Any]) -> dict[str, str]:
    """Call the task's ``check``.

    Its namespace holds the prompt's imports and helpers (tests of HumanEval/32, 38 and 50
    call them) and the function's own name (the test of HumanEval/33 calls that).
    """
    namespace: dict[str, Any] = {"__name__": "test"}
    exec(compile(job["preamble"], "<prompt>", "exec"), namespace)
    namespace[job["entry_point"]] = candidate
    exec(compile(job["test"], TEST_FILE, "exec"), namespace)
    random.seed(0)
    try:
        namespace["check"](candidate)
    except wire.RefusedError:
        raise
    except Exception as error:  # noqa: BLE001 - a test fails by raising anything
        return {"status": "wrong", "detail": _failure(error, job["test"])}
    return {"status": "passed", "detail": ""}


def _failure(error: Exception, test: str) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == TEST_FILE]
    lines = test.splitlines()
    line = lines[(frames[-1].lineno or 1) - 1].strip() if frames else ""
    if isinstance(error, CandidateError | ForbiddenError):
        return f"{error}, at: {line}"
    if isinstance(error, AssertionError):
        return f"failed: {line}"
    return f"{type(error).__name__} in the test, at: {line}"

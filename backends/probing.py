"""Asks each engine what it can do here, from outside: a crash or a hang is an answer too."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from backends import blas, wants_fast_blas

Status = Literal["ok", "missing", "broken", "crashed", "timeout", "garbage"]
LIMIT = 90.0
"""Seconds for one engine. Importing torch from a cold disk takes ten; just after its installation,
on a busy machine, more than thirty."""
_ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class EngineFacts:
    """What is known of an engine without importing it."""

    title: str
    packages: tuple[str, ...]
    """Import names that it needs."""
    extra: str
    """Of threearc's optional dependencies."""

    @property
    def install(self) -> str:
        """The command that installs it into the environment of this Python."""
        return pip(f'install "threearc[{self.extra}]"')


ENGINES = {
    "torch": EngineFacts("PyTorch", ("torch", "transformers", "peft"), "torch"),
    "mlx": EngineFacts("MLX", ("mlx", "mlx_lm"), "mlx"),
    "llamacpp": EngineFacts("llama.cpp", ("llama_cpp",), "llama"),
}


def pip(arguments: str) -> str:
    """Return a pip command line for the Python that runs this, to be copied into a shell."""
    return f"{shlex.quote(sys.executable)} -m pip {arguments}"


@dataclass(frozen=True)
class Probed:
    """What became of asking one engine."""

    engine: str
    status: Status
    reason: str | None
    """One line, None when ok."""
    document: dict[str, Any] = field(default_factory=dict)
    """As the engine's probe returned it; empty unless ok."""
    seconds: float = 0.0
    doing: tuple[str, str] | None = None
    """What was being tried last: a dtype (or another part) and an operation."""


def probe_engine(
    engine: str, *, limit: float = LIMIT, command: Sequence[str] | None = None
) -> Probed:
    """Run the engine's probe in a process of its own, killed after ``limit`` seconds.

    A dtype that ends the process is reported as not working, and the probe is run again
    without it, so that the rest is known. ``command`` replaces the command line.
    """
    start = time.monotonic()
    fatal: dict[str, str] = {}
    while True:
        left = limit - (time.monotonic() - start)
        skipping = [f"--without={dtype}" for dtype in fatal]
        found = _ask(engine, [*(command or _command(engine)), *skipping], max(left, 1.0))
        dtype = found.doing[0] if found.doing else ""
        if found.status != "crashed" or dtype in fatal or dtype not in _dtypes():
            break
        fatal[dtype] = f"{found.doing[1] if found.doing else ''}: {found.reason}"
    document = _with_fatal(found.document, fatal) if found.status == "ok" else {}
    return replace(found, document=document, seconds=round(time.monotonic() - start, 2))


def _dtypes() -> tuple[str, ...]:
    from backends.probe_checks import DTYPES

    return DTYPES


def _command(engine: str) -> list[str]:
    return [sys.executable, "-m", "backends.probe", engine, "--json"]


def _with_fatal(document: dict[str, Any], fatal: dict[str, str]) -> dict[str, Any]:
    """Add the dtypes that ended the process."""
    entries = dict(document.get("dtypes", {}))
    for dtype, reason in fatal.items():
        check, _, why = reason.partition(": ")
        failed = {check: {"ok": False, "error": None, "reason": why}}
        unknown = {"reduced": False, "seconds": None, "slowdown": None}
        entries[dtype] = {"works": False, "checks": failed, **unknown}
    return {**document, "dtypes": entries}


def _ask(engine: str, command: Sequence[str], limit: float) -> Probed:
    process = subprocess.Popen(
        command,
        cwd=_ROOT,  # so that -m finds this very package
        env=blas.environment() if wants_fast_blas(engine) else dict(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired as expired:
        _kill(process)
        _, errors = process.communicate()
        doing = _last_step(errors or _text(expired.stderr))
        where = f" in {doing[0]}: {doing[1]}" if doing else ""
        return Probed(engine, "timeout", f"no answer within {limit:.0f} s{where}", doing=doing)
    except BaseException:
        _kill(process)
        process.wait()
        raise
    return _interpret(engine, process.returncode, output, errors)


def _interpret(engine: str, code: int, output: str, errors: str) -> Probed:
    doing = _last_step(errors)
    if code != 0:
        return Probed(engine, "crashed", _death(code, errors, doing), doing=doing)
    try:
        document = json.loads(output)
        status, reason = document.pop("status"), document.pop("reason")
    except (ValueError, KeyError, TypeError, AttributeError):
        shown = " ".join(output.split())[:80]
        return Probed(engine, "garbage", f"the probe's answer is no document: {shown!r}")
    if status == "ok" and not isinstance(document.get("dtypes"), dict):
        return Probed(engine, "garbage", "the probe's answer lacks dtypes")
    return Probed(engine, status, reason, document, doing=doing)


def _death(code: int, errors: str, doing: tuple[str, str] | None) -> str:
    """One line: how the process ended, in what, and its last words."""
    try:
        how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
    except ValueError:
        how = f"killed by signal {-code}"
    where = f" in {doing[0]}: {doing[1]}" if doing else ""
    said = [line.strip() for line in errors.splitlines() if line.strip()]
    words = [line for line in said if not line.startswith("probe: ")]
    return f"{how}{where}" + (f" ({words[-1][:200]})" if words else "")


def _last_step(errors: str) -> tuple[str, str] | None:
    steps = re.findall(r"^probe: ([^:\n]+): (.*)$", errors, flags=re.MULTILINE)
    return steps[-1] if steps else None


def _text(value: bytes | str | None) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value or ""


def _kill(process: subprocess.Popen[str]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        process.kill()

"""Runs the candidate: loads its program, then answers calls. It knows no test and no verdict."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

from . import lockdown, wire

MODULE_NAME = "candidate"
"""Not ``__main__``: what an answer guards with that name is a demonstration."""


def main() -> None:
    """Serve the pipes on descriptors 0 and 1 until the other side closes them."""
    incoming, outgoing = os.dup(0), os.dup(1)
    _silence()
    try:
        _serve(incoming, outgoing)
    except wire.ClosedError:
        os._exit(0)


def _silence() -> None:
    """What the candidate prints goes nowhere, so it can neither speak nor fill a disk."""
    sink = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(sink, descriptor)
    os.close(sink)


def _serve(incoming: int, outgoing: int) -> None:
    setup = wire.receive(incoming, lockdown.SETUP_BYTES)
    limit = int(setup["message_bytes"])
    try:
        lockdown.apply(setup)
    except OSError as error:
        wire.send(outgoing, {"unusable": str(error)}, limit)
        return
    wire.send(outgoing, {"ready": True}, limit)
    request = wire.receive(incoming, limit)
    module = _blank_module()
    wire.send(outgoing, _load(module, request["program"], request["entry_point"]), limit)
    while True:
        request = wire.receive(incoming, limit)
        reply = _call(module, request)
        try:
            wire.send(outgoing, reply, limit)
        except wire.RefusedError as error:
            wire.send(outgoing, {"refused": str(error)}, limit)


def _blank_module() -> ModuleType:
    module = ModuleType(MODULE_NAME)
    sys.modules[MODULE_NAME] = module
    sys.argv[:] = [MODULE_NAME]
    del sys.path[0]
    os.environ.clear()
    return module


def _load(module: ModuleType, program: str, entry_point: str) -> dict[str, Any]:
    try:
        code = compile(program, "<answer>", "exec", dont_inherit=True)
    except SyntaxError as error:
        return {"syntax": f"line {error.lineno}: {error.msg}"}
    except (ValueError, MemoryError, RecursionError) as error:
        return {"syntax": f"cannot be compiled: {type(error).__name__}"}
    if "random" in program:
        _seed_random()
    try:
        exec(code, module.__dict__)
    except BaseException as error:  # noqa: BLE001 - SystemExit is an answer like any other
        return _raised(error)
    if not hasattr(module, entry_point):
        return {"raised": ["NameError", f"name '{entry_point}' is not defined"]}
    return {"loaded": True}


def _seed_random() -> None:
    """The same answer gives the same outcome every time."""
    import random

    random.seed(0)


def _call(module: ModuleType, request: dict[str, Any]) -> dict[str, Any]:
    try:
        function = getattr(module, request["name"])
        arguments = wire.unpack(request["args"])
        named = wire.unpack(request["kwargs"])
        return {"value": wire.pack(function(*arguments, **named))}
    except wire.RefusedError as error:
        return {"refused": str(error)}
    except BaseException as error:  # noqa: BLE001 - SystemExit is an answer like any other
        return _raised(error)


def _raised(error: BaseException) -> dict[str, Any]:
    try:
        text = str(error)[:500]
    except BaseException:  # noqa: BLE001 - the candidate may have written __str__
        text = ""
    return {"raised": [type(error).__name__[:80], text]}

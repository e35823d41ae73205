"""The options of the commands that can be swept, and values as command-line arguments.

Read from the commands themselves: there is no second list to forget an option in.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from models.errors import UserError

OURS = frozenset({"out", "run", "json_output", "help"})
"""Set by the sweep for each cell."""
NOT_SWEPT = {
    "sweep": "a sweep is no cell of a sweep",
    "paper": "it prepares its model before its settings are known; run threearc paper by itself",
}
"""Commands that begin runs and are no cells, and why."""


@dataclass(frozen=True)
class Option:
    """One option, or positional argument, of a command."""

    key: str
    """As it stands in a sweep file: the flag without dashes before it, with underscores."""
    flags: tuple[str, ...]
    negative: tuple[str, ...]
    """What says no, where there is such a flag."""
    positional: bool
    switch: bool
    """Takes no value: true or false."""
    repeats: bool
    """Given once for each of several values."""


Commands = Mapping[str, Mapping[str, Option]]
"""By arc (the command's name) and key."""


def sweepable() -> Commands:
    """Every command that begins a run with ``--out`` and continues one with ``--run``."""
    import typer.main

    from arcs.cli import app

    found = {}
    for name, command in sorted(getattr(typer.main.get_command(app), "commands", {}).items()):
        params = {param.name: param for param in command.params}
        options = {key for key, one in params.items() if one.param_type_name == "option"}
        if {"out", "run"} <= options and name not in NOT_SWEPT:
            made = (_option(param) for key, param in params.items() if key not in OURS)
            found[name] = {one.key: one for one in made}
    return found


def _option(param: Any) -> Option:
    positional = param.param_type_name == "argument"
    key = str(param.name) if positional else param.opts[0].lstrip("-").replace("-", "_")
    return Option(
        key=key,
        flags=tuple(param.opts),
        negative=tuple(param.secondary_opts),
        positional=positional,
        switch=bool(getattr(param, "is_flag", False)),
        repeats=bool(getattr(param, "multiple", False)),
    )


def arguments(options: Mapping[str, Option], settings: Mapping[str, Any]) -> list[str]:
    """Command-line arguments of settings by key. Raises UserError for a value of a wrong kind."""
    flags: list[str] = []
    positional: list[str] = []
    for key, value in settings.items():
        option = options[key]
        if option.positional:
            positional.append(_text(key, value))
        elif option.switch:
            flags += _switch(option, value)
        elif option.repeats and value == []:  # no flag: the default, and not none
            raise UserError(f"{key} = []: give at least one, or leave it out")
        elif option.repeats and isinstance(value, list):
            flags += [f"{option.flags[0]}={_text(key, one)}" for one in value]
        else:
            flags.append(f"{option.flags[0]}={_text(key, value)}")
    return [*positional, *flags]


def _switch(option: Option, value: Any) -> list[str]:
    if not isinstance(value, bool):
        raise UserError(f"{option.key} = {_shown(value)}: give true or false")
    if value:
        return [option.flags[0]]
    return list(option.negative[:1])


def _text(key: str, value: Any) -> str:
    if isinstance(value, list) and value:
        return ",".join(_text(key, one) for one in value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f"{key} = {_shown(value)}: it takes a text or a number")
    return str(value)


def _shown(value: Any) -> str:
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else repr(value)
    return str(text)[:60]


def unknown(key: str, known: Collection[str]) -> str:
    """``nope: unknown; the nearest is ...``, or the names there are."""
    near = difflib.get_close_matches(key, known, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(known))}"
    return f"{key}: unknown; {hint}"

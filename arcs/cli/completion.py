"""Shell completion: models, profiles, backends and every other choice of a known set.

The words come from where they are decided: the model registry, the settings models, the recipes.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator
from typing import Any, get_type_hints

import typer

VARIABLE = "_THREEARC_COMPLETE"
"""Set by the shell that asks what could follow; nothing here runs without it."""


def prepare(app: typer.Typer) -> None:
    """Let every option and argument of ``app`` complete its words, if a shell asks for them."""
    if VARIABLE not in os.environ:
        return
    for function in _functions(app):
        hints = get_type_hints(function, include_extras=True)
        for name, hint in hints.items():
            for info in getattr(hint, "__metadata__", ()):
                if hasattr(info, "autocompletion"):
                    info.autocompletion = _completer(name)
        function.__annotations__ = hints  # strings, which would be read anew


def _functions(app: typer.Typer) -> Iterator[Callable[..., Any]]:
    for command in app.registered_commands:
        if command.callback is not None:
            yield inspect.unwrap(command.callback)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            yield from _functions(group.typer_instance)


def _completer(name: str) -> Callable[[typer.Context, str], list[str]]:
    """Of the parameter called ``name``, whichever command it is of."""

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from arcs.cli.config_file import settings_of

        command = " ".join(ctx.command_path.split()[1:])
        key = next((key for key, one in settings_of(ctx.command).items() if one.name == name), "")
        before, comma, last = incomplete.rpartition(",")  # of a list, the last
        found = [word for word in words(ctx, command, key) if word.startswith(last)]
        return [before + comma + word for word in found]

    return complete


def words(ctx: Any, command: str, key: str) -> tuple[str, ...]:
    """What a setting may be; empty where that is no known set (a path, a number)."""
    if key in ("model", "models"):
        from models.registry import MODELS

        return tuple(one.name for one in MODELS)
    if key == "recipe":
        from arcs.arc1.recipes import recipes

        return tuple(recipes())
    if (command, key) == ("init", "command"):
        from arcs.cli.template import configurable

        typed = list(ctx.params.get("command") or ())
        known = [name.split() for name in configurable(ctx.find_root().command)]
        return tuple({one[len(typed)]: 0 for one in known
                      if one[: len(typed)] == typed and len(one) > len(typed)})  # fmt: skip
    from arcs.cli.settings import choices_of

    found = choices_of(command, key)
    if not found and key in ("backend", "engine"):
        from backends import available_backends

        return ("auto" if key == "backend" else "all", *available_backends())
    return found or _NAMED.get((command, key), ())


_NAMED = {
    ("eval", "benchmark"): ("humaneval", "small", "chef", "mcas", "recovery", "short-answers",
                            "meter"),
    ("arc1", "benchmark"): ("humaneval", "small"),
}  # fmt: skip
"""Sets that are written into other code than a settings model."""

"""The text of a settings file: every option of a command, from the one definition of it."""

from __future__ import annotations

import json
import shlex
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from arcs.cli.config_file import NUMBERS, Setting, apart_of, settings_of
from arcs.cli.settings import defaults_of, profiles_of
from models.errors import UserError
from models.files import write_atomically

WIDTH = 98


def write(root: Any, name: str, out: Path) -> None:
    """Write the settings file of a command. Raises UserError where it cannot be."""
    known = configurable(root)
    if name not in known:
        raise UserError(f"threearc init {name}: choose one of {', '.join(known)}")
    text = template(name, known[name])
    if out.exists():
        raise UserError(f"--out {out}: already there, and kept; give another name")
    try:
        write_atomically(out, text.encode())
    except OSError as error:
        raise UserError(f"--out {str(out)[:80]}: {error.strerror}") from None
    typer.echo(
        f"{out}: all options of threearc {name}, commented out; take the # off a line to set it, "
        f"then: threearc {name} --config {shlex.quote(str(out))}"
    )


def configurable(command: Any, path: tuple[str, ...] = ()) -> dict[str, Any]:
    """Commands that read a settings file, by what is typed after ``threearc``."""
    found = {}
    for name, one in getattr(command, "commands", {}).items():
        found.update(configurable(one, (*path, name)))
    if any("--config" in one.opts for one in command.params):
        found[" ".join(path)] = command
    return found


def template(name: str, command: Any) -> str:
    """The file. Uncommenting a line that has a value gives what is the default without it."""
    settings, defaults = settings_of(command), defaults_of(name)
    lines = _comment(_heading(name, command))
    panels: dict[str | None, list[Setting]] = {}
    for one in settings.values():
        panels.setdefault(one.parameter.rich_help_panel, []).append(one)
    for panel, members in panels.items():
        lines += ["", f"# ---- {panel} ----"] if panel else []
        for one in members:
            default = defaults.get(one.key, one.parameter.default)
            lines += ["", *_comment(_says(name, one)), _line(one, default)]
    return "\n".join(lines) + "\n"


def _heading(name: str, command: Any) -> str:
    return (
        f"Settings of threearc {name}, every one commented out. Take the # off a line to set it, "
        f"then: threearc {name} --config FILE. Flags win over this file"
        + (", which wins over the profile" if profiles_of(name) else "")
        + ". Paths are taken from where the command is run. Given as flags only: "
        + " and ".join(apart_of(command))
        + "."
    )


def _says(name: str, setting: Setting) -> str:
    """The option's own help, and what profiles make of it."""
    said = " ".join((setting.parameter.help or "").split())
    others = "; ".join(f"{profile}: {value}" for profile, value in _of_profiles(name, setting.key))
    return " ".join(filter(None, (said, others and f"({others})"))) or "No description."


def _of_profiles(name: str, key: str) -> Iterator[tuple[str, str]]:
    """Profiles under which the default is another, and what it is there."""
    usual = defaults_of(name).get(key)
    for profile in profiles_of(name):
        value = defaults_of(name, profile).get(key)
        if value != usual and key != "profile":
            yield profile, "not set" if value is None else toml(value)


def _line(setting: Setting, default: Any) -> str:
    if default is None or default == ():
        return f"#{setting.key} =     # not set; {_kind(setting)}"
    listed = setting.several and not isinstance(default, list | tuple)
    return f"#{setting.key} = {toml([default] if listed else default)}"


def _kind(setting: Setting) -> str:
    if setting.kind is bool:
        return "true or false"
    one = NUMBERS.get(
        setting.kind, "a path in quotes" if setting.kind is Path else "text in quotes"
    )
    return f"a list, each {one}" if setting.several else one


def toml(value: Any) -> str:
    """A value as TOML: JSON's spelling, which is TOML's for these."""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, Mapping):
        raise TypeError("options hold no tables")
    return json.dumps(str(value) if isinstance(value, Path) else value, ensure_ascii=False)


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )

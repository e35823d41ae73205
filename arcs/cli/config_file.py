"""``--config FILE``: a command's options in TOML. Flags win over the file.

What is read becomes the command's own defaults, so that a setting means the same, and is checked
by the same code, wherever it is given.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from models.errors import UserError

AS_FLAGS = ("--run", "--config", "--dry-run", "--list")
"""Options that say which run or file is meant, or that nothing is to be run: no settings."""
NUMBERS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Setting:
    """One option or argument of a command, as its function declares it."""

    name: str
    """Of the function's parameter."""
    key: str
    """In the file: the flag without the dashes in front; an argument's name."""
    kind: type
    """``bool``, ``int``, ``float``, ``str`` or ``Path``."""
    several: bool
    """May be repeated on the command line, and is a list in the file."""
    parameter: Any
    """Typer's: help, panel, default."""


_READ: ContextVar[tuple[typer.Context, Path, tuple[Setting, ...]] | None] = ContextVar(
    "read", default=None
)


def settings_of(command: Any) -> dict[str, Setting]:
    """What a file may set of a command, in the order of its definition."""
    hints = get_type_hints(inspect.unwrap(command.callback))
    found = {}
    for one in command.params:
        flags = [flag for flag in one.opts if flag.startswith("--")]
        key = (flags[0][2:] if flags else str(one.name)).replace("-", "_")
        if one.name in hints and not set(flags) & set(AS_FLAGS):
            kind, several = _kind(hints[str(one.name)])
            found[key] = Setting(str(one.name), key, kind, several, one)
    return found


def apart_of(command: Any) -> tuple[str, ...]:
    """Those of AS_FLAGS that a command has."""
    return tuple(flag for flag in AS_FLAGS if any(flag in one.opts for one in command.params))


def _kind(hint: Any) -> tuple[type, bool]:
    """``list[Path] | None`` -> Path, True."""
    inner = [one for one in get_args(hint) if one is not type(None)]
    if get_origin(hint) is list:
        return inner[0], True
    return _kind(inner[0]) if inner else (hint, False)


def load(context: typer.Context, path: Path | None) -> Path | None:
    """Make what the file sets the defaults of the command that is being called (UserError)."""
    if path is None or context.resilient_parsing:
        return path
    settings = settings_of(context.command)
    values = read(path, context.command, " ".join(context.command_path.split()[1:]))
    for key, value in values.items():
        try:
            settings[key].parameter.process_value(context, value)
        except typer.BadParameter as error:  # a bound that the option itself declares
            raise UserError(f"--config {path}: {key}: {error.message}") from None
    context.default_map = {settings[key].name: value for key, value in values.items()}
    _READ.set((context, path, tuple(settings[key] for key in values)))
    return path


def read(path: Path, command: Any, name: str) -> dict[str, Any]:
    """Key -> value as the command line would give it. Raises UserError for the first mistake.

    ``name``: what is typed for ``command`` after ``threearc``.
    """
    settings = settings_of(command)
    values: dict[str, Any] = {}
    for written, value in _table(path).items():
        key = written.replace("-", "_")
        if key not in settings:
            flag = f"--{key.replace('_', '-')}"
            why = (f"give it as a flag, {flag}" if flag in apart_of(command)
                   else _unknown(key, value, settings, name))  # fmt: skip
            raise UserError(f"--config {path}: {written}: {why}")
        if key in values:
            raise UserError(f"--config {path}: {key} stands there twice, once with a dash")
        try:
            values[key] = _given(settings[key], value, name)
        except ValueError as error:
            raise UserError(f"--config {path}: {written}: {error}, not {value!r}") from None
    return values


def _table(path: Path) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise UserError(f"--config {path}: no such file; threearc init writes one") from None
    except OSError as error:
        raise UserError(f"--config {str(path)[:80]}: {error.strerror}") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UserError(f"--config {path}: not TOML ({error})") from None


def _unknown(key: str, value: Any, settings: Mapping[str, Setting], command: str) -> str:
    import difflib

    if isinstance(value, dict):
        return "a table; options stand at the top of the file, without one"
    close = difflib.get_close_matches(key, settings, n=1, cutoff=0.5)
    listing = f"threearc init {command} lists them"
    hint = f"did you mean {close[0]}?" if close else listing
    return f"threearc {command} has no such option; {hint}"


def _given(setting: Setting, value: Any, command: str) -> Any:
    """Raises ValueError that says what is expected."""
    from arcs.cli.settings import takes_list

    if setting.several and value == []:  # the default's records, or records of one's own?
        raise ValueError("give at least one, or leave it out")
    if setting.several:
        return [_one(setting.kind, one) for one in (value if isinstance(value, list) else [value])]
    if isinstance(value, list) and takes_list(command, setting.key):
        # as on the command line, where commas stand between; an empty one is there called none
        return ",".join(_one(str, one) for one in value) or "none"
    return _one(setting.kind, value)


def _one(kind: type, value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is bool and not isinstance(value, bool):
        raise ValueError("give true or false")
    if kind in NUMBERS and (not number or (kind is int and isinstance(value, float))):
        raise ValueError(f"give {NUMBERS[kind]}")
    if kind not in (bool, *NUMBERS) and not (isinstance(value, str) or number):
        raise ValueError("give text in quotes")
    return value if kind in (bool, *NUMBERS) else str(value)


def begin() -> None:
    """Forget a file that an earlier command of this process read."""
    _READ.set(None)


def that_sets(key: str) -> Path | None:
    """The file that the command has read, if it sets this option."""
    if (read_now := _READ.get()) is None:
        return None
    _, path, settings = read_now
    return path if any(one.key == key for one in settings) else None


def place(message: str) -> str:
    """The file in front of a mistake's message that names what stands there and no flag set."""
    if (read_now := _READ.get()) is None:
        return message
    context, path, settings = read_now
    words = message.replace("-", "_").casefold()
    for setting in settings:
        source = context.get_parameter_source(setting.name)
        named = rf"^_*{setting.key}\b|__{setting.key}\b"
        if "_" in setting.key:  # no word of ordinary speech
            named += rf"|\b{setting.key}\b"
        if source is not None and source.name == "DEFAULT_MAP" and re.search(named, words):
            return f"{path}: {message}"
    return message


def config_option(panel: str | None = None) -> Any:
    """``--config`` of a command."""
    return typer.Option(
        "--config",
        is_eager=True,
        callback=load,
        help="TOML file with these options (threearc init writes one); flags win over it",
        show_default=False,
        rich_help_panel=panel,
    )


Config = Annotated[Path | None, config_option()]
Json = Annotated[
    bool,
    typer.Option("--json/--no-json", help="Print one JSON document on stdout", show_default=False),
]
"""``--json`` of a command with ``--config``: what the file switches on, a flag switches off."""

"""What commands with a run directory share: how they end early, and what is wrong with a flag."""

from __future__ import annotations

import errno
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from arcs.progress import Reporter
from arcs.runs import RunDirectory
from models.errors import UserError

M = TypeVar("M", bound=BaseModel)


@contextmanager
def continuable(
    command: str,
    directory: RunDirectory,
    reporter: Reporter,
    *,
    begun_now: bool,
    again: str | None = None,
) -> Iterator[None]:
    """Say how to go on where work is interrupted or the disk is full; both lose nothing.

    A mistake removes a run that was begun now and holds nothing; one given with --run is the
    caller's, however little is in it. ``again``: the command that goes on, where it is not the
    usual one. Raises UserError for a full disk, SystemExit 130 for Ctrl-C.
    """
    again = again or f"threearc {command} --run {shlex.quote(str(directory.path))}"
    try:
        yield
    except UserError:
        if begun_now:
            directory.discard_if_unused()
        raise
    except KeyboardInterrupt:
        reporter.say(f"\ninterrupted; continue with: {again}")
        sys.exit(130)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"{error.strerror}: nothing finished is lost; make room and continue with {again}"
        ) from error


def validated(model: type[M], values: Mapping[str, Any], flag_of: Callable[[str], str]) -> M:
    """Settings from flags; one line for the first thing wrong (UserError)."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise UserError(message) from None
        flag = flag_of(str(first["loc"][0]))
        if first["type"] == "literal_error":
            expected = first["ctx"]["expected"].replace("'", "")
            raise UserError(f"{flag} {first['input']!r}: give {expected}") from None
        raise UserError(f"{flag}: {message}") from None

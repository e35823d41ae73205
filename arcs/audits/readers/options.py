"""What a user can say about the files to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from models.errors import UserError


@dataclass(frozen=True)
class ReadOptions:
    """Flags of ``threearc audit`` that change how files are read."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """Our field or label name -> column name in the file. Not empty: the path is a table."""

    @classmethod
    def from_flags(cls, columns: Sequence[str]) -> Self:
        """Read ``field=column`` pairs, with commas between them or one a flag.

        Raises UserError for a pair without both sides and for a field named twice.
        """
        found: dict[str, str] = {}
        for pair in (part for flag in columns for part in flag.split(",")):
            name, equals, column = (part.strip() for part in pair.partition("="))
            if not (name and equals and column):
                raise UserError(f"--columns {pair}: write field=column, such as item_id=task_id")
            if name in found:
                raise UserError(f"--columns {pair}: {name} is already {found[name]}; name it once")
            found[name] = column
        return cls(columns=found)

"""One thing worth knowing about this machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Level = Literal["ok", "warning", "problem"]
SECTIONS = ("engines", "gpus", "sandbox", "memory", "disk", "system")


@dataclass(frozen=True)
class Finding:
    """A sentence with a level, and what to do about it."""

    level: Level
    section: str
    """One of SECTIONS: the part of the report it belongs to."""
    message: str
    fix: str | None = None
    """A command or a step; None where nothing needs to be done."""
    loud: bool = False
    """Shown in a frame at the end as well."""

    def as_dict(self) -> dict[str, Any]:
        """For the document."""
        return asdict(self)

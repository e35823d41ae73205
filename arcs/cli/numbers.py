"""Lists of numbers on the command line."""

from __future__ import annotations

from models.errors import UserError


def whole_numbers(text: str, flag: str = "--n-predict") -> tuple[int, ...]:
    """Read ``256,512``. Raises UserError for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"{flag} {text!r}: whole numbers with commas between are expected, e.g. 256,512,1024"
        ) from None


def names(text: str) -> str | tuple[str, ...]:
    """Read ``meter,chef``; ``all`` stays a word, ``none`` is no name."""
    if text in ("all", "none"):
        return () if text == "none" else text
    return tuple(part.strip() for part in text.split(","))

"""Lists of numbers on the command line."""

from __future__ import annotations

from models.errors import UserError


def whole_numbers(text: str) -> tuple[int, ...]:
    """Read ``256,512``. Raises UserError for anything else."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"--n-predict {text!r}: whole numbers with commas between are expected, "
            "e.g. 256,512,1024"
        ) from None

"""Arrays of a capsule: base64 of little-endian float32."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray


def packed(values: NDArray[np.float32]) -> str:
    """Of any shape, rows first."""
    flat = np.ascontiguousarray(values, dtype="<f4").tobytes()
    return base64.b64encode(flat).decode("ascii")


def unpacked(text: str, *shape: int) -> NDArray[np.float32]:
    """Inverse of :func:`packed`; ``shape``: [-1], if none is given."""
    flat: Any = np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
    found: NDArray[np.float32] = flat.reshape(shape or (-1,))
    return found

"""Random numbers that depend on nothing but their key: not on order, engine or numpy version.

Philox is counter-based; numpy guarantees the raw stream of a bit generator (NEP 19), not
that of ``Generator`` methods, so only ``random_raw`` is used.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


def uniform(count: int, *key: str | int) -> NDArray[np.float64]:
    """``count`` float64 numbers in [0, 1), 53 bits each, from the stream of ``key``."""
    return (_raw(count, key) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(count: int, *key: str | int) -> NDArray[np.int64]:
    """A permutation of range(count): the order of ``count`` draws from the stream of ``key``."""
    return np.argsort(_raw(count, key), kind="stable").astype(np.int64)


def seed31(*key: str | int) -> int:
    """A non-negative 31-bit seed for an engine's own generator."""
    return int.from_bytes(_digest(key)[:4], "little") & 0x7FFFFFFF


def _raw(count: int, key: tuple[str | int, ...]) -> NDArray[np.uint64]:
    words = np.frombuffer(_digest(key)[:16], dtype="<u8")
    return np.asarray(np.random.Philox(key=words).random_raw(count), dtype=np.uint64)


def _digest(key: tuple[str | int, ...]) -> bytes:
    # repr keeps 1 and "1" apart, and the comma keeps ("a", "b") and ("ab",) apart
    return hashlib.sha256(repr(key).encode()).digest()

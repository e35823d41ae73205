"""Do the installed engines read a model directory as the same model? Asked once, on first use.

A loader that misses a config key does not fail: it computes another model (BACKENDS.md
section 1: a wrong RoPE base, logits off by 10). Comparing two engines catches that before
anything is measured.
"""

from __future__ import annotations

import importlib.metadata
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from backends import available_backends, open_backend
from backends.interface import Float32
from backends.memory import available_memory, model_size
from backends.randomness import permutation
from backends.reduced import LAYERS_OF, reduced_copy
from models.directory import ModelDirectory
from models.errors import UserError
from models.files import write_atomically
from models.from_directory import is_packed_for_mlx
from models.geometry import read_config, text_config

FILE = "verification.json"
SINGLE_ENGINE = "unverified: single engine"
TOLERANCE = 5e-3
"""Allowed |difference| of float32 logits, times max(1, their standard deviation).

Right loads differ by at most 1.5e-4 (rounding, SmolLM2-135M) and grow slowly with depth; the
smallest wrong load seen (Gemma 3's embedding scale rounded to bfloat16) differs by 2.2e-2.
"""
LENGTH = 96
"""Ids compared: enough for RoPE and sliding windows to matter, a second or two on a CPU."""
_MEMORY_FACTOR = 2.0
"""Loading holds the file's pages and the float32 copy at the same time."""
_PACKAGES = ("torch", "transformers", "mlx", "mlx-lm")


QUANTISED = "unverified: only the mlx engine reads weights quantised by mlx-lm"


@dataclass(frozen=True)
class _Outcome:
    status: str
    details: dict[str, Any]


def verify(directory: ModelDirectory, say: Callable[[str], None] | None = None) -> str:
    """Compare the installed engines on ``directory``; returns the status for the manifest.

    ``verified: ...`` when they agree, ``unverified: ...`` with the reason when they could not
    be compared. The outcome is kept in verification.json inside the directory and used again
    while model and versions stay the same. Raises UserError when the engines disagree.
    """
    if is_packed_for_mlx(read_config(directory.path)):
        return QUANTISED
    engines = [name for name, why in available_backends().items() if why is None]
    if len(engines) < 2:
        return SINGLE_ENGINE if engines else "unverified: no engine installed"
    key = _key(directory, engines)
    known = _read(directory.path / FILE, key)
    if known is not None:
        return known
    if say is not None:
        size = model_size(directory).parameters / 1e6
        say(
            f"comparing {' and '.join(engines)} on {directory.name} (first use: each reads its "
            f"{size:.0f} million parameters once)"
        )
    outcome = _compare_within_memory(directory, engines)
    _keep(directory.path / FILE, {**key, "status": outcome.status, **outcome.details}, say)
    return outcome.status


def _compare_within_memory(directory: ModelDirectory, engines: list[str]) -> _Outcome:
    parameters = model_size(directory).parameters
    if _fits(parameters):
        return _compare(directory, engines, "all layers")
    count = LAYERS_OF.get(directory.family)
    if count is None:
        return _Outcome(
            f"unverified: too large to compare in free memory, and no reduced copy of the "
            f"{directory.family} family can be made",
            {},
        )
    with tempfile.TemporaryDirectory(prefix="threearc-verify-") as folder:
        reduced = reduced_copy(directory, count, Path(folder))
        if not _fits(model_size(reduced).parameters):
            return _Outcome("unverified: too large to compare in free memory", {})
        return _compare(reduced, engines, f"the first {count} layers")


def _fits(parameters: int) -> bool:
    return parameters * 4 * _MEMORY_FACTOR <= available_memory()


def _compare(directory: ModelDirectory, engines: list[str], what: str) -> _Outcome:
    ids = probe_ids(directory)
    logits = {name: _logits(name, directory, ids) for name in engines}
    reference = logits[engines[0]]
    allowed = TOLERANCE * max(1.0, float(reference.std()))
    worst = max(float(np.abs(logits[name] - reference).max()) for name in engines[1:])
    pair = " and ".join(engines)
    if not worst <= allowed:  # also when it is NaN
        raise UserError(
            f"{pair} do not read {directory.path} as the same model: logits differ by "
            f"{worst:.3g} (allowed {allowed:.2g}); a config key is missing or misread, so "
            "nothing is measured with it: prepare it again from its source"
        )
    details = {"max_difference": worst, "allowed": allowed, "tokens": LENGTH, "compared": what}
    return _Outcome(f"verified: {pair} agree on {what}", details)


def _logits(engine: str, directory: ModelDirectory, ids: list[int]) -> Float32:
    with open_backend(engine, directory) as model:
        return model.logits(ids)


def probe_ids(directory: ModelDirectory) -> list[int]:
    """``LENGTH`` fixed ids from the lower half of the vocabulary.

    Image and audio markers lie at its end.
    """
    vocab = text_config(read_config(directory.path))["vocab_size"]
    return [int(token) for token in permutation(vocab // 2, "verification")[:LENGTH]]


def _key(directory: ModelDirectory, engines: list[str]) -> dict[str, Any]:
    installed = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
    versions = {name: installed[name] for name in _PACKAGES if name in installed}
    return {
        "fingerprint": directory.fingerprint,
        "engines": engines,
        "versions": versions,
        "tolerance": TOLERANCE,
    }


def _read(file: Path, key: Mapping[str, Any]) -> str | None:
    """Return the status kept for the same model and versions; a damaged file counts as none."""
    try:
        record = json.loads(file.read_text())
        same = all(record[name] == value for name, value in key.items())
        return str(record["status"]) if same and record["status"].startswith("verified") else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _keep(file: Path, record: Mapping[str, Any], say: Callable[[str], None] | None) -> None:
    try:
        write_atomically(file, (json.dumps(record, indent=2, sort_keys=True) + "\n").encode())
    except OSError as error:
        if say is not None:
            say(f"the outcome could not be kept and will be worked out again: {error}")

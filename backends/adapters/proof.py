"""A converted adapter compared with its source by logits, in the engine it was made for."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np

import backends
from backends import available_backends, open_backend
from backends.interface import Float32, LoraConfig
from backends.memory import available_memory, model_size
from backends.verification import probe_ids
from models.directory import ModelDirectory
from models.errors import UserError

Target = Literal["peft", "mlx", "gguf"]
Say = Callable[[str], None]

SAME = 1e-5
"""Bound where one engine computes both sides from the same weights; measured 0 to 5e-8."""
OTHER = 1e-4
"""Bound between engines, or between W x + s B (A x) and (W + s B A) x: float32 sums in another
order. Measured 2e-7 to 3e-6 (docs/adapters.md); a wrong name, scale or transposition is larger
than the adapter's own effect, which must be VISIBLE times this."""
GELU = 1e-3
"""Bound for Gemma in llama.cpp, which looks GELU up in a float16 table; measured 5e-5 to 7e-4."""
VISIBLE = 10
"""A proof counts only if the adapter moves the logits by this many bounds: below, a wrong
conversion of an adapter that does nothing would pass as well."""
_MEMORY_FACTOR = 2.0
"""Loading holds the file's pages and the float32 copy at the same time."""
_PACKAGES = ("torch", "transformers", "peft", "mlx", "mlx-lm", "llama-cpp-python")


@dataclass(frozen=True)
class Comparison:
    """Two ways to compute the same logits."""

    what: str
    engines: tuple[str, str]
    difference: float
    """Largest |difference| over the range (largest minus smallest) of the first's logits."""
    bound: float
    reason: str

    @property
    def passed(self) -> bool:
        """False also when the difference is not a number."""
        return self.difference <= self.bound


@dataclass(frozen=True)
class Proof:
    """What comparing gave. A breach is never kept: it raises."""

    status: Literal["proven", "unproven"]
    reason: str | None = None
    """Why it is unproven."""
    effect: float | None = None
    """What the adapter changes: largest |difference| to the base's logits over their range."""
    tokens: int = 0
    comparisons: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The document's ``proof`` (docs/adapters.md)."""
        found = asdict(self)
        return {**found, "versions": dict(self.versions)}


class _Engine(NamedTuple):
    name: str
    """For people."""
    key: str
    """As in :func:`backends.available_backends`, or ``llamacpp``."""
    module: str
    """Module with ``adapter_logits(directory, folder, ids)``."""


_TARGETS: dict[Target, _Engine] = {
    "peft": _Engine("peft", "torch", "backends.torch.adapters"),
    "mlx": _Engine("mlx-lm", "mlx", "backends.mlx.adapters"),
    "gguf": _Engine("llama.cpp", "llamacpp", "backends.llamacpp.adapter_logits"),
}


class Source(NamedTuple):
    """The adapter's own logits, and the base's."""

    engine: str
    base: Float32
    adapted: Float32

    @property
    def effect(self) -> float:
        """See :attr:`Proof.effect`."""
        return difference(self.base, self.adapted)


def wants_fast_blas(target: Target) -> bool:
    """Whether :func:`prove_export` computes on a BLAS that can be preloaded."""
    engines = {_TARGETS[target].key, _source_engine()}
    usable = {name for name, why in available_backends().items() if why is None}
    return any(backends.wants_fast_blas(name) for name in usable if name in engines)


def prove_export(
    directory: ModelDirectory,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    target: Target,
    folder: Path,
    say: Say,
) -> Proof:
    """Load ``folder`` in the target's own engine and compare with ``weights`` on another path.

    Raises UserError where the bound is broken, or the engine refuses the files.
    """
    engine = _TARGETS[target]
    reason = cannot_run(directory, engine.key) or no_source(directory)
    if reason is not None:
        return Proof("unproven", reason)
    ids = probe_ids(directory)
    say(f"proving: the source adapter's logits on {len(ids)} tokens")
    source = source_logits(directory, config, weights, ids)
    say(f"proving: the same in {engine.name}")
    module = importlib.import_module(engine.module)
    load = cast("Callable[[ModelDirectory, Path, Sequence[int]], Float32]", module.adapter_logits)
    found = load(directory, folder, ids)
    bound, reason = _bound(directory, source.engine, target)
    comparison = Comparison(
        what=f"the exported adapter in {engine.name}",
        engines=(source.engine, engine.name),
        difference=difference(source.adapted, found),
        bound=bound,
        reason=reason,
    )
    return conclude(source.effect, (comparison,), len(ids))


def _bound(directory: ModelDirectory, source: str, target: Target) -> tuple[float, str]:
    if target == "gguf" and directory.family.startswith("gemma"):
        return GELU, "llama.cpp looks Gemma's GELU up in a table of float16"
    if source == _TARGETS[target].key:
        return SAME, "the same weights in the same engine"
    return OTHER, "float32 sums in another order"


def conclude(
    effect: float,
    comparisons: tuple[Comparison, ...],
    tokens: int,
    notes: tuple[str, ...] = (),
) -> Proof:
    """Raise UserError for a breach; unproven where the adapter's effect is too small to tell.

    The first comparison is the one that the adapter itself has to pass.
    """
    for found in comparisons:
        if not found.passed:
            raise UserError(
                f"{found.what} does not compute what the adapter does: logits of "
                f"{' and '.join(found.engines)} differ by {found.difference:.2g} of their range "
                f"(bound {found.bound:.2g}, the adapter's effect {effect:.2g}); nothing was written"
            )
    needed = VISIBLE * comparisons[0].bound
    status: Literal["proven", "unproven"] = "proven" if effect >= needed else "unproven"
    reason = None
    if status == "unproven":
        reason = (
            f"the adapter changes the logits by {effect:.2g} of their range, less than the "
            f"{needed:.2g} at which a wrong conversion would show"
        )
    return Proof(status, reason, effect, tokens, comparisons, notes, _versions())


def source_logits(
    directory: ModelDirectory,
    config: LoraConfig,
    weights: Mapping[str, Float32],
    ids: Sequence[int],
) -> Source:
    """Logits of the base without and with the adapter, float32, on torch or else MLX."""
    engine = _source_engine()
    assert engine is not None
    with open_backend(engine, directory, dtype="float32") as model:
        base = model.logits(ids)
        model.attach_lora(config, weights)
        return Source(engine, base, model.logits(ids))


def cannot_run(directory: ModelDirectory, engine: str) -> str | None:
    """Why ``engine`` cannot load this model here in float32; None where it can."""
    if engine == "llamacpp":
        if importlib.util.find_spec("llama_cpp") is None:
            return 'llama-cpp-python is not installed: pip install "threearc[llama]"'
    else:
        why = available_backends()[engine]
        if why is not None:
            return why
    needed, free = model_size(directory).parameters * 4 * _MEMORY_FACTOR, available_memory()
    if needed > free:
        return (
            f"loading the model in float32 takes about {needed / 1e9:.1f} GB and "
            f"{free / 1e9:.1f} GB are free"
        )
    return None


def no_source(directory: ModelDirectory) -> str | None:
    """Why no engine can compute the source adapter's logits; None where one can."""
    engine = _source_engine()
    if engine is None:
        reasons = "; ".join(f"{why}" for why in available_backends().values())
        return f"no engine to compute the source adapter's logits ({reasons})"
    return cannot_run(directory, engine)


def difference(reference: Float32, other: Float32) -> float:
    """Largest |difference| over the range of ``reference``; infinite when not finite."""
    spread = float(np.ptp(reference))
    found = float(np.abs(reference - other).max()) / spread if spread > 0 else float("inf")
    return found if np.isfinite(found) else float("inf")


def _source_engine() -> str | None:
    usable = available_backends()
    return next((name for name in ("torch", "mlx") if usable[name] is None), None)


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

"""What an adapter is, from its files alone."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from backends.adapter_files import StoredAdapter
from backends.adapters.contents import require_whole
from backends.interface import Float32


@dataclass(frozen=True)
class ModuleKind:
    """The adapted modules that share a name within their layers."""

    name: str
    """``self_attn.q_proj``, or a full path outside the decoder layers."""
    layers: tuple[int, ...]
    parameters: int
    update_norm: float
    """Frobenius norm of scale * B A, over all the layers together."""


@dataclass(frozen=True)
class AdapterSummary:
    """What ``threearc adapters show`` prints."""

    path: str
    format: str
    sha256: str
    base_name: str | None
    base_fingerprint: str | None
    """None where there is no sidecar."""
    rank: int
    alpha: float
    rslora: bool
    scale: float
    dropout: float
    parameters: int
    layers: tuple[int, ...]
    kinds: tuple[ModuleKind, ...]
    notes: tuple[str, ...]
    extra: Mapping[str, Any]
    """What whoever saved it kept beside it, such as how it was trained."""
    proof: Mapping[str, Any] | None
    """Of the conversion that made these files, where they are one."""

    def to_json(self) -> dict[str, Any]:
        """The documented JSON document (docs/adapters.md)."""
        return {"schema": "threearc-adapter/1", **asdict(self)}


def summarise(stored: StoredAdapter) -> AdapterSummary:
    """Describe an adapter. Raises UserError for half a pair, or numbers that are not finite."""
    contents, sidecar = stored.contents, stored.sidecar
    modules = require_whole(stored.path, contents.weights)
    by_kind: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for module in modules:
        layer, kind = _split(module)
        by_kind[kind].append((layer, module))
    kinds = tuple(
        _kind(kind, sorted(members), contents.weights, contents.config.scale)
        for kind, members in sorted(by_kind.items())
    )
    return AdapterSummary(
        path=str(stored.path),
        format=stored.format,
        sha256=stored.sha256,
        base_name=contents.declared_base if sidecar is None else sidecar.base_name,
        base_fingerprint=None if sidecar is None else sidecar.base_fingerprint,
        rank=contents.config.rank,
        alpha=contents.config.alpha,
        rslora=contents.config.rslora,
        scale=contents.config.scale,
        dropout=contents.config.dropout,
        parameters=sum(kind.parameters for kind in kinds),
        layers=tuple(sorted({layer for kind in kinds for layer in kind.layers})),
        kinds=kinds,
        notes=contents.notes,
        extra={} if sidecar is None else sidecar.extra,
        proof=None if sidecar is None else sidecar.proof,
    )


def _split(module: str) -> tuple[int, str]:
    """``model.layers.3.mlp.up_proj`` -> (3, ``mlp.up_proj``); -1 outside the layers."""
    parts = module.split(".", 3)
    inside = parts[:2] == ["model", "layers"] and len(parts) == 4 and parts[2].isdecimal()
    return (int(parts[2]), parts[3]) if inside else (-1, module)


def _kind(
    name: str, members: list[tuple[int, str]], weights: Mapping[str, Float32], scale: float
) -> ModuleKind:
    squares, parameters = 0.0, 0
    for _, module in members:
        a, b = weights[f"{module}.lora_A"], weights[f"{module}.lora_B"]
        squares += update_norm(a, b, scale) ** 2
        parameters += a.size + b.size
    layers = tuple(layer for layer, _ in members if layer >= 0)
    return ModuleKind(name, layers, parameters, math.sqrt(squares))


def update_norm(a: Float32, b: Float32, scale: float) -> float:
    """Frobenius norm of scale * B A, without making B A.

    ||B A||^2 = trace(B^T B A A^T), two rank x rank products, in float64.
    """
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    square = float(((wide_b.T @ wide_b) * (wide_a @ wide_a.T)).sum())
    return abs(scale) * math.sqrt(max(square, 0.0))

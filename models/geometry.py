"""The shape of a model, read from its config: layers, heads, widths.

Understands both dialects: per-layer head_dim as transformers 5 stores it (``per_layer_config``)
and as the hub's Gemma 4 files do (``global_head_dim``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from models.config_fixes import per_layer_overrides
from models.errors import UserError

Kind = Literal["full", "sliding", "linear"]

FAMILIES = {
    "llama": "llama",
    "qwen3": "qwen3",
    "qwen3_5": "qwen3_5",
    "qwen3_5_text": "qwen3_5",
    "gemma3": "gemma3",
    "gemma3_text": "gemma3",
    "gemma4": "gemma4",
    "gemma4_text": "gemma4",
}
KINDS: dict[str, Kind] = {
    "full_attention": "full",
    "sliding_attention": "sliding",
    "linear_attention": "linear",
}
MAX_LAYERS = 10_000
GEMMA4_GLOBAL_HEAD_DIM = 512
"""Default of both loaders where a Gemma 4 config states neither form."""


@dataclass(frozen=True)
class AttentionGeometry:
    """The token mixer of one decoder layer."""

    layer: int
    kind: Kind
    n_heads: int
    """Query heads; value heads of a Gated DeltaNet layer (``linear``)."""
    n_kv_heads: int
    head_dim: int
    has_o_proj: bool
    """False for ``linear``: Gated DeltaNet has an out_proj, and no attention heads."""


@dataclass(frozen=True)
class ModelGeometry:
    """What the rest of the program needs to know about a model's shape."""

    family: str
    hidden_size: int
    n_layers: int
    vocab_size: int
    context_length: int
    """Positions the model was trained for (``max_position_embeddings``)."""
    layers: tuple[AttentionGeometry, ...]

    @property
    def o_proj_layers(self) -> tuple[int, ...]:
        """Indices of layers with attention heads and an o_proj."""
        return tuple(layer.layer for layer in self.layers if layer.has_o_proj)


def read_geometry(directory: str | Path) -> ModelGeometry:
    """Geometry of the model in ``directory``. Raises UserError for a wrong config.json."""
    return geometry(read_config(directory), where=str(Path(directory) / "config.json"))


def read_config(directory: str | Path) -> dict[str, Any]:
    """Parse config.json. Raises UserError when it is missing or not a JSON object."""
    path = Path(directory) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{directory} has no config.json: it is not a model directory") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as JSON; fetch or save the model again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a JSON object; fetch or save the model again")
    return config


def geometry(config: Mapping[str, Any], where: str = "config.json") -> ModelGeometry:
    """Geometry from a parsed config. ``where`` names it in errors (UserError)."""
    text = text_config(config)
    reader = _Reader(text, where)
    family = family_of(config, where)
    n_layers = reader.positive("num_hidden_layers", most=MAX_LAYERS)
    kinds = _layer_kinds(text, family, n_layers, where)
    return ModelGeometry(
        family=family,
        hidden_size=reader.positive("hidden_size"),
        n_layers=n_layers,
        vocab_size=reader.positive("vocab_size"),
        context_length=reader.positive("max_position_embeddings"),
        layers=tuple(_layer(reader, family, i, kind) for i, kind in enumerate(kinds)),
    )


def text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the language model's part of a (possibly multimodal) config."""
    text = config.get("text_config")
    return text if isinstance(text, Mapping) else config


def family_of(config: Mapping[str, Any], where: str = "config.json") -> str:
    """Return the family, or raise UserError for an unsupported model_type."""
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        families = ", ".join(sorted(set(FAMILIES.values())))
        raise UserError(f"{where}: model_type {kind!r} is not supported (supported: {families})")
    return FAMILIES[kind]


def _layer_kinds(
    text: Mapping[str, Any], family: str, n_layers: int, where: str
) -> tuple[Kind, ...]:
    names = text.get("layer_types") or _default_layer_types(text, family, n_layers)
    if not isinstance(names, list) or len(names) < n_layers:
        raise UserError(f"{where}: layer_types does not list {n_layers} layers")
    unknown = [name for name in names if not isinstance(name, str) or name not in KINDS]
    if unknown:
        raise UserError(f"{where}: unknown layer type {unknown[0]!r}")
    return tuple(KINDS[name] for name in names[:n_layers])


def _default_layer_types(text: Mapping[str, Any], family: str, n_layers: int) -> list[str]:
    """What both loaders assume when a config does not list its layers."""
    if family in ("llama", "qwen3"):
        return ["full_attention"] * n_layers
    key, usual = {
        "qwen3_5": ("full_attention_interval", 4),
        "gemma3": ("sliding_window_pattern", 6),
        "gemma4": ("sliding_window_pattern", 5),
    }[family]
    period = text.get(key, text.get(f"_{key}", usual))
    if type(period) is not int or period < 1:
        return []
    other = "linear_attention" if family == "qwen3_5" else "sliding_attention"
    return ["full_attention" if (i + 1) % period == 0 else other for i in range(n_layers)]


def _layer(reader: _Reader, family: str, i: int, kind: Kind) -> AttentionGeometry:
    if kind == "linear":
        heads = reader.positive("linear_num_value_heads")
        keys, dim = (
            reader.positive("linear_num_key_heads"),
            reader.positive("linear_value_head_dim"),
        )
        return AttentionGeometry(i, kind, heads, keys, dim, has_o_proj=False)
    heads = reader.positive("num_attention_heads")
    kv = reader.positive("num_key_value_heads", heads)
    dim = reader.positive("head_dim", reader.positive("hidden_size") // heads)
    if family == "gemma4":
        dim, kv = _gemma4_layer(reader, i, kind, dim, kv)
    return AttentionGeometry(i, kind, heads, kv, dim, has_o_proj=True)


def _gemma4_layer(reader: _Reader, i: int, kind: Kind, dim: int, kv: int) -> tuple[int, int]:
    per_layer = per_layer_overrides(reader.config)
    if per_layer:
        entry = _Reader(per_layer.get(i, {}), reader.where)
        return entry.positive("head_dim", dim), entry.positive("num_key_value_heads", kv)
    if kind == "full":
        wide = reader.positive("global_head_dim", GEMMA4_GLOBAL_HEAD_DIM)
        return wide, reader.positive("num_global_key_value_heads", kv)
    return dim, kv


class _Reader:
    def __init__(self, config: Mapping[str, Any], where: str) -> None:
        self.config, self.where = config, where

    def positive(self, key: str, default: int | None = None, most: int = 2**31) -> int:
        value = self.config.get(key)
        value = default if value is None else value
        if type(value) is not int or not 1 <= value <= most:
            raise UserError(
                f"{self.where}: {key} should be a whole number from 1 to {most}, got {value!r:.80}"
            )
        return value

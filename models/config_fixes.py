"""Config keys for both loader dialects: transformers 5 and mlx-lm.

transformers 5 moved several keys (``rope_theta`` into ``rope_parameters``, Gemma 4's
``global_head_dim`` into ``per_layer_config``) and drops what it can derive. mlx-lm still reads
the old ones and otherwise falls back to its own defaults: a Llama saved by transformers 5 loads
in mlx-lm without complaint and with the wrong RoPE. Two remedies, both derived from the config:

- :func:`with_both_dialects` adds the missing old keys. transformers ignores them or reads them
  to the same effect, so they are written into every prepared ``config.json``.
- :func:`mlx_overrides` is for what cannot stand in the file because torch would read it
  differently (``model_type`` of a text-only Qwen3.5, Gemma 3's ``rope_scaling``). The mlx
  backend passes the result as ``model_config=`` to ``mlx_lm.utils.load_model``. It contains the
  added keys as well, so that an unprepared directory loads correctly too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.errors import CapabilityError

Config = dict[str, Any]

TOP_LEVEL_ROPE = frozenset({"llama", "mistral", "qwen2", "smollm3"})
"""Model types whose mlx-lm class reads ``rope_theta`` at the top level only."""


def with_both_dialects(config: Mapping[str, Any]) -> Config:
    """Return a copy of ``config`` with the keys that mlx-lm needs added; nothing is changed."""
    fixed: Config = {**_missing_keys(config), **config}
    text = config.get("text_config")
    if isinstance(text, Mapping):
        fixed["text_config"] = {**_missing_keys(text), **text}
        if config.get("model_type") in ["gemma3", "gemma4"] and "vocab_size" in text:
            # mlx-lm's wrapper overwrites the text vocabulary by its own top-level default.
            fixed.setdefault("vocab_size", text["vocab_size"])
    return fixed


def mlx_overrides(config: Mapping[str, Any]) -> Config:
    """Return the ``model_config=`` argument with which mlx-lm loads ``config`` correctly.

    mlx-lm's update is shallow, so a nested ``text_config`` is returned whole. Raises
    CapabilityError for a layer pattern that mlx-lm cannot express.
    """
    both = with_both_dialects(config)
    changed = {key: value for key, value in both.items() if config.get(key, ...) != value}
    if isinstance(both.get("text_config"), Mapping):
        text = both["text_config"]
        _check_pattern(text)
        changed["text_config"] = {**text, **_different_meaning(text)}
        return changed
    _check_pattern(both)
    changed.update(_different_meaning(both))
    if config.get("model_type") == "qwen3_5_text":
        changed["model_type"] = "qwen3_5"
    return changed


def _missing_keys(config: Mapping[str, Any]) -> Config:
    """Old-dialect keys of one (text) config that it lacks and that follow from it."""
    kind = str(config.get("model_type"))
    if kind in TOP_LEVEL_ROPE:
        wanted = _single_rope(config)
    elif kind == "gemma3_text":
        wanted = _gemma3(config)
    elif kind == "qwen3_5_text":
        wanted = _interval("full_attention_interval", config)
    elif kind == "gemma4_text":
        wanted = _gemma4(config)
    else:
        wanted = {}
    return {key: value for key, value in wanted.items() if key not in config}


def _single_rope(config: Mapping[str, Any]) -> Config:
    rope = _mapping(config, "rope_parameters")
    keys: Config = {"rope_theta": rope["rope_theta"]} if "rope_theta" in rope else {}
    if rope.get("rope_type", "default") != "default":
        keys["rope_scaling"] = dict(rope)
    return keys


def _gemma3(config: Mapping[str, Any]) -> Config:
    rope = _mapping(config, "rope_parameters")
    keys = _interval("sliding_window_pattern", config)
    for kind, name in (
        ("full_attention", "rope_theta"),
        ("sliding_attention", "rope_local_base_freq"),
    ):
        theta = _mapping(rope, kind).get("rope_theta")
        if theta is not None:
            keys[name] = theta
    return keys


def _gemma4(config: Mapping[str, Any]) -> Config:
    per_layer = full_attention_overrides(config)
    dims = {layer["head_dim"] for layer in per_layer if type(layer.get("head_dim")) is int}
    return {"global_head_dim": dims.pop()} if len(dims) == 1 else {}


def full_attention_overrides(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Gemma 4's ``per_layer_config`` entries (transformers 5) of its full-attention layers."""
    entries = per_layer_overrides(config)
    kinds = _layer_types(config)
    return [entries[i] for i, kind in enumerate(kinds) if kind == "full_attention" and i in entries]


def per_layer_overrides(config: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    """``per_layer_config`` by layer index, whether the file holds a list or an object."""
    raw = config.get("per_layer_config")
    if not isinstance(raw, Mapping | list):
        return {}
    items = (
        enumerate(raw) if isinstance(raw, list) else _mapping(config, "per_layer_config").items()
    )
    return {
        int(i): entry for i, entry in items if str(i).isdecimal() and isinstance(entry, Mapping)
    }


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under ``key``; empty if there is none (a wrong type is the loaders' to refuse)."""
    value = config.get(key)
    return value if isinstance(value, Mapping) else {}


def _layer_types(config: Mapping[str, Any]) -> list[str]:
    value = config.get("layer_types")
    return value if isinstance(value, list) else []


def _interval(key: str, config: Mapping[str, Any]) -> Config:
    period = full_attention_period(_layer_types(config))
    return {} if period is None else {key: period}


def full_attention_period(layer_types: Sequence[str]) -> int | None:
    """Return p if exactly every p-th layer has full attention, else None."""
    if "full_attention" not in layer_types:
        return None
    period = list(layer_types).index("full_attention") + 1
    regular = all(
        (kind == "full_attention") == ((i + 1) % period == 0) for i, kind in enumerate(layer_types)
    )
    return period if regular else None


def _check_pattern(config: Mapping[str, Any]) -> None:
    kinds = _layer_types(config)
    periodic = config.get("model_type") in ["gemma3_text", "qwen3_5_text"]
    if periodic and kinds and full_attention_period(kinds) is None:
        raise CapabilityError(
            f"mlx-lm cannot load this {config['model_type']} model: its full-attention layers are"
            " not evenly spaced (config.json, layer_types); use --backend torch"
        )


def _different_meaning(config: Mapping[str, Any]) -> Config:
    """Keys that transformers would read differently, and mlx-lm needs."""
    if config.get("model_type") != "gemma3_text" or config.get("rope_scaling") is not None:
        return {}
    full = _mapping(_mapping(config, "rope_parameters"), "full_attention")
    return {"rope_scaling": dict(full)} if full.get("rope_type", "default") != "default" else {}

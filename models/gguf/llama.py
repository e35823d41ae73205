"""How a llama-type model in Hugging Face form is written in GGUF.

llama.cpp rotates neighbouring pairs of a head (RoPE "NORM"), Hugging Face the two halves,
so the rows of the q and k projections are stored in another order: see
:func:`interleave_rope_rows`. Names come from the gguf package's own table.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError

ARCHITECTURE = "llama"


@dataclass(frozen=True)
class LlamaShape:
    """The hyper-parameters that a GGUF of architecture ``llama`` states."""

    layers: int
    hidden: int
    feed_forward: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int
    """Longest sequence the model was trained on."""
    rms_eps: float
    rope_theta: float
    tied: bool
    """The head shares the embedding's matrix, so no ``output.weight`` is written."""


def unsupported_family(name: str, family: str, doing: str) -> CapabilityError:
    """Return the error for a model that is not of the llama type."""
    return CapabilityError(
        f"{name}: {doing} of {family} comes with a later version; "
        "llama-type models (SmolLM2) can be used now"
    )


def llama_shape(directory: ModelDirectory, *, doing: str) -> LlamaShape:
    """Read a model directory's config.json.

    ``doing`` names the operation in the message. Raises CapabilityError for another family
    or for a variant (RoPE scaling, activation) that would be written wrongly, UserError for
    a config that lacks a key.
    """
    if directory.family != ARCHITECTURE:
        raise unsupported_family(directory.name, directory.family, doing)
    config = _read_config(directory.path / "config.json")
    _refuse_variants(config, directory.name, doing)
    try:
        return _shape(config)
    except KeyError as error:
        raise UserError(
            f"{directory.path / 'config.json'} has no {error.args[0]}; prepare the model again"
        ) from error


def tensor_namer(layers: int) -> Callable[[str], str | None]:
    """Hugging Face parameter name (``….weight`` or ``….bias``) -> GGUF name, None if unknown."""
    import gguf

    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)

    def name(parameter: str) -> str | None:
        found = table.get_name(parameter, try_suffixes=(".weight", ".bias"))
        return None if found is None else str(found)

    return name


def rope_heads(module: str, shape: LlamaShape) -> int | None:
    """Number of heads whose rows are interleaved in ``module`` (q_proj, k_proj), else None."""
    if module.endswith(".self_attn.q_proj"):
        return shape.heads
    if module.endswith(".self_attn.k_proj"):
        return shape.kv_heads
    return None


def interleave_rope_rows(rows: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Reorder output rows from Hugging Face's two halves to llama.cpp's pairs.

    ``rows``: (heads * head_dim, ...) weight, bias or LoRA B. Within a head of dimension d,
    new row 2 i is old row i and new row 2 i + 1 is old row i + d / 2.
    """
    halves = rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); prepare the model again") from error
    if not isinstance(config, dict):
        raise UserError(f"{path} is not a model config; prepare the model again")
    return config


def _refuse_variants(config: dict[str, Any], name: str, doing: str) -> None:
    rope = _rope(config)
    kind = rope.get("rope_type", rope.get("type", "default"))
    activation = config.get("hidden_act", "silu")
    for what, value, expected in (
        ("RoPE type", kind, "default"),
        ("activation", activation, "silu"),
    ):
        if value != expected:
            raise CapabilityError(
                f"{name}: {doing} of llama with {what} {value!r} comes with a later version; "
                f"give a .gguf file"
            )


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    """RoPE settings under transformers v5's key or the older one."""
    return config.get("rope_parameters") or config.get("rope_scaling") or {}


def _shape(config: dict[str, Any]) -> LlamaShape:
    heads = int(config["num_attention_heads"])
    hidden = int(config["hidden_size"])
    theta = _rope(config).get("rope_theta", config.get("rope_theta"))
    if theta is None:
        raise KeyError("rope_theta")
    return LlamaShape(
        layers=int(config["num_hidden_layers"]),
        hidden=hidden,
        feed_forward=int(config["intermediate_size"]),
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or hidden // heads),
        vocab=int(config["vocab_size"]),
        context=int(config["max_position_embeddings"]),
        rms_eps=float(config["rms_norm_eps"]),
        rope_theta=float(theta),
        tied=bool(config.get("tie_word_embeddings", False)),
    )

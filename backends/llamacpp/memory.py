"""What decoding needs, worked out before llama.cpp loads or allocates anything.

The KV cache is counted exactly, layer by layer, from the shapes of the file's own projections
(layers that share another's cache, or have none, hold no such tensor). The buffers that a batch
is computed in are an upper bound: llama.cpp plans them only once it has the rest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from models.errors import UserError
from models.gguf_file import GgufFile, read_gguf

if TYPE_CHECKING:
    from backends.llamacpp.context import Settings

KV_BYTES = {"f16": 2, "f32": 4}
CELLS = 256
"""llama.cpp rounds the tokens of a sequence up to a multiple of this."""
FLOAT = 4
_PROJECTION = re.compile(r"blk\.(\d+)\.attn_([kv])\.weight")


@dataclass(frozen=True)
class DecodeMemory:
    """Bytes by purpose."""

    weights: int
    """The model's file and the adapter's."""
    kv: int
    recurrent: int
    """States of Gated DeltaNet layers."""
    compute: int
    """Buffers of the largest batch, and the logits; an upper bound."""

    @property
    def total(self) -> int:
        """Everything."""
        return self.weights + self.kv + self.recurrent + self.compute


def decode_memory(path: Path, settings: Settings, adapter: Path | None = None) -> DecodeMemory:
    """Count what decoding the GGUF file at ``path`` with ``settings`` takes.

    Raises UserError for a file that cannot be read.
    """
    file = read_gguf(path)
    cells = -(-settings.context // CELLS) * CELLS
    values = cells * settings.streams * kv_values_per_token(file)
    return DecodeMemory(
        weights=sum(one.stat().st_size for one in (path, adapter) if one is not None),
        kv=values * KV_BYTES[settings.kv_dtype],
        recurrent=settings.streams * _recurrent_values(file) * FLOAT,
        compute=FLOAT * _compute_values(file, settings, cells),
    )


def require_memory(path: Path, settings: Settings, adapter: Path | None = None) -> None:
    """Raise UserError where a decode on the CPU would not fit into free memory.

    For before the model is loaded: its pages count as free then, whether cached or not.
    """
    needed = decode_memory(path, settings, adapter)
    free = psutil.virtual_memory().available
    if needed.total > free:
        raise UserError(
            f"no memory for {settings.width} sequences of {settings.context} tokens: "
            f"{_gb(needed.weights)} of weights, {_gb(needed.kv + needed.recurrent)} of KV cache "
            f"({settings.kv_dtype}) and up to {_gb(needed.compute)} of buffers needed, "
            f"{_gb(free)} free; lower the width, the context (n_predict), or take a smaller "
            f"quantisation of the model"
        )


def kv_values_per_token(file: GgufFile) -> int:
    """Numbers kept for one token in the KV cache, all layers, K and V together.

    A layer without a V projection caches its keys a second time. Without flash attention
    llama.cpp stores V transposed, at the largest layer's size in every layer.
    """
    rows: dict[str, dict[str, int]] = {"k": {}, "v": {}}
    for name, tensor in file.tensors.items():
        match = _PROJECTION.fullmatch(name)
        if match is not None:
            rows[match[2]][match[1]] = tensor.shape[0]
    if not rows["k"]:  # one matrix for q, k and v: what the metadata say, for every layer
        queries = _largest(file, "attention.head_count", 1)
        heads = _largest(file, "attention.head_count_kv", queries)
        usual = _largest(file, "embedding_length") // max(1, queries)
        key = _largest(file, "attention.key_length", usual)
        value = _largest(file, "attention.value_length", usual)
        return _largest(file, "block_count") * heads * (key + value)
    largest_v = max({**rows["k"], **rows["v"]}[layer] for layer in rows["k"])
    return sum(rows["k"].values()) + len(rows["k"]) * largest_v


def _recurrent_values(file: GgufFile) -> int:
    """Numbers of one sequence's states; counted for every layer, so too many for a hybrid."""
    inner, state = _largest(file, "ssm.inner_size"), _largest(file, "ssm.state_size")
    groups, kernel = _largest(file, "ssm.group_count"), _largest(file, "ssm.conv_kernel")
    convolution = max(0, kernel - 1) * (inner + 2 * groups * state)
    return _largest(file, "block_count") * (convolution + inner * state)


def _compute_values(file: GgufFile, settings: Settings, cells: int) -> int:
    """Scores and masks of the largest piece of a prompt, its activations, and logits.

    Scores are [heads, piece, cells], masks [piece, cells] for each kind of attention; a unified
    cache has the cells of all sequences.
    """
    piece = min(settings.n_ubatch, max(settings.context, settings.width))
    seen = cells * settings.streams if settings.kv_unified else cells
    attention = piece * seen * (_largest(file, "attention.head_count") + 2)
    wide = _largest(file, "embedding_length") + _largest(file, "feed_forward_length")
    recurrent = _largest(file, "ssm.inner_size") + _largest(file, "ssm.state_size")
    embedding = file.tensors.get("token_embd.weight")
    vocab = embedding.shape[0] if embedding is not None else 0
    return attention + piece * (4 * wide + 10 * recurrent) + 2 * settings.streams * vocab


def _largest(file: GgufFile, key: str, default: int = 0) -> int:
    """A number of the file's metadata, the largest where there is one a layer."""
    value: Any = file.metadata.get(f"{file.architecture}.{key}", default)
    return max(int(one) for one in value) if isinstance(value, list) else int(value)


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"

"""An adapter merged into its base: a complete Hugging Face directory, proven by logits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from backends.adapter_files import StoredAdapter
from backends.adapters.contents import canonical_name, module_of
from backends.adapters.export import require_fits, require_new
from backends.adapters.merge_proof import prove_merge
from backends.adapters.proof import Proof, Say
from backends.interface import Dtype, Float32, LoraConfig
from models.directory import ModelDirectory
from models.errors import UserError
from models.files import write_directory_atomically
from models.fingerprint import fingerprint
from models.from_directory import weight_files
from models.geometry import read_config
from models.rewrite import NAMES, Array, Change, copy_other_files, rewrite_weights
from models.safetensors_file import read_header
from models.store import RECORD

MERGE_FILE = "threearc_merge.json"
_LEAVE = frozenset({RECORD, "verification.json", "config.json", MERGE_FILE})


@dataclass(frozen=True)
class Merged:
    """What a merge wrote."""

    out: Path
    base: ModelDirectory
    dtype: Dtype
    modules: int
    fingerprint: str
    proof: Proof


def merge_adapter(
    stored: StoredAdapter, out: Path, base: ModelDirectory, dtype: Dtype | None, say: Say
) -> Merged:
    """Write ``base`` with W + scale B A in place of each adapted W to the new directory ``out``.

    The sum is made in float32, a tensor at a time, and then rounded to ``dtype``, which all
    other floating-point tensors get as well; None keeps every tensor's own dtype. Everything
    that is not a weight is copied; what was merged stands in threearc_merge.json.

    Raises UserError when ``out`` exists, the adapter is damaged or does not fit, a value is
    outside the dtype's range, the disk is full, or transformers computes something else from
    the result.
    """
    require_new(out)
    require_mergeable(stored, base, dtype)
    config, weights = stored.contents.config, stored.contents.weights
    tensors = _tensors_of(base, weights)
    stored_as = dtype or _common_dtype(base, tensors)
    changes = {
        tensor: _adding(config, weights, module) for module, tensor in tensors.items()
    }  # fmt: skip
    made: list[Merged] = []

    def fill(folder: Path) -> None:
        say(f"merging {len(tensors)} modules into {base.name}, stored as {stored_as}")
        copy_other_files(base.path, folder, leave=_LEAVE)
        _write_config(base, folder, dtype)
        rewrite_weights(base.path, folder, dtype=dtype, changes=changes)
        written = replace(base, path=folder, gguf=None, gguf_sha256=None)
        proof = prove_merge(
            base, config, weights, written, stored_as, everything=dtype is not None, say=say
        )
        merged = Merged(out, base, stored_as, len(tensors), fingerprint(folder), proof)
        made.append(merged)
        document = json.dumps(_record(merged, stored), indent=2, sort_keys=True)
        (folder / MERGE_FILE).write_text(document + "\n")

    write_directory_atomically(out, fill)
    return made[-1]


def require_mergeable(stored: StoredAdapter, base: ModelDirectory, dtype: Dtype | None) -> None:
    """Raise what :func:`merge_adapter` would of the adapter and its base; writes nothing."""
    require_fits(stored, base)
    tensors = _tensors_of(base, stored.contents.weights)
    if dtype is None:
        _common_dtype(base, tensors)


def _tensors_of(base: ModelDirectory, weights: Mapping[str, Float32]) -> dict[str, str]:
    """Adapted module -> the name of its weight in the base's files."""
    names = {
        canonical_name(name.removesuffix(".weight")): name
        for file in weight_files(base.path)
        for name in read_header(file)
        if name.endswith(".weight")
    }
    return {module: names[module] for module in sorted({module_of(name) for name in weights})}


def _common_dtype(base: ModelDirectory, tensors: Mapping[str, str]) -> Dtype:
    dtypes = {
        tensor.dtype
        for file in weight_files(base.path)
        for name, tensor in read_header(file).items()
        if name in tensors.values()
    }
    for dtype in ("float32", "bfloat16", "float16"):
        if {NAMES.get(found) for found in dtypes} == {dtype}:
            return dtype
    raise UserError(
        f"the adapted weights of {base.name} are stored as {' and '.join(sorted(dtypes))}: say "
        "what to store with --dtype float32, bfloat16 or float16"
    )


def _adding(config: LoraConfig, weights: Mapping[str, Float32], module: str) -> Change:
    def change(weight: Array) -> Array:
        a, b = weights[f"{module}.lora_A"], weights[f"{module}.lora_B"]
        return np.asarray(weight + np.float32(config.scale) * (b @ a), dtype=np.float32)

    return change


def _write_config(base: ModelDirectory, folder: Path, dtype: Dtype | None) -> None:
    """The base's config.json, saying ``dtype`` where it, or a tower's part of it, says one."""
    config = read_config(base.path)
    if dtype is not None:
        for part in (config, *(value for value in config.values() if isinstance(value, dict))):
            for key in ("dtype", "torch_dtype"):
                if isinstance(part.get(key), str):
                    part[key] = dtype
        config.setdefault("dtype", dtype)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))


def _record(merged: Merged, stored: StoredAdapter) -> dict[str, Any]:
    """What threearc_merge.json says."""
    config, base = stored.contents.config, merged.base
    return {
        "schema": "threearc-merge/1",
        "base_name": base.name,
        "base_source": base.source,
        "base_fingerprint": base.fingerprint,
        "adapter_sha256": stored.sha256,
        "adapter_format": stored.format,
        "adapter_extra": {} if stored.sidecar is None else stored.sidecar.extra,
        "rank": config.rank,
        "alpha": config.alpha,
        "rslora": config.rslora,
        "scale": config.scale,
        "modules": merged.modules,
        "notes": list(stored.contents.notes),
        "dtype": merged.dtype,
        "fingerprint": merged.fingerprint,
        "proof": merged.proof.to_json(),
    }

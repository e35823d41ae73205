"""The files llama.cpp reads for one condition at one quantisation."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arcs.evaluate.config import Condition, EvalConfig
from arcs.progress import Reporter
from models.directory import ModelDirectory
from models.errors import UserError

if TYPE_CHECKING:
    from backends.adapters.merge import Merged

ADAPTER = ".adapter.gguf"
"""Converted adapters are small and serve every quantisation, so they stay."""


@dataclass(frozen=True)
class Files:
    """What is opened, and what its making is to be reported."""

    gguf: Path
    adapter: Path | None
    made: dict[str, Any]
    """What the copy is, for the manifest: the rounding of scaled heads, the merged weights."""
    merge: dict[str, Any] | None = None
    """How the merge was proven and what its rounding costs."""


def check_adapter(path: Path, directory: ModelDirectory, mode: str) -> None:
    """Raise UserError for whatever would stop :func:`files_of` at this adapter; writes nothing."""
    from backends.adapter_files import read_adapter
    from backends.adapters.export import require_fits
    from backends.adapters.merge import require_mergeable
    from backends.llamacpp.adapter import require_convertible

    stored = read_adapter(path)
    if not stored.contents.config.scale:
        raise UserError(f"{path}: lora_alpha is 0, so the adapter changes nothing; train it again")
    if mode == "merged":
        require_mergeable(stored, directory, None)
    else:
        require_fits(stored, directory)
        require_convertible(path, directory)


def remove_copies(folder: Path) -> None:
    """Remove everything but converted adapters: copies of a model, and what a kill left.

    A run works on one condition at a time, so between conditions none of it is in use.
    """
    for left in folder.iterdir() if folder.is_dir() else ():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif not left.name.endswith(ADAPTER):
            left.unlink()


@contextmanager
def files_of(
    condition: Condition,
    quantisation: str,
    config: EvalConfig,
    directory: ModelDirectory,
    layers: Collection[int],
    folder: Path,
    reporter: Reporter,
) -> Iterator[Files]:
    """Make the condition's files; copies of the model are removed at the end.

    What a killed run left in ``folder`` is removed first: it may be as large as the models.
    ``layers``: all layers that the sweep touches, brought into one storage form in each of its
    conditions. Raises UserError as the parts it calls.
    """
    from backends.llamacpp.adapter import convert_adapter
    from backends.llamacpp.quantise import evaluation_gguf
    from models.gguf.temper import temper_gguf
    from models.store import cache_root

    cache, name = cache_root() / "gguf", f"{quantisation}.{condition.slug}"
    folder.mkdir(exist_ok=True)
    remove_copies(folder)
    if condition.adapter is not None and config.adapter_mode == "merged":
        made = _merged(condition.adapter, directory, folder / f"{name}.merged", reporter)
        with made as (merged, proof):
            gguf = evaluation_gguf(merged, quantisation, folder, say=reporter.say)
            try:
                yield Files(gguf, None, {"merged_fingerprint": merged.fingerprint}, proof)
            finally:
                for left in folder.glob(f"{merged.fingerprint[:24]}*.gguf"):
                    left.unlink()
        return
    base = evaluation_gguf(directory, quantisation, cache, say=reporter.say)
    if condition.adapter is not None:
        adapter = folder / f"{condition.slug}{ADAPTER}"
        if not adapter.exists():
            convert_adapter(condition.adapter, directory, adapter)
        yield Files(base, adapter, {})
    elif condition.scales is not None:
        out = folder / f"{name}.gguf"
        report = temper_gguf(base, out, condition.scales, layers=layers)
        try:
            yield Files(out, None, {"tempering": _summary(report.as_dict())})
        finally:
            out.unlink(missing_ok=True)
    else:
        yield Files(base, None, {})


@contextmanager
def _merged(
    adapter: Path, base: ModelDirectory, out: Path, reporter: Reporter
) -> Iterator[tuple[ModelDirectory, dict[str, Any]]]:
    from backends.adapter_files import read_adapter
    from backends.adapters.merge import merge_adapter

    found = merge_adapter(read_adapter(adapter), out, base, None, reporter.say)
    try:
        written = replace(
            base, path=out, fingerprint=found.fingerprint, gguf=None, gguf_sha256=None
        )
        yield (
            written,
            {"dtype": found.dtype, "rounding_share": _share(found), **found.proof.to_json()},
        )
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _share(merged: Merged) -> float | None:
    """What rounding the sum costs, over what the adapter does; None where it is not known.

    Both are largest differences of logits (:class:`backends.adapters.proof.Proof`).
    """
    proof = merged.proof
    if merged.dtype == "float32":
        return 0.0
    if not proof.comparisons or not proof.effect:
        return None
    return proof.comparisons[-1].difference / proof.effect  # the written directory, rounded


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """Rounding and re-typed tensors of a tempered copy, without the tensors left as they are."""
    changed = [one for one in report["tensors"] if one["before"] != one["after"]]
    return {
        "rounding": report["rounding"],
        "tensors": len(report["tensors"]),
        "retyped": [f"{one['name']}: {one['before']} to {one['after']}" for one in changed],
    }

"""The files llama.cpp reads for one condition at one quantisation."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from arcs.evaluate.config import Condition, EvalConfig
from arcs.progress import Reporter
from models.directory import ModelDirectory


@dataclass(frozen=True)
class Files:
    """What is opened, and what its making is to be reported."""

    gguf: Path
    adapter: Path | None
    made: dict[str, Any]
    """For the manifest: the rounding of scaled heads, the merge."""


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

    ``layers``: all layers that the sweep touches, brought into one storage form in each of its
    conditions. Raises UserError as the parts it calls.
    """
    from backends.llamacpp.adapter import convert_adapter
    from backends.llamacpp.quantise import evaluation_gguf
    from models.gguf.temper import temper_gguf
    from models.store import cache_root

    cache, name = cache_root() / "gguf", f"{quantisation}.{condition.slug}"
    folder.mkdir(exist_ok=True)
    if condition.adapter is not None and config.adapter_mode == "merged":
        with _merged(condition.adapter, directory, folder / f"{name}.merged", reporter) as merged:
            gguf = evaluation_gguf(merged, quantisation, folder, say=reporter.say)
            try:
                yield Files(gguf, None, {"merged_fingerprint": merged.fingerprint})
            finally:
                for left in folder.glob(f"{merged.fingerprint[:24]}*.gguf"):
                    left.unlink()
        return
    base = evaluation_gguf(directory, quantisation, cache, say=reporter.say)
    if condition.adapter is not None:
        adapter = folder / f"{condition.slug}.adapter.gguf"
        if not adapter.exists():
            convert_adapter(condition.adapter, directory, adapter)
        yield Files(base, adapter, {})
    elif condition.scales is not None:
        out = folder / f"{name}.gguf"
        out.unlink(missing_ok=True)
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
) -> Iterator[ModelDirectory]:
    from backends.adapter_files import read_adapter
    from backends.adapters.merge import merge_adapter

    shutil.rmtree(out, ignore_errors=True)  # what a killed run left
    found = merge_adapter(read_adapter(adapter), out, base, None, reporter.say)
    try:
        yield replace(base, path=out, fingerprint=found.fingerprint, gguf=None, gguf_sha256=None)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """Rounding and re-typed tensors of a tempered copy, without the tensors left as they are."""
    changed = [one for one in report["tensors"] if one["before"] != one["after"]]
    return {
        "rounding": report["rounding"],
        "tensors": len(report["tensors"]),
        "retyped": [f"{one['name']}: {one['before']} to {one['after']}" for one in changed],
    }

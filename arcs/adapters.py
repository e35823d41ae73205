"""What ``threearc adapters`` does with its flags."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from arcs import trained_on
from arcs.progress import Reporter
from arcs.runs import canonical_json
from backends.adapter_files import StoredAdapter, read_adapter
from backends.adapters.base import find_base
from backends.adapters.export import TARGETS, export_adapter, require_new
from backends.adapters.merge import merge_adapter
from backends.adapters.proof import Proof, wants_fast_blas
from backends.adapters.summary import AdapterSummary, summarise
from backends.adapters.usage import usage
from backends.blas import ADVICE, needed, preloaded, restart_with_fast_blas
from backends.interface import Dtype
from models.errors import UserError
from models.rewrite import STORED

SCHEMA = "threearc-adapters/1"


def show(path: Path, *, as_json: bool) -> None:
    """Print what an adapter is."""
    found = summarise(read_adapter(path))
    if as_json:
        sys.stdout.write(canonical_json(found.to_json()))
    else:
        _print_summary(found)


def export(path: Path, *, to: str, out: Path, model: str | None, as_json: bool) -> None:
    """Write an adapter in another format and print its proof."""
    reporter = Reporter()
    target = next((name for name in TARGETS if name == to), None)
    if target is None:
        raise UserError(f"--to {to}: choose one of {', '.join(TARGETS)}")
    require_new(out)
    stored = read_adapter(path)
    if wants_fast_blas(target):
        _restart_with_fast_blas(reporter)
    base = find_base(stored, model, reporter.say)
    found = export_adapter(stored, to, out, base, reporter.say)
    document = {
        "schema": SCHEMA,
        "action": "export",
        "to": found.target,
        "base_name": base.name,
        "base_fingerprint": base.fingerprint,
        "use": usage(found.target, out, base),
        **_common(stored, out, found.proof),
    }
    _finish(document, found.proof, stored, f"{out}: adapter for {to}", as_json)


def merge(path: Path, *, out: Path, dtype: str | None, model: str | None, as_json: bool) -> None:
    """Merge an adapter into its base and print the proof."""
    reporter = Reporter()
    require_new(out)
    stored = read_adapter(path)
    chosen = _dtype(dtype)
    base = find_base(stored, model, reporter.say)
    found = merge_adapter(stored, out, base, chosen, reporter.say)
    document = {
        "schema": SCHEMA,
        "action": "merge",
        "dtype": found.dtype,
        "modules": found.modules,
        "fingerprint": found.fingerprint,
        "base_name": base.name,
        "base_fingerprint": base.fingerprint,
        **_common(stored, out, found.proof),
    }
    what = f"{out}: {base.name} with {found.modules} modules merged, {found.dtype}"
    _finish(document, found.proof, stored, what, as_json)


def _common(stored: StoredAdapter, out: Path, proof: Proof) -> dict[str, Any]:
    return {
        "adapter": str(stored.path),
        "adapter_format": stored.format,
        "adapter_sha256": stored.sha256,
        "notes": list(stored.contents.notes),
        "out": str(out),
        "proof": proof.to_json(),
    }


def _dtype(name: str | None) -> Dtype | None:
    if name is None:
        return None
    known: tuple[Dtype, ...] = ("float32", "bfloat16", "float16")
    found = next((dtype for dtype in known if dtype == name), None)
    if found is None:
        raise UserError(f"--dtype {name}: choose one of {', '.join(STORED)}")
    return found


def _restart_with_fast_blas(reporter: Reporter) -> None:
    restart_with_fast_blas()
    if needed() and not preloaded():
        reporter.say(ADVICE)


def _finish(
    document: dict[str, Any], proof: Proof, stored: StoredAdapter, what: str, as_json: bool
) -> None:
    if proof.reason is not None:
        Reporter().say(f"unproven: {proof.reason}")
    if as_json:
        sys.stdout.write(canonical_json(document))
        return
    console = Console(highlight=False)
    console.print(what, markup=False, soft_wrap=True)
    for note in (*stored.contents.notes, *proof.notes):
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    if proof.comparisons:
        console.print(_proof_table(proof))
    console.print(_verdict(proof), soft_wrap=True)
    if "use" in document:
        console.print(f"use: {document['use']}", markup=False, soft_wrap=True)


def _proof_table(proof: Proof) -> Table:
    table = Table(box=SIMPLE_HEAD, title_justify="left", title="Logits, share of their range")
    for column in ("compared", "engines"):
        table.add_column(column)
    for column in ("difference", "bound"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in proof.comparisons:
        numbers = (f"{row.difference:.1e}", f"{row.bound:.1e}")
        table.add_row(f"{row.what} ({row.reason})", " / ".join(row.engines), *numbers)
    return table


def _verdict(proof: Proof) -> Text:
    if proof.reason is not None:
        return Text(f"UNPROVEN: {proof.reason}", style="bold yellow")
    return Text(
        f"proven on {proof.tokens} tokens; the adapter's own effect is {proof.effect:.1e}",
        style="bold green",
    )


def _print_summary(found: AdapterSummary) -> None:
    console = Console(highlight=False)
    scaling = f"rank {found.rank}, alpha {found.alpha:g}, scale {found.scale:g}"
    base = found.base_name or "not named"
    if found.base_fingerprint:
        base += f" ({found.base_fingerprint[:12]})"
    rows = {
        "format": found.format,
        "base": base,
        "LoRA": scaling + (" (rsLoRA)" if found.rslora else ""),
        "dropout": f"{found.dropout:g}",
        "parameters": f"{found.parameters:,}",
        "layers": _ranges(found.layers),
        "sha-256": found.sha256,
        **{f"kept: {key}": _kept(key, value) for key, value in found.extra.items()},
    }
    if found.proof is not None:
        rows["proof"] = _proof_words(found.proof)
    for key, value in rows.items():
        console.print(f"{key:<12} {value}", markup=False, soft_wrap=True)
    for note in found.notes:
        console.print(f"note: {note}", markup=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD)
    table.add_column("modules")
    table.add_column("layers")
    table.add_column("parameters", justify="right")
    table.add_column("norm of scale B A", justify="right")
    for kind in found.kinds:
        norm = f"{kind.update_norm:.3g}"
        table.add_row(kind.name, _ranges(kind.layers), f"{kind.parameters:,}", norm)
    console.print(table)


def _kept(key: str, value: Any) -> str:
    return trained_on.summary(value) if key == trained_on.KEY else str(value)


def _proof_words(proof: Any) -> str:
    reason = proof.get("reason")
    return f"{proof.get('status')}" + (f": {reason}" if reason else "")


def _ranges(layers: Sequence[int]) -> str:
    """``0-3, 5``."""
    spans: list[list[int]] = []
    for layer in layers:
        if spans and layer == spans[-1][1] + 1:
            spans[-1][1] = layer
        else:
            spans.append([layer, layer])
    return ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in spans) or "-"

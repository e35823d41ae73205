"""What is to be said of the engines: installed, working, on which device, at what speed."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from arcs.doctor.findings import Finding
from arcs.doctor.hardware import Gpu
from backends import blas, wants_fast_blas
from backends.probing import ENGINES, Probed

_SLOW = 3.0
"""A dtype this many times slower than float32 is worth a warning."""
_WHAT_HAPPENED = {
    "broken": "is installed and cannot be imported",
    "crashed": "crashes when it is tried",
    "timeout": "does not answer when it is tried",
    "garbage": "was tried and the answer makes no sense",
}


def trains(engine: str) -> bool:
    """Whether the engine can train; imports nothing of the engine itself."""
    return bool(_probe_module(engine).TRAINS)


def usable(probed: Probed) -> bool:
    """Whether the engine answered, is right in float32 (TF32 at worst) and has its packages."""
    float32 = probed.document.get("dtypes", {}).get("float32", {})
    complete = not probed.document.get("missing_packages")
    right = bool(float32.get("works") or float32.get("reduced"))
    return probed.status == "ok" and complete and right


def as_dict(probed: Probed) -> dict[str, Any]:
    """For the document: the engine's own, and what became of asking."""
    facts = ENGINES[probed.engine]
    return {
        "title": facts.title,
        "status": probed.status,
        "usable": usable(probed),
        "reason": probed.reason,
        "seconds": probed.seconds,
        "install": facts.install,
        **probed.document,
    }


def engine_findings(probed: Probed) -> list[Finding]:
    """Everything to be said of one engine, but for GPUs that it leaves unused."""
    title, install = ENGINES[probed.engine].title, ENGINES[probed.engine].install
    if probed.status == "missing":
        return [
            Finding("warning", "engines", f"{title} is not installed ({probed.reason})", install)
        ]
    if probed.status != "ok":
        message = f"{title} {_WHAT_HAPPENED[probed.status]}: {probed.reason}"
        fix = f"install it anew: {install}"
        if probed.status == "timeout":  # a busy machine, or the first import after an installation
            fix = f"run doctor again when the machine is quiet; if it stays silent, {fix}"
        return [Finding("problem", "engines", message, fix)]
    absent = probed.document.get("missing_packages") or []
    found = []
    if absent:
        message = f"{title} lacks {' and '.join(absent)}"
        found.append(Finding("problem", "engines", message, install))
    found += [*_dtypes(title, probed.document), *_blas(probed), *_attention(title, probed.document)]
    if usable(probed) and not any(finding.level == "problem" for finding in found):
        used = ", ".join(d["title"] for d in probed.document["devices"] if d["used"])
        found.insert(0, Finding("ok", "engines", f"{title} works, on: {used}"))
    return found


def unused_gpus(gpus: Sequence[Gpu], engines: Sequence[Probed]) -> list[Finding]:
    """One loud finding for each engine that works and leaves a GPU of the machine unused."""
    found = []
    for gpu in {gpu.maker: gpu for gpu in reversed(gpus)}.values():
        for probed in engines:
            if probed.status != "ok":
                continue  # said elsewhere: it is not there, or not working at all
            module = _probe_module(probed.engine)
            kind = module.GPU_KINDS.get(gpu.maker)
            if kind and not _uses(probed.document, kind):
                fix = module.gpu_fix(gpu.maker, gpu.driver, probed.document)
                found.append(_unused(ENGINES[probed.engine].title, gpu, probed.document, fix))
    return found


def _unused(title: str, gpu: Gpu, document: Mapping[str, Any], fix: str) -> Finding:
    """AMD's driver lists integrated graphics too, so that is no more than a warning."""
    loud = gpu.maker != "amd"
    message = (
        f"{gpu.name} is present and {title} does not use it (installed build: {document['build']})"
    )
    return Finding("problem" if loud else "warning", "gpus", message, fix, loud=loud)


def _uses(document: Mapping[str, Any], kind: str) -> bool:
    return any(device["kind"] == kind for device in document["devices"])


def _dtypes(title: str, document: Mapping[str, Any]) -> list[Finding]:
    found = []
    for dtype, entry in document["dtypes"].items():
        broken = f"{title}: {dtype} does not work here: {_failures(entry)}"
        if entry["reduced"]:
            message = f"{title}: float32 is no more exact than TF32 here: {_failures(entry)}"
            found.append(Finding("warning", "engines", message, document["tf32"]["switch"]))
        elif not entry["works"] and dtype == "float32":
            found.append(Finding("problem", "engines", broken, "do not use this engine"))
        elif not entry["works"]:
            found.append(Finding("warning", "engines", broken, "use --dtype float32"))
        elif (entry["slowdown"] or 0) >= _SLOW:
            message = f"{title}: {dtype} is {entry['slowdown']:.0f} times slower than float32 here"
            found.append(Finding("warning", "engines", message, "use --dtype float32"))
    return found


def broken_dtypes(probed: Probed) -> dict[str, str]:
    """dtype -> what of it does not work, of an engine that answered."""
    entries = probed.document.get("dtypes", {}) if probed.status == "ok" else {}
    return {
        dtype: _failures(entry)
        for dtype, entry in entries.items()
        if not (entry["works"] or entry["reduced"])
    }


def _failures(entry: Mapping[str, Any]) -> str:
    failed = {name: check for name, check in entry["checks"].items() if not check["ok"]}
    return "; ".join(f"{name}: {check['reason']}" for name, check in failed.items())[:300]


def _blas(probed: Probed) -> list[Finding]:
    """The slow BLAS where a fast one could be preloaded, and a preloaded one that does harm."""
    title = ENGINES[probed.engine].title
    on_cpu = any(d["used"] and d["kind"] == "cpu" for d in probed.document["devices"])
    if wants_fast_blas(probed.engine):
        slow = on_cpu and blas.needed() and not (blas.preloaded() or blas.find_library())
        return [Finding("warning", "engines", f"{title}: {blas.ADVICE}")] if slow else []
    if on_cpu and trains(probed.engine) and blas.preloaded():
        message = (
            f"{title}: {blas.preloaded()} is preloaded in this shell, which makes {title} several "
            "times slower"
        )
        return [Finding("warning", "engines", message, "unset LD_PRELOAD")]
    return []


def _attention(title: str, document: Mapping[str, Any]) -> list[Finding]:
    """Optional kernels of Qwen3.5 that cannot be loaded, or would be taken and cannot run."""
    deltanet = (document.get("attention") or {}).get("deltanet")
    if not deltanet:
        return []
    found = [
        Finding(
            "warning",
            "engines",
            f"{title}: the optional package {name} is installed and cannot be used "
            f"({entry['reason'] or 'it lacks what transformers looks for'}); Qwen3.5 runs without",
            f"repair or uninstall {name}",
        )
        for name, entry in deltanet["packages"].items()
        if entry["installed"] and not entry["importable"]
    ]
    if not deltanet["works"]:
        message = (
            f"{title}: transformers takes Qwen3.5's Gated DeltaNet from fla, whose kernels need a "
            "GPU, and there is none it can use"
        )
        found.append(
            Finding("problem", "engines", message, "pip uninstall flash-linear-attention fla-core")
        )
    return found


def _probe_module(engine: str) -> Any:
    return importlib.import_module(f"backends.{engine}.probe")

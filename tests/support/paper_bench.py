"""``threearc paper`` in the tests' own process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.command_line import call_here


def quick(model: Path | str, recipe: str, out: Path, *more: str) -> list[str]:
    """The command's words."""
    return ["paper", str(model), "--as", recipe, "--profile", "quick", "--backend", "torch",
            "--out", str(out), "--json", *more]  # fmt: skip


def run(root: Path, command: list[str], *, own_cache: bool = True) -> dict[str, Any]:
    """Its metrics; ``own_cache``: False for the user's, where the embedded model is prepared."""
    environment = {"THREEARC_CACHE": str(root / "cache")} if own_cache else {}
    done = call_here(*command, cwd=root, **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found

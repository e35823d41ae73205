"""What settles the claims of runs that more items cannot be added to: one line each."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcs.arc2 import config as arc2
from arcs.arc3 import config as arc3
from models.errors import UserError

FALSIFY = "falsify"
TIMES = 2
"""Times as many items are proposed as the run had."""


def elsewhere(run: Path, manifest: Mapping[str, Any]) -> str:
    """Why settle does not go on with a run, and what does. Begins in the middle of a line."""
    kind = str(manifest.get("arc"))
    config = manifest.get("config")
    if kind == FALSIFY and isinstance(config, Mapping):
        return _falsified(run, config)
    if kind in (arc2.MORE, arc3.MORE):
        return f"these are further items of a run of {kind.removesuffix('-more')}; settle that run"
    return f"settle goes on with runs of eval, arc1, arc2, arc3 and measure, not of {kind}"


def _falsified(run: Path, config: Mapping[str, Any]) -> str:
    rests_on = config.get("source")
    if rests_on is None and config.get("adapter") is not None:
        from arcs.falsification.edited import EDITED

        rests_on = run / EDITED
    if rests_on is not None:
        return (
            "the claims of a falsification are settled through the run of arc3 that it rests on: "
            f"threearc settle {shlex.quote(str(rests_on))}"
        )
    return (
        "this falsification rests on files of its own, which settle cannot add to: give more rows "
        "to a new one (threearc falsify --features ... --fresh ... --labels ...)"
    )


def larger_run(config: Mapping[str, Any]) -> str:
    """What to do instead of adding to a run of ``arc2``: its flags, with a larger --limit."""
    limit = config.get("limit")
    if limit is None:
        return (
            "it was asked all of its set, so begin a new run with other --labels or another "
            "--disposition (threearc arc2 --help)"
        )
    words = shlex.join(_command({**config, "limit": TIMES * limit}))
    return f"begin a new run with a larger --limit: {words}"


def _command(config: Mapping[str, Any]) -> list[str]:
    try:
        now = arc2.parse(config).model_dump(mode="json")
        usual = arc2.resolve({"profile": now["profile"]}).model_dump(mode="json")
    except UserError:  # of another version: what is known of it is said
        return ["threearc", arc2.ARC, "--limit", str(config["limit"])]
    words = ["threearc", arc2.ARC, "--profile", now["profile"]]
    for name, value in now.items():
        if name == "profile" or value == usual[name] or value is None:
            continue
        words.append(arc2.flag_of(name))
        if value is not True:
            words.append(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return words

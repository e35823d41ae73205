"""What settles the claims of runs that more items cannot be added to: one line each."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from arcs.arc3.config import MORE
from models.errors import UserError

FALSIFY, ARC2 = "falsify", "arc2"
TIMES = 2
"""Times as many items are proposed as the run had."""


def elsewhere(run: Path, manifest: Mapping[str, Any]) -> str:
    """Why settle does not go on with a run, and what does. Begins in the middle of a line."""
    kind = str(manifest.get("arc"))
    config = manifest.get("config")
    if kind == FALSIFY and isinstance(config, Mapping):
        return _falsified(run, config)
    if kind == ARC2 and isinstance(config, Mapping):
        return _damped(config)
    if kind == MORE:
        return "these are further answers of a run of arc3; settle that run"
    return f"settle goes on with runs of eval, arc1, arc3 and measure, not of {kind}"


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


def _damped(config: Mapping[str, Any]) -> str:
    """The settings that are not their profile's, as flags, with a larger --limit."""
    why = (
        "its heads were chosen on its own items, and more items would choose other heads, so a "
        "new run with a larger --limit is needed"
    )
    limit = config.get("limit")
    if limit is None:
        return (
            f"{why}; this one was asked all of its set, so give other --labels or another "
            "--disposition (threearc arc2 --help)"
        )
    return f"{why}: {shlex.join(_command({**config, 'limit': TIMES * limit}))}"


def _command(config: Mapping[str, Any]) -> list[str]:
    from arcs.arc2.config import flag_of, parse, resolve

    try:
        now = parse(config).model_dump(mode="json")
        usual = resolve({"profile": now["profile"]}).model_dump(mode="json")
    except UserError:  # of another version: what is known of it is said
        return ["threearc", ARC2, "--limit", str(config["limit"])]
    words = ["threearc", ARC2, "--profile", now["profile"]]
    for name, value in now.items():
        if name == "profile" or value == usual[name] or value is None:
            continue
        words.append(flag_of(name))
        if value is not True:
            words.append(",".join(map(str, value)) if isinstance(value, list) else str(value))
    return words

"""What ``threearc capsule`` and ``threearc verify`` do with their flags."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from arcs.capsules.contents import CAPSULE, make, read, verdicts, write
from arcs.progress import Reporter
from arcs.runs import canonical_json
from models.errors import UserError

MOST = 10_000


def capsule(run: Path, out: Path | None, *, as_json: bool) -> None:
    """Write the file, and say what is in it."""
    made = make(run)
    path = out if out is not None else run / CAPSULE
    write(made, path)
    told = {"path": str(path), "content_sha256": made["content_sha256"], "rows": len(made["rows"]),
            "claims": dict(verdicts(made))}  # fmt: skip
    if as_json:
        sys.stdout.write(canonical_json(told))
        return
    size = path.stat().st_size
    claims = "; ".join(f"{name}: {verdict}" for name, verdict in verdicts(made))
    Console(highlight=False, soft_wrap=True).print(
        Text(
            f"{path}: {len(made['rows'])} answers with ids, labels and states, "
            f"{size / 1e6:.1f} MB, sha-256 {made['content_sha256'][:16]}. {claims}."
        )
    )


def verify(
    path: Path,
    flags: Mapping[str, Any],
    *,
    sample: int,
    seed: int,
    as_json: bool,
) -> None:
    """Replay; exits with status 1 where what is promised does not come out."""
    from arcs.arc3.config import parse
    from arcs.arc3.engine import engine_of
    from arcs.capsules import replay
    from arcs.fast_blas import arrange_fast_blas

    if not 1 <= sample <= MOST:
        raise UserError(f"--sample {sample}: give 1 to {MOST:,} answers")
    found = read(path)
    own = found.manifest["config"]
    config = parse({"model": own["model"], "dtype": own["dtype"], **flags})
    reporter = Reporter(quiet=as_json)
    arrange_fast_blas(engine_of(config).name, reporter)
    result = replay.verify(found, config, sample, seed, reporter)
    if as_json:
        sys.stdout.write(canonical_json(result))
    else:
        Console(highlight=False, soft_wrap=True).print(Text("\n".join(lines(result))))
    if not replay.reproduced(result):
        sys.exit(1)


def lines(found: Mapping[str, Any]) -> list[str]:
    """For people."""
    number, states, answers = found["number"], found["states"], found["answers"]
    sample = found["sample"]
    apart = states["relative_distance"]
    said = [
        f"Made on {found['made_on']}, replayed on {found['replayed_on']}: {sample['n']} of "
        f"{sample['of']} answers, seed {sample['seed']}."
    ]
    if number["stated"] is None:
        said.append(f"Number: {number['why']}.")
    else:
        said.append(
            f"Number, {_word(number['reproduces'])}: {number['quantity']} {number['stated']:.4f} "
            f"as stated, {number['recomputed']:.4f} from the capsule's states and labels (to "
            f"{number['tolerance']:g})."
        )
    to = (
        "no tolerance is promised" if states["tolerance"] is None else f"to {states['tolerance']:g}"
    )
    said.append(
        f"States, {_word(states['reproduces'])}: h_last {apart['median']:.1e} apart at the median, "
        f"{apart['largest']:.1e} at most (relative; {to})."
    )
    said.append(f"Answers: {answers['identical']} of {answers['n']} identical, id by id.")
    for one in answers["differing"][:5]:
        ties = "-" if one["near_ties"] is None else one["near_ties"]
        said.append(f"  {one['item_id']} parts at token {one['from_token']} ({ties} near-ties).")
    if len(answers["differing"]) > 5:
        said.append(f"  ... and {len(answers['differing']) - 5} more.")
    return said


def _word(reproduces: bool | None) -> str:
    return {True: "reproduced", False: "NOT reproduced", None: "compared"}[reproduces]

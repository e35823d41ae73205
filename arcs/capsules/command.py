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
            f"{path}: {len(made['rows'])} answers with their labels, "
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
    from arcs.capsules import coding, replay
    from arcs.fast_blas import arrange_fast_blas

    if not 1 <= sample <= MOST:
        raise UserError(f"--sample {sample}: give 1 to {MOST:,} answers")
    found = read(path)
    reporter = Reporter(quiet=as_json)
    if found.kind == coding.KIND:
        named = [one for one in flags if one not in ("model", "allow_weak_sandbox")]
        if named:
            raise UserError(
                f"--{named[0]}: answers of arc1 are decoded by llama.cpp as in its run; leave it "
                "out"
            )
        weak = bool(flags.get("allow_weak_sandbox"))
        made = coding.verify(found.document, flags.get("model"), sample, seed, weak, reporter)
    else:
        own = found.manifest["config"]
        if "allow_weak_sandbox" in flags:
            raise UserError("--allow-weak-sandbox: nothing is executed for a capsule of arc3")
        config = parse({"model": own["model"], "dtype": own["dtype"], **flags})
        arrange_fast_blas(engine_of(config).name, reporter)
        made = replay.verify(found, config, sample, seed, reporter)
    result = {
        "schema_version": "threearc-verify-1",
        "capsule": str(path),
        "content_sha256": found.document["content_sha256"],
        **made,
    }
    if as_json:
        sys.stdout.write(canonical_json(result))
    else:
        Console(highlight=False, soft_wrap=True).print(Text("\n".join(lines(result))))
    if not replay.reproduced(result):
        sys.exit(1)


def lines(found: Mapping[str, Any]) -> list[str]:
    """For people."""
    number, answers, sample = found["number"], found["answers"], found["sample"]
    drawn = f"{sample['n']} of {sample['of']} items, seed {sample['seed']}."
    said = [
        f"Made on {found['made_on']}, replayed on {found['replayed_on']}: {drawn}"
        if "made_on" in found
        else f"Replayed: {drawn}"
    ]
    if number["stated"] is None:
        said.append(f"Number: {number['why']}.")
    else:
        said.append(
            f"Number, {_word(number['reproduces'])}: {number['quantity']} {number['stated']:.4f} "
            f"as stated, {number['recomputed']:.4f} from what the capsule holds (to "
            f"{number['tolerance']:g})."
        )
    if "states" in found:
        said.append(_states(found["states"]))
    if "labels" in found:
        said += _labels(found["labels"])
    if answers.get("engine_differs"):
        said.append(f"The engine differs here in: {', '.join(answers['engine_differs'])}.")
    said.append(f"Answers: {answers['identical']} of {answers['n']} identical, id by id.")
    for one in answers["differing"][:5]:
        ties = "-" if one["near_ties"] is None else one["near_ties"]
        said.append(f"  {one['item_id']} parts at token {one['from_token']} ({ties} near-ties).")
    if len(answers["differing"]) > 5:
        said.append(f"  ... and {len(answers['differing']) - 5} more.")
    return said


def _states(states: Mapping[str, Any]) -> str:
    apart = states["relative_distance"]
    to = (
        "no tolerance is promised" if states["tolerance"] is None else f"to {states['tolerance']:g}"
    )
    return (
        f"States, {_word(states['reproduces'])}: h_last {apart['median']:.1e} apart at the median, "
        f"{apart['largest']:.1e} at most (relative; {to})."
    )


def _labels(labels: Mapping[str, Any]) -> list[str]:
    said = [
        f"Labels, {_word(labels['reproduces'])}: {labels['same']} of {labels['n']} answers of all "
        f"arms have the same outcome in this sandbox ({labels['sandbox']})."
    ]
    return said + [
        f"  {one['item_id']}, {one['arm']}: {one['stated']} as stated, {one['here']} here."
        for one in labels["differing"][:5]
    ]


def _word(reproduces: bool | None) -> str:
    return {True: "reproduced", False: "NOT reproduced", None: "compared"}[reproduces]

"""What ``threearc capsule`` and ``threearc verify`` do with their flags."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from arcs.capsules import falsified, measured
from arcs.capsules.contents import CAPSULE, Capsule, make, read, verdicts, write
from arcs.measure.config import METER
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
    meter = made["kind"] == measured.KIND and made["manifest"]["config"]["instrument"] == METER
    held = "readings" if meter else "answers with their labels"
    if made["kind"] == falsified.KIND:
        held = "rows of features with their labels"
    claims = "; ".join(f"{name}: {verdict}" for name, verdict in verdicts(made))
    Console(highlight=False, soft_wrap=True).print(
        Text(
            f"{path}: {len(made['rows'])} {held}, "
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
    from arcs.capsules import replay

    if not 1 <= sample <= MOST:
        raise UserError(f"--sample {sample}: give 1 to {MOST:,} answers")
    found = read(path)
    made = _replayed(found, flags, sample, seed, Reporter(quiet=as_json))
    result = {
        "schema_version": "threearc-verify-3",
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


def _replayed(
    found: Capsule, flags: Mapping[str, Any], sample: int, seed: int, reporter: Reporter
) -> dict[str, Any]:
    """By the kind of run; a flag that would do nothing is a mistake."""
    from arcs.arc3.config import parse
    from arcs.arc3.engine import engine_of
    from arcs.capsules import coding, replay, sweep_replay, sweeping
    from arcs.fast_blas import arrange_fast_blas

    if found.kind == falsified.KIND:
        _only(flags, (), "a capsule of features that were brought asks no model")
        return falsified.verify(found.document)
    adapters = tuple(flags.get("adapters", ()))
    if found.kind in coding.KINDS:
        _only(flags, ("model", "allow_weak_sandbox", "adapters"),
              f"answers of {found.kind} are decoded by llama.cpp as in its run")  # fmt: skip
        weak = bool(flags.get("allow_weak_sandbox"))
        return coding.verify(
            found.document, flags.get("model"), adapters, sample, seed, weak, reporter
        )
    kept = ("model", "backend", "quant", "dtype")
    runs = found.kind == sweeping.KIND and found.manifest["config"]["labels"] == "execution"
    if found.kind == measured.KIND:
        _only(flags, (*kept, "adapters"), "nothing is executed for a capsule of measure")
    elif found.kind == sweeping.KIND:
        why = "a capsule of arc2 is of one model without adapters"
        _only(flags, (*kept, "allow_weak_sandbox"), why)
        _only(flags, (*kept, *(["allow_weak_sandbox"] if runs else [])), "nothing is executed")
    else:
        _only(flags, kept, "a capsule of arc3 is of the frozen base, and nothing is executed")
    own = found.manifest["config"]
    given = {name: flags[name] for name in kept if name in flags}
    config = parse({"model": own["model"], "dtype": own["dtype"], **given})
    engine = engine_of(config)
    arrange_fast_blas(engine.name, reporter)
    if found.kind == measured.KIND:
        return measured.verify(
            found.document, flags.get("model"), adapters, engine, sample, seed, reporter
        )
    if found.kind == sweeping.KIND:
        weak = bool(flags.get("allow_weak_sandbox"))
        return sweep_replay.verify(
            found.document, flags.get("model"), engine, sample, seed, weak, reporter
        )
    return replay.verify(found, config, sample, seed, reporter)


def _only(flags: Mapping[str, Any], known: tuple[str, ...], why: str) -> None:
    """Raise UserError for a flag that this kind of capsule has no use for."""
    named = next((one for one in flags if one not in known), None)
    if named is not None:
        flag = "adapter" if named == "adapters" else named.replace("_", "-")
        raise UserError(f"--{flag}: {why}; leave it out")


def lines(found: Mapping[str, Any]) -> list[str]:
    """For people."""
    said = [_first(found)]
    said += [_decided(one) for one in found.get("decided", ())]
    said += [_number(one) for one in found["numbers"]]
    if "words" in found:
        said += _words(found["words"])
    said += [_verdict(one) for one in found.get("verdicts", ())]
    if "states" in found:
        said.append(_states(found["states"]))
    if "readings" in found:
        said += _readings(found["readings"])
    if "labels" in found:
        said += _labels(found["labels"])
    if "answers" in found:
        said += _answers(found["answers"])
    return said


def _first(found: Mapping[str, Any]) -> str:
    if "sample" not in found:
        n = found["rows"]
        return f"No model is asked: {n['train']} training rows and {n['fresh']} fresh ones."
    sample = found["sample"]
    drawn = f"{sample['n']} of {sample['of']} items, seed {sample['seed']}."
    if "made_on" not in found:
        return f"Replayed: {drawn}"
    return f"Made on {found['made_on']}, replayed on {found['replayed_on']}: {drawn}"


def _decided(found: Mapping[str, Any]) -> str:
    """What was decided on the unchanged model; of None it is said why nothing was."""
    word = "" if found["reproduces"] is None else f", {_word(found['reproduces'])}"
    return f"{found['what'].capitalize()}{word}: {found['why']}."


def _words(found: Mapping[str, Any]) -> list[str]:
    said = [f"Words, {_word(found['reproduces'])}: {found['same']} of {found['n']} as stated."]
    return said + [f"  {one['word']}: {one['stated']} as stated, {one['here']} here."
                   for one in found["differing"]]  # fmt: skip


def _number(number: Mapping[str, Any]) -> str:
    if number["stated"] is None and number["recomputed"] is None:
        lost = ", NOT reproduced" if number["reproduces"] is False else ""
        return f"Number{lost}: {number['why']}."
    if number["stated"] is None:
        return (f"Number, {_word(number['reproduces'])}: {number['quantity']} "
                f"{number['recomputed']:.4f} here; {number['why']}.")  # fmt: skip
    if number["recomputed"] is None:
        return (f"Number, {_word(number['reproduces'])}: {number['quantity']} "
                f"{number['stated']:.4f} as stated; {number['why']}.")  # fmt: skip
    return (
        f"Number, {_word(number['reproduces'])}: {number['quantity']} {number['stated']:.4f} "
        f"as stated, {number['recomputed']:.4f} from what the capsule holds (to "
        f"{number['tolerance']:g})."
    )


def _verdict(verdict: Mapping[str, Any]) -> str:
    why = ", ".join(verdict["reasons"]).replace("_", " ")
    if "here" in verdict:
        again = ", ".join(verdict["here_reasons"]).replace("_", " ")
        return (f"Verdict of {verdict['claim']}, {_word(verdict['reproduces'])}: "
                f"{verdict['stated']} ({why}) as stated, {verdict['here']} ({again}) from what the "
                "capsule holds.")  # fmt: skip
    alone = verdict["statistic_here"] or "nothing"
    return (
        f"Verdict of {verdict['claim']}, {_word(verdict['reproduces'])}: {verdict['stated']} "
        f"({why}) as stated; by the number alone {alone} "
        f"({verdict['statistic_stated'] or 'nothing'} as stated)."
    )


def _answers(answers: Mapping[str, Any]) -> list[str]:
    said = []
    if answers.get("engine_differs"):
        said.append(f"The engine differs here in: {', '.join(answers['engine_differs'])}.")
    said.append(
        f"Answers{_promise(answers)}: {answers['identical']} of {answers['n']} identical, id by id."
    )
    for one in answers["differing"][:5]:
        ties = "-" if one["near_ties"] is None else one["near_ties"]
        of = f", {one['arm']}," if "arm" in one else ""
        said.append(f"  {one['item_id']}{of} parts at token {one['from_token']} "
                    f"({ties} near-ties).")  # fmt: skip
    if len(answers["differing"]) > 5:
        said.append(f"  ... and {len(answers['differing']) - 5} more.")
    return said + _skipped(answers.get("not_replayed", {}))


def _readings(found: Mapping[str, Any]) -> list[str]:
    apart = found["distance"]
    to = "nothing is promised" if found["tolerance"] is None else f"to {found['tolerance']:g}"
    return [
        f"Readings, {_word(found['reproduces'])}: contrasts of {found['n']} readings "
        f"{_far(apart['median'])} nats per token apart at the median, {_far(apart['largest'])} at "
        f"most ({to}).",
        *_skipped(found["not_replayed"]),
    ]


def _far(distance: float | None) -> str:
    return "-" if distance is None else f"{distance:.1e}"


def _skipped(not_replayed: Mapping[str, str]) -> list[str]:
    return [f"  {name} was not replayed: {why}." for name, why in not_replayed.items()]


def _states(states: Mapping[str, Any]) -> str:
    apart = states["relative_distance"]
    to = (
        "no tolerance is promised" if states["tolerance"] is None else f"to {states['tolerance']:g}"
    )
    return (
        f"States, {_word(states['reproduces'])}: h_last {_far(apart['median'])} apart at the "
        f"median, {_far(apart['largest'])} at most (relative; {to})."
    )


def _promise(answers: Mapping[str, Any]) -> str:
    """What holds of the answers, where anything is promised of them."""
    if answers.get("reproduces") is None:
        return ""
    return f", {_word(answers['reproduces'])} (at least {answers['least_share']:.0%} are promised)"


def _labels(labels: Mapping[str, Any]) -> list[str]:
    if labels["reproduces"] is None:
        return [f"Labels: {labels['why']}."]
    what = labels.get("how") or (
        f"answers of all arms have the same outcome in this sandbox ({labels['sandbox']})"
        if "sandbox" in labels
        else f"answers (of {labels['questions']} questions) read here as stated, by exact match"
    )
    what = f"answers {what}" if "how" in labels else what
    said = [f"Labels, {_word(labels['reproduces'])}: {labels['same']} of {labels['n']} {what}."]
    for one in labels["differing"][:5]:
        of = f", {one['arm']}" if "arm" in one else ""
        said.append(f"  {one['item_id']}{of}: {_said(one['stated'])} as stated, "
                    f"{_said(one['here'])} here.")  # fmt: skip
    if len(labels["differing"]) > 5:
        said.append(f"  ... and {len(labels['differing']) - 5} more.")
    return said


def _said(label: str | bool | None) -> str:
    words = {True: "right", False: "wrong", None: "none"}
    return label if isinstance(label, str) else words[label]


def _word(reproduces: bool | None) -> str:
    return {True: "reproduced", False: "NOT reproduced", None: "compared"}[reproduces]

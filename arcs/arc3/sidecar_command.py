"""What ``threearc sidecar`` does with its flags."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from arcs.arc3 import sidecar as sidecars
from arcs.arc3.config import GGUF, Arc3Config, parse, require_run
from arcs.arc3.edit import edit_of, fingerprint_of, name_of
from arcs.arc3.engine import engine_of, opened
from arcs.arc3.questions import encoder_of
from arcs.claims import Verdict
from arcs.fast_blas import arrange_fast_blas
from arcs.progress import Reporter
from arcs.runs import METRICS, canonical_json
from models.errors import UserError
from models.geometry import read_geometry
from models.store import prepare


def fit(run: Path, out: Path, hedge: str | None, *, as_json: bool) -> None:
    """Copy the sidecar of a finished run, with another hedge if asked."""
    require_run(run, "--run", METRICS)
    source = run / sidecars.FOLDER
    if not source.is_dir():
        raise UserError(
            f"--run {run}: its answers allow no probe, or no threshold asserts enough right ones "
            "in training, so this run has no gate; use other --items or --labels"
        )
    made = sidecars.load(source)
    if hedge is not None:
        if not hedge.strip():
            raise UserError("--hedge: give some words")
        made = sidecars.Sidecar(
            replace(made.facts, hedge=hedge), made.mean, made.weights, made.bias
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: already exists and is not empty; name another folder")
    try:
        made.save(out)
    except OSError as error:
        shutil.rmtree(out, ignore_errors=True)
        raise UserError(f"--out {out}: cannot be made ({error.strerror})") from None
    verdict = made.facts.fresh["verdicts"].get("gate", Verdict.INCONCLUSIVE.value)
    if as_json:
        sys.stdout.write(canonical_json({"path": str(out), **_facts(made)}))
    else:
        Console(highlight=False, soft_wrap=True).print(
            f"{out}: {made.facts.probe} of {made.facts.features} on {made.facts.n_train} answers "
            f"of {made.facts.model}, asserts at p >= {made.facts.threshold:.2g}"
        )
    if verdict != Verdict.SUPPORTED.value:
        Reporter().say(
            f"its gate was not shown to separate right from wrong on fresh prompts ({verdict}): "
            "what it hedges may be any answer"
        )


def answer(
    question: str,
    folder: Path,
    *,
    model: str | None,
    backend: str | None,
    n_predict: int | None,
    as_json: bool,
) -> None:
    """Ask, read, hedge."""
    reporter = Reporter(quiet=as_json)
    made = sidecars.load(folder)
    if not question.strip():
        raise UserError("QUESTION: ask something")
    given: dict[str, Any] = {
        "model": model or made.facts.model,
        "adapter": made.facts.adapter,
        "backend": backend or "auto",
        "n_predict": made.facts.n_predict if n_predict is None else n_predict,
    }
    config: Arc3Config = parse(given)
    engine = engine_of(config)
    arrange_fast_blas(engine.name, reporter)
    directory = prepare(config.model, say=reporter.say)
    edit = edit_of(config.adapter, directory, gguf=engine.name == GGUF)
    if fingerprint_of(directory, edit) != made.facts.model_fingerprint:
        raise UserError(
            f"--sidecar {folder}: it was fitted on {made.facts.model}, whose states are not those "
            f"of {name_of(directory, edit)}; fit one on a run of this model"
        )
    warning = sidecars.other_states(made.facts.engine, str(engine))
    if warning is not None:
        reporter.say(f"--sidecar {folder}: {warning}")
    geometry = read_geometry(directory.path)
    sidecars.require_states(made, geometry, folder)
    encoder = encoder_of(directory, made.facts.labels)
    prompt = sidecars.encode(encoder, made, question)
    longest = len(prompt.prompt.ids) + config.budget
    with opened(engine, directory, longest=longest, reporter=reporter, edit=edit) as opened_model:
        found = sidecars.answer(opened_model, encoder, made, prompt, config.budget)
    ms = {
        "generating": 1000 * found.generating,
        "reading": 1000 * found.reading,
        "scoring": 1000 * found.scoring,
    }
    if as_json:
        sys.stdout.write(
            canonical_json(
                {
                    "question": question,
                    "text": found.text,
                    "answer": found.answer,
                    "p_correct": found.p_correct,
                    "threshold": made.facts.threshold,
                    "asserted": found.asserted,
                    "finished": found.finished,
                    "backend": str(engine),
                    "milliseconds": ms,
                    "sidecar": _facts(made),
                }
            )
        )
        return
    sys.stdout.write(found.text + "\n")
    p = "-" if found.p_correct is None else f"{found.p_correct:.3f}"
    reporter.say(
        f"p(right) {p}, asserted from {made.facts.threshold:.2f} on; {ms['generating']:.0f} ms to "
        f"answer, {ms['reading'] + ms['scoring']:.2f} ms to read and decide"
        + ("" if found.finished else "; the answer was cut by --n-predict")
    )


def _facts(made: sidecars.Sidecar) -> dict[str, Any]:
    return dict(vars(made.facts))

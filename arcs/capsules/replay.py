"""What of a capsule reproduces here: its claim's number and verdict, its labels, and of a sample
the states and the answers.

The number is computed anew from the stored states and labels, without a model, and so are labels by
exact match, from the stored ids. States are read anew from these ids, which were never tokenised
again; answers are generated anew, greedily. Only all of them together hold: true labels and states
of answers that the model never gave are answers that do not come out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arcs.arc3.claims import LEAST, auc_estimate
from arcs.arc3.config import Arc3Config, parse
from arcs.arc3.engine import Engine, engine_of, opened
from arcs.arc3.questions import SETS, encoder_of
from arcs.capsules.answers import Pair, compared, dtype_of, in_float32
from arcs.capsules.contents import Capsule, Row
from arcs.capsules.falsified import SECTION, numbers_again
from arcs.capsules.metering import number_or_none
from arcs.capsules.relabelling import asked_again, labels_again, verdict_again
from arcs.estimates import Estimate
from arcs.progress import Reporter
from backends.interface import LanguageModel, Prompt
from backends.sequences import Pooling, points_of
from evals.probing.probes import PRIMARY, PROBES, scores_on
from models.chat import ChatEncoder
from models.errors import UserError
from models.store import prepare

TOLERANCES: Mapping[str, float] = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}
"""Relative distance of h_last, by the coarser of both dtypes. Measured: torch and MLX in float32
2.5e-6 at most; bfloat16 beside float32 0.016 at most on SmolLM2-135M, 0.009 to 0.033 on five small
models (docs/LOG.md). float16 has 3 bits more of significand than bfloat16, an eighth of its
rounding. The state of another answer is about 1 away. Quantised weights: nothing is promised."""
AUC_TOLERANCE = 1e-3
"""Of the probe fitted anew: a solver of another version may order a pair of answers otherwise."""


def verify(
    capsule: Capsule, config: Arc3Config, sample: int, seed: int, reporter: Reporter
) -> dict[str, Any]:
    """Everything that can be said. Raises UserError for another model or another question."""
    own = parse(capsule.manifest["config"])
    chosen = _sample(capsule.rows, sample, seed)
    engine = engine_of(config)
    directory = prepare(config.model, say=reporter.say)
    wanted = capsule.manifest["model"]["fingerprint"]
    if directory.fingerprint != wanted:
        raise UserError(
            f"--model {config.model}: its weights are not the capsule's "
            f"({directory.fingerprint[:12]} and {wanted[:12]}); give that model"
        )
    # a model without a chat template ends its answers otherwise than by stop ids
    encoder = encoder_of(directory, own.labels)
    asked = asked_again(capsule.rows, own, encoder)
    labels = labels_again(capsule.rows, asked, own, encoder)
    budget = int(capsule.manifest["questions"]["n_predict"])
    longest = max(len(one.prompt) for one in chosen) + budget
    definition = capsule.document["definition"]
    with opened(engine, directory, longest=longest, reporter=reporter) as model:
        states = _states(model, chosen, int(definition["n_layers"]))
        answers = _answers(model, chosen, budget, encoder)
    claim = capsule.document["claims"]["transfer"]
    section = capsule.document.get(SECTION)
    estimate = None if claim["estimate"] is None else _estimate(capsule)
    return {
        "made_on": capsule.manifest["backend"],
        "replayed_on": str(engine),
        "sample": {"n": len(chosen), "of": len(capsule.rows), "seed": seed,
                   "items": [one.item_id for one in chosen]},
        "numbers": [
            _number(claim["estimate"], estimate),
            *([] if section is None else numbers_again(section, capsule.rows)),
        ],
        "verdicts": [{"claim": "transfer",
                      **verdict_again(claim, estimate, capsule.manifest["gates"])}],
        "labels": labels,
        "states": _compared(chosen, states, _tolerance(capsule.manifest, engine)),
        "answers": _same(chosen, answers, _exact(capsule.manifest, engine)),
    }  # fmt: skip


def reproduced(found: Mapping[str, Any]) -> bool:
    """Whether nothing that is promised fails: what was decided, numbers, words, verdicts, labels,
    states, readings and answers, each where it says that it is promised."""
    names = ("words", "labels", "states", "readings", "answers")
    promised = [found[name] for name in names if name in found]
    promised += [*found["numbers"], *found.get("verdicts", ()), *found.get("decided", ())]
    return all(one.get("reproduces") is not False for one in promised)


def _sample(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    drawn = np.random.default_rng(seed).permutation(len(rows))[:n]
    return [rows[place] for place in sorted(drawn.tolist())]


def _estimate(capsule: Capsule) -> Estimate | None:
    """The claim's AUC from the capsule's own states and labels; None where those allow none."""
    train, fresh = capsule.of("train"), capsule.of("fresh")
    x = [np.stack([one.state for one in side]) for side in (train, fresh) if side]
    y = [np.array([one.right is True for one in side]) for side in (train, fresh) if side]
    if len(y) < len(SETS) or any(min(one.sum(), len(one) - one.sum()) < LEAST for one in y):
        return None
    level = 1 - capsule.manifest["gates"]["test"]["alpha"]
    return auc_estimate(scores_on(PROBES[PRIMARY](), x[0], y[0], x[1]), y[1], level)


def _number(stated: Mapping[str, Any] | None, here: Estimate | None) -> dict[str, Any]:
    """The stated AUC and its interval beside those made anew."""
    found: dict[str, Any] = {"quantity": "AUC on fresh items", "stated": None, "recomputed": None,
                             "reproduces": None, "tolerance": AUC_TOLERANCE}  # fmt: skip
    if stated is None:
        return {**found, "why": "the run's claim states no number"}
    found["stated"] = stated["value"]
    if here is None:
        return {**found, "reproduces": False,
                "why": "the labels that the capsule holds allow no AUC"}  # fmt: skip
    ends = [(stated["interval"][end], getattr(here.interval, end)) for end in ("low", "high")]
    apart = max(abs(a - b) for a, b in ((stated["value"], here.value), *ends))
    return {
        **found, "recomputed": here.value, "interval": here.interval.to_json(),
        "reproduces": bool(apart <= AUC_TOLERANCE), "why": None,
    }  # fmt: skip


def _states(model: LanguageModel, rows: Sequence[Row], n_layers: int) -> Any:
    points = points_of(Pooling.H_LAST, n_layers)
    sequences = [(*one.prompt, *one.response) for one in rows]
    return model.hidden_states(sequences, [one.position for one in rows], points)[:, 0]


def _answers(
    model: LanguageModel, rows: Sequence[Row], budget: int, encoder: ChatEncoder
) -> dict[str, tuple[int, ...]]:
    prompts = [Prompt(one.item_id, one.prompt) for one in rows]
    found = model.generate(
        prompts, max_tokens=budget, stop_ids=encoder.stop_ids, stop_when=encoder.stop_when
    )
    return {one.item_id: tuple(one.ids) for one in found}


def _compared(rows: Sequence[Row], states: Any, tolerance: float | None) -> dict[str, Any]:
    kept = np.stack([one.state for one in rows])
    apart = np.linalg.norm(states - kept, axis=1) / np.linalg.norm(kept, axis=1)
    largest = float(apart.max())
    return {
        "n": len(rows),
        "relative_distance": {"median": number_or_none(float(np.median(apart))),
                              "largest": number_or_none(largest)},
        "tolerance": tolerance,
        "reproduces": None if tolerance is None else largest <= tolerance,
        "outside": [] if tolerance is None else
        [one.item_id for one, far in zip(rows, apart, strict=True) if not far <= tolerance],
    }  # fmt: skip


def _same(
    rows: Sequence[Row], answers: Mapping[str, tuple[int, ...]], exact: bool
) -> dict[str, Any]:
    pairs = [Pair(one.item_id, one.response, answers[one.item_id], one.near_ties) for one in rows]
    return compared(pairs, exact=exact)


def _tolerance(manifest: Mapping[str, Any], engine: Engine) -> float | None:
    """By the coarser dtype; None where a file is quantised."""
    known = [TOLERANCES.get(dtype_of(one)) for one in (manifest["backend"], engine)]
    return None if None in known else max(one for one in known if one is not None)


def _exact(manifest: Mapping[str, Any], engine: Engine) -> bool:
    """Whether answers were made, maybe by another run, and are replayed in float32."""
    made = (manifest.get("ids_from") or manifest)["backend"]
    return in_float32(made, engine)

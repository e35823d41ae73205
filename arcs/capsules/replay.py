"""What of a capsule reproduces here: its claim's number, a sample's states, a sample's answers.

The number is computed anew from the stored states and labels, without a model. States are read
anew from the stored ids, which were never tokenised again; answers are generated anew, greedily.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from arcs.arc3.config import Arc3Config
from arcs.arc3.engine import Engine, engine_of, opened
from arcs.arc3.questions import encoder_of
from arcs.capsules.contents import Capsule, Row
from arcs.capsules.metering import number_or_none
from arcs.progress import Reporter
from backends.interface import LanguageModel, Prompt
from backends.sequences import Pooling, points_of
from evals.probing.probes import PRIMARY, PROBES, scores_on
from evals.statistics.auc import auc
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
    """Everything that can be said; raises UserError where the model is another one."""
    stated = capsule.document["claims"].get("transfer", {}).get("estimate")
    chosen = _sample(capsule.rows, sample, seed)
    engine = engine_of(config)
    directory = prepare(config.model, say=reporter.say)
    wanted = capsule.manifest["model"]["fingerprint"]
    if directory.fingerprint != wanted:
        raise UserError(
            f"--model {config.model}: its weights are not the capsule's "
            f"({directory.fingerprint[:12]} and {wanted[:12]}); give that model"
        )
    budget = int(capsule.manifest["questions"]["n_predict"])
    longest = max(len(one.prompt) for one in chosen) + budget
    definition = capsule.document["definition"]
    with opened(engine, directory, longest=longest, reporter=reporter) as model:
        states = _states(model, chosen, int(definition["n_layers"]))
        # a model without a chat template ends its answers otherwise than by stop ids
        encoder = encoder_of(directory, str(capsule.manifest["config"]["labels"]))
        answers = _answers(model, chosen, budget, encoder)
    tolerance = _tolerance(capsule.manifest, engine)
    return {
        "made_on": capsule.manifest["backend"],
        "replayed_on": str(engine),
        "sample": {"n": len(chosen), "of": len(capsule.rows), "seed": seed,
                   "items": [one.item_id for one in chosen]},
        "numbers": [_number(capsule, stated)],
        "states": _compared(chosen, states, tolerance),
        "answers": _same(chosen, answers),
    }  # fmt: skip


def reproduced(found: Mapping[str, Any]) -> bool:
    """Whether nothing that is promised fails: numbers, labels, states and readings within their
    tolerance."""
    promised = [found[name] for name in ("labels", "states", "readings") if name in found]
    return all(one["reproduces"] is not False for one in (*promised, *found["numbers"]))


def _sample(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    drawn = np.random.default_rng(seed).permutation(len(rows))[:n]
    return [rows[place] for place in sorted(drawn.tolist())]


def _number(capsule: Capsule, stated: Mapping[str, Any] | None) -> dict[str, Any]:
    """The claim's AUC from the capsule's own states and labels."""
    train, fresh = capsule.of("train"), capsule.of("fresh")
    found: dict[str, Any] = {"quantity": "AUC on fresh items", "stated": None, "recomputed": None,
                             "reproduces": None, "tolerance": AUC_TOLERANCE}  # fmt: skip
    if stated is None:
        return {**found, "why": "the run's claim states no number"}
    x = [np.stack([one.state for one in side]) for side in (train, fresh)]
    y = [np.array([one.right is True for one in side]) for side in (train, fresh)]
    value = auc(scores_on(PROBES[PRIMARY](), x[0], y[0], x[1]), y[1])
    return {
        **found, "stated": stated["value"], "recomputed": value,
        "reproduces": bool(abs(value - stated["value"]) <= AUC_TOLERANCE), "why": None,
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


def _same(rows: Sequence[Row], answers: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Which answers come out id by id; where one does not, whether it held near-ties."""
    differing = [one for one in rows if answers[one.item_id] != one.response]
    return {
        "n": len(rows),
        "identical": len(rows) - len(differing),
        "differing": [
            {"item_id": one.item_id, "near_ties": one.near_ties,
             "from_token": _parting(one.response, answers[one.item_id])}
            for one in differing
        ],
    }  # fmt: skip


def _parting(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


def _tolerance(manifest: Mapping[str, Any], engine: Engine) -> float | None:
    """By the coarser dtype; None where a file is quantised."""
    made = str(manifest["backend"]).split()[-1]
    here = str(engine).split()[-1]
    known = [TOLERANCES.get({"f32": "float32"}.get(one, one)) for one in (made, here)]
    return None if None in known else max(one for one in known if one is not None)

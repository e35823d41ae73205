"""Why a probe may fail, measured: the failure modes of PAPER.md section 7, and what hides them.

Each is shown, excluded, not decidable or not measured, with its numbers. Fewer than all of them
need texts or ends of the answers, which a source may not have.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from arcs.arc3 import claims, probing
from arcs.arc3.probing import FOLDS, H_LAST, Study
from arcs.arc3.table import Side
from arcs.estimates import GateState
from arcs.falsification.evidence import Evidence
from arcs.falsification.protocol import Step
from arcs.falsification.steps import LEAST
from arcs.gates import Gates
from evals.statistics.differences import ratio_of_rates
from evals.statistics.similarity import text_similarity
from evals.statistics.two_sample import text_two_sample
from evals.text_ends import ends_a_sentence

BoolArray = NDArray[np.bool_]
Found = Mapping[str, Any]


_WORD = re.compile(r"\w\w")
"""What the classifier of texts counts as a word."""


TEXT_PERMUTATIONS = 200
"""At most: each refits a classifier of words in every fold."""


class State(StrEnum):
    """What became of a mode."""

    SHOWN = "shown"
    EXCLUDED = "excluded"
    NOT_DECIDABLE = "not decidable"
    NOT_MEASURED = "not measured"


def mode(name: str, state: State, why: str, **numbers: Any) -> dict[str, Any]:
    """One mode as it is stored."""
    return {"mode": name, "state": state.value, "why": why, **numbers}


def all_modes(
    train: Evidence, fresh: Evidence, study: Study, steps: Mapping[str, Found], gates: Gates
) -> list[dict[str, Any]]:
    """In the order in which they are shown."""
    return [
        uniform_output(fresh, study, gates),
        capability_cliff(train, fresh, study, steps[Step.TRAINING], gates),
        style_closure(train, fresh, study, steps[Step.FRESH], gates),
        floor(study),
        underpowered(study, steps[Step.FRESH], gates),
    ]


def uniform_output(fresh: Evidence, study: Study, gates: Gates) -> dict[str, Any]:
    """Right and wrong answers that no classifier of their words can tell apart.

    Excluded: words tell them apart (p below alpha, and the AUC is one that matters). Shown: the
    whole interval of that AUC lies below what the probe is asked for.
    """
    name = "uniform_output"
    texts = _texts_of(fresh, study.fresh)
    if texts is None:
        lacking = fresh.without_response
        why = f"{lacking} of {len(fresh.item_ids)} fresh items have no response"
        return mode(name, State.NOT_MEASURED, f"{why} (--responses)")
    right = study.fresh.y
    if study.fresh.smaller_class < FOLDS:
        return mode(name, State.NOT_MEASURED, f"fewer than {FOLDS} answers of one class")
    if not any(_WORD.search(text) for text in texts):
        return mode(name, State.NOT_MEASURED, "the responses hold no words of two letters")
    sides = [[texts[row] for row in np.flatnonzero(kept)] for kept in (~right, right)]
    permutations = min(study.sizes.permutations, TEXT_PERMUTATIONS)
    told = text_two_sample(*sides, permutations=permutations, seed=study.seed)
    alike = text_similarity(
        texts, right, permutations=permutations, seed=study.seed, level=study.level
    )
    numbers = {
        "words": {"auc": told.auc, "interval": told.interval.to_json(), "p_value": told.p_value,
                  "n_right": told.n_second, "n_wrong": told.n_first},
        "similarity": {
            "within_right": alike.within_true, "within_wrong": alike.within_false,
            "between": alike.between, "p_value": alike.p_value,
            "excess": {"value": alike.excess, "interval": alike.interval.to_json(),
                       "n": len(texts)},
        },
        "permutations": permutations,
    }  # fmt: skip
    asked = gates.protocol.fresh_auc
    if told.p_value < gates.test.alpha and told.auc >= 0.5 + gates.smallest_effect.auc:
        return mode(name, State.EXCLUDED, "words tell right from wrong answers", **numbers)
    if told.interval.high < asked:
        why = f"words tell right from wrong with an AUC below {asked:g}, if at all"
        return mode(name, State.SHOWN, why, **numbers)
    return mode(name, State.NOT_DECIDABLE, "too few answers to say", **numbers)


def capability_cliff(
    train: Evidence, fresh: Evidence, study: Study, training: Found, gates: Gates
) -> dict[str, Any]:
    """A rate that falls, between sets, until one class is hardly there (claims.cliff).

    Called so only where step 1 passed (else nothing was there to fall off), where the ratio of the
    rates excludes 1, and, where answers are judged claim by claim, among items of equally many
    claims. Labels of two judges or cuts are a fault of the whole (mixed instruments).
    """
    name = "capability_cliff"
    numbers: dict[str, Any] = {"rates": _rates(study.train, study.fresh, study.level)}
    equal, unequal = _equal_parts(train, fresh, study)
    if equal is not None:
        numbers["equal_claim_counts"] = equal
    found = bool(claims.cliff(study, gates.test.alpha)) or (
        study.fresh.smaller_class < LEAST <= FOLDS <= study.train.smaller_class
    )
    ratio = numbers["rates"]["ratio"]
    if not found or ratio is None or not _moved(ratio):
        enough = study.fresh.smaller_class >= claims.CLIFF
        why = "enough of either class on fresh items" if enough else "few, and no fall is shown"
        return mode(name, State.EXCLUDED if enough else State.NOT_DECIDABLE, why, **numbers)
    if training["state"] != GateState.PASSED.value:
        why = "step 1 did not pass, so nothing is known to be lost"
        return mode(name, State.NOT_DECIDABLE, why, **numbers)
    if unequal is not None:
        return mode(name, State.NOT_DECIDABLE, unequal, **numbers)
    if equal is not None and (equal["ratio"] is None or not _moved(equal["ratio"])):
        why = "no fall is left among items of equally many claims"
        return mode(name, State.NOT_DECIDABLE, why, **numbers)
    return mode(name, State.SHOWN, f"{study.fresh.smaller_class} items of one class are left",
                **numbers)  # fmt: skip


def _moved(ratio: Found) -> bool:
    high = ratio["interval"]["high"]
    low: float = ratio["interval"]["low"]
    return low > 1 or (high is not None and bool(high < 1))


def _rates(train: Side, fresh: Side, level: float) -> dict[str, Any]:
    counts = (train.n_right, len(train.y), fresh.n_right, len(fresh.y))
    found = ratio_of_rates(*counts, level) if min(counts[1], counts[3]) else None
    return {
        "train": {"right": counts[0], "n": counts[1]},
        "fresh": {"right": counts[2], "n": counts[3]},
        "ratio": None
        if found is None
        else {
            "value": _finite(found.value),
            "interval": {"low": found.interval.low, "high": _finite(found.interval.high),
                         "level": level},
            "n": counts[1] + counts[3],
        },
    }  # fmt: skip


def _finite(value: float) -> float | None:
    """None for infinity, which JSON has not."""
    return value if math.isfinite(value) else None


def _equal_parts(
    train: Evidence, fresh: Evidence, study: Study
) -> tuple[dict[str, Any] | None, str | None]:
    """The rates among items of one claim count: the one that both sets have most of.

    None where there is nothing to equalise; with a reason where there is, and it cannot be.
    """
    if train.parts is None and fresh.parts is None:
        return None, None
    if train.parts is None or fresh.parts is None:
        return None, "how many claims an item has is known of one set only"
    of = {item: part for found in (train, fresh)
          for item, part in zip(found.item_ids, found.parts or (), strict=True)}  # fmt: skip
    counts = [Counter(of[item] for item in side.item_ids) for side in (study.train, study.fresh)]
    shared = [one for one in counts[0] if one is not None and counts[1][one]]
    if not shared:
        return None, "no number of claims is that of items of both sets"
    if all(set(one) == set(shared) and len(shared) == 1 for one in counts):
        return None, None  # all alike
    chosen = max(shared, key=lambda one: (min(counts[0][one], counts[1][one]), one))
    sides = [
        side.where(np.array([of[item] == chosen for item in side.item_ids], dtype=np.bool_))
        for side in (study.train, study.fresh)
    ]
    return {"claims": chosen, **_rates(sides[0], sides[1], study.level)}, None


def style_closure(
    train: Evidence, fresh: Evidence, study: Study, step: Found, gates: Gates
) -> dict[str, Any]:
    """The state tells how an answer ends, and not whether it is right.

    Shown: a probe of the end (cut or not, ends a sentence, long or short) reaches, with its whole
    interval, what is asked of the probe of correctness in training, and that one did not pass on
    fresh items. Excluded where it passed.
    """
    found = nuisance(train, fresh, study)
    measured = [one for one in found if one["style"] and one["auc"] is not None]
    numbers = {"probes": found}
    if not measured:
        return mode("style_closure", State.NOT_MEASURED, "nothing is known of how answers end",
                    **numbers)  # fmt: skip
    if step["state"] == GateState.PASSED.value:
        return mode("style_closure", State.EXCLUDED, "correctness passed on fresh items", **numbers)
    closed = [one for one in measured if one["interval"]["low"] >= gates.protocol.cv_auc]
    if closed:
        best = max(closed, key=lambda one: float(one["auc"]))
        why = f"the state tells: {best['target']}; correctness did not pass on fresh items"
        return mode("style_closure", State.SHOWN, why, **numbers)
    return mode("style_closure", State.NOT_DECIDABLE, "the state does not clearly tell how an "
                "answer ends", **numbers)  # fmt: skip


def nuisance(train: Evidence, fresh: Evidence, study: Study) -> list[dict[str, Any]]:
    """What else the primary probe reads from both sets' states, out of fold."""
    sides = (study.train, study.fresh)
    both = [_rows(found, side) for found, side in zip((train, fresh), sides, strict=True)]
    x = np.concatenate([side.x[H_LAST] for side in sides])
    targets: dict[str, BoolArray] = {}
    if train.ends_known and fresh.ends_known:
        targets["cut by the budget"] = np.concatenate([side.truncated for side in sides])
    lengths = [
        None if found.lengths is None else found.lengths[rows]
        for found, rows in zip((train, fresh), both, strict=True)
    ]
    if lengths[0] is not None and lengths[1] is not None and \
            train.length_unit == fresh.length_unit:  # fmt: skip
        of_all = np.concatenate([lengths[0], lengths[1]])
        targets["longer than the median"] = of_all > np.median(of_all)
    texts = [_texts_of(found, side) for found, side in zip((train, fresh), sides, strict=True)]
    if texts[0] is not None and texts[1] is not None and not train.texts_are_ids:
        ended = [ends_a_sentence(text) for text in (*texts[0], *texts[1])]
        targets["ends a sentence"] = np.array(ended, dtype=np.bool_)
    found = [
        {**probing.told(name, x, labels, study), "style": True} for name, labels in targets.items()
    ]
    is_fresh = np.arange(len(x)) >= len(study.train.y)
    return [
        *found,
        {**probing.told("fresh rather than training", x, is_fresh, study), "style": False},
    ]


def floor(study: Study) -> dict[str, Any]:
    """A class that is hardly there in training, so that nothing can be fitted."""
    least = study.train.smaller_class
    right = study.train.n_right * 2 < len(study.train.y)
    numbers = {"right": study.train.n_right, "n": len(study.train.y), "end": "floor" if right
               else "ceiling"}  # fmt: skip
    if least < FOLDS:
        return mode("floor", State.SHOWN, f"{least} training items of one class", **numbers)
    return mode("floor", State.EXCLUDED, f"{least} training items of the rarer class", **numbers)


def underpowered(study: Study, step: Found, gates: Gates) -> dict[str, Any]:
    """So few fresh items that a probe at the gate would often not be told from chance."""
    found = claims.detectable(study.fresh, gates) if study.fresh.smaller_class >= LEAST else None
    asked = gates.protocol.fresh_auc
    numbers = {"detectable_auc": found, "gate": asked, "n": len(study.fresh.y),
               "n_to_decide": step.get("n_to_decide")}  # fmt: skip
    if step["gates"] and step["gates"][0]["state"] != GateState.NOT_DECIDABLE.value:
        return mode("underpowered", State.EXCLUDED, "the fresh items decide the AUC", **numbers)
    if found is None:
        return mode("underpowered", State.SHOWN, "no AUC could be shown with these items",
                    **numbers)  # fmt: skip
    if found > asked:
        return mode("underpowered", State.SHOWN,
                    f"an AUC below {found:.3f} would often be missed", **numbers)  # fmt: skip
    return mode("underpowered", State.EXCLUDED, f"an AUC of {found:.3f} or more would be seen",
                **numbers)  # fmt: skip


def _rows(found: Evidence, side: Side) -> list[int]:
    place = {item: row for row, item in enumerate(found.item_ids)}
    return [place[item] for item in side.item_ids]


def _texts_of(found: Evidence, side: Side) -> list[str] | None:
    """Responses of a side's items; None where they are not known."""
    if found.responses is None:
        return None
    return [found.responses[row] for row in _rows(found, side)]

"""Labels of an Arc 3 capsule made anew, and its verdict, without a model.

Exact match reads nothing but the stored ids, so that every label of the capsule is made again, not
those of the sample alone. What a judge or a run of programs said is not, and that is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from arcs.arc3.config import EXACT_MATCH, Arc3Config
from arcs.arc3.labelling import exact
from arcs.arc3.questions import Question, questions
from arcs.arc3.responses import Response
from arcs.capsules.contents import Row
from arcs.claims import Verdict
from arcs.estimates import Direction, Estimate, judge
from backends.interface import FinishReason
from models.chat import ChatEncoder
from models.errors import UserError

_FINISH = ("stop", "length")


def asked_again(
    rows: Sequence[Row], config: Arc3Config, encoder: ChatEncoder
) -> dict[str, Question]:
    """The questions of the run by id, as they ship here.

    Raises UserError where a row answers none of them, one that is asked otherwise or stands in
    the other set, or one that another row has answered.
    """
    found = {one.item_id: one for one in questions(config.asked, encoder, config.per_set)}
    answered: set[str] = set()
    if not rows:
        raise UserError("the capsule holds no answers")
    for row in rows:
        question, where = found.get(row.item_id), f"the capsule's row {row.item_id}"
        if question is None:
            raise UserError(f"{where}: none of the run's {config.asked} questions has that id here "
                            "(another version of threearc, or another --limit)")  # fmt: skip
        if question.prompt.ids != row.prompt:
            raise UserError(f"{where}: its prompt has other ids here than in the capsule's run")
        if question.set != row.set:
            raise UserError(f"{where}: it is in the {row.set} set, and here in the {question.set}")
        if row.item_id in answered:
            raise UserError(f"{where}: it stands there twice")
        if row.finish_reason not in _FINISH:
            raise UserError(f"{where}: finish_reason {row.finish_reason!r}; known: stop, length")
        answered.add(row.item_id)
    return found


def labels_again(
    rows: Sequence[Row], asked: Mapping[str, Question], config: Arc3Config, encoder: ChatEncoder
) -> dict[str, Any]:
    """Stated labels beside those that this machine reads from the stored ids."""
    common = {"by": config.kind, "questions": len(asked)}
    if config.kind != EXACT_MATCH:
        return {
            **common, "n": 0, "same": 0, "differing": [], "reproduces": None,
            "why": f"labels by {config.kind} are as stated; they were not made again",
        }  # fmt: skip
    read = exact([_response(row, asked[row.item_id], encoder) for row in rows])
    differing = [
        {"item_id": row.item_id, "stated": row.right, "here": here.right}
        for row, here in zip(rows, read, strict=True)
        if row.right is not here.right
    ]
    return {
        **common, "n": len(rows), "same": len(rows) - len(differing), "differing": differing,
        "reproduces": not differing, "why": None,
    }  # fmt: skip


def _response(row: Row, question: Question, encoder: ChatEncoder) -> Response:
    reason: FinishReason = "length" if row.finish_reason == "length" else "stop"
    text = encoder.decode(row.response)
    return Response(question, row.response, reason, row.near_ties, text)


def verdict_again(
    claim: Mapping[str, Any], estimate: Estimate | None, gates: Mapping[str, Any]
) -> dict[str, Any]:
    """What the statistic says by the capsule's own gates; ``estimate``: made anew, if it can be.

    Faults and doubts (no signal in training, cut answers, kinds of question) need the whole run,
    and are as stated: they can only leave a claim open. So what is SUPPORTED or REFUTED must be
    so by the number, and for no other reason.
    """
    stated, alone, reasons = claim["verdict"], claim["statistic_verdict"], list(claim["reasons"])
    here, why = None, None
    if estimate is not None:
        here, why = judge(
            estimate, gates["smallest_effect"]["auc"], alpha=gates["test"]["alpha"],
            direction=Direction.MORE,
        )  # fmt: skip
    opened = stated in (Verdict.INCONCLUSIVE, Verdict.INVALID)
    return {
        "stated": stated, "reasons": reasons, "statistic_stated": alone,
        "statistic_here": None if here is None else here.value,
        "reproduces": here == alone and (opened or (stated == here and reasons == [why])),
    }  # fmt: skip

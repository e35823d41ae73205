"""Free answers at each n_predict of one decode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from arcs.measure.answers import Asker, text_counts
from evals.truncation import MIN_TOKENS
from models.chat import EncodedPrompt

STOP = 0


class Letters:
    """A tokenizer of one letter an id."""

    stop_ids = (STOP,)

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(one) for one in ids if one != STOP)


def asker(*, think_open: bool = False) -> Asker:
    prompt = EncodedPrompt((1,), "?", think_open)
    return Asker(("a",), (prompt,), Letters(), (4, 8, 64))  # type: ignore[arg-type]


def record(text: str, *, stopped: bool) -> dict[str, Any]:
    ids = [ord(letter) for letter in text] + ([STOP] if stopped else [])
    return {"item_id": "a", "ids": ids, "finish_reason": "stop" if stopped else "length"}


def test_an_answer_that_ended_is_one_text_from_there_on() -> None:
    views = asker().views(record("sixsix", stopped=True))
    assert [(n, one.text, one.finished, one.first_n) for n, one in views.items()] == [
        (4, "sixs", False, 4),
        (8, "sixsix", True, 8),
        (64, "sixsix", True, 8),
    ]
    assert [one.response("base").id for one in views.values()] == [
        "base/a@4", "base/a@8", "base/a@8",
    ]  # fmt: skip


def test_the_stop_itself_must_be_among_the_first_n() -> None:
    views = asker().views(record("four", stopped=True))
    assert [one.finished for one in views.values()] == [False, True, True]


def test_a_loop_is_cut_but_not_unfinished() -> None:
    views = asker().views(record("ab" * MIN_TOKENS, stopped=False))
    assert (views[64].finished, views[64].loop, views[64].unfinished) == (False, True, False)
    assert views[8].unfinished  # too short to tell
    counts = text_counts([views[64], views[8]])
    assert (counts["finished"], counts["loops"], counts["unfinished"]) == (0, 1, 1)


def test_thoughts_are_kept_in_the_text_and_left_out_of_what_is_judged() -> None:
    views = asker(think_open=True).views(record("hm?</think>To check: 2 + 2 = 4.", stopped=True))
    assert views[64].said == "To check: 2 + 2 = 4." and views[64].text.startswith("hm?")
    assert views[4].said == "" and text_counts([views[4]])["empty"] == 1
    rates = text_counts([views[64]])["self_verification"]["all"]
    assert rates["precise"]["successes"] == 1 and rates["published"]["successes"] == 0

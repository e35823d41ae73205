"""What the model is shown, and where a raw completion ends."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from evals.humaneval import prompts
from evals.humaneval.problems import dataset_sha256, load_problems
from evals.humaneval.prompts import (
    STOP_STRINGS,
    chat_instruction,
    cut_at_stop_string,
    find_stop_string,
    raw_prompt,
    stop_when,
    template_sha256,
)

PROBLEMS = load_problems()


def test_there_are_164_problems_in_order() -> None:
    assert [problem.task_id for problem in PROBLEMS] == [f"HumanEval/{n}" for n in range(164)]
    assert len(dataset_sha256()) == 64


def test_the_instruction_holds_the_prompt_in_one_python_fence() -> None:
    for problem in PROBLEMS:
        message = chat_instruction(problem)
        assert problem.prompt.rstrip() in message
        assert message.count("```python\n") == 1
        assert problem.canonical_solution not in message


def test_the_raw_prompt_is_the_published_one() -> None:
    assert raw_prompt(PROBLEMS[0]) == PROBLEMS[0].prompt


def test_a_changed_template_changes_its_hash(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    chat, raw = template_sha256("chat"), template_sha256("raw")
    assert chat != raw
    monkeypatch.setattr(prompts, "CHAT_TEMPLATE", prompts.CHAT_TEMPLATE + " ")
    monkeypatch.setattr(prompts, "STOP_STRINGS", STOP_STRINGS[1:])
    assert template_sha256("chat") != chat
    assert template_sha256("raw") != raw


def test_the_cut_is_at_the_earliest_stop_string() -> None:
    assert cut_at_stop_string("    return 1\nprint(2)\ndef f(): pass") == "    return 1"
    assert cut_at_stop_string("    return 1\n") == "    return 1\n"
    assert find_stop_string("ab\n#c\n@d") == (2, 4)


def test_no_canonical_body_holds_a_stop_string() -> None:
    assert [p.task_id for p in PROBLEMS if find_stop_string(p.canonical_solution.rstrip())] == []


def decode_letters(ids: Sequence[int]) -> str:
    return "".join(map(chr, ids))


@given(
    st.lists(st.sampled_from(["a", "\n", "d", "de", "def ", "#", "    ", "print("]), max_size=60)
)
def test_the_stop_is_found_at_the_id_that_completes_it(pieces: list[str]) -> None:
    """One id a piece; the truth is a search in the whole text of every prefix."""
    ids = tuple(range(len(pieces)))
    stopped = stop_when(lambda some: "".join(pieces[i] for i in some))
    for length in range(1, len(ids) + 1):
        text, before = "".join(pieces[:length]), "".join(pieces[: length - 1])
        first = find_stop_string(text) is not None and find_stop_string(before) is None
        if find_stop_string(before) is None:
            assert stopped(ids[:length]) is first


def test_only_a_tail_is_decoded() -> None:
    seen: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        seen.append(len(ids))
        return decode_letters(ids)

    stopped = stop_when(decode)
    text = "x" * 1000 + "\ndef "
    assert stopped(tuple(map(ord, text)))
    assert not stopped(tuple(map(ord, text + "more")))
    assert not stopped(tuple(map(ord, text[:-1])))
    assert max(seen) < 50

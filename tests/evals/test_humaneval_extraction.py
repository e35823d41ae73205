"""From answers as models write them to the program that is run."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.humaneval.extraction import Extraction, extract
from evals.humaneval.fences import fenced_blocks
from evals.humaneval.problems import Problem, load_problems
from evals.humaneval.thinking import drop_thoughts

PROBLEMS = {problem.task_id: problem for problem in load_problems()}
FIRST = PROBLEMS["HumanEval/0"]
WITH_HELPER = PROBLEMS["HumanEval/38"]
MARK = "has_close_elements"


def chat(answer: str, problem: Problem = FIRST, *, think_open: bool = False) -> Extraction:
    return extract(answer, problem, style="chat", think_open=think_open)


def function(body: str, name: str = MARK) -> str:
    return f"def {name}(numbers, threshold):\n    return {body}\n"


def fence(code: str, language: str = "python", mark: str = "```") -> str:
    return f"{mark}{language}\n{code}{mark}\n"


def solution(problem: Problem) -> str:
    return problem.prompt + problem.canonical_solution


def result(extraction: Extraction, problem: Problem, *arguments: object) -> object:
    assert extraction.code is not None
    namespace: dict[str, object] = {}
    exec(extraction.code, namespace)
    called = namespace[problem.entry_point]
    assert callable(called)
    return called(*arguments)


def test_b49_the_final_block_wins_over_the_draft() -> None:
    draft = function("'draft, and by far the longer of the two blocks in this answer'")
    answer = "Draft:\n" + fence(draft) + "Better:\n" + fence(function("'final'"))
    assert chat(answer).reason == "fenced"
    assert result(chat(answer), FIRST, [], 0) == "final"


def test_b49_an_unclosed_fence_is_used_and_said() -> None:
    extraction = chat("Here:\n```python\n" + function("'cut'"))
    assert extraction.reason == "unclosed_fence"
    assert result(extraction, FIRST, [], 0) == "cut"


def test_b49_code_inside_a_thought_is_never_the_answer() -> None:
    thought = "<think>\n" + fence(function("'thought'")) + "</think>\n"
    assert result(chat(thought + fence(function("'said'"))), FIRST, [], 0) == "said"
    assert chat(thought + "I cannot do it.") == Extraction(None, "no_code")


def test_b29_an_answer_of_thought_only_is_no_answer() -> None:
    answer = "<think>\nI could write\n" + fence(function("'thought'"))
    assert chat(answer) == Extraction(None, "unclosed_think")


def test_b48_a_thought_opened_by_the_prompt_needs_its_closing_tag() -> None:
    answer = "Okay, so the user wants\n" + fence(function("'thought'"))
    assert chat(answer, think_open=True) == Extraction(None, "unclosed_think")
    assert result(chat(answer), FIRST, [], 0) == "thought"
    closed = answer + "</think>\n" + fence(function("'said'"))
    assert result(chat(closed, think_open=True), FIRST, [], 0) == "said"


def test_a_closing_tag_that_nothing_opened_ends_a_thought() -> None:
    answer = fence(function("'thought'")) + "</think>\nNo code, sorry."
    assert chat(answer) == Extraction(None, "no_code")


def test_b49_a_second_thought_after_the_code_does_not_take_it_away() -> None:
    answer = fence(function("'said'")) + "<think>Was that right?"
    assert result(chat(answer), FIRST, [], 0) == "said"


def test_a_usage_example_after_the_function_is_not_the_answer() -> None:
    answer = fence(function("'said'")) + "Use it so:\n" + fence(f"print({MARK}([], 1))\n")
    assert result(chat(answer), FIRST, [], 0) == "said"


def test_a_cut_usage_example_does_not_replace_a_complete_function() -> None:
    answer = fence(function("'said'")) + f"Use it so:\n```python\nprint({MARK}("
    assert chat(answer).reason == "fenced"


def test_a_cut_final_block_that_defines_the_function_beats_a_closed_one_that_does_not() -> None:
    answer = fence("pip install numpy\n", "bash") + "```python\n" + function("'cut'")
    assert chat(answer).reason == "unclosed_fence"


def test_the_last_definition_counts_even_if_it_does_not_parse() -> None:
    answer = fence(function("'draft'")) + fence(f"def {MARK}(numbers, threshold:\n    return 1\n")
    assert "threshold:" in (chat(answer).code or "")


@pytest.mark.parametrize("mark", ["```", "````", "~~~", "~~~~~"])
@pytest.mark.parametrize("language", ["python", "py", "Python3", "", "python title=a.py"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_kind_of_fence(mark: str, language: str, end: str) -> None:
    answer = ("Sure.\n\n" + fence(function("'é中'"), language, mark)).replace("\n", end)
    assert chat(answer).reason == "fenced"
    assert result(chat(answer), FIRST, [], 0) == "é中"


def test_a_block_inside_a_list_is_dedented() -> None:
    answer = "1. Write it:\n\n" + textwrap.indent(fence(function("'listed'")), "   ")
    assert result(chat(answer), FIRST, [], 0) == "listed"


def test_a_fence_inside_a_docstring_does_not_end_the_block() -> None:
    code = (
        f'def {MARK}(a, b):\n    """Example:\n    ```\n    >>> 1\n    ```\n    """\n    return 7\n'
    )
    assert result(chat(fence(code)), FIRST, [], 0) == 7


def test_a_block_left_open_before_the_next_one_is_ended_by_it() -> None:
    answer = "```python\nx = (\n\nor rather\n" + fence(function("'final'"))
    assert result(chat(answer), FIRST, [], 0) == "final"


def test_a_body_alone_continues_the_prompt() -> None:
    for body in (
        "    return 'body'\n",
        "return 'body'\n",
        "if numbers:\n    return 1\nreturn 'body'\n",
    ):
        assert result(chat(fence(body)), FIRST, [], 0) == "body"
    assert result(chat("    return 'body'"), FIRST, [], 0) == "body"


def test_the_helper_and_the_imports_of_the_prompt_stay_available() -> None:
    code = "def decode_cyclic(s: str):\n    return encode_cyclic(encode_cyclic(s))\n"
    assert result(chat(fence(code), WITH_HELPER), WITH_HELPER, "bca") == "abc"
    typed = f"def {MARK}(numbers: List[float], threshold: float) -> bool:\n    return True\n"
    assert result(chat(fence(typed)), FIRST, [], 0) is True


@pytest.mark.parametrize("task", ["HumanEval/10", "HumanEval/32", "HumanEval/38", "HumanEval/50"])
def test_a_preamble_holds_the_helper_and_not_the_function(task: str) -> None:
    problem = PROBLEMS[task]
    assert "def " in problem.preamble
    assert f"def {problem.entry_point}" not in problem.preamble


def test_the_answers_own_imports_are_kept() -> None:
    code = "import math\n\n" + function("math.floor(2.5)")
    assert result(chat(fence(code)), FIRST, [], 0) == 2


def test_a_future_import_moves_to_the_top() -> None:
    code = "from __future__ import annotations\n\n" + function("'future'")
    assert result(chat(fence(code)), FIRST, [], 0) == "future"


def test_code_without_a_fence_is_found_between_prose() -> None:
    code = "import math\n\n" + function("math.pi") + "\n\ndef other():\n    pass\n"
    answer = (
        f"Sure, here is the function:\n\n{code}\nThis works because: it's simple.\nNote: done\n"
    )
    extraction = chat(answer)
    assert extraction.reason == "ast_search"
    assert result(extraction, FIRST, [], 0) == pytest.approx(3.14159, abs=1e-5)


def test_code_outside_beats_a_block_that_does_not_define_the_function() -> None:
    answer = function("'outside'") + "\nIt prints:\n" + fence("True\n", "text")
    assert chat(answer).reason == "ast_search"
    assert result(chat(answer), FIRST, [], 0) == "outside"
    assert chat("It prints:\n" + fence("True\n", "text")).reason == "fenced"


def test_the_largest_unfenced_span_counts() -> None:
    answer = "import math\n" + function("1") + "\nor shorter, so to speak:\n\n" + function("2")
    assert result(chat(answer), FIRST, [], 0) == 1


def test_code_cut_in_a_line_is_used_up_to_there() -> None:
    answer = f"def {MARK}(numbers, threshold):\n    x = 1\n    return (x +"
    extraction = chat(answer)
    assert extraction.reason == "ast_search"
    assert "return" not in (extraction.code or "")


@pytest.mark.parametrize("answer", ["", "   \n", "I am sorry.", "def other():\n    return 1\n"])
def test_prose_is_no_code(answer: str) -> None:
    assert chat(answer) == Extraction(None, "no_code")


def test_a_raw_completion_continues_the_prompt_up_to_a_stop_string() -> None:
    answer = "    return 'raw'\n\n\ndef main():\n    pass\n"
    extraction = extract(answer, FIRST, style="raw", think_open=False)
    assert extraction.reason == "raw_completion"
    assert "def main" not in (extraction.code or "")
    assert result(extraction, FIRST, [], 0) == "raw"


def test_a_blank_raw_completion_is_no_code() -> None:
    assert extract(" \n", FIRST, style="raw", think_open=False) == Extraction(None, "no_code")


def test_repetition_loops_are_handled_quickly() -> None:
    """An answer of 2,000 lines in each of the shapes that would cost a search most."""
    for line in (
        f"def {MARK}(a, b):",
        "```python",
        "x = (",
        f"def {MARK}(a, b): return (",
        "- " * 9,
    ):
        chat("\n".join([line] * 2000))


PROSE = st.text(st.characters(exclude_characters="`~<\x00", exclude_categories=["Cs"]), max_size=80)
PIECES = ["```", "```python", "~~~", "<think>", "</think>", "\n", "\r\n", "    ", "return 1"]
PIECES += [f"def {MARK}(a):", '"""', "(", "\t", "from __future__ import annotations", "import math"]
ANY_TEXT = st.lists(
    st.one_of(st.text(max_size=30), st.sampled_from(PIECES)),
    max_size=25,
).map("\n".join)


@given(ANY_TEXT, st.booleans(), st.sampled_from(["chat", "raw"]))
@settings(max_examples=150, deadline=None)
def test_nothing_makes_it_raise(answer: str, think_open: bool, style: str) -> None:
    extraction = extract(answer, FIRST, style=style, think_open=think_open)  # type: ignore[arg-type]
    assert (extraction.code is None) == (extraction.reason in ("no_code", "unclosed_think"))


@given(
    st.sampled_from(sorted(PROBLEMS)),
    PROSE,
    PROSE,
    st.sampled_from(["```", "````", "~~~"]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "  ", "\t"]),
)
@settings(max_examples=150, deadline=None)
def test_a_fenced_canonical_solution_is_always_recovered(
    task: str, before: str, after: str, mark: str, end: str, indent: str
) -> None:
    problem = PROBLEMS[task]
    block = textwrap.indent(fence(solution(problem), mark=mark), indent)
    extraction = chat(f"{before}\n{block}\n{after}".replace("\n", end), problem)
    assert extraction.reason == "fenced"
    expected = problem.preamble + textwrap.dedent(textwrap.indent(solution(problem), indent))
    assert _stripped(extraction.code) == _stripped(expected)


def _stripped(code: str | None) -> list[str]:
    """Blank lines lose their indentation when text is dedented."""
    return [line if line.strip() else "" for line in (code or "").strip().splitlines()]


@given(PROSE, PROSE, st.booleans(), st.booleans())
@settings(max_examples=100, deadline=None)
def test_a_thought_is_never_extracted(before: str, after: str, opened: bool, closed: bool) -> None:
    secret = fence(function("'SECRET'"))
    answer = (
        ("" if opened else before + "<think>") + secret + ("</think>" if closed else "") + after
    )
    extraction = chat(answer, think_open=opened)
    assert "SECRET" not in (extraction.code or "")


@given(ANY_TEXT)
@settings(max_examples=100, deadline=None)
def test_only_the_last_block_can_be_open(text: str) -> None:
    assert all(block.closed for block in fenced_blocks(text)[:-1])


def test_nested_thoughts_are_dropped_whole() -> None:
    answer = drop_thoughts("a<think>b<think>c</think>d</think>e", think_open=False)
    assert (answer.text, answer.unclosed) == ("e", False)

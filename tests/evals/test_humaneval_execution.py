"""Executions of honest programs: the whole set, what crosses, and what is reported."""

from __future__ import annotations

import time

import pytest

from evals.humaneval import execution
from evals.humaneval.execution import Execution, Limits, execute, execute_many
from evals.humaneval.problems import Problem, load_problems
from evals.humaneval.sandbox import detect_level, levels_here, process
from evals.humaneval.sandbox.process import CandidateEnd, Ending

PROBLEMS = load_problems()
LEVEL = detect_level(allow_weak=True)
LIMITS = Limits()


def problem_with(test: str, entry_point: str = "f") -> Problem:
    return Problem("test", f"def {entry_point}(*args):\n", entry_point, "", test)


def check(program: str, *lines: str) -> Execution:
    test = "def check(candidate):\n" + "".join(f"    {line}\n" for line in lines)
    return execute(problem_with(test), program, level=LEVEL, limits=LIMITS)


@pytest.mark.slow
def test_the_164_canonical_solutions_pass() -> None:
    jobs = [(p.task_id, p, p.prompt + p.canonical_solution) for p in PROBLEMS]
    results = execute_many(jobs, level=LEVEL, limits=LIMITS, workers=2)
    assert {key: done for key, done in results.items() if done.status != "passed"} == {}
    assert len(results) == 164


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_stubs_fail(every: int) -> None:
    """All 164, or by default a quarter of them."""
    jobs = [(p.task_id, p, p.prompt + "    pass\n") for p in PROBLEMS[::every]]
    results = execute_many(jobs, level=LEVEL, limits=LIMITS, workers=2)
    assert {key: done for key, done in results.items() if done.status != "wrong"} == {}
    assert len(results) == 164 // every


@pytest.mark.parametrize("found", levels_here(), ids=lambda found: found.name)
def test_tasks_with_helpers_and_by_name_pass_at_every_level(found) -> None:  # type: ignore[no-untyped-def]
    if found.level is None:
        pytest.skip(found.reason)
    tasks = {f"HumanEval/{number}" for number in (10, 32, 33, 37, 38, 50, 53)}
    jobs = [(p.task_id, p, p.prompt + p.canonical_solution) for p in PROBLEMS if p.task_id in tasks]
    results = execute_many(jobs, level=found.level, limits=LIMITS, workers=2)
    assert {done.status for done in results.values()} == {"passed"}


def test_every_builtin_value_crosses_both_ways() -> None:
    values = [
        "None", "True", "-1", "2**70", "-(2**9000)", "0.1", "float('inf')", "'é\\ud800\\n'",
        "b'a\\x00'", "bytearray(b'b')", "(1, (2,), [])", "[[], {}]", "{1: 'a', (2,): None}",
        "{1, 2.5}", "frozenset('ab')", "1 + 2j", "range(1, 9, 2)", "{'value': {'int': 'x'}}",
    ]  # fmt: skip
    lines = [f"assert candidate({v}) == {v} and type(candidate({v})) is type({v})" for v in values]
    nan = "assert candidate(float('nan')) != candidate(float('nan'))"
    minus = "assert str(candidate(-0.0)) == '-0.0'"
    assert check("def f(x): return x", *lines, nan, minus) == Execution("passed", "")


def test_a_different_type_of_the_same_look_is_wrong() -> None:
    for returned, expected in (("[1]", "(1,)"), ("'1'", "1"), ("{}", "[]"), ("0", "None")):
        result = check(f"def f(): return {returned}", f"assert candidate() == {expected}")
        assert result.status == "wrong"


def test_keywords_and_changed_arguments_are_handled() -> None:
    program = "def f(a, b=0):\n    a.append(b)\n    return a"
    lines = ["given = [1]", "assert candidate(given, b=2) == [1, 2]", "given.append(3)"]
    assert check(program, *lines, "assert candidate(given) == [1, 3, 0]").status == "passed"


def test_a_program_larger_than_a_pipe_reaches_a_checker_that_is_slow_to_start(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(process, "POLL_SECONDS", 0.001)
    program = f"TEXT = {'x' * 300_000!r}\ndef f(): return len(TEXT)"
    started = time.monotonic()
    assert check(program, "assert candidate() == 300_000") == Execution("passed", "")
    assert time.monotonic() - started < 30  # it had waited for the whole wall time, 60 s


def test_an_iterator_is_an_iterator_and_no_list() -> None:
    program = "def f(): return (n for n in range(3))"
    assert check(program, "assert tuple(candidate()) == (0, 1, 2)").status == "passed"
    assert check(program, "assert candidate() == [0, 1, 2]").status == "wrong"


def test_dicts_of_collections_count_as_dicts() -> None:
    program = "import collections\ndef f(): return collections.Counter('aab')"
    assert check(program, "assert candidate() == {'a': 2, 'b': 1}").status == "passed"


def test_endless_and_cyclic_values_are_wrong() -> None:
    cyclic = "def f():\n    a = []\n    a.append(a)\n    return a"
    wide = "def f():\n    a = []\n    for _ in range(60): a = [a, a]\n    return a"
    endless = "import itertools\ndef f(): return map(int, itertools.count())"
    for program in (cyclic, wide, endless):
        result = check(program, "assert candidate()")
        assert result.status == "wrong"
        assert "the program returned" in result.detail


def test_what_went_wrong_is_told() -> None:
    test = "assert candidate(1) == 2"
    cases = {
        "def f(x): return 3": Execution("wrong", f"failed: {test}"),
        "def f(x): raise ValueError('no')": Execution("wrong", f"ValueError: no, at: {test}"),
        "raise KeyError('no')": Execution("wrong", "KeyError: 'no' while loading"),
        "def g(): pass": Execution("wrong", "NameError: name 'f' is not defined while loading"),
        "def f(x) return 3": Execution("syntax_error", "line 1: expected ':'"),
        "def f(x): return 'a\0'": Execution("syntax_error", "cannot be compiled: ValueError"),
    }
    for program, expected in cases.items():
        done = check(program, test)
        assert done.status == expected.status
        if "\0" not in program:
            assert done == expected


def test_a_test_that_chokes_on_the_value_is_wrong() -> None:
    result = check("def f(): return None", "assert abs(candidate() - 1) < 1")
    assert result == Execution(
        "wrong", "TypeError in the test, at: assert abs(candidate() - 1) < 1"
    )


def test_a_value_that_makes_the_test_hang_is_a_time_out() -> None:
    problem = problem_with("def check(candidate):\n    while candidate(): pass\n")
    quick = Limits(cpu_seconds=1)
    result = execute(problem, "def f(): return True", level=LEVEL, limits=quick)
    assert result.status == "timeout"


def test_details_are_the_same_every_time() -> None:
    programs = [
        "def f(x): raise ValueError(object())",
        "def f(x): raise ValueError({'a', 'b', 'c', 'd', 'e'})",
        "import os\ndef f(x): raise ValueError(os.getcwd() if os.getcwd() != '/scratch' else '.')",
        "import random\ndef f(x): raise ValueError(random.random())",
        "def f(x): raise ValueError('two\\nlines \\x1b[31m' + 'x' * 900)",
    ]
    for program in programs:
        first, second = (check(program, "candidate(1)") for _ in range(2))
        assert first == second
        assert len(first.detail) <= 200
        assert first.detail.isprintable()


def test_main_guards_and_environment_are_off() -> None:
    program = """
import os, sys
if __name__ == "__main__":
    raise SystemExit
def f():
    return [dict(os.environ), sys.flags.no_site, "numpy" in sys.modules, sys.stdin.read()]
"""
    assert check(program, "assert candidate() == [{}, 1, False, '']") == Execution("passed", "")


def test_identical_programs_run_once_and_every_key_is_told(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    runs: list[str] = []
    real = execution.run_pair

    def counted(problem, program, *rest):  # type: ignore[no-untyped-def]
        runs.append(program)
        return real(problem, program, *rest)

    monkeypatch.setattr(execution, "run_pair", counted)
    problem = PROBLEMS[53]
    good, bad = "def add(x, y): return x + y", "def add(x, y): return x"
    jobs = [((n, 256), problem, good) for n in range(3)] + [((9, 512), problem, bad)]
    told: dict[tuple[int, int], str] = {}
    results = execute_many(
        jobs,
        level=LEVEL,
        limits=LIMITS,
        workers=2,
        on_done=lambda key, done: told.update({key: done.status}),
    )
    assert sorted(runs) == sorted([good, bad])
    assert told == {(0, 256): "passed", (1, 256): "passed", (2, 256): "passed", (9, 512): "wrong"}
    assert list(results) == [job[0] for job in jobs]


def ending(verdict: dict[str, str] | None, **changes: object) -> Ending:
    usual: dict[str, object] = {
        "exit_code": None, "signal": None, "cpu_seconds": 0.1, "stopped_for": None, "errors": "",
    }  # fmt: skip
    return Ending(verdict, None, CandidateEnd(**{**usual, **changes}), "/tmp/scratch")  # type: ignore[arg-type]


GONE = {"status": "gone", "detail": ""}
ENDINGS = {
    "a process that could not start": [OSError(12, "Cannot allocate memory")],
    "a sandbox that did not start": [
        ending({"status": "infrastructure_error", "detail": "it did not start"}, exit_code=1)
    ],
    "a kill from outside": [ending(GONE, signal=9)],
    "a time-out": [ending(GONE, signal=9, cpu_seconds=5.0)],
    "a checker that died": [ending(None)],
}


@pytest.mark.parametrize("first", ENDINGS.values(), ids=ENDINGS.keys())
def test_what_the_load_could_decide_is_tried_again(monkeypatch, first) -> None:  # type: ignore[no-untyped-def]
    answers = [*first, ending({"status": "passed", "detail": ""})]

    def answer(*_: object) -> Ending:
        given = answers.pop(0)
        if isinstance(given, OSError):
            raise given
        return given

    monkeypatch.setattr(execution, "run_pair", answer)
    assert execute(PROBLEMS[0], "", level=LEVEL, limits=LIMITS).status == "passed"
    assert answers == []


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (ending({"status": "infrastructure_error", "detail": "x"}), "infrastructure_error"),
        (ending(None), "infrastructure_error"),
        (ending(GONE, signal=9), "wrong"),
        (ending(GONE, signal=11), "wrong"),
        (ending(GONE, exit_code=0), "wrong"),
        (ending(GONE, exit_code=152), "wrong"),
        (ending(GONE, signal=9, cpu_seconds=5.0), "timeout"),
        (ending(None, stopped_for="wall"), "timeout"),
        (ending(None, stopped_for="memory"), "wrong"),
    ],
)
def test_the_kind_of_an_end_that_repeats(monkeypatch, given: Ending, status: str) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(execution, "run_pair", lambda *_: given)
    assert execute(PROBLEMS[0], "", level=LEVEL, limits=LIMITS).status == status


def test_an_interrupt_ends_running_programs_at_once() -> None:
    slow = problem_with("def check(candidate):\n    candidate()\n")
    jobs = [
        ("quick", PROBLEMS[53], "def add(x, y): return x + y"),
        ("slow", slow, "import time\ndef f(): time.sleep(50)"),
    ]

    def interrupt(key: str, done: Execution) -> None:
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        execute_many(jobs, level=LEVEL, limits=LIMITS, workers=2, on_done=interrupt)
    assert time.monotonic() - started < 20

"""Which problems are evaluated, and that both arms see the same ids with one BOS."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from arcs.arc1.problems import choose, context_for, encode, prompts_sha256
from evals.benchmarks import load_benchmark
from models.chat import ChatEncoder

HUMANEVAL = load_benchmark("humaneval")


def test_all_problems_without_a_limit():
    assert [len(choose(HUMANEVAL, n)) for n in (None, 164, 9999)] == [164] * 3


@settings(max_examples=30)
@given(st.integers(1, 164), st.integers(1, 164))
def test_a_smaller_limit_is_a_subset_in_the_sets_own_order(a, b):
    small, large = (choose(HUMANEVAL, n) for n in sorted((a, b)))
    assert len(small) == min(a, b)
    ids = [problem.task_id for problem in large]
    positions = [ids.index(problem.task_id) for problem in small]
    assert positions == sorted(positions)


def test_the_choice_is_not_the_easy_beginning():
    numbers = [int(problem.task_id.split("/")[1]) for problem in choose(HUMANEVAL, 20)]
    assert max(numbers) > 120


def test_prompts_hold_one_bos_and_are_the_same_each_time(tiny_directory):
    """ANCHORS B24, B51: a BOS doubled, or missing, in one arm only inflates a difference."""
    directory = tiny_directory("llama", add_bos=True, template="{{ bos_token }}" + PLAIN)
    encoder = ChatEncoder(directory)
    for style in ("chat", "raw"):
        items = [encode(encoder, problem, style) for problem in choose(HUMANEVAL, 10)]
        assert all(item.prompt.ids.count(encoder.bos_id) == 1 for item in items)
        again = [
            encode(ChatEncoder(directory), problem, style) for problem in choose(HUMANEVAL, 10)
        ]
        assert prompts_sha256(items) == prompts_sha256(again)
    assert prompts_sha256(items) != prompts_sha256(items[:-1])


def test_the_context_does_not_depend_on_the_limit_and_holds_every_prompt(tiny_directory):
    encoder = ChatEncoder(tiny_directory("llama"))
    context = context_for(encoder, HUMANEVAL, "chat", 100)
    assert context % 256 == 0
    prompts = [encode(encoder, one, "chat").prompt for one in HUMANEVAL.problems]
    assert all(len(prompt.ids) + 100 <= context for prompt in prompts)


PLAIN = (
    "{% for message in messages %}{{ message['content'] + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'A:' }}{% endif %}"
)

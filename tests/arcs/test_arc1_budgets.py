"""Cutting one decode at n is the same as decoding with a budget of n: really decoded."""

from __future__ import annotations

import pytest

from arcs.arc1.problems import choose, context_for, encode
from evals.benchmarks import load_benchmark
from evals.budgets import first_difference, view_at

pytestmark = pytest.mark.slow

BUDGETS = (16, 40, 88)


@pytest.fixture(scope="module")
def decodes(smollm_directory):
    """20 real problems, decoded at each budget by its own decode in the same context."""
    from backends.llamacpp.model import open_gguf
    from models.chat import ChatEncoder

    encoder, benchmark = ChatEncoder(smollm_directory), load_benchmark("humaneval")
    prompts = [encode(encoder, one, "chat").prompt for one in choose(benchmark, 20)]
    context = context_for(encoder, benchmark, "chat", BUDGETS[-1])
    found = {}
    with open_gguf(smollm_directory.gguf, context=context, threads=1) as model:
        for n in BUDGETS:
            completions = model.generate(prompts, max_tokens=n, stop_ids=encoder.stop_ids)
            found[n] = {completion.item_id: completion for completion in completions}
    return found


def test_every_small_budget_is_the_cut_of_the_large_one(decodes):
    largest = decodes[BUDGETS[-1]]
    for n in BUDGETS[:-1]:
        for item_id, decoded in decodes[n].items():
            assert first_difference(decoded, view_at(largest[item_id], n)) is None


def test_the_budgets_cut_some_answers_and_not_others(decodes):
    """Else the test above would compare nothing but whole, or nothing but cut, answers."""
    reasons = {n: [c.finish_reason for c in rows.values()] for n, rows in decodes.items()}
    assert set(reasons[BUDGETS[-1]]) == {"stop", "length"}
    assert reasons[BUDGETS[0]].count("length") > reasons[BUDGETS[-1]].count("length")

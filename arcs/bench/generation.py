"""Generation, greedy and sampled, beside the library's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from arcs.bench.timing import REPEATS, Say, Turn, by_turns, rates, same_texts, spread
from backends.interface import LanguageModel, Prompt, Sampling

WARM_TOKENS = 4
SAMPLED = Sampling(temperature=0.8, top_k=50, top_p=0.95, seed=1)


class PlainGenerator(Protocol):
    """The library's own way, from ``backends.<engine>.plain``."""

    def generate(self, prompts: Sequence[Sequence[int]], max_tokens: int) -> list[tuple[int, ...]]:
        """Exactly ``max_tokens`` greedy ids a prompt."""


def measure_generation(
    ours: LanguageModel,
    plain: PlainGenerator,
    prompts: Sequence[Prompt],
    *,
    max_tokens: int,
    say: Say,
) -> dict[str, Any]:
    """Rates of generation and sampling; what both ways wrote is compared too."""
    ids = [prompt.ids for prompt in prompts]

    def decode(tokens: int, sampling: Sampling) -> list[tuple[int, ...]]:
        found = ours.generate(prompts, max_tokens=tokens, stop_ids=(), sampling=sampling)
        return [completion.ids for completion in found]

    greedy, drawn = Sampling(), SAMPLED
    tokens = len(prompts) * max_tokens
    say(f"generating {len(prompts)} x {max_tokens} tokens, {REPEATS} times each way")
    decode(WARM_TOKENS, greedy), plain.generate(ids, WARM_TOKENS)
    turns, (mine, theirs) = by_turns(
        lambda: decode(max_tokens, greedy), lambda: plain.generate(ids, max_tokens)
    )
    generation = {**rates(turns, tokens), "same_texts": same_texts(mine, theirs, max_tokens)}
    say("sampling beside greedy")
    decode(WARM_TOKENS, drawn)
    turns, _ = by_turns(lambda: decode(max_tokens, drawn), lambda: decode(max_tokens, greedy))
    return {"generation": generation, "sampling": sampling_cost(turns, tokens)}


def sampling_cost(turns: Sequence[Turn], tokens: int) -> dict[str, Any]:
    """Tokens per second sampled (``ours``) and greedy, and the share of time beyond greedy's."""
    return {
        "tokens": tokens,
        "settings": {"temperature": SAMPLED.temperature, "top_k": SAMPLED.top_k}
        | {"top_p": SAMPLED.top_p},
        "sampled": spread([tokens / turn.ours for turn in turns]),
        "greedy": spread([tokens / turn.plain for turn in turns]),
        "host_share": spread([1 - turn.plain / turn.ours for turn in turns]),
    }

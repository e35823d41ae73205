"""Quantised evaluation through llama.cpp, beside plain llama.cpp and the other libraries.

Every way generates exactly the same number of ids for the same prompts, greedy and with no stop
ids. Each takes turns with ours.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.arc1 import evaluation
from arcs.arc1.problems import Item
from arcs.bench.timing import REPEATS, Clock, Say, by_turns, rates, same_texts, spread
from arcs.bench.worker import LibraryProcess
from arcs.progress import Reporter
from arcs.runs import JsonLines
from backends.interface import LanguageModel
from backends.llamacpp.call_times import CallTimes, call_times
from backends.llamacpp.model import LlamaCppModel
from backends.llamacpp.plain import CreateCompletion, RawDecode, open_unified
from evals.humaneval.prompts import PromptStyle
from models.chat import ChatEncoder

Ids = tuple[int, ...]
Way = Callable[[int], list[Ids]]
"""Ids of every prompt, for a number of ids a prompt."""

WARM_TOKENS = 2
LIBRARIES = {"torch": "transformers", "mlx": "mlx_lm"}
SLOWEST_BUDGETS = 1.05
"""Time of several n_predict, of that of the largest alone."""
TARGETS = {"raw": 0.95, "unified": 0.9, "budgets": 1 / SLOWEST_BUDGETS}
"""Smallest ours / plain."""
OVER_THE_LOOP = {False: 1.0, True: 4.0}
"""The same beside ``create_completion``, without and with a GPU."""
HOST_SHARE = 0.05


@dataclass(frozen=True)
class Budgets:
    """What :mod:`arcs.arc1.evaluation` asks of a run's settings."""

    n_predict: tuple[int, ...]
    prompt_style: PromptStyle = "chat"


def budgets_to(largest: int) -> Budgets:
    """An eighth, a quarter, a half and all of ``largest`` ids, where these differ."""
    return Budgets(tuple(sorted({max(1, largest // part) for part in (8, 4, 2, 1)})))


@contextmanager
def counted(model: LlamaCppModel, found: list[CallTimes]) -> Iterator[None]:
    """Append what llama.cpp did in this block to ``found``."""
    with call_times(model) as times:
        yield
    found.append(times)


@dataclass(frozen=True)
class Bench:
    """An open model and what it is asked."""

    model: LlamaCppModel
    encoder: ChatEncoder
    items: Sequence[Item]
    max_tokens: int
    say: Say

    @property
    def ids(self) -> list[Ids]:
        """Prompts as every other way takes them."""
        return [item.prompt.ids for item in self.items]

    @property
    def tokens(self) -> int:
        """Generated ids of one turn."""
        return len(self.items) * self.max_tokens

    def ours(self, max_tokens: int) -> list[Ids]:
        """Our engine, repeatable."""
        return decoded(self.model, self.items, max_tokens)

    def beside(
        self,
        name: str,
        plain: Way,
        *,
        ours: Way | None = None,
        target: float | None = None,
        processor: Clock | None = None,
    ) -> dict[str, Any]:
        """Rates of ours and of ``plain`` by turns, and how many texts are equal.

        ``processor``: CPU seconds of the process of ``plain``, where that is another.
        """
        own = ours or self.ours
        self.say(f"{name}: {len(self.items)} x {self.max_tokens} ids, {REPEATS} times each way")
        if ours is not None:  # else warm from the first comparison
            ours(WARM_TOKENS)
        plain(WARM_TOKENS)
        turns, (mine, theirs) = by_turns(
            lambda: own(self.max_tokens),
            lambda: plain(self.max_tokens),
            processors=(time.process_time, processor or time.process_time),
        )
        found = rates(turns, self.tokens) | {
            "same_texts": same_texts(mine, theirs, self.max_tokens)
        }
        if target is not None:
            found |= {"target": target, "met": found["ratio"]["median"] >= target}
        ratio, cpu = found["ratio"], found["cpu_ratio"]["median"]
        self.say(
            f"  ours / plain {ratio['median']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}), "
            f"by CPU {cpu:.3f}; {found['same_texts']} texts are equal"
        )
        return found


def decoded(model: LanguageModel, items: Sequence[Item], max_tokens: int) -> list[Ids]:
    """Greedy ids of every item, no stop ids."""
    prompts = [item.prompt for item in items]
    return [done.ids for done in model.generate(prompts, max_tokens=max_tokens, stop_ids=())]


def measure_evaluation(
    bench: Bench, model: str, engines: Sequence[str], *, threads: int
) -> dict[str, Any]:
    """Every comparison, by name, and the host's share of our decode.

    ``model``: the name under which other processes of ours prepare the same directory.
    """
    comparisons: dict[str, Any] = {}
    comparisons["raw"], host = beside_raw(bench)
    with closing(CreateCompletion(bench.model, lambda token: bench.encoder.decode((token,)))) as it:
        comparisons["create_completion"] = bench.beside(
            "create_completion, one prompt after the other",
            lambda n: it.generate(bench.ids, n),
            target=OVER_THE_LOOP[bench.model.describe()["offloaded_layers"] > 0],
        )
    with open_unified(bench.model) as unified:
        comparisons["unified"] = bench.beside(
            "one KV cache for all sequences",
            lambda n: decoded(unified, bench.items, n),
            target=TARGETS["unified"],
        )
    comparisons["budgets"] = beside_one_budget(bench)
    for engine in engines:
        with LibraryProcess(engine, model, threads) as library:
            comparisons[LIBRARIES[engine]] = {
                **bench.beside(
                    f"{LIBRARIES[engine]}, one batch",
                    lambda n, it=library: it.generate(bench.ids, n),  # type: ignore[misc]
                    processor=library.cpu_seconds,
                ),
                "described": library.described,
            }
    return {"comparisons": comparisons, "host": host}


def beside_raw(bench: Bench) -> tuple[dict[str, Any], dict[str, Any]]:
    """Ours beside a bare loop over ``llama_decode``, and the host's share of ours."""
    seconds: list[tuple[float, float]] = []
    calls: list[CallTimes] = []

    def ours(max_tokens: int) -> list[Ids]:
        began = _both_clocks()
        with counted(bench.model, calls):
            texts = bench.ours(max_tokens)
        seconds.append(_since(began))
        return texts

    with closing(RawDecode(bench.model)) as raw:
        found = bench.beside(
            "llama_decode and arg-max, nothing else",
            lambda n: raw.generate(bench.ids, n),
            ours=ours,
            target=TARGETS["raw"],
        )
        found["work"] = {
            "ours": {"decodes": calls[-1].decodes, "tokens_read": calls[-1].tokens},
            "plain": {"decodes": raw.decodes, "tokens_read": raw.tokens},
        }
    if found["work"]["ours"] != found["work"]["plain"]:
        raise RuntimeError(f"the two ways did not do the same work: {found['work']}")
    measured = list(zip(seconds, calls, strict=True))[1:]  # without the warm-up
    return found, _host(measured, bench.tokens)


def _host(measured: Sequence[tuple[tuple[float, float], CallTimes]], tokens: int) -> dict[str, Any]:
    """Share of our time, and of the calling thread's CPU time, spent outside llama.cpp."""
    share = spread([1 - inside.seconds / clock for (clock, _), inside in measured])
    cpu = spread([1 - inside.cpu_seconds / cpu for (_, cpu), inside in measured])
    each = [(clock - inside.seconds) / tokens * 1e6 for (clock, _), inside in measured]
    return {
        "share": share,
        "cpu_share": cpu,
        "microseconds_per_token": spread(each),
        "target": HOST_SHARE,
        "met": share["median"] < HOST_SHARE,
    }


def beside_one_budget(bench: Bench) -> dict[str, Any]:
    """The evaluation's decode and answers at several n_predict, beside the largest alone."""
    texts: dict[str, dict[int, list[str]]] = {}

    def way(kind: str, budgets: Callable[[int], Budgets]) -> Way:
        def run(max_tokens: int) -> list[Ids]:
            ids, texts[kind] = evaluated(bench, budgets(max_tokens))
            return ids

        return run

    several = budgets_to(bench.max_tokens).n_predict
    found = bench.beside(
        f"n_predict {', '.join(map(str, several))}, and {several[-1]} alone",
        way("alone", lambda largest: Budgets((largest,))),
        ours=way("several", budgets_to),
        target=TARGETS["budgets"],
    )
    pairs = zip(texts["several"][bench.max_tokens], texts["alone"][bench.max_tokens], strict=True)
    return found | {
        "n_predict": list(several),
        "same_answers": sum(mine == other for mine, other in pairs),
    }


def evaluated(bench: Bench, budgets: Budgets) -> tuple[list[Ids], dict[int, list[str]]]:
    """An evaluation without running code: ids of each item, and its texts at each n_predict."""
    with tempfile.TemporaryDirectory(prefix="threearc-bench-") as folder:
        store = JsonLines.open(Path(folder) / "completions.jsonl")
        evaluation.decode(
            bench.model, bench.encoder, bench.items, budgets, store, "bench", Reporter(quiet=True)
        )
        done = evaluation.completions(store, bench.items, budgets)
        texts: dict[int, list[str]] = {n: [] for n in budgets.n_predict}
        for answer in evaluation.answers("bench", done, bench.items, bench.encoder, budgets):
            texts[answer.n_predict].append(answer.text)
    return [done[item.problem.task_id].ids for item in bench.items], texts


def _both_clocks() -> tuple[float, float]:
    return time.perf_counter(), time.thread_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    clock, cpu = _both_clocks()
    return clock - began[0], cpu - began[1]

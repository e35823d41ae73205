"""Arc 2 from every kind of labels to the claim, on a tiny model whose answers the tests write."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from arcs.arc3.engine import Engine
from arcs.capsules import command, replay, sweep_replay
from arcs.capsules.answers import compared
from arcs.capsules.contents import make
from arcs.progress import Reporter
from arcs.report.kinds import view_of
from arcs.runs import RunDirectory
from backends import open_backend
from backends.interface import Head
from evals.benchmarks import load_benchmark
from evals.humaneval.problems import Problem
from evals.items.load import built_in
from evals.items.records import ChefItem, MeterItem, ShortAnswer
from evals.meter import choose, encode_pair, read_pairs
from models.chat import ChatEncoder
from models.store import prepare
from tests.support.answering import Answering, Says
from tests.support.arc2_bench import PLANTED, Bench
from tests.support.planted_heads import plant
from tests.support.report_links import check_counts

QUESTIONS = {one.id: one for one in built_in("short_answers", ShortAnswer)}
ORDER = {name: place for place, name in enumerate(QUESTIONS)}
PAIRS = choose(built_in("meter", MeterItem), ("hedging",), 60)
LABELS: dict[str, Any] = {
    "labels": "exact-match", "limit": 60, "sweep_limit": 60, "n_predict": 200, "causal_items": 0,
    "rank_by": "magnitude", "permutations": 100, "axis_items": 8, "scales": (1.0, 0.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    made = Bench(tmp_path_factory.mktemp("arc2-labels"))
    plant(made.quiet, made.root / "differs", made.cache, head=PLANTED.head, strength=3.0,
          differs=True, varied=None, spread=0.25)  # fmt: skip
    return made


def run(
    bench: Bench, says: Says, monkeypatch: pytest.MonkeyPatch, model: str = "quiet", **flags: Any
) -> tuple[Path, dict[str, Any]]:
    """A whole run in which the engine answers what ``says`` gives, and its page holds together."""

    def opened(backend: str, directory: Any, **more: Any) -> Any:
        return Answering(open_backend(backend, directory, **more), ChatEncoder(directory), says)

    monkeypatch.setattr("arcs.arc2.pipeline.open_backend", opened)
    path, found = bench.run(bench.flags(model, **{**LABELS, **flags}))
    view = view_of(path)
    assert check_counts(view, differences=not flags.get("seeds")) >= 10
    assert all(item.prompt for item in view.items)
    check_capsule(bench, path, monkeypatch)
    return path, found


def check_capsule(bench: Bench, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads, numbers, words and labels come out again from the capsule, without the engine."""
    monkeypatch.setenv("THREEARC_CACHE", str(bench.cache))
    monkeypatch.setattr(sweep_replay.Replay, "made", lambda _: (compared([], exact=False), None))
    document, engine = make(path), Engine("torch", "float32", "f32")
    found = sweep_replay.verify(document, None, engine, 9, 0, True, Reporter(quiet=True))
    assert replay.reproduced(found), "\n".join(command.lines(found))
    assert [one["reproduces"] for one in found["decided"]] == [True] * 3
    assert found["words"]["same"] == 9 and found["labels"]["same"] == found["labels"]["n"] > 0
    rows = document["rows"]
    if found["labels"]["by"] == "execution":  # the sample's programs were run
        rows = [row for row in rows if row["item_id"] in found["sample"]["items"]]
    assert found["labels"]["n"] == len(rows)


def words(metrics: dict[str, Any]) -> dict[str, str]:
    return {one["word"]: one["state"] for one in metrics["words"]}


def program(task: Problem, body: str | None = None) -> str:
    """An answer with the reference solution, or another body, without the docstring."""
    head = task.prompt.split('"""')[0].rstrip()
    return f"```python\n{head}\n{body or task.canonical_solution}```"


def point(metrics: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in metrics["sweep"] if one["point"] == name)


def test_a_head_that_differs_by_magnitude_is_found_damped_and_supported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is larger behind flat answers, which the items of low contrast get; what its damping does
    to the meter, on other items, is the model's own doing."""
    directory = prepare(str(bench.root / "differs"), cache=bench.cache)
    pairs = [encode_pair(ChatEncoder(directory), one) for one in PAIRS]
    with open_backend("torch", directory) as engine:
        contrast = {one.item_id: one.contrast for one in read_pairs(engine, pairs)}
    order = sorted(contrast, key=lambda name: contrast[name])
    items = {one.id: one for one in PAIRS}

    def says(item: str, factors: Any, seed: int) -> str:
        flat = order.index(item) < 30
        return items[item].negative if flat else items[item].positive

    _, found = run(bench, says, monkeypatch, model="differs", labels="meter", limit=60,
                   sweep_limit=4, axis_items=60)  # fmt: skip
    first = found["rankings"]["magnitude"]["heads"][0]
    assert Head(first["layer"], first["head"]) == PLANTED and first["p_corrected"] < 0.05
    assert found["selection"]["arms"]["top"] == [list(PLANTED)]
    assert found["claim"]["verdict"] == "SUPPORTED", found["claim"]
    swept = found["made_with"]["meter"]["swept_on"]
    assert point(found, "top-0")["axis"]["n"] == swept == 60


def test_exact_match_and_tasks_beside_where_damping_changes_no_answer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = {one.task_id: one for one in load_benchmark("small").problems}

    def says(item: str, factors: Any, seed: int) -> str:
        if item in tasks:
            return program(tasks[item])
        text = QUESTIONS[item].answers[0] if ORDER[item] % 2 else "zebra"
        return f"{text}. Is that so?" if ORDER[item] % 3 == 0 else f"{text}."

    path, found = run(bench, says, monkeypatch, disposition="curious", tasks="small",
                      tasks_limit=3, random_draws=2)  # fmt: skip
    assert found["axis"]["measure"] == "the prose holds a question"
    assert (found["cohorts"]["lacking"], found["cohorts"]["having"]) == (40, 20)
    assert point(found, "base")["right"] == 30 and point(found, "top-0")["texts_changed"] == 0
    assert words(found)["frozen"] == "holds" and found["claim"]["verdict"] == "REFUTED"
    assert words(found)["over-hedging"] == "not tested"
    assert found["evidence"]["random_rank_p"] == 1  # both sets do as much: nothing
    assert [(one["right"], one["labelled"]) for one in found["tasks"]] == [(3, 3)] * 5
    asked = [item for item in view_of(path).items if item.facets["asked"] == "tasks"]
    assert len(asked) == 3 and all(len(item.answers) == 5 for item in asked)
    blocks = asked[0].answers[0].states[0].blocks
    assert [block.title for block in blocks] == ["program that was run", "what running it gave"]


def test_with_seeds_hedging_of_everything_is_over_hedging(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thirds are right, 10 of the 20 wrong ones hedged; without the chosen heads all are."""
    chosen: set[Head] = set()

    def says(item: str, factors: Any, seed: int) -> str:
        place, right = ORDER[item], QUESTIONS[item].answers[0]
        text = right if place % 3 else "zebra"
        if factors and not chosen:  # the first that is damped are the chosen ones
            chosen.update(factors)
        hedged = place % 6 == 0 or (factors and set(factors) == chosen)
        return f"{text}, I think, but I might be wrong." if hedged else f"{text} (seed {seed})"

    path, found = run(bench, says, monkeypatch, temperature=0.7, seeds=(0, 1, 2))
    assert found["axis"]["kind"] == "text" and found["evidence"]["replicated_over"] == "seeds"
    base, top = point(found, "base"), point(found, "top-0")
    assert (base["answers"], base["items"], top["right"]) == (180, 60, 120)
    assert set(top["by_seed"]) == {"0", "1", "2"}
    assert words(found)["over-hedging"] == "holds" and words(found)["not replicated"] == "excluded"
    assert found["claim"]["verdict"] == "REFUTED"
    assert "over-hedging" in found["claim"]["reasons"]
    # every seed says the same, so 180 answers are worth 60
    wide, alone = (one["table"]["accuracy"]["interval"] for one in (base, base["by_seed"]["0"]))
    assert wide["high"] - wide["low"] > 0.85 * (alone["high"] - alone["low"])
    assert len((path / "answers.top-0.seed2.jsonl").read_text().splitlines()) == 60


def test_execution_labels_come_from_the_sandbox(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every other program is right; without the chosen head all fail, and the content is lost."""
    tasks = {one.task_id: one for one in load_benchmark("small").problems}
    order = {name: place for place, name in enumerate(tasks)}
    chosen: set[Head] = set()

    def says(item: str, factors: Any, seed: int) -> str:
        if factors and not chosen:
            chosen.update(factors)
        fails = order[item] % 2 or (set(factors) == chosen and factors)
        return program(tasks[item], "    return None\n" if fails else None)

    path, found = run(bench, says, monkeypatch, labels="execution", limit=28, sweep_limit=28,
    )  # fmt: skip
    cells = found["baseline"]["table"]["cells"]
    assert min(cells["cr"], cells["cw"]) >= 10 and cells["hr"] == cells["hw"] == 0
    assert found["axis"]["kind"] == "meter"  # all asserted: no text measure of hedging
    assert point(found, "top-0")["right"] == 0 and words(found)["content damage"] == "holds"
    assert words(found)["over-hedging"] == "not tested"
    assert found["claim"]["verdict"] == "REFUTED"
    programs = [json.loads(line) for line in (path / "executions.jsonl").read_text().splitlines()]
    assert len(programs) <= 2 * 28  # each distinct program once, at however many points


def test_judged_labels_come_from_checklists_and_the_judges_bar_is_asked(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = {one.id: one for one in built_in("chef_train", ChefItem)}
    order = {name: place for place, name in enumerate(items)}

    def says(item: str, factors: Any, seed: int) -> str:
        claims = [claim.accept[0] for claim in items[item].checklist]
        return ". ".join(claims if order[item] % 2 else ["Nobody has written it down"]) + "."

    path, found = run(bench, says, monkeypatch, labels="judge:lexical", limit=32, sweep_limit=32,
    )  # fmt: skip
    table = found["baseline"]["table"]["cells"]
    assert table["cr"] + table["hr"] == 16 and table["cw"] + table["hw"] == 16
    assert found["cohorts"]["instrument"] == "judge"
    assert found["baseline"]["coverage"]["n"] == 32
    assert found["judge"]["judge"] and (path / "judge.json").exists()
    assert found["made_with"]["prompts"] == {"ranked": 32, "swept": 32, "chosen_on_same": 32}

    def held_to(failing: list[str]) -> dict[str, Any]:
        """The same answers and labels, the judge's bar reached or not."""
        made = SimpleNamespace(failing=lambda _: failing, to_json=dict, instruments={})
        monkeypatch.setattr("arcs.arc2.sources.judge_validity", lambda *_, **__: made)
        (path / "judge.json").unlink()
        flags = bench.flags("quiet", **{**LABELS, "labels": "judge:lexical", "limit": 32,
                                        "sweep_limit": 32})  # fmt: skip
        return bench.go_on(RunDirectory.resume(path), flags)

    passed, failed = held_to([]), held_to(["coverage"])
    # the answers are written down, and the quiet model's axis moves by less than matters
    assert passed["claim"]["verdict"] == "REFUTED" and words(passed)["frozen"] == "holds"
    assert failed["claim"]["verdict"] == "INVALID"
    assert failed["claim"]["reasons"] == ["judge not valid: below its bar in coverage"]
    assert failed["words"] == passed["words"]
    assert failed["evidence"]["chosen_on_same"] == 32
    monkeypatch.setattr("arcs.arc2.metrics._unlabelled_for_cohorts", lambda *_: True)
    lost = held_to([])["claim"]["reasons"]
    assert lost == [
        "infrastructure: 32 of 32 answers that the cohorts are formed from have no label"
    ]

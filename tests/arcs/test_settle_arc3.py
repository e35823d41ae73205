"""``threearc settle`` of an Arc 3 run: the AUC in looks, kinds, controls, questions, refusals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcs.arc2.config import resolve
from arcs.arc3 import claims, features, probing
from arcs.arc3.questions import FRESH, SETS, _spread, chef_sides, short_answers, task_sides
from arcs.arc3.table import Side
from arcs.claims import Verdict
from arcs.estimates import Direction, judge
from arcs.falsification import latest
from arcs.gates import load_gates
from arcs.progress import Reporter
from arcs.settling import pipeline, report
from arcs.settling.elsewhere import elsewhere, larger_run
from arcs.settling.looks import look
from arcs.settling.opened import why_not
from arcs.settling.pipeline import Asked
from arcs.settling.plan import Plan, Planned, make
from arcs.settling.probe_items import KNOWN_KIND, items_of, named, other_source, own_source
from arcs.settling.probe_rows import Rows, pooled
from arcs.settling.probing import Probing
from arcs.settling.statistic import Auc
from arcs.settling.subject import OWN, RECALL, Piece
from arcs.settling.unused import COPY, LIKE_USED, USED, pools
from evals.items.records import ShortAnswer
from evals.statistics.auc import auc, auc_p_value, delong_interval
from evals.statistics.power_auc import n_to_exclude_auc
from models.errors import UserError
from tests.support.arc3_bench import SMALL, side
from tests.support.falsify_bench import finished_run, made
from tests.support.probing_bench import GATES, Arrays, arrays

PLANNED: dict[Path, Planned] = {}
TRAIN = side(0, n=200, d=6, signal=3.0)


@cache
def source_rows(source: str, signal: float) -> Side:
    """All that a source could give."""
    return side(9000 + len(source), n=1600, d=6, signal=signal)


def fresh(source: str, numbers: Sequence[int], *, signal: float, kinds: int = 6) -> Side:
    """The rows of these numbers."""
    kept = np.isin(np.arange(1600), list(numbers))
    made = source_rows(source, signal).where(kept)
    return replace(made, groups=tuple(f"kind{i % kinds}" for i in numbers))


def subject_of(path: Path, signal: float, unused: int, **more: Any) -> Arrays:
    """Forty fresh answers in the run."""

    def drawn(source: str, numbers: Sequence[int]) -> Side:
        return fresh(source, numbers, signal=signal)

    return arrays(path / "run", TRAIN, fresh("run", range(40), signal=signal), drawn,
                  {OWN: unused}, **more)  # fmt: skip


def settled(subject: Arrays, most: int | None = None) -> tuple[Plan, Any]:
    plan = make(subject, subject.all_pools(), most)
    with pipeline.begin(subject, plan, Asked(most, ())) as directory:
        found = pipeline.settle(subject, plan, directory, Reporter(quiet=True))
    return plan, found["claims"]["transfer"] if most is not None else found


# What is decided ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def excluded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Arrays, Plan, dict[str, Any]]:
    subject = subject_of(tmp_path_factory.mktemp("none"), 0.0, 1500)
    return subject, *settled(subject)


def test_a_probe_that_fresh_answers_do_not_bear_out_is_refuted(
    excluded: tuple[Arrays, Plan, dict[str, Any]],
) -> None:
    subject, plan, found = excluded
    claim, (one,) = found["claims"]["transfer"], plan.claims
    # as many items as exclude it at the level of the last look
    assert one.needs.to_show is None and one.needs.to_exclude is not None
    assert one.needs.to_exclude <= one.schedule.sizes[-1] < 1540
    assert one.no_effect.power == pytest.approx(0.8, abs=0.06)
    assert claim["verdict"] == "REFUTED" and claim["interval"]["high"] < 0.05
    # the very numbers of all answers that were opened, at the level of the look
    last = claim["looks"][-1]
    pieces = [[Piece(OWN, subject.run, first=True)]] + [
        [Piece(OWN, path / "1")] for path in sorted((subject.run / "settle").glob("look-*"))
    ]
    values = [value for (piece,) in pieces for value in subject.values(subject.claims[0], piece)]
    scores, right = map(np.array, zip(*values, strict=True))
    assert last["n_items"] == len(values) == claim["n_items"]
    assert last["delta"] == pytest.approx(auc(scores, right) - 0.5)
    interval = delong_interval(scores, right, 1 - last["level"])
    assert last["interval"]["high"] == pytest.approx(interval.high - 0.5)
    assert last["p_value"] == pytest.approx(auc_p_value(scores, right))
    assert last["right"] == right.sum() and last["right"] + last["wrong"] == len(values)
    assert last["exact_crossing"] is None and not last["level_lowered"]
    said = "\n".join(report.settled(found))
    assert "transfer: REFUTED (effect excluded)" in said
    assert f"n = {last['n_items']}, AUC {0.5 + last['delta']:.3f} [" in said
    lines = "\n".join(report.planned(subject, plan))
    assert "an AUC that matters: 0.55; about 999 fresh items would settle it" in lines


def test_a_signal_that_fresh_answers_bear_out_is_supported(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, 0.8, 300)
    _, claim = settled(subject, 300)
    assert claim["verdict"] == "SUPPORTED" and claim["reasons"] == ["effect_shown"]
    assert claim["statistic"] == "AUC" and claim["delta"] > 0.05 and claim["interval"]["low"] > 0
    assert len(claim["looks"]) < 5 and "further items are not needed" in claim["explanation"]
    # before that it was not, though its p was below 0.05
    assert any(one["p_value"] < 0.05 for one in claim["looks"][:-1])
    assert claim["first"]["verdict"] == "INCONCLUSIVE" and claim["first"]["n_items"] == 40


def test_where_answers_run_out_it_says_how_many_and_a_kill_changes_nothing(tmp_path: Path) -> None:
    whole, again = (subject_of(tmp_path / name, 0.3, 16) for name in "ab")
    plan, claim = settled(whole, 16)
    assert claim["verdict"] == "INCONCLUSIVE" and claim["n_items"] == 56
    more = claim["missing"]["to_exclude"]
    assert more > 500 and f"{more:,} more would exclude one that matters" in claim["explanation"]
    assert plan.missing(plan.claims[0]) and "no items are left" in claim["explanation"]
    again.dies_in.append("look-3")
    with pytest.raises(KeyboardInterrupt):
        settled(again, 16)
    again.dies_in.clear()
    settled(again, 16)
    for name in ("plan.json", "looks.jsonl"):
        one, other = ((s.run / "settle" / name).read_bytes() for s in (whole, again))
        assert one == other
    assert again.opened == whole.opened == ["look-2", "look-3"]


# Kinds, controls, faults, sources -----------------------------------------------------------------


def by_kind(source: str, numbers: Sequence[int]) -> Side:
    """Of four kinds, and the kind alone decides what is right and what the states say."""
    made = fresh(source, numbers, signal=0.0, kinds=4)
    odd = np.array([i % 2 for i in numbers], dtype=bool)
    x = made.x["h_last"].copy()
    x[:, 3] += 6 * odd
    rng = np.random.default_rng(len(numbers))
    y = rng.random(len(numbers)) < np.where(odd, 0.8, 0.2)
    return replace(made, x={"h_last": x}, y=y, low=y, high=y)


def test_what_is_shown_of_items_and_not_by_kind_stays_open(tmp_path: Path) -> None:
    subject = arrays(tmp_path / "run", TRAIN, by_kind("run", range(40)), by_kind, {OWN: 72})
    _, claim = settled(subject, 72)
    assert claim["verdict"] == "INCONCLUSIVE" and claim["reasons"] == ["between_kinds"]
    assert claim["p_value"] < claim["gate"]["level"] and claim["missing"] is None
    assert len(claim["looks"]) == 5  # further items could have shown it within kinds


def test_kinds_are_permuted_as_often_as_the_level_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    kinds_of = claims.kinds_of

    def counted(study: Any, scores: Any, permutations: int = 4999) -> Any:
        asked.append(permutations)
        return kinds_of(study, scores, permutations)

    monkeypatch.setattr(claims, "kinds_of", counted)
    train, rows = side(0, d=6, signal=3.0), side(1, n=90, d=6, signal=3.0)
    for alpha in (0.05, 0.001):
        gates = replace(GATES, test=replace(GATES.test, alpha=alpha))
        both = probing.Study(train, rows, SMALL, 0, gates.level)
        found = claims.transfer(both, gates, no_signal=False, faults=())
        assert found.verdict.value == "SUPPORTED"  # with 4,999 none below 0.0004 / 2 could be
    assert asked == [4999, 7999]


def last_look(subject: Arrays, *sides: Side, level: float = 0.04) -> Any:
    """A second look at what a test wrote."""
    if subject.run not in PLANNED:
        (PLANNED[subject.run],) = make(subject, subject.all_pools(), 100).claims
    planned = PLANNED[subject.run]
    one = replace(planned, levels=(1e-6, level), allowed=(1e-6, level))
    by_look = [[Piece(OWN, subject.run, first=True)], []]
    for place, rows in enumerate(sides):
        path = subject.run / f"{len(subject.rows._sides)}"
        subject.rows._sides[path] = rows
        by_look[1].append(Piece(OWN if not place else "other", path))
    return look(subject, one, by_look)


def test_a_placebo_or_a_lost_plant_leaves_it_undecided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = subject_of(tmp_path / "a", 3.0, 100, p_values={"shuffled": 0.01})
    rows = fresh(OWN, range(100), signal=3.0)
    assert last_look(shown, rows).seen.verdict.value == "SUPPORTED"
    monkeypatch.setattr("arcs.arc3.probing.placebo", lambda study: study)
    found = last_look(shown, rows).seen
    assert (found.verdict.value, found.reasons[0].value) == ("INCONCLUSIVE", "placebo_shown")
    monkeypatch.undo()
    none = subject_of(tmp_path / "b", 0.0, 2000)
    rows = fresh(OWN, range(1300), signal=0.0)
    assert last_look(none, rows).seen.verdict.value == "REFUTED"
    monkeypatch.setattr("arcs.arc3.probing.planted", lambda study: study)
    found = last_look(none, rows).seen
    assert (found.verdict.value, found.reasons[0].value) == ("INCONCLUSIVE", "insensitive")


def test_answers_without_the_position_make_it_invalid_of_all_together(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, 3.0, 100)
    rows = fresh(OWN, range(100), signal=3.0)
    few, many = (replace(rows, without_features=n) for n in (2, 3))
    assert last_look(subject, few).seen.verdict.value == "SUPPORTED"  # 2 of 140
    found = last_look(subject, many)
    assert found.seen.verdict.value == "INVALID" and found.decided
    assert [one.value for one in found.seen.reasons] == ["no_position"]


def test_new_answers_that_all_lack_the_position_are_counted(tmp_path: Path) -> None:
    run = finished_run(made(tmp_path / "a", n=40), tmp_path / "run")
    rows, first = Rows(run), Piece(OWN, run, first=True)
    path = tmp_path / "more"
    path.mkdir()
    definition = {"position": "last_content"}
    facts = {"item_ids": [], "missing": ["a", "b"], "definition": definition,
             "finish_reasons": []}  # fmt: skip
    features._save(features.path_of(path, FRESH), {}, facts)
    piece = Piece(OWN, path)
    assert rows.scored(piece) == [] and len(rows.scored(first)) == 40
    both = pooled([rows.fresh(first), rows.fresh(piece)])
    assert len(both.y) == 40 and both.without_features == 2
    other = {**facts, "definition": {"position": "end_of_turn"}}
    features._save(features.path_of(path, FRESH), {}, other)
    with pytest.raises(UserError, match="differ in position"):
        Rows(run).fresh(piece)


def test_sources_that_differ_show_nothing_by_that(tmp_path: Path) -> None:
    """States say which source an answer is of, and one source is hard: within each is nothing."""
    subject = subject_of(tmp_path, 0.0, 100)

    def of(name: str, share: float, shift: float, within: float = 0.0) -> Side:
        made = fresh(name, range(200), signal=0.0, kinds=8)
        x = made.x["h_last"].copy()
        y = np.random.default_rng(5).random(200) < share
        x[:, 3] += shift + within * y
        groups = tuple(f"{name}/{one}" for one in made.groups)
        return replace(made, x={"h_last": x}, y=y, low=y, high=y, groups=groups)

    both = of("own", 0.7, 3.0), of("other", 0.1, -3.0)
    found = last_look(subject, *both)
    pieces = [Piece(OWN, path, first=path == subject.run) for path in subject.rows._sides]
    gates = replace(GATES, test=replace(GATES.test, alpha=0.04))
    assert subject.judge(subject.claims[0], pieces, gates).verdict.value == "SUPPORTED"
    assert found.seen.verdict.value == "INCONCLUSIVE" and found.delta > 0.2
    assert all(abs(one["delta"]) < 0.15 for one in found.sources) and found.stratified.low < 0
    # the other way round they exclude nothing by it
    found = last_look(subject, of("own", 0.7, -3.0, 0.6), of("other", 0.1, 3.0, 0.6))
    pieces = [pieces[0], *(Piece(OWN, path) for path in [*subject.rows._sides][-2:])]
    assert subject.judge(subject.claims[0], pieces, gates).verdict.value == "REFUTED"
    assert found.seen.verdict.value == "INCONCLUSIVE" and found.stratified.high > 0.05
    assert found.seen.sentence.startswith("Not decided, since the sources in strata do not say")
    one_label = replace(both[1], y=np.zeros(200, dtype=bool))
    found = last_look(subject, both[0], replace(one_label, low=one_label.y, high=one_label.y))
    assert found.stratified is None and found.sources[1]["delta"] is None
    assert found.seen.verdict.value == "INCONCLUSIVE"


def test_the_number_that_excludes_is_one_that_excludes() -> None:
    """The normal approximation against DeLong's interval of drawn scores, 30 of 100 right."""
    n = n_to_exclude_auc(30, 70, 0.1, alpha=0.04, power=0.8)
    labels = [(0, i < 30) for i in range(100)]
    assert n is not None and Auc().blind(labels, 0.1, level=0.04, power=0.8) == n
    rng, right = np.random.default_rng(0), np.arange(n) < 0.3 * n
    done = [delong_interval(rng.random(n), right, 0.96).high < 0.6 for _ in range(120)]
    assert np.mean(done) == pytest.approx(0.8, abs=0.11)  # 3 standard errors
    with pytest.raises(ValueError, match="both groups need an item"):
        n_to_exclude_auc(0, 3, 0.05)


@pytest.mark.slow
def test_false_effects_over_all_looks_stay_below_alpha(tmp_path: Path) -> None:
    """The levels on scores that say nothing: half of 0.05, which is two-sided, comes out above
    chance at some look. Being held to kinds and sources can only take from it."""
    subject = subject_of(tmp_path, 0.0, 200)
    (one,) = make(subject, subject.all_pools(), 200).claims
    rng, shown, runs = np.random.default_rng(0), 0, 600
    for _ in range(runs):
        scores, right = rng.random(240), rng.random(240) < 0.4
        for level, n in zip(one.levels[1:], one.schedule.sizes[1:], strict=True):
            estimate = claims.auc_estimate(scores[:n], right[:n], 1 - level)
            found = judge(estimate, 0.05, alpha=level, direction=Direction.MORE)[0]
            if found is not Verdict.INCONCLUSIVE:
                shown += found is Verdict.SUPPORTED
                break
    assert one.schedule.sizes == (40, 90, 140, 190, 240)
    assert 4 < shown <= 26  # binomial: 0.025 of 600 gives more with p = 0.003 (2,000 gave 44)


# Questions ----------------------------------------------------------------------------------------


def lines(path: Path, *items: ShortAnswer) -> str:
    path.write_text("".join(one.model_dump_json() + "\n" for one in items))
    return str(path)


def test_unused_questions_are_fresh_ones_in_their_order(tmp_path: Path) -> None:
    both = short_answers("short-answers", None)
    used = [one.key for name in ("train", "fresh") for one in both[name][:30]]
    (pool,) = pools(own_source("short-answers", used), used, [], [], lambda _: None)
    assert pool.items[""] == tuple(one.key for one in both[FRESH][30:])
    assert pool.left_out == {USED: 60, KNOWN_KIND: len(both["train"]) - 30}
    used = [one.key for one in short_answers("recall", 40)[FRESH]]
    (pool,) = pools(own_source("recall", used), used, [], [], lambda _: None)
    assert pool.items[""][:2] == ("recall-fresh-041", "recall-fresh-042")
    assert pool.left_out == {USED: 40}  # what training could still be is no loss
    assert len(items_of(RECALL, "short-answers").of) == pool.count("") + 40


def test_unused_tasks_are_fresh_ones_in_the_order_of_a_larger_limit() -> None:
    """What the run took is a limit of the same order; its training tasks are never fresh."""
    for asked, title in (("small-tasks", "small tasks"), ("humaneval", "HumanEval")):
        sides, kinds = task_sides(asked)
        small, larger = ([one.task_id for name in SETS for one in _spread(sides[name], limit)]
                         for limit in (20, 30))  # fmt: skip
        own = own_source(asked, small)
        (pool,) = pools(own, small, [], [], lambda _: None)
        assert pool.title == title and pool.left_out[USED] == 40
        fresh = {one.task_id for one in sides[FRESH]}
        assert set(pool.items[""]) == fresh - set(small)
        assert set(pool.items[""][:10]) == (set(larger) & fresh) - set(small)
        rest = len(sides["train"]) - 20
        assert pool.left_out.get(KNOWN_KIND, 0) == (rest if asked == "small-tasks" else 0)
        # HumanEval beside small tasks is fresh; small tasks beside it have training's kinds
        training = {kinds[one.task_id] for one in sides["train"]}
        other = "humaneval" if asked == "small-tasks" else "small"
        more = other_source(named(other, asked), asked, training)
        assert bool(more.barred) == (other == "small") and len(more.asked) > 150
        picked = items_of(OWN, asked).picked(pool.items[""][:2])
        assert picked.benchmark is not None and picked.benchmark.ships
        assert [one.task_id for one in picked.benchmark.problems] == list(pool.items[""][:2])
        with pytest.raises(UserError, match="that is the run's own set"):
            named("small" if asked == "small-tasks" else asked, asked)


def test_unused_cooking_questions_are_the_fresh_set_s(tmp_path: Path) -> None:
    sides = chef_sides()
    used = [one.key for name in SETS for one in sides[name][:40]]
    (pool,) = pools(own_source("chef", used), used, [], [], lambda _: None)
    assert pool.items[""] == tuple(one.key for one in sides[FRESH][40:])
    assert pool.left_out == {USED: 80, KNOWN_KIND: len(sides["train"]) - 40}
    new = sides[FRESH][0].model_copy(
        update={"id": "new", "prompt": "What is a roux made of, then?"}
    )
    path = lines(tmp_path / "mine.jsonl", new)
    more = other_source(named(path, "chef"), "chef", {one.category for one in sides["train"]})
    assert not more.barred and list(more.asked) == ["new"]
    with pytest.raises(UserError, match="--data recall: no such file"):
        named("recall", "chef")


def test_of_a_file_what_is_known_or_nearly_known_is_left_out(tmp_path: Path) -> None:
    both = short_answers("short-answers", None)
    used = [one.key for name in ("train", "fresh") for one in both[name][:30]]
    training = {one.kind for one in both["train"]}
    trained, asked = both["train"][0], both[FRESH][0]
    new = asked.model_copy(
        update={
            "id": "new",
            "kind": "vintage",
            "prompt": (
                "In which decade of the nineteenth century was the first vineyard here planted?"
            ),
        }
    )
    items = [
        asked,  # the very question
        trained.model_copy(update={"kind": "vintage"}),  # one of training under another kind
        asked.model_copy(update={"id": "near", "prompt": f"{asked.prompt} ?"}),
        new,
        new.model_copy(update={"id": "twin"}),
        new.model_copy(update={"id": "kin", "prompt": "Name a cheese of Jura.",
                               "kind": trained.kind}),
    ]  # fmt: skip
    path = lines(tmp_path / "mine.jsonl", *items)
    more = other_source(named(path, "short-answers"), "short-answers", training)
    own = own_source("short-answers", used)
    _, pool = pools(own, used, [more], [], lambda _: None)
    assert pool.count("") == 1 and pool.items[""][0] in ("new", "twin")
    assert pool.left_out == {USED: 2, LIKE_USED: 1, KNOWN_KIND: 1, COPY: 1}
    recall = other_source(named(RECALL, "short-answers"), "short-answers", training)
    assert not recall.barred
    with pytest.raises(UserError, match=r"^--data recall: that is the run's own set"):
        named(RECALL, "recall")
    with pytest.raises(UserError, match=r"^--data nowhere: no such file"):
        named("nowhere", "recall")


# Which claims, and what is said elsewhere ---------------------------------------------------------


def a_run(path: Path, config: dict[str, Any], **claim: Any) -> Path:
    """Manifest and metrics alone."""
    path.mkdir(parents=True)
    gates = load_gates().to_json()
    manifest = {"arc": "arc3", "config": config, "gates": gates}
    (path / "manifest.json").write_text(json.dumps(manifest))
    estimate = {"value": 0.536, "interval": {"low": 0.44, "high": 0.63, "level": 0.95}, "n": 156,
                "p_value": 0.45}  # fmt: skip
    found = {
        "statement": "h_last tells", "verdict": "INCONCLUSIVE", "reasons": ["underpowered"],
        "estimate": estimate, "smallest_effect": 0.05, "n_to_settle": 14287, **claim,
    }  # fmt: skip
    gate = {**found, "statement": "its gate separates"}
    (path / "metrics.json").write_text(json.dumps({"claims": {"transfer": found, "gate": gate}}))
    (path / "labels.json").write_text(json.dumps({"right": {}}))
    return path


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"labels": "judge:gguf"}, r"its labels are a judge's \(judge:gguf.*\), which settle does"),
        ({"ids_from": "runs/arc3-torch"}, "another run's .--ids-from runs/arc3-torch., made by"),
        ({}, "its labels.json has no 'low'"),
        ({"labels": "execution"}, "its labels.json has no 'low'"),  # not for its labels
        ({"labels": "judge:lexical"}, "its labels.json has no 'low'"),
    ],
)
def test_what_cannot_be_added_to_is_one_line(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    run = a_run(tmp_path / "run", config)
    with pytest.raises(UserError, match=message) as caught:
        pipeline.subject_of(run)
    assert "\n" not in str(caught.value)
    # a claim that needs nothing is not refused for its labels
    done = pipeline.subject_of(a_run(tmp_path / "done", config, verdict="SUPPORTED"))
    assert done.claims == () and "nothing to settle" in dict(done.others)["transfer"]


@pytest.mark.parametrize(
    ("reasons", "why"),
    [
        (["no_signal_in_training", "underpowered"], "finds nothing in training either"),
        (["capability_cliff"], "hardly give one class of answers"),
        (["between_kinds"], "more kinds of question, not more items"),
        (["placebo_shown", "underpowered"], "shuffled labels show the effect as well"),
        (["insensitive"], "a planted signal was not found either"),
    ],
)
def test_what_more_items_do_not_settle_is_said(reasons: list[str], why: str) -> None:
    assert why in str(why_not({"verdict": "INCONCLUSIVE", "reasons": reasons}))


def test_the_other_claims_stay_as_they_are(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", {})
    (run / "labels.json").write_text(json.dumps({"low": {}, "high": {}, "group": {}}))
    subject = pipeline.subject_of(run)
    assert isinstance(subject, Probing) and [one.key for one in subject.claims] == ["transfer"]
    (said,) = report.others(subject)
    assert said.startswith("gate: INCONCLUSIVE (underpowered): it stays as it is")


def test_the_page_shows_what_it_came_to(excluded: tuple[Arrays, Plan, dict[str, Any]]) -> None:
    subject, _, found = excluded
    (row,) = latest.rows([subject.run])
    (claim,) = row["claims"]
    assert claim["verdict"] == "INCONCLUSIVE" and claim["settled"]["verdict"] == "REFUTED"
    assert claim["settled"]["n_items"] == found["claims"]["transfer"]["n_items"]
    assert "Settled: REFUTED (effect excluded), n = " in latest._later(claim)


def test_runs_that_are_not_added_to_say_what_to_do_instead(tmp_path: Path) -> None:
    def of(arc: str, **config: Any) -> str:
        return elsewhere(tmp_path, {"arc": arc, "config": config})

    assert of("falsify", source="/r/arc3-a").endswith("rests on: threearc settle /r/arc3-a")
    assert of("falsify", adapter="/a").endswith(f"threearc settle {tmp_path}/edited")
    assert "files of its own" in of("falsify", features="/f")
    began = {"profile": "quick", "labels": "execution", "disposition": "self-improving", "seed": 3}
    config = resolve(began).model_dump(mode="json")
    given = larger_run(config).removeprefix("begin a new run with a larger --limit: threearc arc2 ")
    words = given.split()
    flags = {k.strip("-"): v for k, v in zip(words[::2], words[1::2], strict=True)}
    assert flags.pop("limit") == str(2 * config["limit"])
    assert resolve({**flags, "seed": int(flags["seed"])}).model_dump(mode="json") == config
    assert "asked all of its set" in larger_run({"profile": "standard", "limit": None})
    assert of("arc2-more").endswith("of a run of arc2; settle that run")
    assert of("train").startswith("settle goes on with runs of eval, arc1, arc2, arc3 and measure")

"""Arc 3: settings, sets that stay apart, claims on known numbers, and the command end to end."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from arcs.arc3 import (
    analysis,
    beside,
    claims,
    command,
    features,
    pipeline,
    responses,
    sidecar_command,
)
from arcs.arc3 import sidecar as sidecars
from arcs.arc3.config import parse
from arcs.arc3.engine import engine_of, opened
from arcs.arc3.labelling import Labelled, Labelling, label
from arcs.arc3.probing import H_LAST
from arcs.arc3.questions import FRESH_SHARE, SETS, Question, fresh_kinds, questions
from arcs.arc3.report import _doubtful, report
from arcs.arc3.responses import Response
from arcs.audits.catalogue import run_audits
from arcs.audits.readers import read as read_results
from arcs.audits.results import Role
from arcs.claims import ReasonCode, Verdict
from arcs.gates import load_gates
from arcs.judging.opening import JudgeOptions
from arcs.progress import Reporter
from arcs.report.kinds import view_of
from arcs.report.view import Chart
from arcs.report.writing import write_report
from arcs.runs import JsonLines, RunDirectory
from evals.items.recall import recall_items
from evals.probing.gate import OperatingPoint, operate
from evals.probing.probes import PRIMARY, PROBES, scores_on
from evals.statistics.auc import auc
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.errors import UserError
from models.store import prepare
from tests.support.arc3_bench import SIGNAL, SMALL, save_rows, side, study, written_run
from tests.support.printed import printed, widened
from tests.support.report_links import check_counts
from tests.support.tiny_models import build_tiny
from tests.support.tolerances import tolerance

GATES = load_gates()
QUIET = Reporter(quiet=True)


@pytest.fixture(autouse=True, scope="module")
def _short_network() -> Iterator[None]:
    """The network's training is scikit-learn's; here it only has to be asked. For the whole
    module, or runs that tests share would have another network than those of one test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evals.probing.probes.MLP_ITERATIONS", 30)
        yield


# -- settings and sets ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"labels": "guess"}, "^--labels: give execution, exact-match"),
        ({"labels": "meter"}, "^--labels: meter labels no answers"),
        ({"labels": "execution", "items": "recall"}, "^--items recall: labels by execution are "),
        ({"quant": "q8_0"}, "^--quant: only a GGUF is quantised"),
        ({"backend": "gguf", "dtype": "bfloat16"}, "^--dtype: a GGUF has its own"),
        ({"backend": "cuda"}, "^--backend 'cuda': give auto, torch, mlx or gguf"),
        ({"judge_threads": 2}, "^--judge-threads and --judge-max-tokens: no judge"),
        ({"limit": 3}, "^--limit: "),
        ({"position": "middle"}, "^--position 'middle': give last_content or end_of_turn"),
    ],
)
def test_what_cannot_be_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("asked", ["short-answers", "recall", "small-tasks", "humaneval", "chef"])
def test_the_sets_share_no_item_and_no_kind(tiny_directory: Any, asked: str) -> None:
    encoder = ChatEncoder(tiny_directory("llama"))
    made = questions(asked, encoder, None)
    train, fresh = ([one for one in made if one.set == name] for name in SETS)
    assert len({one.item_id for one in made}) == len(made)
    assert not {one.text for one in train} & {one.text for one in fresh}
    if asked == "short-answers":  # a kind of one name is one kind, whatever the topic
        assert {one.group for one in made} == {one.record.kind for one in made}
    if asked != "chef":  # its sets have another author's procedure and the same categories
        assert not {one.group for one in train} & {one.group for one in fresh}
    few = questions(asked, encoder, 10)
    assert {one.item_id for one in few} < {one.item_id for one in made} and len(few) == 20


def test_a_kind_of_two_topics_is_on_one_side() -> None:
    items = [("a", "one")] * 9 + [("a", "two")] * 9 + [("b", "one")] * 9 + [("b", "three")] * 9
    found = fresh_kinds(items)
    assert (("a", "one") in found) == (("b", "one") in found)
    assert {topic for topic, _ in found} == {"a", "b"}


def test_fresh_kinds_follow_from_their_names_alone() -> None:
    items = [(f"t{i % 2}", f"k{i % 7}") for i in range(140)]
    found = fresh_kinds(items)
    assert found == fresh_kinds(reversed(items))
    for topic in ("t0", "t1"):
        share = sum(item in found for item in items if item[0] == topic) / 70
        assert FRESH_SHARE <= share < 0.7


def test_a_recalled_key_is_in_the_prompt_or_nowhere() -> None:
    items = recall_items(fresh=False, n=100)
    given = [one.answers[0] in one.prompt for one in items]
    assert 30 < sum(given) < 70
    asked = [one.prompt.rsplit(". ", 1)[1] for one in items]
    for one, present, question in zip(items, given, asked, strict=True):
        name = next(w for w in question.replace("'s", "").rstrip("?").split() if w[0].isupper()
                    and w not in ("What", "Which", "In", "On"))  # fmt: skip
        assert (one.prompt.count(name) == 2) == present
    assert recall_items(fresh=False, n=10) == items[:10]


# -- labels ---------------------------------------------------------------------------------------


def labelled(
    encoder: ChatEncoder, run: Path, flags: dict[str, Any], texts: Any, *, cut: bool = False
) -> tuple[list[Question], Labelling]:
    """Labels of answers that say what ``texts`` makes of place and question."""
    config = parse({"limit": 10, **flags})
    asked = list(questions(config.asked, encoder, config.per_set))
    said = [
        Response(one, (7, 7, 7), "length" if cut else "stop", 0, texts(place, one))
        for place, one in enumerate(asked)
    ]
    with RunDirectory.create(run, {}) as directory:
        made = label(config, said, directory, GATES, QUIET, JudgeOptions())
    return asked, made


def test_code_is_right_where_its_tests_pass(tiny_directory: Any, tmp_path: Path) -> None:
    def text(place: int, one: Question) -> str:
        body = one.record.canonical_solution if place % 2 else "    return None\n"
        return f"```python\n{one.record.prompt}{body}```"

    encoder = ChatEncoder(tiny_directory("llama"))
    asked, made = labelled(encoder, tmp_path / "run", {"labels": "execution"}, text)
    assert [one.right for one in made.of] == [place % 2 == 1 for place in range(len(asked))]
    assert not any(one.open for one in made.of)
    assert made.instrument["labels"] == "execution" and made.instrument["sandbox"]
    assert made.delivery is not None and made.delivery["passes"]
    _, cut = labelled(encoder, tmp_path / "cut", {"labels": "execution"}, text, cut=True)
    assert all(one.open for one in cut.of)  # cut, not in a loop: it may have ended otherwise


def test_a_judges_checklist_is_cut_at_half_and_hedges_are_seen(
    tiny_directory: Any, tmp_path: Path
) -> None:
    def text(place: int, one: Question) -> str:
        stated = one.record.checklist[: place % 5]
        said = " ".join(claim.claim for claim in stated) or "Salt."
        return f"Perhaps it might be so. {said}" if place == 0 else said

    encoder = ChatEncoder(tiny_directory("llama"))
    asked, made = labelled(encoder, tmp_path / "run", {"labels": "judge:lexical"}, text)
    shares = [place % 5 / 4 for place in range(len(asked))]
    agree = [one.right == (share >= 0.5) for one, share in zip(made.of, shares, strict=True)]
    assert sum(agree) >= 19  # the judge is lexical: a claim may be stated by another's words
    assert made.asserted[0] is False and made.asserted[4] is True
    assert made.failing == () and made.instrument["validity"]["coverage"]["passes"]


def test_a_missing_label_is_no_wrong_answer(tiny_directory: Any, tmp_path: Path) -> None:
    encoder = ChatEncoder(tiny_directory("llama"))
    first = questions("chef", encoder, 10)[0].item_id
    rows = [
        {"question_id": f"{first}#{i}", "instrument": "coverage", "value": "YES" if i < 3 else "NO"}
        for i in range(1, 5)
    ]
    recorded = tmp_path / "labels.jsonl"
    recorded.write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = {"labels": f"judge:recorded:{recorded}"}
    _, made = labelled(encoder, tmp_path / "run", flags, lambda *_: "Salt.")
    assert made.of[0].right is True and made.of[0].detail == "2/4"
    assert {one.right for one in made.of[1:]} == {None}
    assert set(made.asserted) == {None} and made.failing == ("coverage",)


# -- claims on known numbers ----------------------------------------------------------------------


def analysed(train: Any, fresh: Any, faults: tuple[ReasonCode, ...] = ()) -> dict[str, Any]:
    return analysis.analyse(study(train, fresh), GATES, faults, QUIET)


@pytest.fixture(scope="module")
def with_signal() -> dict[str, Any]:
    return analysed(side(0, signal=SIGNAL, layers=3), side(1, signal=SIGNAL, layers=3))


def test_a_signal_is_supported_on_every_level(with_signal: dict[str, Any]) -> None:
    verdicts = {name: one["verdict"] for name, one in with_signal["claims"].items()}
    assert verdicts == dict.fromkeys(("transfer", "beyond_baselines", "gate"), "SUPPORTED")
    assert with_signal["controls"]["planted"]["verdict"] == "SUPPORTED"
    assert with_signal["controls"]["shuffled"]["verdict"] != "SUPPORTED"
    assert with_signal["sweep"]["best_in_training"] == 2
    assert with_signal["permutation"]["p_value"] == pytest.approx(1 / 21)
    table = with_signal["sidecar"]
    assert table["without"]["asymmetry"]["value"] == 0
    assert table["with"]["asymmetry"]["value"] == with_signal["gate"]["fresh"]["asymmetry"] < -0.3
    right = [table[key]["accuracy_of_asserted"]["value"] for key in ("without", "with")]
    assert right[1] > right[0] + 0.2


def test_no_signal_is_never_supported() -> None:
    found = analysed(side(0), side(1))
    for claim in found["claims"].values():
        assert claim["verdict"] == "INCONCLUSIVE"
        assert "no_signal_in_training" in claim["reasons"]
    assert found["sweep"] is None  # features of the final layer only


def test_a_failed_instrument_makes_every_claim_invalid() -> None:
    both = study(side(0, signal=SIGNAL), side(1, signal=SIGNAL))
    faults = (ReasonCode.JUDGE_NOT_VALID,)
    found = [
        claims.transfer(both, GATES, no_signal=False, faults=faults),
        claims.beyond_baselines({"a": difference(0.2, 0.1)}, 9, GATES, faults=faults, doubts=()),
        claims.separates(None, GATES, faults=faults, doubts=()),
    ]
    assert {one.verdict for one in found} == {Verdict.INVALID}
    assert {one.reasons for one in found} == {faults}
    assert found[0].statistic_verdict is Verdict.SUPPORTED


def test_cut_answers_that_could_turn_the_conclusion_make_it_invalid() -> None:
    train, fresh = side(0, signal=SIGNAL), side(1, signal=SIGNAL)
    rng = np.random.default_rng(0)
    hidden = rng.random(len(fresh.y)) < 0.9
    opened = replace(
        fresh, low=fresh.y & ~hidden, high=fresh.y | hidden, finished=~hidden, truncated=hidden
    )
    claim = claims.transfer(study(train, opened), GATES, no_signal=False, faults=())
    assert claim.verdict is Verdict.INVALID and claim.reasons == (ReasonCode.TRUNCATED,)
    # a few that matter to nothing do not
    hidden = rng.random(len(fresh.y)) < 0.05
    few = replace(fresh, low=fresh.y & ~hidden, high=fresh.y | hidden, finished=~hidden)
    kept = claims.transfer(study(train, few), GATES, no_signal=False, faults=())
    assert kept.verdict is Verdict.SUPPORTED


@pytest.mark.parametrize(
    ("signal", "share", "verdicts"),
    [
        (3.5, 0.4, {"transfer": "SUPPORTED", "beyond_baselines": "INVALID", "gate": "INVALID"}),
        (3.0, 0.1, {"transfer": "SUPPORTED", "beyond_baselines": "SUPPORTED", "gate": "SUPPORTED"}),
    ],
)
def test_each_claim_is_read_with_cut_answers_ended_otherwise(
    signal: float, share: float, verdicts: dict[str, str]
) -> None:
    """An AUC can outlive answers that a gate, or a baseline's distance, does not."""
    train, fresh = side(0, signal=signal), side(1, signal=signal)
    hidden = np.random.default_rng(0).random(len(fresh.y)) < share
    cut = replace(fresh, low=fresh.y & ~hidden, high=fresh.y | hidden, finished=~hidden)
    found = analysed(train, cut)["claims"]
    assert {name: found[name]["verdict"] for name in verdicts} == verdicts
    for name, verdict in verdicts.items():
        assert (found[name]["reasons"] == ["truncated"]) == (verdict == "INVALID")


def test_what_is_not_above_chance_is_beyond_nothing() -> None:
    """Rivals far below 0.5 make no probe good."""
    rng = np.random.default_rng(0)
    right, noise = np.arange(100) < 40, rng.random(100)
    rivals = {"a": difference(0.2, 0.1)}
    found = analysis._with_chance(study(side(0), replace(side(1), y=right)), rivals, noise)
    assert claims.beyond_baselines({"a": found["a"]}, 100, GATES, faults=(), doubts=()).verdict \
        is Verdict.SUPPORTED  # fmt: skip
    whole = claims.beyond_baselines(found, 100, GATES, faults=(), doubts=())
    assert whole.verdict is Verdict.INCONCLUSIVE
    signal = analysis._with_chance(study(side(0), replace(side(1), y=right)), rivals, noise + right)
    claim = claims.beyond_baselines(signal, 100, GATES, faults=(), doubts=())
    assert claim.verdict is Verdict.SUPPORTED


def test_too_few_right_answers_decide_nothing() -> None:
    train = side(0, signal=SIGNAL)
    none = side(1, rate=0.0)
    found = analysed(train, none)
    assert found["claims"]["transfer"]["reasons"] == ["capability_cliff"]
    assert found["probes"] is None and found["decoupling"]["fresh"]["all"]["n"] == 100
    assert analysed(none, none)["claims"]["transfer"]["reasons"] == ["floor"]
    few = replace(side(1, signal=SIGNAL), y=np.arange(100) < 4)
    assert claims.cliff(study(train, few), 0.05) == (ReasonCode.CAPABILITY_CLIFF,)


def difference(value: float, half: float) -> dict[str, Any]:
    return {
        "difference": value,
        "interval": {"low": value - half, "high": value + half, "level": 0.95},
        "p_value": 0.001 if abs(value) > half else 0.4,
    }


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({"a": difference(0.2, 0.1), "b": difference(0.3, 0.1)}, Verdict.SUPPORTED),
        ({"a": difference(0.2, 0.1), "b": difference(0.3, 0.4)}, Verdict.INCONCLUSIVE),
        ({"a": difference(0.2, 0.1), "b": difference(0.0, 0.04)}, Verdict.REFUTED),
        ({"a": difference(0.2, 0.1), "b": difference(0.0, 0.3)}, Verdict.INCONCLUSIVE),
        ({"a": difference(-0.1, 0.3), "b": difference(0.01, 0.03)}, Verdict.REFUTED),
        ({"a": difference(0.2, 0.1), "b": None}, Verdict.INCONCLUSIVE),
    ],
)
def test_every_baseline_must_be_beaten(found: dict[str, Any], verdict: Verdict) -> None:
    claim = claims.beyond_baselines(found, 100, GATES, faults=(), doubts=())
    assert claim.verdict is verdict


def test_the_gate_is_judged_at_its_training_threshold() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(300) < 0.5
    good = operate(0.5, 0.5 * right + 0.5 * rng.random(300), right, 0.95)
    blind = operate(0.5, rng.random(300), right, 0.95)
    assert claims.separates(good, GATES, faults=(), doubts=()).verdict is Verdict.SUPPORTED
    assert claims.separates(blind, GATES, faults=(), doubts=()).verdict is not Verdict.SUPPORTED
    none = claims.separates(None, GATES, faults=(), doubts=())
    assert none.verdict is Verdict.INCONCLUSIVE and none.estimate is None


@pytest.mark.parametrize(
    ("asserted_right", "asserted_wrong", "verdict", "reasons"),
    [
        (80, 20, Verdict.SUPPORTED, (ReasonCode.EFFECT_SHOWN,)),
        (78, 20, Verdict.INCONCLUSIVE, (ReasonCode.UNDERPOWERED,)),  # 78% [69%, 85%]
        (69, 20, Verdict.INCONCLUSIVE, (ReasonCode.UNBALANCED, ReasonCode.UNDERPOWERED)),
        (48, 20, Verdict.REFUTED, (ReasonCode.UNBALANCED,)),
        (48, 44, Verdict.REFUTED, (ReasonCode.UNBALANCED,)),  # neither part can be
        (69, 60, Verdict.INCONCLUSIVE, (ReasonCode.UNDERPOWERED,)),
        (60, 80, Verdict.REFUTED, (ReasonCode.EFFECT_EXCLUDED,)),
    ],
)
def test_a_gate_asserts_enough_of_the_right_fresh_answers(
    asserted_right: int, asserted_wrong: int, verdict: Verdict, reasons: tuple[ReasonCode, ...]
) -> None:
    """The paper's asymmetry is balanced on the answers it is reported on (PAPER.md 5.3)."""
    point = OperatingPoint(0.5, asserted_right, 100, asserted_wrong, 100, 0.95)
    claim = claims.separates(point, GATES, faults=(), doubts=())
    assert claim.verdict is verdict and claim.reasons == reasons
    assert claim.estimate is not None
    share = ReasonCode.UNBALANCED in reasons or asserted_right == 78
    assert claim.estimate.quantity.startswith("share asserted" if share else "asymmetry")
    # the paper's gate is passed where the claim's share is shown, failed where it is refuted
    right = np.arange(200) < 100
    state = claims.paper_gates((right, right), (right, right), point, 0.95)[3]["state"]
    if verdict is Verdict.SUPPORTED or reasons == (ReasonCode.UNBALANCED,):
        assert state == ("passed" if verdict is Verdict.SUPPORTED else "failed")
    else:
        assert state == "not decidable" or ReasonCode.EFFECT_EXCLUDED in reasons
    # another reading of cut answers needs an estimated share alone: no verdict hangs on one answer
    read = claims.separates(point, GATES, faults=(), doubts=(), reading=True)
    assert (read.verdict is Verdict.SUPPORTED) == (asserted_right in (78, 80))
    doubt = (ReasonCode.NO_SIGNAL_IN_TRAINING,)
    doubted = claims.separates(point, GATES, faults=(), doubts=doubt)
    assert doubted.verdict is Verdict.INCONCLUSIVE and doubted.reasons[0] is doubt[0]


def test_an_asymmetry_is_balanced_on_fresh_items_too() -> None:
    right = np.arange(200) < 100
    scores = np.where(right, np.arange(200) % 100 < 48, False).astype(float)
    point = operate(0.5, scores, right, 0.95)  # asserts 48 of 100 right ones and no wrong one
    found = claims.paper_gates((scores, right), (scores, right), point, 0.95)
    assert [one["state"] for one in found[2:]] == ["passed", "failed"]
    assert found[2]["value"] == -0.48 and found[3]["value"] == 0.48


def test_features_of_two_definitions_are_refused() -> None:
    one = {"position": "last_content", "ids_source": "generated"}
    features.require_one_definition(one, dict(one))
    with pytest.raises(UserError, match="differ in position: last_content and end_of_turn"):
        features.require_one_definition(one, {**one, "position": "end_of_turn"})
    with pytest.raises(UserError, match="differ in engine"):
        features.require_one_definition(one, {**one, "engine": {"dtype": "bfloat16"}})


def test_states_of_another_position_are_not_compared(tmp_path: Path) -> None:
    both = study(side(0), side(1))
    for name, one in (("train", both.train), ("fresh", both.fresh)):
        save_rows(features.path_of(tmp_path, name), one.item_ids, width=24)
    (tmp_path / "manifest.json").write_text('{"backend": "hand"}')
    found = beside.compare(tmp_path, both, "last_content")
    assert found is not None and found["n"] == 200 and found["auc"]["other"] == 0.5
    # whose rows are others, some of which may be missing there
    assert beside.compare(tmp_path, both, "end_of_turn") is None
    nothing = np.zeros(100, dtype=np.bool_)
    unlabelled = replace(both, train=both.train.where(nothing), fresh=both.fresh.where(nothing))
    assert beside.compare(tmp_path, unlabelled, "last_content") is None


def test_missing_labels_of_one_set_are_a_fault(tiny_directory: Any) -> None:
    asked = questions("recall", ChatEncoder(tiny_directory("llama")), 100)
    said = [Response(one, (7,), "stop", 0, "") for one in asked]

    def faults(missing: range, fresh: Any = None) -> tuple[ReasonCode, ...]:
        rights = [None if place in missing else True for place in range(200)]
        of = tuple(
            Labelled(one.item_id, right, right, right, "")
            for one, right in zip(asked, rights, strict=True)
        )
        labelled = Labelling(of, (None,) * 200, {})
        return pipeline._faults(labelled, said, study(side(0), fresh or side(1)), GATES)

    assert GATES.validity.max_missing_share == 0.02
    assert faults(range(99, 101)) == ()  # one of each hundred
    assert faults(range(197, 200)) == (ReasonCode.INFRASTRUCTURE,)  # 1.5 % of all, 3 % of fresh
    # a label that no position can be read for is missing just as well
    assert faults(range(0), replace(side(1), without_features=2)) == ()
    cut = replace(side(1), without_features=3)
    assert faults(range(0), cut) == (ReasonCode.NO_POSITION,)


def test_what_the_tables_leave_out_is_said() -> None:
    sets = {"train": {"without_features": 3}, "fresh": {"without_features": 0}}
    config = {"position": "end_of_turn"}
    bad = {"delivery": {"passes": False}}
    told = _doubtful({"sets": sets, "config": config, "made_with": bad})
    assert len(told) == 2 and "train 3, fresh 0" in told[0] and "delivery is below" in told[1]
    sets["train"]["without_features"] = 0
    good = {"delivery": {"passes": True}}
    assert _doubtful({"sets": sets, "config": config, "made_with": good}) == []


def test_a_sidecar_of_other_states_is_said() -> None:
    assert sidecars.other_states("torch float32", "mlx float32") is None
    assert sidecars.other_states("gguf q4_k_m", "gguf q4_k_m") is None
    said = sidecars.other_states("gguf q4_k_m", "torch float32")
    assert said is not None and "gguf q4_k_m" in said and "torch float32" in said


# -- the command on a tiny model ------------------------------------------------------------------


class Bench:
    """A tiny model with a cache of its own, and answers to it that were written by hand."""

    LIMIT = 60

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = build_tiny("llama", root / "model")
        self.directory: ModelDirectory = prepare(str(self.model), cache=root / "cache")
        self.answers = written_run(root / "answers", self.directory, limit=self.LIMIT)
        self.other = written_run(root / "other", self.directory, limit=self.LIMIT, named="other")

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "THREEARC_CACHE": str(self.root / "cache")}

    def flags(self, **more: Any) -> dict[str, Any]:
        return {
            "model": str(self.model), "backend": "torch", "profile": "quick",
            "limit": self.LIMIT, "ids_from": self.answers, **more,
        }  # fmt: skip

    def run(self, name: str, **more: Any) -> Path:
        out = self.root / name
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("THREEARC_CACHE", str(self.root / "cache"))
            patch.setattr("arcs.arc3.config.Arc3Config.sizes", property(lambda _: SMALL))
            command.start(self.flags(**more), out=out, run=None, as_json=True)
        return out


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("arc3"))


@pytest.fixture(scope="module")
def done(bench: Bench) -> Path:
    return bench.run("torch", difficulty=bench.other)


def metrics_of(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


def test_the_command_reads_the_very_ids_and_says_what_follows(bench: Bench, done: Path) -> None:
    metrics = metrics_of(done)
    right = [place % 7 in (0, 2, 3) for place in range(2 * bench.LIMIT)]
    for name, half in (("train", right[: bench.LIMIT]), ("fresh", right[bench.LIMIT :])):
        assert metrics["sets"][name]["right"] == sum(half)
        found = features.read(features.path_of(done, name))
        assert found.definition["ids_source"] == "generated" and not found.missing
        assert set(found.finish_reasons) == {"stop"}
        # the ids that were read are those that were stored, prompt and answer, in item order
        stored = [json.loads(line) for line in (bench.answers / "responses.jsonl").open()]
        asked = {one.item_id: one for one in questions("short-answers", ChatEncoder(
            bench.directory), bench.LIMIT)}  # fmt: skip
        own = [row for row in stored if row["set"] == name]
        assert list(found.item_ids) == [row["item_id"] for row in own]
        ids = [[*asked[row["item_id"]].prompt.ids, *row["ids"]] for row in own]
        assert found.arrays["ids"].tolist() == [i for each in ids for i in each]
        assert (found.arrays["positions"] == [len(each) - 2 for each in ids]).all()
        assert np.array_equal(found.arrays["all_layers"][:, -1], found.arrays[H_LAST])
    # answers that differ in a word are told apart, and every answer is an assertion
    assert metrics["claims"]["transfer"]["verdict"] == "SUPPORTED"
    assert metrics["decoupling"]["fresh"]["all"]["asymmetry"]["value"] == 0
    # the "other model" answered exactly alike: nothing can be shown beyond its result
    names = {one["name"]: one for one in metrics["baselines"]}
    assert names["another model's result"]["fresh"]["auc"] == 1
    assert metrics["claims"]["beyond_baselines"]["verdict"] != "SUPPORTED"
    other = metrics["made_with"]["difficulty_from"]
    assert other["model"]["fingerprint"] == "other" and other["questions"]["n_predict"] == 48
    labels = (bench.other / pipeline.LABELS).read_bytes()
    assert other["labels_sha256"] == hashlib.sha256(labels).hexdigest()
    assert metrics["kinds"]["fresh"]["tested"] and metrics["kinds"]["gate"]["within"]["pairs"] > 100
    tried = metrics["end_to_end"]
    # what the tiny model says by itself is none of the answers that were written by hand
    assert tried["n"] == 10 and tried["compared"] == 0
    beside = metrics["beside"]
    assert beside["other"] == "hand" and beside["auc"]["other"] == 0.5  # rows that say nothing


def test_audits_read_the_run_as_it_says_itself(done: Path, tmp_path: Path) -> None:
    metrics, results = metrics_of(done), read_results(done)
    for one, name in zip(results.sets, SETS, strict=True):
        assert one.role == {"train": Role.TRAIN, "fresh": Role.TEST}[name]
        right = [item.item_id for item in one.items if item.labels["right"]]
        assert len(right) == metrics["sets"][name]["right"]
        assert one.stores_finish_reasons() and one.features is not None
        assert np.array_equal(one.features.x, features.load(done)[name].arrays[H_LAST])
        assert one.features.item_ids == tuple(item.item_id for item in one.items)
    (probe,) = results.probes
    own = next(one for one in metrics["probes"] if one["primary"])
    assert (probe.train_auc, probe.test_auc) == (
        own["train"]["out_of_fold_auc"], own["fresh"]["auc"],
    )  # fmt: skip
    assert probe.operating_point is not None and probe.operating_point.chosen_on is Role.TRAIN
    assert [one.effect for one in results.claims] == [own["fresh"]["auc"] - 0.5]
    found = {audit.name: made for audit, made in run_audits(results)}
    # its answers were written by hand, and its features read by torch
    assert "torch" in found["decoding-drift"].findings[0].message
    # every answer is an assertion
    assert "asserted" in found["constant-class"].findings[0].where
    for name in ("training-cv-gate", "impossible-auc", "train-test-overlap"):
        assert found[name].examined and not found[name].findings, name
    copy = shutil.copytree(done, tmp_path / "copy")
    wrong = {**metrics, "probes": [{**own, "fresh": {**own["fresh"], "auc": 0.777123}}]}
    (copy / "metrics.json").write_text(json.dumps(wrong))
    found = {audit.name: made for audit, made in run_audits(read_results(copy))}
    assert found["impossible-auc"].findings
    (copy / "metrics.json").unlink()
    with pytest.raises(UserError, match=r"no metrics.json yet; finish it with threearc arc3 --run"):
        read_results(copy)


def test_the_report_fits_80_columns(done: Path) -> None:
    console = Console(width=80, file=None)
    with console.capture() as shown:
        console.print(report(metrics_of(done), done))
    text = shown.get()
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("[") == text.count("]")  # no interval is cut at the edge
    for needle in ("fresh prompts: SUPPORTED", "Fresh AUC within kinds", "oracle", "selectivity",
                   "planted", "AURC", "another model", "sidecar",
                   "ms behind the last token"):  # fmt: skip
        assert needle in " ".join(text.split()), needle


def test_every_number_of_the_page_leads_to_what_it_counts(done: Path) -> None:
    view, metrics = view_of(done), metrics_of(done)
    assert check_counts(view) >= 40
    assert [card.verdict for card in view.claims] == [
        metrics["claims"][name]["verdict"] for name in ("transfer", "beyond_baselines", "gate")
    ]
    assert all(card.select is not None for card in view.claims)
    roc = next(one for one in view.figures if isinstance(one, Chart) and one.name == "roc")
    curve = [(point.x, point.y.value) for point in roc.series[0].points]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in itertools.pairwise(curve))
    primary = next(one for one in metrics["probes"] if one["primary"])
    assert area == pytest.approx(primary["fresh"]["auc"], abs=1e-12)
    item = view.items[0]
    (said,) = item.answers
    assert item.prompt and said.text is not None and said.states[0].facets["label"]
    assert "probability of being right" in said.states[0].blocks[0].title
    write_report(done)


def test_no_cell_is_cut_at_80_columns(done: Path) -> None:
    printed(report(metrics_of(done), done))
    wide = widened(metrics_of(done), count=1234, number=-0.98765)
    text = printed(report(wide))
    for cell in ("[-0.988, -0.988]", "(100%)", "1234/2468"):
        assert cell in text, text


def test_a_run_of_other_items_or_of_the_same_model_is_refused(bench: Bench, done: Path) -> None:
    with pytest.raises(UserError, match=r"--ids-from .*: its n_predict is 48 and here it is 9"):
        bench.run("no", n_predict=9)
    with pytest.raises(UserError, match=r"--ids-from .*: it has no answer to short-"):
        bench.run("no", limit=bench.LIMIT + 1)
    before = written_run(bench.root / "before", bench.directory, limit=bench.LIMIT)
    rows = [json.loads(line) for line in (before / responses.RESPONSES).open()]
    rows[-1]["set"] = "train"  # as the sets were drawn once
    text = "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)
    (before / responses.RESPONSES).write_text(text)
    said = rf"--ids-from .*: {rows[-1]['item_id']} is in its train set and here in the fresh one"
    with pytest.raises(UserError, match=said):
        bench.run("no", ids_from=before)
    with pytest.raises(UserError, match=r"--difficulty-from .*: that run is of the same model"):
        bench.run("no", difficulty=done)
    assert not (bench.root / "no").exists()
    with pytest.raises(UserError, match=r"--run .*: --seed is 0 in this run, not 1"):
        command.start({"seed": 1}, out=None, run=done, as_json=True)


@pytest.mark.parametrize("engine", ["mlx", "gguf"])
def test_the_engines_agree_on_the_same_ids(bench: Bench, done: Path, engine: str) -> None:
    """AUC within 1e-3 in float32, but for pairs whose scores rounding cannot tell apart.

    One pair of answers is 1/875 of the AUC here, so no other may change its order.
    """
    pytest.importorskip({"mlx": "mlx.core", "gguf": "llama_cpp"}[engine])
    config = parse(bench.flags(backend=engine))
    encoder = ChatEncoder(bench.directory)
    asked = questions("short-answers", encoder, bench.LIMIT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEARC_CACHE", str(bench.root / "cache"))
        with RunDirectory.create(bench.root / engine, {}) as run:
            store = responses.store_of(run)
            responses.take(bench.answers, asked, store)
            found = responses.responses(asked, store, encoder)
            with opened(engine_of(config), bench.directory, longest=256, reporter=QUIET) as model:
                definition = replace_engine(done, model)
                features.extract(model, found, definition, run, {}, QUIET)
    theirs, mine = features.load(done), features.load(bench.root / engine)
    y = {n: np.array([i % 7 in (0, 2, 3) for i in range(120)])[k * 60 : k * 60 + 60]
         for k, n in enumerate(SETS)}  # fmt: skip
    scores = []
    for side_of in (theirs, mine):
        x = [side_of[name].arrays[H_LAST] for name in SETS]
        scores.append(scores_on(PROBES[PRIMARY](), x[0], y["train"], x[1]))
    aucs = [auc(one, y["fresh"]) for one in scores]
    apart = np.abs(scores[0] - scores[1]).max()
    assert apart < 1e-4, apart  # as the states, times weights; the solver stops at 1e-4
    right, wrong = scores[0][y["fresh"]], scores[0][~y["fresh"]]
    near = (np.abs(right[:, None] - wrong) <= 2 * apart).mean()
    assert near < 0.01, near
    assert abs(aucs[0] - aucs[1]) <= 1e-3 + near
    for name in SETS:  # row by row, not only what a probe makes of them
        a, b = (side_of[name].arrays[H_LAST] for side_of in (theirs, mine))
        assert theirs[name].item_ids == mine[name].item_ids
        apart = np.linalg.norm(a - b, axis=1) / np.linalg.norm(a, axis=1)
        assert apart.max() < tolerance("h_last"), apart.max()
    scalars = [side_of["train"].arrays["token_scalars"] for side_of in (theirs, mine)]
    assert scalars[0] == pytest.approx(scalars[1], abs=2e-3)
    # another position would not pass for it
    a = theirs["fresh"].arrays[H_LAST]
    swapped = np.linalg.norm(mine["fresh"].arrays[H_LAST][::-1] - a, axis=1)
    assert (swapped / np.linalg.norm(a, axis=1)).max() > 1000 * tolerance("h_last")


def replace_engine(done: Path, model: Any) -> features.Definition:
    """The definition of a finished run, for another engine."""
    told = dict(features.load(done)["train"].definition)
    poolings = tuple(one.value for one in features.poolings_of(model))
    return features.Definition(**{**told, "poolings": poolings, "engine": model.describe()})


def test_a_sidecar_hedges_what_its_gate_doubts(
    bench: Bench, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "sidecar"
    sidecar_command.fit(done, out, "Perhaps: ", as_json=True)
    assert json.loads(capsys.readouterr().out)["hedge"] == "Perhaps: "
    made = sidecars.load(out)
    train = features.load(done)["train"]
    scores = [made.score(row) for row in train.arrays[H_LAST]]
    y = np.array([i % 7 in (0, 2, 3) for i in range(60)])
    probe = PROBES[PRIMARY]().fit(train.arrays[H_LAST], y)
    assert scores == pytest.approx(probe.predict_proba(train.arrays[H_LAST])[:, 1], abs=1e-5)
    seen = []
    for threshold in (0.0, 1.0):
        folder = tmp_path / f"at-{threshold}"
        facts = replace(made.facts, threshold=threshold, n_predict=4)
        sidecars.Sidecar(facts, made.mean, made.weights, made.bias).save(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("THREEARC_CACHE", str(bench.root / "cache"))
            sidecar_command.answer(
                "What is Peru's capital?", folder, model=str(bench.model), backend="torch",
                n_predict=None, as_json=True,
            )  # fmt: skip
        seen.append(json.loads(capsys.readouterr().out))
    sure, doubtful = seen
    assert sure["asserted"] and sure["text"] == sure["answer"]
    assert not doubtful["asserted"] and doubtful["text"] == "Perhaps: " + doubtful["answer"]
    assert sure["p_correct"] == doubtful["p_correct"] and 0 < sure["p_correct"] < 1
    with pytest.raises(UserError, match="no sidecar here"):
        sidecars.load(tmp_path / "nowhere")


def test_a_run_whose_answers_are_read_is_not_touched(bench: Bench, tmp_path: Path) -> None:
    """Not even repaired: a last line that a kill left torn belongs to that run."""
    theirs, own = tmp_path / "theirs", tmp_path / "own.jsonl"
    theirs.mkdir()
    whole = (bench.answers / responses.RESPONSES).read_bytes()
    torn = whole[:-5]
    (theirs / responses.RESPONSES).write_bytes(torn)
    asked = questions("short-answers", ChatEncoder(bench.directory), bench.LIMIT)
    with pytest.raises(UserError, match=f"it has no answer to {asked[-1].item_id}"):
        responses.take(theirs, asked, JsonLines.open(own))
    responses.take(theirs, asked[:-1], JsonLines.open(own))
    assert (theirs / responses.RESPONSES).read_bytes() == torn
    assert own.read_bytes() == whole[: whole[:-1].rfind(b"\n") + 1]


@pytest.mark.slow
def test_a_run_that_is_taken_back_ends_the_same(bench: Bench, done: Path, tmp_path: Path) -> None:
    """Without the last files, as after a kill in the analysis, and with a torn line."""
    made = ("metrics.json", "labels.json", "transcripts.jsonl")
    before = {name: (done / name).read_bytes() for name in made}
    again = tmp_path / "again"
    shutil.copytree(done, again)
    for name in (*made, "features-fresh.safetensors"):
        (again / name).unlink()
    rows = (again / "labels.jsonl").read_bytes()
    (again / "labels.jsonl").write_bytes(rows[: len(rows) // 2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEARC_CACHE", str(bench.root / "cache"))
        patch.setattr("arcs.arc3.config.Arc3Config.sizes", property(lambda _: SMALL))
        command.start({}, out=None, run=again, as_json=True)
    assert {name: (again / name).read_bytes() for name in before} == before


KILLED_BEHIND_LABELS = """
import os, signal
from arcs.runs import RunDirectory
write = RunDirectory.write_json
def dies(self, name, value):
    write(self, name, value)
    if name == "labels.json":
        os.kill(os.getpid(), signal.SIGKILL)
RunDirectory.write_json = dies
"""
"""For the child: so short a moment is not met by looking for it from outside."""


def run_until(
    bench: Bench,
    arguments: list[str],
    until: Path | None = None,
    size: int = 0,
    hook: str = "",
) -> bool:
    """The real command to its end, or killed as soon as a file has more than ``size`` bytes, or by
    its ``hook``; False if it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", f"{hook}\nfrom arcs.cli import main; main()", "arc3", "--model",
         str(bench.model), "--backend", "torch", "--profile", "quick", *arguments],
        env=bench.environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        while until is not None and process.poll() is None:
            if until.is_file() and until.stat().st_size > size:
                os.killpg(process.pid, signal.SIGKILL)
                return False
            time.sleep(0.003)
        _, said = process.communicate()
    if hook and process.returncode == -signal.SIGKILL:
        return False
    assert process.returncode == 0, said.decode()
    return True


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_at_any_moment_leave_the_same_result(bench: Bench, tmp_path: Path) -> None:
    """Killed while it answers, reads features and labels; these answers allow no probe."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    base = ["--limit", "12", "--n-predict", "24"]
    assert run_until(bench, [*base, "--out", str(whole)])
    more = ["--out", str(broken)]
    for written in ("responses.jsonl", "features-train.safetensors", "features-fresh.safetensors"):
        assert not run_until(bench, [*base, *more], broken / written)
        more = ["--run", str(broken)]
    assert not run_until(bench, [*base, *more], hook=KILLED_BEHIND_LABELS)
    assert (broken / "labels.json").exists() and not (broken / "metrics.json").exists()
    assert run_until(bench, [*base, *more])
    assert (broken / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    for name in ("features-train.safetensors", "features-fresh.safetensors", "responses.jsonl"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kills_in_the_analysis_leave_the_same_result(bench: Bench, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    base = ["--limit", str(bench.LIMIT), "--ids-from", str(bench.answers)]
    assert run_until(bench, [*base, "--out", str(whole)])
    parts, more = broken / "analysis.jsonl", ["--out", str(broken)]
    for share in (0, 0.3, 0.9):  # among the probes, the layers' nulls, the controls
        size = int(share * (whole / "analysis.jsonl").stat().st_size)
        assert not run_until(bench, [*base, *more], parts, size)
        assert parts.stat().st_size > size
        more = ["--run", str(broken)]
    assert run_until(bench, [*base, *more])
    for name in ("metrics.json", "analysis.jsonl", "labels.json", "sidecar/sidecar.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()

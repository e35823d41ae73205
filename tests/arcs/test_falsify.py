"""Falsification: gates before fresh data, five steps, why they fail, verdicts, anyone's files."""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from arcs.arc3 import claims
from arcs.claims import ReasonCode, Verdict
from arcs.estimates import Estimate, Gate, GateState
from arcs.falsification import command, latest, modes, steps
from arcs.falsification.config import parse
from arcs.falsification.finished_run import FinishedRun
from arcs.falsification.protocol import Held, Step, combined, level_to_fail
from arcs.falsification.report import report
from arcs.falsification.rows_file import read_rows
from arcs.falsification.verdict import claims_of
from arcs.gates import load_gates
from arcs.report.kinds import view_of
from arcs.reproduction.artifacts import Artifacts
from arcs.runs import RunDirectory
from evals.statistics.rates import Interval
from models.errors import UserError
from models.fingerprint import file_sha256
from tests.support.arc3_bench import SMALL, side, study
from tests.support.falsify_bench import Made, finished_run, made, write_lines
from tests.support.printed import printed, widened

GATES = load_gates()
DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("arcs.falsification.config.FalsifyConfig.sizes", property(lambda _: SMALL))


def falsify(out: Path, flags: dict[str, Any] | None = None, *, run: Path | None = None) -> Any:
    """What stands in metrics.json."""
    command.start(flags or {}, out=None if run else out, run=run, as_json=True)
    return json.loads(((run or out) / "metrics.json").read_text())


def verdicts(metrics: Any) -> dict[str, tuple[str, list[str]]]:
    return {name: (one["verdict"], one["reasons"]) for name, one in metrics["claims"].items()}


def states(metrics: Any) -> dict[str, str]:
    return {one["step"]: one["state"] for one in metrics["steps"]}


def mode_of(metrics: Any, name: str) -> Any:
    return next(one for one in metrics["modes"] if one["mode"] == name)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Made]:
    """A signal, an axis beside it, cut answers, and another model with the same."""
    root = tmp_path_factory.mktemp("falsify")
    mine = made(root / "mine", cut=0.03, family="one").write()
    other = made(root / "other", seed=1, family="two").write()
    flags = {**mine.flags(answers=True), **other.flags("replication_", answers=True)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("arcs.falsification.config.FalsifyConfig.sizes", property(lambda _: SMALL))
        return root / "run", falsify(root / "run", flags), mine


# -- the order ------------------------------------------------------------------------------------


def test_fresh_data_are_opened_after_the_gates_are_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = made(tmp_path / "mine").write()
    out, seen = tmp_path / "run", []
    opening: Callable[..., Any] = io.open

    def spy(file: Any, *args: Any, **more: Any) -> Any:
        if str(file) == str(mine.path("fresh")):
            gates, done = out / "gates.json", out / "steps.jsonl"
            with opening(gates, "rb") as stream:
                digest = hashlib.sha256(stream.read()).hexdigest()
            with opening(done) as stream:
                seen.append((digest, [json.loads(line)["part"] for line in stream]))
        return opening(file, *args, **more)

    monkeypatch.setattr(builtins, "open", spy)
    monkeypatch.setattr(io, "open", spy)
    metrics = falsify(out, mine.flags())
    stated = metrics["registration"]["gates_file_sha256"]
    assert seen and {digest for digest, _ in seen} == {stated}
    assert all(done == ["training"] for _, done in seen)  # nothing but step 1 was done
    assert hashlib.sha256((out / "gates.json").read_bytes()).hexdigest() == stated
    declared = json.loads((out / "gates.json").read_text())
    assert declared["gates"]["protocol"] == asdict(GATES.protocol)
    assert metrics["registration"]["state"] == "gates fixed first"


@pytest.mark.parametrize("labels_too", [True, False])
def test_a_fresh_set_that_is_made_afterwards_is_preregistered(
    tmp_path: Path, labels_too: bool
) -> None:
    mine = made(tmp_path / "mine").write(labels=("right",))
    mine.path("fresh").unlink()
    lines = mine.path("labels").read_text().splitlines(keepends=True)
    labels, flags = tmp_path / "fresh-labels.jsonl", mine.flags()
    if labels_too:
        mine.path("labels").write_text("".join(line for line in lines if "-train-" in line))
        flags["fresh_labels"] = labels
    out = tmp_path / "run"
    with pytest.raises(UserError, match=r"--fresh .*: not there yet\. .*--run ") as caught:
        falsify(out, flags)
    assert "\n" not in str(caught.value)
    before = (out / "steps.jsonl").read_bytes()
    assert json.loads(before)["part"] == "training" and not (out / "metrics.json").exists()
    mine.write_features("fresh")
    labels.write_text("".join(line for line in lines if "-fresh-" in line))
    registration = falsify(out, run=out)["registration"]
    assert registration["state"] == ("preregistered" if labels_too else "gates fixed first")
    assert labels_too or "but their labels were" in registration["why"]
    assert (out / "steps.jsonl").read_bytes().startswith(before)


def test_gates_that_change_make_a_new_run(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine").write()
    mine.path("fresh").unlink()
    out = tmp_path / "run"
    with pytest.raises(UserError, match="not there yet"):
        falsify(out, mine.flags())
    mine.write_features("fresh")
    path = out / "gates.json"
    path.write_text(path.read_text().replace("0.63", "0.53"))
    with pytest.raises(UserError, match=r"gates.json: these are not the gates"):
        falsify(out, run=out)


def test_a_killed_run_ends_the_same(whole: tuple[Path, Any, Made], tmp_path: Path) -> None:
    done, _, _ = whole
    lines = (done / "steps.jsonl").read_bytes().splitlines(keepends=True)
    assert len(lines) == 6
    again = tmp_path / "again"
    shutil.copytree(done, again)
    (again / "metrics.json").unlink()
    (again / "steps.jsonl").write_bytes(b"".join(lines[:2]) + lines[2][:40])
    falsify(again, run=again)
    for name in ("metrics.json", "steps.jsonl", "gates.json"):
        assert (again / name).read_bytes() == (done / name).read_bytes()


@pytest.mark.slow
def test_kills_after_any_step_leave_the_same_result(tmp_path: Path) -> None:
    """The real command, killed as soon as a further step is on disk."""
    mine = made(tmp_path / "mine", cut=0.03).write()
    base = [sys.executable, "-c", "from arcs.cli import main; main()", "falsify"]
    flags = ["--profile", "quick", "--json"]
    for name, value in mine.flags(answers=True).items():
        flags += [] if name == "profile" else [f"--{name.replace('_', '-')}", str(value)]

    def run(*more: str, until: int | None = None) -> bool:
        """To its end, or killed once so many steps are kept; False if it was killed."""
        with subprocess.Popen([*base, *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                              start_new_session=True) as process:  # fmt: skip
            while until is not None and process.poll() is None:
                path = tmp_path / "broken" / "steps.jsonl"
                if path.is_file() and path.read_bytes().count(b"\n") >= until:
                    os.killpg(process.pid, signal.SIGKILL)
                    return False
                time.sleep(0.002)
            _, said = process.communicate()
        assert process.returncode == 0, said.decode()
        return True

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert run(*flags, "--out", str(whole))
    more = [*flags, "--out", str(broken)]
    for steps_kept in (1, 2, 4):
        assert not run(*more, until=steps_kept)
        more = ["--run", str(broken)]
    assert run(*more)
    for name in ("metrics.json", "steps.jsonl", "gates.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()


def test_other_data_are_refused_on_continuing(
    whole: tuple[Path, Any, Made], tmp_path: Path
) -> None:
    mine = made(tmp_path / "mine").write()
    out = tmp_path / "run"
    falsify(out, mine.flags())
    mine.x["fresh"]["h_last"][0, 0] += 1
    mine.write_features("fresh")
    with pytest.raises(UserError, match=r"--run .*: fresh\.features\.sha256 was .* and is now"):
        falsify(out, run=out)
    with pytest.raises(UserError, match="--seed is 0 in this run, not 1"):
        falsify(out, {"seed": 1}, run=out)


# -- verdicts -------------------------------------------------------------------------------------


def test_a_planted_signal_is_supported_by_all_five_steps(whole: tuple[Path, Any, Made]) -> None:
    _, metrics, _ = whole
    assert set(states(metrics).values()) == {"passed"}
    assert verdicts(metrics) == dict.fromkeys(
        ("all_five", "this_model"), ("SUPPORTED", ["effect_shown"])
    )
    assert mode_of(metrics, "floor")["state"] == "excluded"
    axes = metrics["steps"][2]
    assert [one["axis"] for one in axes["axes"]] == ["right", "hedging"]  # the claim's own first
    assert axes["axes"][0]["main_probe"]["auc"] == metrics["steps"][1]["auc"]


def test_without_another_model_it_is_not_replicated(tmp_path: Path) -> None:
    metrics = falsify(tmp_path / "run", made(tmp_path / "mine").write(labels=("right",)).flags())
    assert verdicts(metrics) == {
        "all_five": ("INCONCLUSIVE", ["not_replicated"]),
        "this_model": ("SUPPORTED", ["effect_shown"]),
    }
    said = {name: one["statement"].split("fresh items, ")[1]
            for name, one in metrics["claims"].items()}  # fmt: skip
    assert said == {
        "all_five": "and another model's do, by steps 1, 2 and 4; 3 and 5 not run",
        "this_model": "by steps 1, 2 and 4; 3 not run",
    }
    assert states(metrics)["axes"] == "not run" and "one axis" in metrics["steps"][2]["reason"]


def test_shuffled_labels_are_not_supported(tmp_path: Path) -> None:
    mine, rng = made(tmp_path / "mine"), np.random.default_rng(5)
    for name in ("train", "fresh"):
        labels = rng.permutation([row["right"] for row in mine.rows[name]]).tolist()
        mine.rows[name] = [{**row, "right": one} for row, one in
                           zip(mine.rows[name], labels, strict=True)]  # fmt: skip
    metrics = falsify(tmp_path / "run", mine.write().flags())
    for verdict, reasons in verdicts(metrics).values():
        assert verdict == "INCONCLUSIVE" and "no_signal_in_training" in reasons


def test_what_training_shows_and_fresh_items_exclude_is_refuted(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", n=300, signal={"train": SIGNAL_OF_TRAINING, "fresh": 0.0})
    metrics = falsify(tmp_path / "run", mine.write().flags())
    assert states(metrics)["training"] == "passed" and states(metrics)["fresh"] == "failed"
    assert verdicts(metrics) == dict.fromkeys(
        ("all_five", "this_model"), ("REFUTED", ["effect_excluded"])
    )
    claim = metrics["claims"]["this_model"]
    assert claim["estimate"]["interval"]["high"] < GATES.protocol.fresh_auc
    assert claim["smallest_effect"] == pytest.approx(0.13)


SIGNAL_OF_TRAINING = 2.0


def test_a_step_between_is_left_open_with_the_items_that_would_do(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", n=80, signal=1.4)
    for layers in mine.x.values():
        del layers["all_layers"]
    metrics = falsify(tmp_path / "run", mine.write(labels=("right",)).flags())
    assert states(metrics)["fresh"] == "not decidable"
    verdict, reasons = verdicts(metrics)["this_model"]
    assert (verdict, reasons) == ("INCONCLUSIVE", ["underpowered"])
    assert metrics["claims"]["this_model"]["n_to_settle"] > 80
    assert mode_of(metrics, "underpowered")["n_to_decide"] > 80


def test_threshold_and_probe_are_those_of_training(whole: tuple[Path, Any, Made]) -> None:
    """Step 2 anew, from the rows, with scikit-learn's own pieces."""
    _, metrics, mine = whole
    x = {name: both["h_last"] for name, both in mine.x.items()}
    y = {name: np.array([row["right"] for row in side]) for name, side in mine.rows.items()}
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = [StratifiedKFold(5, shuffle=True, random_state=seed) for seed in range(SMALL.cv_seeds)]
    oof = np.mean([
        cross_val_predict(probe, x["train"], y["train"], cv=fold, method="predict_proba")[:, 1]
        for fold in folds
    ], axis=0)  # fmt: skip
    grid = np.linspace(0.05, 0.95, 91)

    def asymmetry(scores: Any, right: Any, at: float) -> float:
        return float((scores[~right] >= at).mean() - (scores[right] >= at).mean())

    allowed = [at for at in grid if (oof[y["train"]] >= at).mean() >= 0.7]
    best = min(allowed, key=lambda at: round(asymmetry(oof, y["train"], at), 9))
    scores = probe.fit(x["train"], y["train"]).predict_proba(x["fresh"])[:, 1]
    gates = {one["gate"]: one["estimate"]["value"] for one in metrics["steps"][1]["gates"]}
    assert gates["asymmetry on fresh items"] == asymmetry(scores, y["fresh"], best)
    assert gates["AUC on fresh items"] == roc_auc_score(y["fresh"], scores)
    # a threshold chosen on the fresh labels would say more
    assert min(asymmetry(scores, y["fresh"], at) for at in grid) < asymmetry(
        scores, y["fresh"], best
    )


def test_too_few_right_answers_asserted_are_said_to_be_it(tmp_path: Path) -> None:
    """Fresh states that lie lower, all of them: the order stays, and the threshold does not fit."""
    mine = made(tmp_path / "mine")
    for layers in mine.x.values():
        del layers["all_layers"]
    mine.x["fresh"]["h_last"][:, 3] -= 1.5
    metrics = falsify(tmp_path / "run", mine.write(labels=("right",)).flags())
    assert verdicts(metrics)["this_model"] == ("REFUTED", ["unbalanced"])
    estimate = metrics["claims"]["this_model"]["estimate"]
    assert estimate["interval"]["high"] < GATES.protocol.asserted_right


@pytest.mark.parametrize(
    ("change", "verdict", "reason"),
    [
        ("unknown ends", "INCONCLUSIVE", "finish_reasons_unknown"),
        ("stated ends", "SUPPORTED", "effect_shown"),
        ("labels missing", "INVALID", "infrastructure"),
        ("cut answers", "INVALID", "truncated"),
        ("same prompt", "INVALID", "train_test_overlap"),
        ("same row", "INVALID", "train_test_overlap"),
        ("two judges", "INVALID", "mixed_instruments"),
    ],
)
def test_validity_comes_first(tmp_path: Path, change: str, verdict: str, reason: str) -> None:
    mine = made(tmp_path / "mine", cut=0.8 if change == "cut answers" else 0.0)
    if change == "labels missing":
        for row in mine.rows["fresh"][:3]:  # 2.5 percent
            row["right"] = None
    if change == "same prompt":
        mine.rows["fresh"][0]["prompt"] = mine.rows["train"][0]["prompt"]
    if change == "same row":
        for rows in mine.x["fresh"], mine.x["train"]:
            rows["h_last"][0] = 1.0
    told = change in ("cut answers", "same prompt")
    flags = mine.write(labels=("right",)).flags(answers=told)
    if change == "unknown ends":
        del flags["untruncated"]
    if change == "two judges":
        flags["labels"] = two_judges(mine)
    metrics = falsify(tmp_path / "run", flags)
    assert verdicts(metrics)["this_model"][0] == verdict
    assert reason in verdicts(metrics)["this_model"][1]


def two_judges(mine: Made) -> Path:
    """A folder that says that the sets' labels came from two judges."""
    folder, text = mine.folder / "labels", ""
    folder.mkdir()
    for name in ("train", "fresh"):
        write_lines(folder / f"{name}.jsonl", [
            {"item_id": row["item_id"], "right": row["right"]} for row in mine.rows[name]
        ])  # fmt: skip
        text += f'[[sets]]\nfile = "{name}.jsonl"\n[sets.instruments.right]\nkind = "pass"\n'
        text += f'judge = "judge-of-{name}"\n'
    (folder / "audit.toml").write_text(text)
    return folder


def test_the_same_family_replicates_nothing(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", family="llama").write(labels=("right",))
    other = made(tmp_path / "other", seed=1, family="llama").write()
    metrics = falsify(tmp_path / "run", {**mine.flags(), **other.flags("replication_")})
    step = metrics["steps"][4]
    assert step["state"] == "not run" and "family llama" in step["reason"]
    assert verdicts(metrics)["all_five"] == ("INCONCLUSIVE", ["not_replicated"])
    with pytest.raises(UserError, match=r"--replication: .* rows of features that are those of"):
        falsify(tmp_path / "again", {**mine.flags(), **mine.flags("replication_")})


def test_another_model_without_the_signal_refutes_all_five_only(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", family="one").write(labels=("right",))
    other = made(tmp_path / "other", seed=1, n=300, family="two",
                 signal={"train": SIGNAL_OF_TRAINING, "fresh": 0.0}).write()  # fmt: skip
    metrics = falsify(tmp_path / "run", {**mine.flags(), **other.flags("replication_")})
    assert verdicts(metrics) == {
        "all_five": ("REFUTED", ["effect_excluded"]),
        "this_model": ("SUPPORTED", ["effect_shown"]),
    }
    # one that has no signal in its own training says nothing of transfer
    silent = made(tmp_path / "silent", seed=2, n=300, signal=0.0, family="two").write()
    metrics = falsify(tmp_path / "again", {**mine.flags(), **silent.flags("replication_")})
    assert verdicts(metrics)["all_five"] == ("INCONCLUSIVE", ["not_replicated"])


@pytest.mark.parametrize(
    ("facts", "labels", "why"),
    [
        ({}, "right", "the family of .* is not known"),
        ({"family": "two", "model": "model-0"}, "right", "those of the same model"),
        ({"family": "two"}, "hedging", "labels are of hedging, and the claim is about right"),
    ],
)
def test_what_is_not_another_model_or_not_the_claim_replicates_nothing(
    tmp_path: Path, facts: dict[str, str], labels: str, why: str
) -> None:
    mine = made(tmp_path / "mine", family="one").write(labels=("right",))
    other = made(tmp_path / "other", seed=1)
    other.facts.update(facts)
    other.write(labels=(labels,))
    metrics = falsify(tmp_path / "run", {**mine.flags(), **other.flags("replication_")})
    step = metrics["steps"][4]
    assert step["state"] == "not run" and re.search(why, step["reason"])


def test_all_five_are_worth_no_more_than_the_other_models_order(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", family="one").write(labels=("right",))
    other = made(tmp_path / "other", seed=1, family="two").write()
    lines = mine.path("labels").read_text().splitlines(keepends=True)
    fresh, later = mine.path("fresh").read_bytes(), tmp_path / "fresh-labels.jsonl"
    mine.path("labels").write_text("".join(line for line in lines if "-train-" in line))
    mine.path("fresh").unlink()
    flags = {**mine.flags(), **other.flags("replication_"), "fresh_labels": later}
    out = tmp_path / "run"
    with pytest.raises(UserError, match="not there yet"):
        falsify(out, flags)
    mine.path("fresh").write_bytes(fresh)
    later.write_text("".join(line for line in lines if "-fresh-" in line))
    found = falsify(out, run=out)["registration"]
    assert (found["state"], found["all_five"]["state"]) == ("preregistered", "gates fixed first")
    assert found["all_five"]["why"].startswith("of the other model: ")


def test_what_items_show_must_be_shown_by_kind_too() -> None:
    """Labels that follow the kind of question alone, and six kinds on which nothing can rest."""
    both = study(side(1, n=120), side(2, n=120))
    kinds = tuple(str(i % 6) for i in range(120))
    right = np.array([int(kind) < 3 for kind in kinds])

    def told(one: Any) -> Any:
        x = one.x["h_last"].copy()
        x[:, 3] = 5.0 * right
        made_of = replace(one, x={"h_last": x}, groups=kinds)
        return made_of.relabelled(right)

    kind_only = replace(both, train=told(both.train), fresh=told(both.fresh))
    found = steps.held_out(kind_only, GATES, Step.FRESH)
    assert found["gates"][0]["state"] == "passed"
    assert found["state"] == "not decidable" and found["between_kinds"]
    alone = replace(kind_only, fresh=replace(kind_only.fresh, groups=kind_only.fresh.item_ids))
    assert steps.held_out(alone, GATES, Step.FRESH)["state"] == "passed"  # kinds are not known


def test_a_step_that_rests_on_its_cut_answers_decides_nothing() -> None:
    noise = side(5, n=400, signal=0.0)
    cut = np.arange(400) % 2 == 0
    x = noise.x["h_last"].copy()
    x[:, 3] = np.where(cut, -4.0, 4.0) * np.where(noise.y, 1, -1)  # cut ones the other way round
    fresh = replace(noise, x={**noise.x, "h_last": x}, finished=~cut)
    train = side(4, n=150)
    told = train.x["h_last"].copy()
    told[:, 3] = 4.0 * np.where(train.y, 1, -1)
    train = replace(train, x={**train.x, "h_last": told})
    found = steps.in_every_reading(study(train, fresh), GATES, Step.REPLICATION)
    assert found["readings"][-1]["state"] == "passed"  # of finished answers
    assert steps.held_out(study(train, fresh), GATES, Step.REPLICATION)["state"] == "failed"
    assert found["state"] == "not decidable" and "fails only as its cut" in found["reason"]


def test_an_axis_that_cannot_be_tested_leaves_the_sweep_open(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine")
    for name, rows in mine.rows.items():
        for place, row in enumerate(rows):
            row["rare"] = place < 3
            row["gappy"] = None if place % 20 == 0 else place % 2 == 0
            if name == "train":
                row["once"] = place % 2 == 0
    mine.write(labels=("right", "hedging", "rare", "gappy", "once"))
    metrics = falsify(tmp_path / "run", mine.flags())
    axes = metrics["steps"][2]
    assert axes["passing"] == 2 and axes["state"] == "not decidable"
    assert set(axes["left_out"]) == {"rare", "gappy"} and axes["in_one_set"] == ["once"]
    assert "6 of 120 training items have no label" in axes["left_out"]["gappy"]
    text = printed(report(metrics))
    assert "Step 3 leaves out gappy" in text and "not looked at: once" in text


def test_one_missing_prompt_leaves_the_leak_check_on(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine")
    mine.rows["fresh"][0]["prompt"] = mine.rows["train"][0]["prompt"]
    mine.rows["fresh"][1]["prompt"] = None
    metrics = falsify(tmp_path / "run", mine.write(labels=("right",)).flags(answers=True))
    assert verdicts(metrics)["this_model"] == ("INVALID", ["train_test_overlap"])
    assert metrics["sets"]["fresh"]["without_prompt"] == 1


def test_many_gates_fail_by_wider_intervals() -> None:
    """Bonferroni: each of the steps 2 (but its AUC) to 5 has an eighth of alpha, one-sided."""
    assert level_to_fail(GATES, 2) == pytest.approx(1 - 0.05 / 8)
    one_sided = [(1 - level_to_fail(GATES, n)) / 2 * n for n in (2, 9, 3, 3)]
    assert sum(one_sided) == pytest.approx(0.025)
    wider = Interval(0.55, 0.72, 0.99)
    assert held(0.6, 0.69).state is GateState.FAILED
    assert held(0.6, 0.69, wider=wider).state is GateState.NOT_DECIDABLE
    assert held(0.71, 0.8, wider=wider).state is GateState.PASSED
    found = steps.held_out(study(side(1, n=120), side(2, n=120)), GATES, Step.POOLED)
    assert [one["fails_by"]["level"] for one in found["gates"]] == [level_to_fail(GATES, 3)] * 3
    found = steps.held_out(study(side(1, n=120), side(2, n=120)), GATES, Step.FRESH)
    assert found["gates"][0]["fails_by"] is None


def test_a_gate_that_nearly_fails_shows_the_interval_by_which_it_does_not(
    whole: tuple[Path, Any, Made],
) -> None:
    metrics = json.loads(json.dumps(whole[1]))
    assert "wider:" not in printed(report(metrics))
    gate = metrics["steps"][3]["gates"][0]
    gate["state"] = "not decidable"
    gate["estimate"] |= {"value": 0.53, "interval": {"low": 0.44, "high": 0.62, "level": 0.95}}
    gate["fails_by"] = {"low": 0.397, "high": 0.66, "level": 0.996}
    text = printed(report(metrics))
    assert "wider:" in text and "[0.397, 0.660]" in text


def test_nothing_is_refuted_where_a_plant_is_not_found(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", n=200, signal={"train": SIGNAL_OF_TRAINING, "fresh": 0.0})
    metrics = falsify(tmp_path / "run", mine.write(labels=("right",)).flags())
    assert metrics["steps"][1]["finds_a_plant"]
    assert verdicts(metrics)["this_model"][0] == "REFUTED"
    found = {one["step"]: dict(one) for one in metrics["steps"]}
    found[Step.FRESH]["finds_a_plant"] = False
    judged = claims_of(found, metrics["modes"], [], GATES, axis="right", ends_known=True)
    assert {one.verdict for one in judged.values()} == {Verdict.INCONCLUSIVE}
    assert judged["this_model"].reasons == (ReasonCode.INSENSITIVE,)


def held(low: float, high: float, **more: Any) -> Held:
    estimate = Estimate("q", (low + high) / 2, Interval(low, high, 0.95), "m", 9)
    return Held(Gate("q", 0.7), estimate, **more)


def test_a_step_is_as_good_as_its_worst_gate() -> None:
    good, bad, between = held(0.8, 0.9), held(0.1, 0.2), held(0.6, 0.85)
    assert combined([good, good]) is GateState.PASSED
    assert combined([good, between]) is GateState.NOT_DECIDABLE
    assert combined([good, between, bad]) is GateState.FAILED
    assert combined([good, Held(Gate("q", 0.7), None)]) is GateState.NOT_DECIDABLE
    # a share that a threshold was chosen for just so is held by its estimate
    assert replace(between, by_estimate=True).state is GateState.PASSED
    assert held(0.5, 0.85, by_estimate=True).state is GateState.NOT_DECIDABLE
    assert held(0.1, 0.2, by_estimate=True).state is GateState.FAILED


def test_the_gates_that_arc3_prints_are_these() -> None:
    asked = GATES.protocol
    assert [one.threshold for one in claims.PAPER_GATES] == [
        asked.cv_auc, asked.fresh_auc, -asked.fresh_asymmetry, asked.asserted_right,
    ]  # fmt: skip


def test_scores_below_the_papers_grid_have_a_threshold_and_no_null() -> None:
    train = side(4, n=120, rate=0.08, d=60)
    found = steps.training(study(train, train), GATES, grouped=True)
    assert found["threshold"] is not None and found["threshold"] < 0.05
    assert found["chance"] is None and found["state"] != "passed"


def test_two_names_of_one_axis_fail_the_sweep(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine")
    for rows in mine.rows.values():
        for row in rows:
            row["same"] = row["right"]
    metrics = falsify(tmp_path / "run", mine.write(labels=("right", "same")).flags())
    axes = metrics["steps"][2]
    assert axes["state"] == "failed" and axes["correlations"][0]["r"] == pytest.approx(1)
    assert verdicts(metrics)["this_model"][0] == "REFUTED"
    assert metrics["claims"]["this_model"]["estimate"]["quantity"] == "|r| of right and same"


# -- why it fails ---------------------------------------------------------------------------------


def test_a_cliff_is_called_one_only_where_training_has_a_signal(tmp_path: Path) -> None:
    rates = {"train": 0.5, "fresh": 0.04}
    found = falsify(tmp_path / "a", made(tmp_path / "mine", rate=rates).write().flags())
    cliff = mode_of(found, "capability_cliff")
    assert cliff["state"] == "shown" and cliff["rates"]["ratio"]["interval"]["high"] < 0.4
    verdict, reasons = verdicts(found)["this_model"]
    assert verdict == "INCONCLUSIVE" and "capability_cliff" in reasons
    none = made(tmp_path / "none", rate=rates, signal=0.0).write()
    found = falsify(tmp_path / "b", none.flags())
    assert mode_of(found, "capability_cliff")["state"] == "not decidable"
    # four wrong answers are no fall, whatever training had
    few = made(tmp_path / "few")
    for name, rows in few.x["fresh"].items():
        few.x["fresh"][name] = rows[:4]
    few.rows["fresh"] = [{**row, "right": False} for row in few.rows["fresh"][:4]]
    found = falsify(tmp_path / "c", few.write().flags())
    assert mode_of(found, "capability_cliff")["state"] == "not decidable"
    assert "capability_cliff" not in verdicts(found)["this_model"][1]


def test_rates_are_compared_at_equally_many_claims(tmp_path: Path) -> None:
    """The fresh lists are longer: among lists of one length the rate did not fall."""
    mine = made(tmp_path / "mine", rate={"train": 0.5, "fresh": 0.05})
    for place, row in enumerate(mine.rows["train"]):
        row["n_parts"] = 5 if place % 3 == 0 else 4
        if row["n_parts"] == 5:
            row["right"] = place % 60 == 0
    for row in mine.rows["fresh"]:
        row["n_parts"] = 5
    cliff = mode_of(falsify(tmp_path / "run", mine.write().flags()), "capability_cliff")
    equal = cliff["equal_claim_counts"]
    assert equal["claims"] == 5 and equal["train"]["n"] == 40
    assert cliff["rates"]["ratio"]["interval"]["high"] < 1 < equal["ratio"]["interval"]["high"]
    assert cliff["state"] == "not decidable"
    # no list of one set is as long as one of the other: nothing can be equalised
    for row in mine.rows["train"]:
        row["n_parts"] = 4
    cliff = mode_of(falsify(tmp_path / "apart", mine.write().flags()), "capability_cliff")
    assert cliff["state"] == "not decidable" and "no number of claims" in cliff["why"]


def test_answers_that_words_tell_apart_are_not_uniform(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", n=200)
    found = falsify(tmp_path / "alike", mine.write().flags(answers=True))
    uniform = mode_of(found, "uniform_output")
    assert uniform["state"] == "shown" and uniform["words"]["interval"]["high"] < 0.63
    assert abs(uniform["similarity"]["excess"]["value"]) < 0.02
    for row in mine.rows["fresh"]:
        row["response"] += " indeed yes" if row["right"] else " perhaps not"
    uniform = mode_of(
        falsify(tmp_path / "apart", mine.write().flags(answers=True)), "uniform_output"
    )
    assert uniform["state"] == "excluded" and uniform["words"]["auc"] > 0.9
    assert uniform["similarity"]["excess"]["interval"]["low"] > 0.1


def test_a_state_that_tells_the_end_and_nothing_else_is_style(tmp_path: Path) -> None:
    mine = made(tmp_path / "mine", signal=0.0, cut=0.4)
    for name, rows in mine.rows.items():
        ended = np.array([row["finish_reason"] == "length" for row in rows])
        mine.x[name]["h_last"][:, 7] += 4 * ended
    flags = mine.write(labels=("right",)).flags(answers=True)
    style = mode_of(falsify(tmp_path / "run", flags), "style_closure")
    assert style["state"] == "shown" and "cut by the budget" in style["why"]


def test_the_papers_cliff_is_not_called_one(paper_artifacts: Path, tmp_path: Path) -> None:
    """Its own SmolLM2 states and labels: 56 of 100, then 9 of 193, and no signal in training.

    Golden values of PAPER.md 5.6 and 5.7, C = 0.1; 1e-6 for what a solver gives.
    """
    published = Artifacts(paper_artifacts)
    sides = {"train": published.smollm_step16(), "fresh": published.smollm_fresh()}
    x = {name: {"h_last": one.x.astype(np.float32)} for name, one in sides.items()}
    rows = {
        name: [{"item_id": f"{name}-{i}", "right": bool(right)} for i, right in
               enumerate(one.labels)] for name, one in sides.items()
    }  # fmt: skip
    mine = Made(tmp_path / "paper", x, rows, {"model": "SmolLM2-1.7B-Instruct"})
    flags = mine.write(labels=("right",)).flags()
    metrics = falsify(tmp_path / "run", {**flags, "untruncated": False})
    training, fresh = metrics["steps"][:2]
    assert fresh["auc"] == pytest.approx(0.5048309178743962, abs=1e-6)
    assert training["permuted_labels"]["p_value"] > 0.05 and training["no_signal"]
    cliff = mode_of(metrics, "capability_cliff")
    assert cliff["rates"]["ratio"]["value"] == pytest.approx(9 / 193 / (56 / 100))
    assert cliff["state"] == "not decidable" and "step 1 did not pass" in cliff["why"]
    verdict, reasons = verdicts(metrics)["this_model"]
    assert verdict == "INCONCLUSIVE"
    assert {"no_signal_in_training", "finish_reasons_unknown"} <= set(reasons)
    # its labels came from two judges (PAPER.md 8.1 J2): said so, nothing of it stands
    judged = falsify(tmp_path / "judged", {**flags, "labels": two_judges(mine)})
    assert verdicts(judged)["this_model"] == ("INVALID", ["mixed_instruments"])


# -- files of anyone ------------------------------------------------------------------------------


def test_safetensors_hold_the_same_rows(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    mine = made(tmp_path / "mine").write()
    ids = [row["item_id"] for row in mine.rows["train"]]
    path = tmp_path / "train.safetensors"
    save_file(dict(mine.x["train"]), path, metadata={"item_ids": json.dumps(ids), "model": "m"})
    one, two = read_rows(path, "--features"), read_rows(mine.path("train"), "--features")
    assert one.item_ids == two.item_ids and one.facts["model"] == "m"
    assert all((one.arrays[name] == two.arrays[name]).all() for name in two.arrays)


def broken(mine: Made, what: str) -> dict[str, Any]:
    """Flags after one mistake."""
    fresh, rows = mine.x["fresh"], mine.rows["fresh"]
    if what == "width":
        fresh["h_last"] = fresh["h_last"][:, :5]
    if what == "kinds":
        del fresh["all_layers"]
    if what == "not finite":
        fresh["h_last"][3, 2] = np.nan
    if what == "twice":
        rows[1]["item_id"] = rows[0]["item_id"]
    if what == "both sets":
        rows[0]["item_id"] = mine.rows["train"][0]["item_id"]
    if what == "odd end":
        rows[0]["finish_reason"] = "tired"
    flags = mine.write().flags(answers=what == "odd end")
    if what in ("twice", "both sets"):  # each id is labelled once
        lines = mine.path("labels").read_text().splitlines(keepends=True)
        named = {json.loads(line)["item_id"]: line for line in lines}
        mine.path("labels").write_text("".join(named.values()))
    if what == "no label":
        lines = mine.path("labels").read_text().splitlines(keepends=True)
        mine.path("labels").write_text("".join(lines[:-2]))
    if what == "no ids":
        np.savez(mine.path("fresh"), **fresh)  # type: ignore[arg-type]
    if what == "pickled":
        np.savez(mine.path("fresh"), ids=np.array([{}], dtype=object))
    if what == "other model":
        mine.facts["model"] = "another"
        mine.write_features("fresh")
    if what == "no such":
        flags["features"] = mine.folder / "none.npz"
    if what == "csv":
        flags["features"] = mine.path("labels")
    if what == "axis":
        flags["axis"] = "kindness"
    if what == "unclear":
        mine.write(labels=("hedging",))
        write_lines(mine.path("labels"), [
            {"item_id": row["item_id"], "a": row["right"], "b": row["hedging"]}
            for side in mine.rows.values() for row in side
        ])  # fmt: skip
    if what == "two arms":
        write_lines(mine.path("labels"), [
            {"item_id": row["item_id"], "right": row["right"], "arm": arm}
            for side in mine.rows.values() for row in side for arm in ("base", "edit")
        ])  # fmt: skip
    return flags


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("width", r"--fresh .*: h_last has width 16 in training and 5 fresh"),
        ("kinds", r"--fresh .*: only one of the sets has all_layers"),
        ("not finite", r"--fresh .*: h_last holds nothing, or values that are not finite"),
        ("twice", r"--fresh .*: 0-fresh-0: more than one row"),
        ("both sets", r"--fresh .*: 0-train-0 also in the training set"),
        ("no label", r"--fresh .*: 0-fresh-118, 0-fresh-119 not labelled \(right\)"),
        ("no ids", r"--fresh .*: no item ids; an NPZ holds them as an array ids"),
        ("pickled", r"--fresh .*: holds pickled objects"),
        ("other model", r"--fresh .*: its model is another and that of the training set is"),
        ("odd end", r"--fresh .*: finish reason 'tired'"),
        ("no such", r"--features .*none.npz: no such file"),
        ("csv", r"--features .*: not .npz or .safetensors"),
        ("axis", r"--axis kindness: --labels .* has hedging, right"),
        ("unclear", r"--labels .*: several labels \(a, b\); say --axis NAME"),
        ("two arms", r"--labels .* in another set of it; give one arm"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, what: str, message: str) -> None:
    flags = broken(made(tmp_path / "mine"), what)
    with pytest.raises(UserError, match=message) as caught:
        falsify(tmp_path / "run", flags)
    assert "\n" not in str(caught.value)
    # nothing is left of a run in which nothing was done
    assert (tmp_path / "run").exists() == ("--fresh" in message)


@given(st.binary(max_size=200), st.sampled_from([".npz", ".safetensors"]), st.booleans())
def test_bytes_that_are_no_features_are_one_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: str, begun_well: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"any{suffix}"
    start = b"PK\x03\x04" if suffix == ".npz" else (len(content)).to_bytes(8, "little")
    path.write_bytes((start if begun_well else b"") + content)
    with pytest.raises(UserError, match=r"^--features .*any"):
        read_rows(path, "--features")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"profile": "quick"}, r"^give RUN, or --adapter, or --features, --fresh and --labels"),
        ({"features": "a"}, r"\(--fresh and --labels not given\)"),
        ({"source": "r", "labels": "a"}, "^RUN has features and labels of its own: leave --labels"),
        ({"source": "r", "axis": "right"}, "^--axis, --columns and --untruncated are for"),
        ({"source": "r", "replication": "s", "replication_fresh": "a"},
         "^--replication is a run: leave --replication-fresh out"),
        ({"source": "r", "replication_features": "s"},
         r"\(--replication-fresh and --replication-labels not given\)"),
        ({"source": "r", "profile": "slow"}, "^--profile 'slow': give quick or standard"),
    ],
)  # fmt: skip
def test_flags_that_do_not_fit_are_one_line(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse(flags)


# -- a finished run -------------------------------------------------------------------------------


def test_a_run_is_read_from_its_files_alone(tmp_path: Path) -> None:
    mine = made(tmp_path / "a", cut=0.03, family="llama")
    run = finished_run(mine, tmp_path / "arc3")
    other = finished_run(made(tmp_path / "b", seed=1, family="qwen3"), tmp_path / "arc3-other")
    flags = {"source": run, "replication": other}
    metrics = falsify(tmp_path / "out", flags)
    assert metrics["registration"]["state"] == "exploratory"
    assert verdicts(metrics)["all_five"] == ("SUPPORTED", ["effect_shown"])
    # the same rows as from files of anyone give the same numbers
    again = falsify(tmp_path / "own", mine.write(labels=("right",)).flags(answers=True))
    for place in (0, 1, 3):
        assert metrics["steps"][place]["gates"] == again["steps"][place]["gates"]


def test_what_a_run_says_is_wrong_with_it_is_inherited(tmp_path: Path) -> None:
    run = finished_run(made(tmp_path / "a"), tmp_path / "arc3")
    assert FinishedRun(run).faults() == ()
    claim = {"verdict": "INVALID", "reasons": ["judge_not_valid", "truncated"]}
    (run / "metrics.json").write_text(json.dumps({"claims": {"transfer": claim}}))
    # truncation is looked at anew: no answer of these was cut
    assert FinishedRun(run).faults() == (ReasonCode.JUDGE_NOT_VALID,)


def test_a_run_is_preregistered_where_its_manifest_held_gates_and_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = {"git_commit": "abc", "git_dirty": False}
    monkeypatch.setattr("arcs.provenance.code_state", lambda: code)
    found, ours = made(tmp_path / "a"), GATES.to_json()

    def state(name: str, **manifest: Any) -> str:
        run = finished_run(found, tmp_path / name, **{"gates": ours, **manifest})
        return FinishedRun(run).registration(GATES.sha256)[0]

    assert state("same") == "preregistered"
    assert state("other gates", gates={**ours, "sha256": "x"}) == "exploratory"
    assert state("other rules", code={**code, "git_commit": "abd"}) == "exploratory"
    assert state("its answers were there", ids_from={"backend": "x"}) == "exploratory"
    code["git_dirty"] = True
    assert state("changed code") == "exploratory"


def test_what_was_chosen_after_a_run_is_exploratory() -> None:
    plain = parse({"source": Path("run")})
    assert not plain.chosen
    for flags in ({"seed": 1}, {"pooled": "a"}, {"gates": Path("g")}):
        assert parse({"source": Path("run"), **flags}).chosen


def test_a_run_that_is_not_finished_is_one_line(tmp_path: Path) -> None:
    run = finished_run(made(tmp_path / "a"), tmp_path / "arc3")
    (run / "labels.json").unlink()
    with pytest.raises(UserError, match=r"RUN .*: this run is not finished"):
        falsify(tmp_path / "out", {"source": run})
    with pytest.raises(UserError, match=r"RUN .*: no run here"):
        falsify(tmp_path / "out2", {"source": tmp_path / "nowhere"})


def test_without_a_name_the_latest_runs_are_one_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^runs: no runs here"):
        command.start({}, out=None, run=None, as_json=False)
    old = finished_run(made(tmp_path / "a", seed=3, family="llama"), Path("runs/arc3-old"))
    other = finished_run(made(tmp_path / "b", seed=1, family="qwen3"), Path("runs/arc3-other"))
    last = finished_run(made(tmp_path / "c", family="llama"), Path("runs/arc3-last"))
    for place, path in enumerate((old, other, last)):
        os.utime(path / "metrics.json", (place, place))
    arc1 = finished_run(made(tmp_path / "d", seed=2), Path("runs/arc1-a"), arc="arc1")
    claim = {"statement": "it changes pass@1", "verdict": "INCONCLUSIVE", "n_to_settle": 647,
             "reasons": ["underpowered"], "delta": 0.01, "n_items": 9,
             "interval": {"low": -0.1, "high": 0.1, "level": 0.95}}  # fmt: skip
    (arc1 / "metrics.json").write_text(json.dumps({"claim": claim}))
    arc2 = finished_run(made(tmp_path / "e", seed=2), Path("runs/arc2-a"), arc="arc2")
    claim = {
        "statement": "damping brings it out",
        "verdict": "INCONCLUSIVE",
        "reasons": ["frozen"],
        "explanation": "frozen",
    }  # its words are no reason codes
    words = [
        {"word": "frozen", "state": "open", "because": "57 items are needed"},
        {"word": "content damage", "state": "excluded", "because": "nothing is lost"},
    ]
    (arc2 / "metrics.json").write_text(json.dumps({"claim": claim, "words": words}))
    command.start({"profile": "quick"}, out=Path("made"), run=None, as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "arc1-a" in said and "arc3-last" in said and "arc3-old" not in said
    assert "647" in said and "items would settle it" in said
    (row,) = latest.rows([arc2])
    assert row["claims"][0]["changes"] == "open are frozen: 57 items are needed"
    claim |= {"verdict": "REFUTED", "explanation": "it is as with random heads"}
    (arc2 / "metrics.json").write_text(json.dumps({"claim": claim, "words": words}))
    (row,) = latest.rows([arc2])
    assert row["claims"][0]["changes"] == "it is as with random heads"
    assert "arc2-a was not audited: " in said
    metrics = json.loads(Path("made/metrics.json").read_text())
    assert metrics["config"]["replication"] == str(other.absolute())
    assert verdicts(metrics)["all_five"][0] == "SUPPORTED"
    assert "it changes pass@1" in Path("made/latest.html").read_text()


def test_without_a_run_of_arc3_nothing_is_falsified_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = finished_run(made(tmp_path / "a"), Path("runs/arc1-a"), arc="arc1")
    claim = {"statement": "it changes pass@1", "verdict": "INCONCLUSIVE", "n_to_settle": 647,
             "reasons": ["underpowered"], "delta": 0.01, "n_items": 9,
             "interval": {"low": -0.1, "high": 0.1, "level": 0.95}}  # fmt: skip
    (run / "metrics.json").write_text(json.dumps({"claim": claim}))
    for flags, out, named in (({"seed": 1}, None, "--seed"), ({}, Path("made"), "--out"),
                              ({"profile": "quick"}, Path("made"), "--profile")):  # fmt: skip
        with pytest.raises(UserError, match=f"^{named}: runs has no finished run of arc3"):
            command.start(flags, out=out, run=None, as_json=False)
    assert not Path("made").exists()
    # what settle came to stands beside the first verdict, where the run is still that one
    of = {name: file_sha256(run / name) for name in ("metrics.json", "manifest.json")}
    with RunDirectory.create(run / "settle", {"arc": "settle", "config": {}, "of": of}) as own:
        own.write_json("metrics.json", {"claims": {"trained": {
            **claim, "verdict": "REFUTED", "reasons": ["effect_excluded"], "n_items": 320,
        }}})  # fmt: skip
    # one damaged manifest beside metrics.json ends nothing
    broken = finished_run(made(tmp_path / "b"), Path("runs/arc3-b"))
    (broken / "manifest.json").write_text("{")
    command.start({}, out=None, run=None, as_json=False)
    said = " ".join(capsys.readouterr().out.split())
    assert "no finished run of arc3, so nothing is falsified" in said
    assert "arc3-b is left out, since it is damaged: " in said
    assert "Settled: REFUTED (effect excluded), n = 320." in said
    (row,) = latest.rows([run])
    assert row["claims"][0]["verdict"] == "INCONCLUSIVE"
    (run / "metrics.json").write_text(json.dumps({"claim": {**claim, "n_items": 10}}))
    (row,) = latest.rows([run])
    assert row["claims"][0]["settled"] is None
    assert row["claims"][0]["not_settled"] == "metrics.json has changed since it was settled"


def test_only_a_whole_unedited_valid_run_replicates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = made(tmp_path / "b", seed=1, family="qwen3")
    fit = finished_run(other, Path("runs/fit"))
    lacking = finished_run(other, Path("runs/lacking"))
    (lacking / "labels.json").unlink()
    invalid = finished_run(other, Path("runs/invalid"))
    claim = {"verdict": "INVALID", "reasons": ["judge_not_valid"]}
    (invalid / "metrics.json").write_text(json.dumps({"claims": {"transfer": claim}}))
    model = {"name": "m", "fingerprint": "f", "family": "qwen3", "base": {"fingerprint": "g"}}
    edited = finished_run(other, Path("runs/edited"), model=model)
    last = finished_run(made(tmp_path / "a", family="llama"), Path("runs/last"))
    for place, path in enumerate((fit, lacking, invalid, edited, last)):
        os.utime(path / "metrics.json", (place, place))
    found = latest.latest()
    assert found.runs["arc3"] == last and found.replication == fit
    assert [note.split(":")[0] for note in found.notes] == [
        f"{name} is no replication" for name in ("edited", "invalid", "lacking")
    ]
    shutil.rmtree(fit)
    found = latest.latest()
    assert found.replication is None and found.notes[-1].startswith("no replication: ")


# -- what people see ------------------------------------------------------------------------------


def test_tables_fit_80_columns(whole: tuple[Path, Any, Made], tmp_path: Path) -> None:
    _, metrics, _ = whole
    text = printed(report(metrics))
    for needle in ("SUPPORTED", "gates fixed first", "2 of 2 axes pass", "other model"):
        assert needle in text
    printed(report(widened(metrics, count=1234, number=-0.98765)))
    mine = made(tmp_path / "mine", rate={"train": 0.5, "fresh": 0.0}).write(labels=("right",))
    bare = falsify(tmp_path / "run", mine.flags())
    assert "Not run: step 2, 3, 4, 5" in printed(report(bare))


def test_the_metrics_follow_their_schema(whole: tuple[Path, Any, Made], tmp_path: Path) -> None:
    _, metrics, _ = whole
    schema = json.loads((DOCS / "falsify-metrics.schema.json").read_text())
    jsonschema.validate(metrics, schema)
    mine = made(tmp_path / "mine", rate={"train": 0.5, "fresh": 0.0}).write(labels=("right",))
    jsonschema.validate(falsify(tmp_path / "run", mine.flags()), schema)
    for change in (
        {"claims": {**metrics["claims"], "all_five": {}}},
        {"steps": metrics["steps"][:4]},
        {"registration": {**metrics["registration"], "state": "sworn"}},
        {"more": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**metrics, **change}, schema)
    of = schema["$defs"]
    assert of["Claim"]["properties"]["verdict"]["enum"] == [*Verdict]
    assert of["Step"]["properties"]["step"]["enum"] == [*Step]


def test_the_page_shows_the_claims(whole: tuple[Path, Any, Made]) -> None:
    done, _, _ = whole
    view = view_of(done)
    assert [card.verdict for card in view.claims] == ["SUPPORTED", "SUPPORTED"]
    assert view.claims[0].statement.endswith("by all five steps")
    numbers = dict(view.tables[0].numbers())
    assert numbers["steps", "2 fresh: AUC on fresh items", "found"].number.value > 0.9
    assert [table.name for table in view.tables] == ["steps", "axes", "modes"]
    assert len(view.figures[0].rows) == 2 + 4 + 2  # training and fresh, two axes, pooled, other
    assert (done / "report.html").is_file()


# -- features made with plain transformers --------------------------------------------------------


def plain_states(arch: str, folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    """h_last and two layers below it, [n, 3, d], as anyone would take them."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.support.tiny_models import build_tiny

    path = build_tiny(arch, folder)
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    rows = []
    with torch.no_grad():
        for text in texts:
            ids = tokenizer(text, return_tensors="pt")["input_ids"]
            states = model(ids, output_hidden_states=True).hidden_states[-3:]
            rows.append(torch.stack([layer[0, -1] for layer in states]).numpy())
    return np.stack(rows)


@pytest.fixture(scope="module")
def brought(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Any]:
    """Answers whose last words tell right from wrong, read by two tiny models."""
    root, rng = tmp_path_factory.mktemp("brought"), np.random.default_rng(0)
    rows: dict[str, list[dict[str, Any]]] = {}
    for name in ("train", "fresh"):
        rows[name] = []
        for i in range(80):
            right = bool(rng.random() < 0.5)
            said = f"{rng.choice(['red', 'blue', 'green'])} and {'seven' if right else 'nine'}"
            rows[name].append(
                {"item_id": f"{name}-{i}", "right": right, "response": said,
                 "prompt": f"question {i if name == 'train' else i + 80}", "finish_reason": "stop"}
            )  # fmt: skip
    models = {}
    for arch in ("llama", "qwen3"):
        texts = [f"{row['prompt']} {row['response']}" for side in rows.values() for row in side]
        states = plain_states(arch, root / f"model-{arch}", texts)
        models[arch] = {name: states[k * 80 : (k + 1) * 80] for k, name in enumerate(rows)}

    def falsified(shuffle: bool) -> Any:
        folder, flags = root / f"shuffled-{shuffle}", {}
        order = {name: rng.permutation(80) if shuffle else range(80) for name in rows}
        labelled = {
            name: [{**row, "right": side[order[name][place]]["right"]}
                   for place, row in enumerate(side)] for name, side in rows.items()
        }  # fmt: skip
        for arch, prefix in (("llama", ""), ("qwen3", "replication_")):
            x = {name: {"h_last": both[:, -1], "all_layers": both} for name, both in
                 models[arch].items()}  # fmt: skip
            one = Made(folder / arch, x, labelled, {"model": arch, "family": arch})
            flags |= one.write(labels=("right",)).flags(prefix)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "arcs.falsification.config.FalsifyConfig.sizes", property(lambda _: SMALL)
            )
            return falsify(folder / "run", flags)

    return falsified


def test_states_from_plain_transformers_go_through(brought: Callable[[bool], Any]) -> None:
    metrics = brought(False)
    assert verdicts(metrics)["all_five"] == ("SUPPORTED", ["effect_shown"])
    assert metrics["steps"][3]["features"] == "all_layers"
    shuffled = brought(True)
    for verdict, _ in verdicts(shuffled).values():
        assert verdict in ("INCONCLUSIVE", "REFUTED")


def test_names_of_modes_and_steps_are_those_of_the_results(whole: tuple[Path, Any, Made]) -> None:
    _, metrics, _ = whole
    assert [one["step"] for one in metrics["steps"]] == [step.value for step in Step]
    assert {one["mode"] for one in metrics["modes"]} >= {
        ReasonCode.UNIFORM_OUTPUT.value, ReasonCode.CAPABILITY_CLIFF.value,
        ReasonCode.UNDERPOWERED.value, ReasonCode.FLOOR.value,
    }  # fmt: skip
    assert all(one["state"] in {state.value for state in modes.State} for one in metrics["modes"])


def test_layers_are_averaged_at_one_size() -> None:
    rng = np.random.default_rng(0)
    layers = rng.normal(size=(6, 5, 8)).astype(np.float32)
    louder = layers * np.array([1, 1, 100, 0.01, 7], dtype=np.float32)[None, :, None]
    assert steps.mean_of_layers(louder) == pytest.approx(steps.mean_of_layers(layers), abs=1e-5)
    assert (steps.mean_of_layers(layers[:, 1:]) == steps.mean_of_layers(layers)).all()  # the last 4
    assert steps.mean_of_layers(layers[:, 0]) is not None
    name, why = steps.pooled_name({"h_last": 1, "a": 1, "b": 1}, None)
    assert name is None and "--pooled" in why

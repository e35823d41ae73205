"""A claim in one file, and what of it comes out again."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcs.arc3 import command as arc3
from arcs.arc3 import features
from arcs.arc3.config import parse
from arcs.capsules import command, contents, metering, replay
from arcs.capsules.contents import Row, make, read
from arcs.capsules.relabelling import labels_again, verdict_again
from arcs.cli import main
from arcs.falsification import command as falsify
from arcs.falsification.finished_run import FinishedRun
from models.errors import UserError
from models.store import prepare
from tests.support.arc1_bench import Bench as Arc1Bench
from tests.support.arc3_bench import SMALL, written_run
from tests.support.eval_bench import Bench as EvalBench
from tests.support.falsify_bench import made as made_of
from tests.support.measure_bench import MeasureBench
from tests.support.tiny_models import build_tiny

LIMIT = 20


class Bench:
    """A tiny model, a run on answers written by hand, and one on its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.model = build_tiny("llama", root / "model")
        directory = prepare(str(self.model), cache=root / "cache")
        answers = written_run(root / "answers", directory, limit=LIMIT)
        with pytest.MonkeyPatch.context() as patch:
            self.patch(patch)
            flags = {"model": str(self.model), "backend": "torch", "profile": "quick",
                     "limit": LIMIT}  # fmt: skip
            arc3.start({**flags, "ids_from": answers}, out=root / "by-hand", run=None, as_json=True)
            arc3.start({**flags, "limit": 10, "n_predict": 6}, out=root / "own", run=None,
                       as_json=True)  # fmt: skip

    def patch(self, patch: pytest.MonkeyPatch) -> None:
        patch.setenv("THREEARC_CACHE", str(self.root / "cache"))
        patch.setattr("evals.probing.probes.MLP_ITERATIONS", 5)
        patch.setattr("arcs.arc3.config.Arc3Config.sizes", property(lambda _: SMALL))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("capsule"))


@pytest.fixture(autouse=True)
def _cache(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.patch(monkeypatch)


def verified(
    capsys: pytest.CaptureFixture[str], path: Path, *, status: int | None = None, **flags: Any
) -> dict[str, Any]:
    """What verify prints; ``status``: that it ends with."""
    capsys.readouterr()
    if status is None:
        command.verify(path, flags, sample=8, seed=0, as_json=True)
    else:
        with pytest.raises(SystemExit) as caught:
            command.verify(path, flags, sample=8, seed=0, as_json=True)
        assert caught.value.code == status
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_states_and_number_come_out_again(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "claim.json"
    command.capsule(bench.root / "by-hand", path, as_json=False)
    assert "40 answers with" in capsys.readouterr().out
    found = verified(capsys, path, backend="torch")
    assert found["numbers"][0]["reproduces"] and found["numbers"][0]["stated"] is not None
    assert found["numbers"][0]["recomputed"] == pytest.approx(
        found["numbers"][0]["stated"], abs=1e-9
    )
    # batches are others than in the run: rounding, no more (tolerance of docs/falsify.md)
    assert found["states"]["relative_distance"]["largest"] < 1e-5 < found["states"]["tolerance"]
    labels, (verdict,) = found["labels"], found["verdicts"]
    assert labels["reproduces"] and labels["same"] == labels["n"] == labels["questions"] == 40
    assert verdict["reproduces"] and verdict["statistic_here"] is not None
    # what was written by hand is not what the model says; its run says who answered, and of that
    # nothing is promised
    assert found["answers"]["identical"] == 0 and found["answers"]["differing"][0]["near_ties"] == 0
    assert found["answers"]["reproduces"] is None


@pytest.mark.parametrize("engine", ["torch", "mlx", "gguf"])
def test_answers_come_out_id_by_id(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    pytest.importorskip({"torch": "torch", "mlx": "mlx.core", "gguf": "llama_cpp"}[engine])
    path = tmp_path / "claim.json"
    command.capsule(bench.root / "own", path, as_json=True)
    found = verified(capsys, path, backend=engine)
    assert found["answers"]["identical"] == found["answers"]["n"] == 8
    assert found["states"]["reproduces"] and found["replayed_on"] == (
        "gguf f32" if engine == "gguf" else f"{engine} float32"
    )
    assert (
        found["numbers"][0]["stated"] is None and found["numbers"][0]["reproduces"] is None
    )  # all wrong


def test_falsify_reads_the_files_of_a_real_run(bench: Bench) -> None:
    run = bench.root / "by-hand"
    source = FinishedRun(run)
    for name, found in (("train", source.train()), ("fresh", source.fresh())):
        stored = features.read(features.path_of(run, name))
        assert found.item_ids == stored.item_ids and len(found.item_ids) == LIMIT
        assert found.labels.keys() == {"right", "asserted"} and None not in found.labels["right"]
        assert found.bounds["right"] == (found.labels["right"],) * 2  # no answer was cut
        assert found.groups is not None and len(set(found.groups)) > 2
        assert found.ends_known and not found.cut.any() and found.without_features == 0
        assert {"h_last", "mean_normed", "all_layers"} <= found.x.keys()
        # ids as words: the response is what follows the prompt, as long as the run says
        at = np.cumsum([0, *stored.arrays["lengths"]])
        for place, said in enumerate(found.responses or ()):
            ids = stored.arrays["ids"][at[place] : at[place + 1]]
            start = stored.arrays["response_starts"][place]
            assert said == " ".join(f"t{one}" for one in ids[start:])
    assert source.registration("x")[0] == "exploratory"


def test_states_of_others_do_not_pass(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A capsule that another model's states were put into, with a hash of its own."""
    made = make(bench.root / "by-hand")
    states = [row["state"] for row in made["rows"]]
    made["rows"] = [{**row, "state": state} for row, state in
                    zip(made["rows"], states[1:] + states[:1], strict=True)]  # fmt: skip
    path = rewritten(made, tmp_path)
    found = verified(capsys, path, status=1, backend="torch")
    assert found["states"]["reproduces"] is False and len(found["states"]["outside"]) == 8
    assert found["numbers"][0]["reproduces"] is False
    said = " ".join(command.lines(found))
    assert "States, NOT reproduced" in said and "Number, NOT reproduced" in said


def rewritten(made: dict[str, Any], folder: Path) -> Path:
    """A capsule's file with a hash of what it now holds."""
    content = {key: value for key, value in made.items() if key != contents.SHA}
    path = folder / "claim.json"
    contents.write({**content, contents.SHA: contents._sha(content)}, path)
    return path


def failing(found: dict[str, Any]) -> set[str]:
    parts = {name: found[name] for name in ("labels", "states", "answers")}
    parts |= {"number": found["numbers"][0], "verdict": found["verdicts"][0]}
    return {name for name, one in parts.items() if one["reproduces"] is False}


def test_invented_labels_do_not_pass(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Number, interval and verdict fit the labels, as a forger would have them."""
    made = make(bench.root / "by-hand")
    turned = [row for row in made["rows"] if row["set"] == "fresh"]
    for row in turned:
        row["right"] = not row["right"]
    here = replay._estimate(read(rewritten(made, tmp_path)))
    assert here is not None
    claim = made["claims"]["transfer"]
    claim["estimate"] |= {"value": here.value, "interval": here.interval.to_json()}
    again = verdict_again(claim, here, made["manifest"]["gates"])["statistic_here"]
    claim["statistic_verdict"] = again
    found = verified(capsys, rewritten(made, tmp_path), status=1, backend="torch")
    assert failing(found) == {"labels"} and found["labels"]["same"] == LIMIT
    assert {one["item_id"] for one in found["labels"]["differing"]} == {
        row["item_id"] for row in turned
    }  # all of them, whatever the sample
    assert "Labels, NOT reproduced: 20 of 40" in " ".join(command.lines(found))


def test_invented_answers_do_not_pass(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Labels and states are those of the answers, which the model never gave."""
    made = make(bench.root / "by-hand")
    made["manifest"]["ids_from"] = None
    found = verified(capsys, rewritten(made, tmp_path), status=1, backend="torch")
    assert failing(found) == {"answers"} and found["answers"]["identical"] == 0
    assert "Answers, NOT reproduced" in " ".join(command.lines(found))
    made["manifest"]["backend"] = "torch bfloat16"  # shown, and nothing is promised
    found = verified(capsys, rewritten(made, tmp_path), backend="torch")
    assert failing(found) == set() and found["answers"]["reproduces"] is None


def test_half_of_the_answers_is_enough() -> None:
    rows = [Row(str(k), "train", (1,), (2,), 1, "stop", 0, True, np.ones(1, np.float32))
            for k in range(4)]  # fmt: skip
    two, one = ({str(k): ((2,) if k < most else (3,)) for k in range(4)} for most in (2, 1))
    assert replay._same(rows, two, exact=True)["reproduces"] is True
    assert replay._same(rows, one, exact=True)["reproduces"] is False


def test_an_invented_verdict_does_not_pass(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = make(bench.root / "by-hand")
    claim = made["claims"]["transfer"]
    assert claim["verdict"] == "INCONCLUSIVE" and claim["statistic_verdict"] == "SUPPORTED"
    claim["verdict"] = "SUPPORTED"  # beside a doubt
    found = verified(capsys, rewritten(made, tmp_path), status=1, backend="torch")
    assert failing(found) == {"verdict"}
    claim |= {"verdict": "REFUTED", "reasons": ["effect_excluded"], "statistic_verdict": "REFUTED"}
    claim["estimate"]["interval"]["low"] -= 0.1  # nor another interval
    found = verified(capsys, rewritten(made, tmp_path), status=1, backend="torch")
    assert failing(found) == {"number", "verdict"}
    # of a run that could not decide anything
    made = make(bench.root / "own")
    made["claims"]["transfer"]["verdict"] = "SUPPORTED"
    found = verified(capsys, rewritten(made, tmp_path), status=1, backend="torch")
    assert failing(found) == {"verdict"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[0].update(item_id="x"), "row x: none of the run's short-answers"),
        (lambda rows: rows[0]["prompt"].append(5), "its prompt has other ids here"),
        (lambda rows: rows[0].update(set="fresh"), "it is in the fresh set, and here in the train"),
        (lambda rows: rows.append(rows[0]), "it stands there twice"),
        (lambda rows: rows.clear(), "the capsule holds no answers"),
    ],
)
def test_rows_that_are_not_the_runs_questions_are_refused(
    bench: Bench, tmp_path: Path, change: Any, said: str
) -> None:
    made = make(bench.root / "own")
    change(made["rows"])
    with pytest.raises(UserError, match=said):
        command.verify(rewritten(made, tmp_path), {}, sample=2, seed=0, as_json=True)


def test_labels_of_others_are_said_not_to_be_made_again(bench: Bench) -> None:
    own = parse({**make(bench.root / "own")["manifest"]["config"], "labels": "execution"})
    found = labels_again((), {}, own, None)  # type: ignore[arg-type]
    assert found["reproduces"] is None
    assert command._labels(found) == [
        "Labels: labels by execution are as stated; they were not made again."
    ]


def test_a_falsification_is_in_the_capsule_of_its_run(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("arcs.falsification.config.FalsifyConfig.sizes", property(lambda _: SMALL))
    out, path = tmp_path / "falsified", tmp_path / "claim.json"
    falsify.start({"source": bench.root / "by-hand"}, out=out, run=None, as_json=True)
    capsys.readouterr()
    command.capsule(out, path, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert {"falsify / all_five", "falsify / this_model", "transfer"} <= told["claims"].keys()
    document = json.loads(path.read_text())
    section = document["falsification"]
    assert section["declared"] == json.loads((out / "gates.json").read_text())
    found = verified(capsys, path, backend="torch")
    first, stated = (section["steps"][at]["gates"] for at in (0, 1))
    assert [one["quantity"] for one in found["numbers"][1:]] == [
        *(f"step 1, {one['gate']}" for one in first), *(f"step 2, {one['gate']}" for one in stated)
    ]  # fmt: skip
    assert all(one["reproduces"] for one in found["numbers"]) and len(first) == 2
    assert found["numbers"][3]["recomputed"] == pytest.approx(stated[0]["estimate"]["value"])
    # a number that does not follow from the states is one, whatever else does
    stated[0]["estimate"]["value"] += 0.1
    found = verified(capsys, rewritten(document, tmp_path), status=1, backend="torch")
    assert [one["reproduces"] for one in found["numbers"]] == [True] * 3 + [False] + [True] * 2


def test_falsified_features_of_ones_own_are_in_a_capsule(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcs.falsification.config.FalsifyConfig.sizes", property(lambda _: SMALL))
    mine = made_of(tmp_path / "mine").write(labels=("right",))
    falsify.start(mine.flags(), out=tmp_path / "own", run=None, as_json=True)
    path = tmp_path / "claim.json"
    capsys.readouterr()
    command.capsule(tmp_path / "own", path, as_json=False)
    said = capsys.readouterr().out
    assert "240 rows of features with their labels" in said and "falsify / this_model: " in said
    document = json.loads(path.read_text())
    shutil.move(tmp_path / "mine", tmp_path / "elsewhere")  # the file is all that is needed
    found = verified(capsys, path)
    assert found["rows"] == {"train": 120, "fresh": 120} and "sample" not in found
    assert len(found["numbers"]) == 5 and all(one["reproduces"] for one in found["numbers"])
    assert {one["quantity"][:6] for one in found["numbers"]} == {"step 1", "step 2"}
    assert command.lines(found)[0] == "No model is asked: 120 training rows and 120 fresh ones."
    with pytest.raises(UserError, match="--backend: a capsule of features that were brought asks"):
        command.verify(path, {"backend": "torch"}, sample=1, seed=0, as_json=True)
    with pytest.raises(UserError, match=r"it cannot be read again: --features .*: no such file"):
        make(tmp_path / "own")
    # labels of others change the numbers; so does a state
    rows = document["rows"]
    turned = [{**row, "right": row["right"] is not (row["set"] == "fresh")} for row in rows]
    found = verified(capsys, rewritten({**document, "rows": turned}, tmp_path), status=1)
    assert [one["reproduces"] for one in found["numbers"]][:3] == [True, True, False]
    shutil.move(tmp_path / "elsewhere", tmp_path / "mine")
    mine.rows["fresh"][0]["right"] ^= True
    mine.write(labels=("right",))
    with pytest.raises(UserError, match=r"labels\.jsonl has changed since it was falsified"):
        make(tmp_path / "own")


def test_a_falsification_whose_run_has_changed_makes_no_capsule(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcs.falsification.config.FalsifyConfig.sizes", property(lambda _: SMALL))
    source = tmp_path / "source"
    shutil.copytree(bench.root / "by-hand", source)
    falsify.start({"source": source}, out=tmp_path / "changed", run=None, as_json=True)
    labels = json.loads((source / "labels.json").read_text())
    (source / "labels.json").write_text(json.dumps(labels, indent=3))
    with pytest.raises(UserError, match=r"labels\.json has changed since it was falsified"):
        make(tmp_path / "changed")
    shutil.rmtree(source)
    with pytest.raises(UserError, match="which is not there any more"):
        make(tmp_path / "changed")


def test_a_changed_file_is_refused(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    command.capsule(bench.root / "by-hand", path, as_json=True)
    assert len(read(path).rows) == 40 and read(path).rows[0].state.dtype == np.float32
    path.write_text(path.read_text().replace('"right": false', '"right": true', 1))
    with pytest.raises(UserError, match="its content is not what its hash says"):
        read(path)
    path.write_text('{"schema_version": "x"}')
    with pytest.raises(UserError, match="not a capsule of this version"):
        read(path)


def test_another_model_is_refused(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "claim.json"
    command.capsule(bench.root / "by-hand", path, as_json=True)
    other = build_tiny("qwen3", tmp_path / "other")
    with pytest.raises(UserError, match=r"--model .*: its weights are not the capsule's"):
        command.verify(path, {"model": str(other)}, sample=4, seed=0, as_json=True)
    with pytest.raises(UserError, match="--sample 0: give 1 to"):
        command.verify(path, {}, sample=0, seed=0, as_json=True)


def test_a_run_without_results_makes_no_capsule(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run here"):
        make(tmp_path)
    with pytest.raises(UserError, match=r"no metrics.json; finish the run with threearc arc3"):
        make(bench.root / "answers")


@pytest.fixture(scope="module")
def coding_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small run of Arc 1, and the folder of its cache."""
    pytest.importorskip("llama_cpp")
    small = Arc1Bench(tmp_path_factory.mktemp("arc1"))
    done = small.call_here(small.fresh(small.root / "run"))
    assert done.returncode == 0, done.stderr
    return small.root / "run", small.root / "cache"


def test_answers_of_arc1_come_out_again_with_their_labels(
    coding_run: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, cache = coding_run
    monkeypatch.setenv("THREEARC_CACHE", str(cache))
    path = tmp_path / "claim.json"
    command.capsule(run, path, as_json=True)
    found = verified(capsys, path)
    assert found["numbers"][0]["reproduces"] and found["numbers"][0]["n"] == 3
    assert found["labels"]["reproduces"] and found["labels"]["n"] == 6  # both arms
    assert found["answers"]["identical"] == found["answers"]["n"] == 3
    assert found["answers"]["engine_differs"] == []
    assert list(found["answers"]["not_replayed"]) == ["trained"]
    assert "was not given" in found["answers"]["not_replayed"]["trained"]
    both = verified(capsys, path, adapters=(run / "adapter",))
    assert both["answers"]["identical"] == both["answers"]["n"] == 6
    assert both["answers"]["engine_differs"] == [] and not both["answers"]["not_replayed"]
    with pytest.raises(UserError, match=r"^--backend: answers of arc1 are decoded"):
        command.verify(path, {"backend": "mlx"}, sample=1, seed=0, as_json=True)
    # other labels and other ids are seen
    made = make(run)
    del made["content_sha256"]
    for row in made["rows"]:
        row["outcome"] = "passed" if row["arm"] == "trained" else row["outcome"]
        row["ids"][-1] += row["arm"] == "base"
    contents.write({**made, "content_sha256": contents._sha(made)}, path)
    found = verified(capsys, path, status=1)
    assert found["numbers"][0]["reproduces"] is False
    assert found["labels"]["reproduces"] is False and found["labels"]["same"] == 3
    assert found["answers"]["identical"] == 0
    assert found["answers"]["differing"][0]["from_token"] == len(made["rows"][0]["ids"]) - 1
    assert "base" not in {one["arm"] for one in found["labels"]["differing"]}


def test_a_reading_that_is_no_number_is_not_hidden() -> None:
    stored = {("base", one): 0.5 for one in ("a", "b")}
    read = {("base", "a"): 0.5 + 1e-6, ("base", "b"): float("nan")}
    found = metering.readings_compared(stored, read, exact=True, not_replayed={})
    assert found["reproduces"] is False and found["outside"] == ["b, base"]
    assert found["distance"]["largest"] is None  # JSON has no nan
    assert "- at most" in command._readings(found)[0]


def test_a_seed_below_0_is_no_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["verify", str(tmp_path / "claim.json"), "--seed", "-1"])
    said = capsys.readouterr().err
    assert caught.value.code == 2 and "Invalid" in said


@pytest.mark.slow
def test_an_evaluation_comes_out_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llama_cpp")
    monkeypatch.setenv("THREEARC_CACHE", "")  # the bench sets it
    small = EvalBench(tmp_path)
    edit = tmp_path / "edit"
    done = small.call_here(small.fresh("run", "--adapter", str(edit), "--n-predict", "4,8",
                                       "--temper", "L1H1=0.5"))  # fmt: skip
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("THREEARC_CACHE", str(small.cache))
    path = tmp_path / "claim.json"
    command.capsule(tmp_path / "run", path, as_json=True)
    found = verified(capsys, path, adapters=(edit,))
    assert [one["reproduces"] for one in found["numbers"]] == [True, True]
    assert (
        found["labels"]["reproduces"] and found["labels"]["n"] == 12
    )  # base, edit, control, heads
    assert found["answers"]["identical"] == found["answers"]["n"] == 6  # base and edit
    assert found["answers"]["engine_differs"] == []
    assert set(found["answers"]["not_replayed"].values()) == {
        "its scaled heads are not made again here"
    }
    with pytest.raises(UserError, match="no arm of the capsule was made with it"):
        command.verify(path, {"adapters": (tmp_path / "zero",)}, sample=1, seed=0, as_json=True)


@pytest.mark.slow
def test_the_meter_comes_out_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcs.measure.pipeline.verify", lambda *_, **__: "not asked")
    small = MeasureBench(tmp_path)
    run = small.run(small.flags("meter", limit=3, axes=("hedging",)))
    monkeypatch.setenv("THREEARC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "claim.json"
    command.capsule(run, path, as_json=False)
    assert "12 readings" in capsys.readouterr().out  # 3 items, 4 conditions
    found = verified(capsys, path, backend="torch", adapters=(small.live,))
    assert found["readings"]["n"] == 9 and found["readings"]["reproduces"]
    assert list(found["readings"]["not_replayed"]) == ["zero"]
    assert len(found["numbers"]) == 3 and all(one["reproduces"] for one in found["numbers"])
    if "llama_cpp" in installed():
        found = verified(capsys, path, backend="gguf")
        assert found["readings"]["n"] == 3 and found["readings"]["reproduces"]
        assert found["readings"]["distance"]["largest"] < 1e-4
    # what another model would read does not pass
    made = make(run)
    del made["content_sha256"]
    for row in made["rows"]:
        row["contrast"] += 0.01
    made["rows"][-1]["contrast"] += 1  # of the heads, which come last
    contents.write({**made, "content_sha256": contents._sha(made)}, path)
    found = verified(capsys, path, status=1, backend="torch")
    assert found["readings"]["reproduces"] is False and len(found["readings"]["outside"]) == 6
    assert [one["reproduces"] for one in found["numbers"]] == [False, True, True]
    with pytest.raises(UserError, match="--allow-weak-sandbox: nothing is executed"):
        command.verify(path, {"allow_weak_sandbox": True}, sample=1, seed=0, as_json=True)


def test_short_answers_come_out_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("arcs.measure.pipeline.verify", lambda *_, **__: "not asked")
    small = MeasureBench(tmp_path)
    run = small.run(small.flags("short-answers", limit=10, n_predict=(6,)))
    monkeypatch.setenv("THREEARC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "claim.json"
    command.capsule(run, path, as_json=False)
    assert "40 answers with their labels" in capsys.readouterr().out  # 10 items, 4 conditions
    found = verified(capsys, path, backend="torch", adapters=(small.live,))
    assert found["answers"]["identical"] == found["answers"]["n"] == 24  # base, edit, heads
    assert found["answers"]["reproduces"] and list(found["answers"]["not_replayed"]) == ["zero"]
    assert found["labels"]["same"] == found["labels"]["n"] == 40  # not the sample alone
    assert [one["reproduces"] for one in found["numbers"]] == [True] * 3
    assert [one["reproduces"] for one in found["verdicts"]] == [True] * 3
    # other labels, an invented verdict, and answers of one condition that it never gave
    made = make(run)
    made["claims"]["live"] |= {"verdict": "SUPPORTED"}
    for row in made["rows"]:
        if row["arm"] == "L1H2=0":
            row["reading"] = "right"
        if row["arm"] == "live":
            row["ids"][-1] ^= 1
    found = verified(capsys, rewritten(made, tmp_path), status=1, backend="torch",
                     adapters=(small.live,))  # fmt: skip
    assert {one["arm"] for one in found["labels"]["differing"]} >= {"L1H2=0"}
    assert found["labels"]["reproduces"] is False
    told = dict(zip(sorted(made["claims"]), found["numbers"], strict=True))  # as the file has them
    assert [name for name, one in told.items() if not one["reproduces"]] == ["L1H2=0"]
    verdicts = {one["claim"]: one["reproduces"] for one in found["verdicts"]}
    assert verdicts["live"] is False and verdicts["zero"] is True
    # two of three conditions are the model's own: that one is not, is not hidden by them
    assert found["answers"]["identical"] == 16 and found["answers"]["reproduces"] is False
    made["rows"].pop()
    with pytest.raises(UserError, match="answers of L1H2=0 are 9, and not one to each of the 10"):
        command.verify(rewritten(made, tmp_path), {}, sample=2, seed=0, as_json=True)


def installed() -> set[str]:
    return {name for name in ("llama_cpp",) if importlib.util.find_spec(name) is not None}

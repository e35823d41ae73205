"""``threearc measure``: settings, conditions, resume, and effects that are planted or absent."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from arcs.claims import Verdict
from arcs.gates import load_gates
from arcs.measure import command
from arcs.measure.claim import claim_of
from arcs.measure.config import conditions_of, parse
from arcs.measure.meter import Meter
from arcs.measure.report import report
from arcs.report.kinds import view_of
from arcs.runs import RunDirectory
from arcs.trained_on import KEY, describe
from backends import open_backend
from backends.interface import Head
from backends.lora import initial_weights, load_adapter, save_adapter
from evals.items.load import built_in
from evals.items.records import ShortAnswer
from evals.meter import AXES
from evals.statistics import n_to_settle
from evals.truncation import ArmBounds
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.errors import UserError
from models.store import prepare
from tests.support.adapters import ATTENTION, live_adapter
from tests.support.hedging import LORA, trained
from tests.support.measure_bench import MeasureBench as Bench
from tests.support.printed import printed, widened
from tests.support.report_links import check_counts
from tests.support.tiny_models import build_tiny

GATES = load_gates()


# -- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"instrument": "mood"},
            "^INSTRUMENT 'mood': give meter, short-answers, chef, mcas, recovery or delivery$",
        ),
        ({"instrument": "meter", "axes": ("anger",)}, "^--axis 'anger': give hedging, self_"),
        ({"instrument": "meter", "axes": ("hedging",) * 2}, "^--axis: hedging is given twice"),
        ({"instrument": "chef", "n_predict": (9, 3)}, "^--n-predict: n_predict must rise"),
        ({"instrument": "short-answers", "n_predict": (3, 9)}, "^--n-predict: short answers have"),
        ({"instrument": "recovery", "judge": "lexical"}, "^--judge: recovery needs no judge"),
        ({"instrument": "mcas"}, "^--judge: the lexical judge cannot apply MCAS"),
        ({"instrument": "chef", "judge": "oracle"}, "^--judge: oracle: give lexical, gguf"),
        ({"instrument": "chef", "allow_weak_sandbox": True}, "^--allow-weak-sandbox: nothing is"),
        ({"instrument": "meter", "n_predict": 9}, "^--n-predict: the meter generates nothing"),
        ({"instrument": "short-answers", "axes": ("hedging",)}, "^--axis: only the meter has"),
        ({"instrument": "meter", "limit": 0}, "^--limit: "),
        ({"instrument": "meter", "dtype": "int8"}, "^--dtype 'int8': give float32, bfloat16 or"),
        ({"instrument": "meter", "tempers": ("L1",)}, "^--temper: 'L1': give layer, head and"),
        ({"instrument": "meter", "colour": "red"}, "^--colour"),
    ],
)
def test_what_cannot_be_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(values)
    assert "\n" not in str(caught.value)


def test_every_edit_is_compared_with_the_base() -> None:
    given = {"adapters": ("runs/a",), "tempers": ("L01H0=0.50",)}
    found = conditions_of(parse({"instrument": "meter", **given}))
    assert [(one.name, one.against) for one in found] == [
        ("base", "base"),
        ("a", "base"),
        ("L1H0=0.5", "base"),
    ]
    two = conditions_of(parse({"instrument": "meter", "adapters": ("x/a", "y/a")}))
    assert [one.name for one in two] == ["base", "x/a", "y/a"]
    with pytest.raises(UserError, match="two conditions are called 'base'"):
        conditions_of(parse({"instrument": "meter", "adapters": ("x/base",)}))


# -- the claim ------------------------------------------------------------------------------------


def claim(base: Sequence[bool], edited: Sequence[bool], open_edited: Sequence[int] = ()) -> Any:
    def bounds(right: Sequence[bool], open_ones: Sequence[int]) -> ArmBounds:
        low = tuple(False if i in open_ones else r for i, r in enumerate(right))
        high = tuple(True if i in open_ones else r for i, r in enumerate(right))
        return ArmBounds(low, high, len(open_ones), 0)

    arms = bounds(base, ()), bounds(edited, open_edited)
    return claim_of(*arms, base, edited, 48, GATES)


def test_the_smallest_effect_is_the_one_of_a_rate() -> None:
    """7 points, surely there: enough for pass@1, too small for a rate."""
    base = [True] * 100 + [False] * 220
    edited = [True] * 122 + [False] * 198
    found = claim(base, edited)
    assert found.delta == pytest.approx(0.06875) and found.p_value < 1e-5
    assert found.verdict is not Verdict.SUPPORTED
    larger = claim(base, [True] * 140 + [False] * 180)
    assert larger.verdict is Verdict.SUPPORTED
    assert larger.to_json()["null"].startswith("equal accuracy")
    assert larger.to_json()["gate"] == {"smallest_effect": 0.10, "alpha": 0.05}


def test_equal_answers_refute_an_effect_and_few_cannot() -> None:
    right = [True] * 120 + [False] * 200
    assert claim(right, right).verdict is Verdict.REFUTED
    few = claim(right[100:130], right[100:130])
    assert few.verdict is Verdict.INCONCLUSIVE
    needed = {
        effect: n_to_settle(0, 0, 30, effect, alpha=GATES.test.alpha, power=GATES.test.power)
        for effect in (GATES.smallest_effect.rate, GATES.smallest_effect.pass_at_1)
    }
    assert few.n_to_settle == needed[0.10] != needed[0.05]


def test_open_answers_that_could_turn_the_conclusion_make_it_invalid() -> None:
    base = [True] * 100 + [False] * 220
    edited = [True] * 60 + [False] * 260
    assert claim(base, edited).verdict is Verdict.SUPPORTED
    found = claim(base, edited, open_edited=range(60, 100))
    assert found.verdict is Verdict.INVALID
    assert [reason.value for reason in found.reasons] == ["truncated"]
    # nor is an effect refuted that open answers could still make
    almost = claim(base, base, open_edited=range(290, 320))
    assert almost.verdict is Verdict.INCONCLUSIVE
    assert [reason.value for reason in almost.reasons] == ["unfinished_answers"]


# -- the command on a tiny model ------------------------------------------------------------------


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("measure"))


def test_an_adapter_that_was_trained_on_items_is_refused_or_its_claim_is_invalid(
    bench: Bench, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    question = built_in("short_answers", ShortAnswer)[1]
    leaky = tmp_path / "leaky"
    live = live_adapter(bench.directory, LORA, kinds=ATTENTION)
    carried = {KEY: describe([question.prompt.upper()], {})}
    save_adapter(leaky, LORA, live, bench.directory, carried)
    flags = bench.flags("short-answers", limit=3, n_predict=4, adapters=(leaky,), tempers=())
    with pytest.raises(UserError, match=rf"leaky: 1 of the 3 .* \({question.id}\).*allow-overlap"):
        bench.run(flags)
    capsys.readouterr()
    bench.run({**flags, "allow_overlap": True})
    metrics = json.loads(capsys.readouterr().out)
    claim = metrics["conditions"]["leaky"]["comparison"]["claim"]
    assert claim["verdict"] == "INVALID" and claim["reasons"] == ["train_test_overlap"]
    assert metrics["made_with"]["overlap"]["leaky"]["shared"][0]["item"] == question.id


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def of(run: Path, name: str) -> Path:
    """The records of a condition."""
    return next(run.glob(f"{name}-*.jsonl"))


def test_the_meter_measures_each_edit_and_leaves_the_base_alone(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.run(bench.flags("meter", limit=7))
    metrics = json.loads(capsys.readouterr().out)
    assert metrics == json.loads((run / "metrics.json").read_text())
    assert list(metrics["conditions"]) == ["L1H2=0", "base", "live", "zero"]  # keys are sorted
    assert metrics["n_items"] == 21
    # the same numbers as from a model with that one edit
    meter = Meter.of(ChatEncoder(bench.directory), (), 7)
    found = {"base": rows(run / "base.jsonl"), "live": rows(of(run, "live"))}
    found |= {"L1H2=0": rows(of(run, "L1H2=0")), "zero": rows(of(run, "zero"))}
    with open_backend("torch", bench.directory) as model:
        chunks = (range(16), range(16, 21))
        assert [r for chunk in chunks for r in meter.measure(model, chunk)] == found["base"]
        with model.tempered({Head(1, 2): 0.0}):
            assert [r for c in chunks for r in meter.measure(model, c)] == found["L1H2=0"]
        model.attach_lora(*load_adapter(bench.live, bench.directory))
        assert [r for chunk in chunks for r in meter.measure(model, chunk)] == found["live"]
    # an adapter whose B is zero adds exactly nothing; the others do something
    assert found["zero"] == found["base"]
    zero = metrics["conditions"]["zero"]["comparison"]["axes"]
    assert {axis: one["n"] for axis, one in zero.items()} == dict.fromkeys(AXES, 7)
    assert all(one["mean"] == 0 and one["unchanged"] == one["n"] for one in zero.values())
    for name in ("live", "L1H2=0"):
        axes = metrics["conditions"][name]["comparison"]["axes"]
        assert all(one["unchanged"] == 0 and one["interval"] for one in axes.values())
    assert metrics["conditions"]["base"]["comparison"] is None
    assert metrics["made_with"]["measurement"]["ids_counted"].endswith("without the end-of-turn id")


def test_the_report_shows_n_and_intervals(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    for instrument, more in (
        ("meter", {"axes": ("hedging",)}),
        ("short-answers", {"n_predict": 4}),
    ):
        run = bench.run(bench.flags(instrument, limit=20, **more))
        capsys.readouterr()
        metrics = json.loads((run / "metrics.json").read_text())
        assert (run / "report.html").exists()
        view = view_of(run)
        assert check_counts(view) > 4 and len(view.items) == metrics["n_items"]
        assert all(item.prompt is not None for item in view.items)
        console = Console(width=80, file=None)
        with console.capture() as shown:
            console.print(report(metrics))
        text = shown.get()
        assert "…" not in text
        wide = printed(report(widened(metrics, count=1234, number=-0.98765)))
        assert ("[-0.988, -0.988]" if instrument == "meter" else "[-98.8, -98.8]") in wide
        for name in metrics["conditions"]:
            assert name in text
        base = metrics["conditions"]["base"]["result"]
        if instrument == "meter":
            interval = base["axes"]["hedging"]["interval"]
            assert f"[{interval['low']:+.3f}, {interval['high']:+.3f}]" in text
            assert "every item unchanged" in text
        else:
            assert f"{base['right']}/20" in text
            assert "INVALID (truncated)" in text  # four tokens settle nothing


def test_short_answers_are_counted_and_compared(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.run(bench.flags("short-answers", limit=40, n_predict=6))
    metrics = json.loads(capsys.readouterr().out)
    base = metrics["conditions"]["base"]["result"]
    records = rows(run / "base.jsonl")
    assert base["n"] == len(records) == 40
    assert base["right"] == sum(one["reading"] == "right" for one in records)
    assert base["unparsed"] == sum(one["reading"] == "unparsed" for one in records)
    assert base["truncated"] == sum(len(one["ids"]) == 6 and one["truncated"] for one in records)
    assert sum(one["n"] for one in base["domains"].values()) == 40
    zero = metrics["conditions"]["zero"]["comparison"]
    assert (zero["gained"], zero["lost"], zero["texts_changed"]) == (0, 0, 0)
    assert metrics["conditions"]["live"]["comparison"]["texts_changed"] > 0
    assert metrics["made_with"]["measurement"]["n_predict"] == 6


@pytest.mark.parametrize("instrument", ["meter", "short-answers"])
def test_a_run_that_was_killed_ends_in_the_same_bytes(
    bench: Bench, instrument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The files as a kill leaves them: in the middle of a chunk, of a line, between conditions."""
    more = {"limit": 12} if instrument == "meter" else {"limit": 40, "n_predict": 5}
    whole = bench.run(bench.flags(instrument, **more))
    expected = {path.name: path.read_bytes() for path in whole.glob("*.jsonl")}
    expected["metrics.json"] = (whole / "metrics.json").read_bytes()
    for name, lines, others in (("base", 19, False), ("base", 0, False), ("live", 35, True)):
        killed = bench.next_run()
        shutil.copytree(whole, killed)
        (killed / "metrics.json").unlink()
        hit = killed / "base.jsonl" if name == "base" else of(killed, name)
        kept = hit.read_bytes().splitlines(keepends=True)
        hit.write_bytes(b"".join(kept[:lines]) + kept[lines][:25])
        for path in () if others else killed.glob("*-*.jsonl"):
            path.unlink()
        bench.start({}, run=killed)
        for file, content in expected.items():
            assert (killed / file).read_bytes() == content, (name, lines, file)
    capsys.readouterr()


def test_a_finished_run_opens_no_model_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.run(bench.flags("meter", limit=1))
    monkeypatch.setattr("arcs.measure.pipeline.open_backend", None)
    bench.start({"instrument": "meter", "limit": 1}, run=run)
    for flags, message in (
        ({"limit": 2}, "--limit is 1 in this run, not 2"),
        ({"instrument": "short-answers"}, "it measures meter, not short-answers"),
        ({"tempers": ("L0H0=0",)}, "--temper is L1H2=0 in this run, not L0H0=0"),
    ):
        with pytest.raises(UserError, match=message):
            bench.start(flags, run=run)
    capsys.readouterr()


def test_a_run_is_not_continued_on_another_engine_setting(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    run = bench.run(bench.flags("meter", limit=1))
    of(run, "live").unlink()
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["engine"]["threads"] += 1
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"engine\.threads was \d+ and is now \d+"):
        bench.start({}, run=run)
    assert (run / "base.jsonl").exists()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"tempers": ("L9H0=0",)}, "layer 9 has no attention heads; layers that have: 0-2"),
        ({"tempers": ("L1H6=0",)}, "layer 1 has heads 0 to 5, and no head 6"),
        ({"adapters": ("nowhere",)}, "nowhere is not a LoRA adapter"),
    ],
)
def test_a_mistake_is_found_before_anything_is_measured_and_leaves_nothing(
    bench: Bench, flags: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        bench.run(bench.flags("meter", **flags))
    assert "\n" not in str(caught.value)
    assert not (bench.root / f"run-{bench.runs}").exists()


def test_an_adapter_of_another_shape_is_one_line(bench: Bench) -> None:
    other = prepare(str(build_tiny("qwen3", bench.root / "other")), cache=bench.root / "cache")
    path = bench.root / "foreign"
    save_adapter(path, LORA, live_adapter(other, LORA, kinds=ATTENTION), other)
    with pytest.raises(UserError, match="was trained on other"):
        bench.run(bench.flags("meter", adapters=(path,)))


def test_only_a_measurement_is_continued(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path / "eval", {"arc": "eval", "config": {}}).close()
    with pytest.raises(UserError, match="not a measurement"):
        command.start({}, out=None, run=tmp_path / "eval", as_json=False)
    with pytest.raises(UserError, match="say what to measure"):
        command.start({}, out=None, run=None, as_json=False)


# -- planted effect and placebo, on the real model ------------------------------------------------


@pytest.fixture(scope="module")
def hedging(smollm_directory: ModelDirectory) -> tuple[Meter, list[Any]]:
    """Twelve hedging items and the base's readings of them."""
    meter = Meter.of(ChatEncoder(smollm_directory), ("hedging",), 12)
    with open_backend("torch", smollm_directory) as model:
        return meter, meter.measure(model, range(12))


def shift_of(meter: Meter, base: list[Any], directory: ModelDirectory, weights: Any) -> Any:
    with open_backend("torch", directory) as model:
        model.attach_lora(LORA, weights)
        edited = meter.measure(model, range(12))
    found = meter.compare(base, edited, GATES)["axes"]["hedging"]
    print(found)
    return found


@pytest.mark.slow  # half a minute of training
def test_an_adapter_that_learnt_to_hedge_moves_the_meter_up(
    smollm_directory: ModelDirectory, hedging: tuple[Meter, list[Any]], tmp_path: Path
) -> None:
    """Planted effect: 6 steps on 12 hedged answers to other questions.

    20 CPU seconds, most of them training: SmolLM2-135M itself has to move. That an adapter which
    does nothing moves nothing is seen on the tiny model, and on this one in the slow test below.
    """
    meter, base = hedging
    with open_backend("torch", smollm_directory) as model:
        weights = trained(model, ChatEncoder(smollm_directory), tmp_path, hedged=True)
    found = shift_of(meter, base, smollm_directory, weights)
    assert found["n"] == 12 and found["interval"]["low"] > 0.05 and found["p_holm"] < 0.01


@pytest.mark.slow
def test_the_same_training_on_flat_answers_does_not_nor_none_at_all(
    smollm_directory: ModelDirectory, hedging: tuple[Meter, list[Any]], tmp_path: Path
) -> None:
    """Placebo: same questions, content, length and recipe. Slow: a second training."""
    meter, base = hedging
    with open_backend("torch", smollm_directory) as model:
        weights = trained(model, ChatEncoder(smollm_directory), tmp_path, hedged=False)
        untrained = initial_weights(LORA, model.linear_modules(), 0)
    found = shift_of(meter, base, smollm_directory, weights)
    assert found["unchanged"] == 0 and found["mean"] < 0.05 and found["interval"]["low"] < 0
    nothing = shift_of(meter, base, smollm_directory, untrained)
    assert (nothing["mean"], nothing["unchanged"], nothing["interval"]) == (0.0, 12, None)


@pytest.mark.slow
def test_a_real_kill_at_any_moment_changes_nothing(bench: Bench) -> None:
    """Slow: the real command, five times killed at random moments (a start takes 5 seconds)."""
    line = [
        str(Path(sys.executable).parent / "threearc"), "measure", "meter", "--json",
        "--model", str(bench.model), "--backend", "torch", "--adapter", str(bench.live),
        "--temper", "L1H2=0",
    ]  # fmt: skip
    whole, killed = bench.next_run(), bench.next_run()
    env = {**os.environ, "THREEARC_CACHE": str(bench.root / "cache")}
    done = subprocess.run([*line, "--out", str(whole)], capture_output=True, check=True)
    rng, kills = random.Random(0), 0
    arguments = [*line, "--out", str(killed)]
    while kills < 5:
        with subprocess.Popen(
            arguments,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=env,
            start_new_session=True,
        ) as process:
            before = sum(len(rows_so_far(path)) for path in killed.glob("*.jsonl"))
            while sum(len(rows_so_far(p)) for p in killed.glob("*.jsonl")) == before:
                assert process.poll() is None or not process.returncode
                if process.poll() is not None:
                    break
                time.sleep(0.005)
            time.sleep(rng.random() * 0.4)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        kills += 1
        arguments = [*line[:2], "--run", str(killed), "--json"]
    last = subprocess.run(arguments, capture_output=True, check=True, env=env)
    assert last.stdout == done.stdout
    assert (killed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


def rows_so_far(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines()

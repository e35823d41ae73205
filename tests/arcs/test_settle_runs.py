"""``threearc settle`` on real runs of tiny models: the same instrument, other items."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from backends.lora import save_adapter
from tests.support.adapters import ATTENTION, live_adapter
from tests.support.arc1_bench import Bench as Arc1Bench
from tests.support.command_line import call_here
from tests.support.eval_bench import Bench as EvalBench
from tests.support.hedging import LORA
from tests.support.kills import kill_when
from tests.support.measure_bench import MeasureBench


def inconclusive(run: Path, edited: str, passed: int = 1) -> None:
    """A tiny model passes nothing, and a floor is not settled: let the edit pass some problems,
    and the claim be what that makes of it."""
    rows = [json.loads(line) for line in (run / "items.jsonl").read_text().splitlines()]
    lucky = list(dict.fromkeys(row["item_id"] for row in rows))[:passed]
    for row in rows:
        row["truncated"] = False
        if row["arm"] == edited and row["item_id"] in lucky:
            row["outcome"] = "passed"
    (run / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    metrics = json.loads((run / "metrics.json").read_text())
    claims = [metrics["claim"]] if "claim" in metrics else [
        found["comparison"]["claim"] for found in metrics["quantisations"]["q8_0"].values()
        if found["comparison"]]  # fmt: skip
    for claim in claims:
        claim.update(verdict="INCONCLUSIVE", reasons=["underpowered"], delta=passed / 3)
    (run / "metrics.json").write_text(json.dumps(metrics))


# The meter ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def metered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MeasureBench, Path]]:
    with pytest.MonkeyPatch.context() as patch:
        # engines are compared by tests of their own; here that would be most of the time
        patch.setattr("arcs.measure.pipeline.verify", lambda *_, **__: "not asked")
        bench = MeasureBench(tmp_path_factory.mktemp("settle"))
        flags = {**bench.flags("meter", limit=8, axes=("hedging",)), "tempers": ()}
        yield bench, bench.run(flags)


@pytest.fixture
def copied(metered: tuple[MeasureBench, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(metered[1], tmp_path / "run"))


def call(bench: MeasureBench, *tail: object) -> Any:
    return call_here("settle", *tail, THREEARC_CACHE=str(bench.root / "cache"))


def test_the_meter_goes_on_with_other_items(
    metered: tuple[MeasureBench, Path], copied: Path
) -> None:
    bench = metered[0]
    planned = call(bench, copied, "--max-items", 10, "--dry-run")
    assert planned.returncode == 0 and "looks at n = 8, 18" in planned.stdout
    assert "zero: hedging: REFUTED (effect excluded): nothing to settle." in planned.stdout
    assert not (copied / "settle").exists()
    done = call(bench, copied, "--max-items", 10, "--json")
    assert done.returncode == 0, done.stderr
    claim = json.loads(done.stdout)["claims"]["live: hedging"]
    assert [look["n_items"] for look in claim["looks"]] == [8, 18]
    part = copied / "settle" / "look-2" / "1-hedging"
    first, new = ([json.loads(line)["item_id"] for line in (path / "base.jsonl").open()]
                  for path in (copied, part))  # fmt: skip
    assert len(new) == 10 and not set(first) & set(new)
    # settled without the edit that needed no settling, on the same engine
    manifests = [json.loads((path / "manifest.json").read_text()) for path in (copied, part)]
    assert set(manifests[1]["adapters"]) == {"live"}
    assert manifests[0]["engine"] == manifests[1]["engine"]
    values = [json.loads(a)["contrast"] - json.loads(b)["contrast"]
              for path in (copied, part)
              for a, b in zip((path / f"{_slug(path)}.jsonl").open(), (path / "base.jsonl").open(),
                              strict=True)]  # fmt: skip
    assert claim["delta"] == pytest.approx(sum(values) / 18)
    page = copied / "settle" / "report.html"
    assert f'<strong class="badge">{claim["verdict"]}</strong>' in page.read_text()
    again = call(bench, copied, "--json")  # finished: the same, without flags
    assert again.stdout == done.stdout


def _slug(path: Path) -> str:
    return next(one.stem for one in path.glob("live*.jsonl"))


def test_another_engine_or_adapter_is_one_line(
    metered: tuple[MeasureBench, Path], copied: Path
) -> None:
    bench = metered[0]
    manifest = json.loads((copied / "manifest.json").read_text())
    other = {**manifest, "engine": {**manifest["engine"], "dtype": "bfloat16"}}
    (copied / "manifest.json").write_text(json.dumps(other))
    done = call(bench, copied, "--max-items", 8)
    assert done.returncode == 2 and "with dtype bfloat16, and new items would be" in done.stderr
    # before anything was measured, so another plan can be made
    assert "no new item was opened" in done.stderr and not (copied / "settle").exists()
    for part, message in (({"quantity": "x"}, "the instrument's quantity was another"),
                          ({"items_sha256": "x"}, "its items have other words now")):  # fmt: skip
        changed = {**manifest, "measurement": {**manifest["measurement"], **part}}
        (copied / "manifest.json").write_text(json.dumps(changed))
        done = call(bench, copied, "--max-items", 8)
        assert done.returncode == 2 and message in done.stderr
        assert not (copied / "settle").exists()
    kept = bench.root / "kept"
    shutil.copytree(bench.live, kept)
    try:
        save_adapter(bench.live, LORA, live_adapter(bench.directory, LORA, kinds=ATTENTION[:1]),
                     bench.directory)  # fmt: skip
        done = call(bench, copied)
        assert done.returncode == 2 and "it is no longer the adapter of" in done.stderr
    finally:
        shutil.rmtree(bench.live)
        kept.rename(bench.live)


def test_mistakes_are_one_line(
    metered: tuple[MeasureBench, Path], copied: Path, tmp_path: Path
) -> None:
    bench = metered[0]
    wrong = tmp_path / "wrong.jsonl"
    wrong.write_text('{"id": "a"}\n')
    for tail, message in (
        ((tmp_path,), "no run here"),
        ((copied, "--data", wrong), "wrong.jsonl, line 1: "),
        ((copied, "--data", wrong, "--data", wrong), "given twice"),
        ((copied, "--data", "small"), "no such file"),
    ):
        done = call(bench, *tail)
        assert done.returncode == 2 and message in done.stderr
        assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    assert not (copied / "settle").exists()
    metrics = json.loads((copied / "metrics.json").read_text())
    claim = metrics["conditions"]["live"]["comparison"]["claims"]["hedging"]
    claim.update(verdict="SUPPORTED", reasons=["effect_shown"])
    (copied / "metrics.json").write_text(json.dumps(metrics))
    done = call(bench, copied)
    assert done.returncode == 0
    assert "live: hedging: SUPPORTED (effect shown): nothing to settle." in done.stdout


@pytest.mark.slow
def test_an_evaluation_inside_a_run_is_settled_in_its_own_folder(
    metered: tuple[MeasureBench, Path], tmp_path: Path
) -> None:
    """Its answers, asserted or hedged by the lexical rules, and adapters where the run is now."""
    bench = metered[0]
    flags = {**bench.flags("chef", limit=4, n_predict=(8, 32)), "tempers": (),
             "adapters": (bench.live,)}  # fmt: skip
    run, chef = tmp_path / "run", tmp_path / "run" / "evaluations" / "chef"
    shutil.copytree(bench.run(flags), chef)
    metrics = json.loads((chef / "metrics.json").read_text())
    claim = metrics["conditions"]["live"]["comparison"]["claims"]["assertion_rate"][-1]
    claim |= {"verdict": "INCONCLUSIVE", "reasons": ["underpowered"]}
    (chef / "metrics.json").write_text(json.dumps(metrics))
    manifest = json.loads((chef / "manifest.json").read_text())
    (run / "arms").mkdir()
    (run / "arms" / "live").symlink_to(bench.live)
    manifest["config"]["adapters"] = ["/moved/from/arms/live"]
    (chef / "manifest.json").write_text(json.dumps(manifest))
    mcas = run / "evaluations" / "mcas" / "manifest.json"
    mcas.parent.mkdir()
    mcas.write_text(
        json.dumps({"arc": "measure", "config": {"instrument": "mcas", "judge": "gguf"}})
    )
    (run / "manifest.json").write_text(json.dumps({"arc": "arc3", "config": {}}))
    done = {"verdict": "SUPPORTED", "reasons": ["effect_shown"]}
    (run / "metrics.json").write_text(json.dumps({"claims": {"transfer": done}}))

    given = call(bench, run, "--data", chef / "base.jsonl", "--dry-run")
    assert "--data adds to the run's own claim; open here: threearc settle" in given.stdout
    made = call(bench, run, "--max-items", 8, "--json")
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)
    assert found["claims"] == {} and "nothing to settle" in found["not_settled"][0]["why"]
    assert "whose labels need more than items" in found["evaluations"]["mcas"]["why"]
    settled = found["evaluations"]["chef"]
    assert [one["n_items"] for one in settled["claims"]["live: assertion_rate"]["looks"]] == [4, 12]
    part = chef / "settle" / "look-2" / "1"
    asked, new = ({json.loads(line)["item_id"] for line in (path / "base.jsonl").open()}
                  for path in (chef, part))  # fmt: skip
    assert len(new) == 8 and not asked & new
    # as the run of those items says of itself, and the run's own of its own
    rates = [json.loads((path / "metrics.json").read_text())["conditions"]["live"]["comparison"]
             ["claims"]["assertion_rate"][-1] for path in (chef, part)]  # fmt: skip
    last = settled["claims"]["live: assertion_rate"]["looks"][-1]
    for name in ("gained", "lost"):
        assert last[name] == sum(one[name] for one in rates)
    manifest["judge"]["version"] = "x"
    (chef / "manifest.json").write_text(json.dumps(manifest))
    shutil.rmtree(chef / "settle")
    other = call(bench, run, "--max-items", 8)
    assert other.returncode == 2 and "its labels are by other rules than this" in other.stderr
    assert not (chef / "settle").exists()


# Executed code -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coding(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EvalBench]:
    pytest.importorskip("llama_cpp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THREEARC_CACHE", "")  # put back at the end: the bench sets it
        bench = EvalBench(tmp_path_factory.mktemp("settle-eval"))
        edit = str(bench.root / "edit")
        done = bench.call_here(bench.fresh("run", "--adapter", edit, "--n-predict", "4,8"))
        assert done.returncode == 0, done.stderr
        inconclusive(bench.root / "run", "q8_0." + _condition(bench.root / "run"))
        yield bench


def _condition(run: Path) -> str:
    arms = {json.loads(line)["arm"] for line in (run / "items.jsonl").open()}
    return next(arm for arm in arms if "edit" in arm).removeprefix("q8_0.")


@pytest.mark.slow
def test_a_killed_settle_of_an_evaluation_ends_in_the_same_bytes(coding: EvalBench) -> None:
    root = coding.root
    environment = {**os.environ, "THREEARC_CACHE": str(coding.cache), "OMP_NUM_THREADS": "1"}
    flags = ("--max-items", "16", "--json")
    for name in ("whole", "killed"):
        shutil.copytree(root / "run", root / name / "run")
    done = call_here("settle", root / "whole" / "run", *flags, THREEARC_CACHE=str(coding.cache))
    assert done.returncode == 0, done.stderr
    code = "from arcs.cli import main; main()"
    run = root / "killed" / "run"
    command = [sys.executable, "-c", code, "settle", str(run), *flags]

    def answered() -> bool:
        found = (run / "settle" / "look-2").glob("*/*.completions.jsonl")
        return any(b"\n" in path.read_bytes() for path in found)

    assert kill_when(answered, command, environment)
    assert not (run / "settle" / "metrics.json").exists()
    again = call_here("settle", run, *flags, THREEARC_CACHE=str(coding.cache))
    assert again.returncode == 0, again.stderr
    found, other = json.loads(done.stdout), json.loads(again.stdout)
    assert found["claims"] == other["claims"] and found["plan_sha256"] == other["plan_sha256"]
    for name in ("plan.json", "looks.jsonl", "look-2/1/items.jsonl", "look-3/1/items.jsonl"):
        assert (root / "whole/run/settle" / name).read_bytes() == (
            run / "settle" / name
        ).read_bytes()
    claim = found["claims"]["edit"]
    assert claim["n_items"] == 19 and claim["looks"][-1]["gained"] == 1
    used = {json.loads(line)["item_id"] for line in (run / "items.jsonl").open()}
    new = {json.loads(line)["item_id"] for path in (run / "settle").glob("look-*/1/items.jsonl")
           for line in path.open()}  # fmt: skip
    assert len(new) == 16 and not used & new


@pytest.mark.slow
def test_arc1_goes_on_as_an_evaluation_of_its_adapter(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    bench = Arc1Bench(tmp_path)
    run = tmp_path / "run"
    done = bench.call_here(bench.fresh(run))
    assert done.returncode == 0, done.stderr
    inconclusive(run, "trained")
    cache = str(tmp_path / "cache")
    done = call_here("settle", run, "--max-items", 2, "--json", THREEARC_CACHE=cache)
    assert done.returncode == 0, done.stderr
    claim = json.loads(done.stdout)["claims"]["pass@1"]
    assert claim["n_items"] == 5 and len(claim["looks"]) == 2
    manifest = json.loads((run / "manifest.json").read_text())
    part = json.loads((run / "settle/look-2/1/manifest.json").read_text())
    engines = [value for key, value in part.items() if key.startswith("engine.")]
    # base and trained, decoded by what the run decoded them by: the adapter's file included
    for own in ("engine_base", "engine_trained"):
        assert any(manifest[own].items() <= engine.items() for engine in engines)
    shutil.rmtree(run / "settle")
    manifest["engine_trained"]["kv_dtype"] = "f32"
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = call_here("settle", run, "--max-items", 2, THREEARC_CACHE=cache)
    assert done.returncode == 2 and "was decoded with kv_dtype f32" in done.stderr
    assert (run / "settle" / "plan.json").exists()  # the base had answered new items by then
    shutil.rmtree(run / "settle")
    manifest["engine_base"]["kv_dtype"] = "f32"
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = call_here("settle", run, "--max-items", 2, THREEARC_CACHE=cache)
    assert done.returncode == 2 and "no new item was opened" in done.stderr
    assert not (run / "settle").exists()

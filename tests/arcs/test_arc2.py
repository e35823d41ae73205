"""Arc 2 as a whole on tiny models: planted head, placebo, both engines, continuation."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from arcs.arc2 import stages
from arcs.arc2.attribution import HeadReading, causal, directional, magnitude
from arcs.arc2.cohorts import by_cells, by_text, by_thirds
from arcs.arc2.config import parse, resolve
from arcs.arc2.dispositions import DISPOSITIONS, Labelled
from arcs.arc2.findings import separation
from arcs.arc2.paper_tables import paper_words
from arcs.arc2.pipeline import axis_of
from arcs.arc2.selection import points, select
from arcs.arc2.table import paper_report, report
from arcs.arc3.engine import Engine
from arcs.audits.catalogue import run_audits
from arcs.audits.readers import read as read_results
from arcs.capsules import command, replay, sweep_replay
from arcs.capsules.answers import compared
from arcs.capsules.contents import make
from arcs.capsules.sweep_numbers import Held
from arcs.gates import Gates, load_gates
from arcs.progress import Reporter
from arcs.report.kinds import view_of
from arcs.report.page import page
from arcs.report.view import Chart
from arcs.report.writing import write_report
from arcs.runs import RunDirectory
from backends import open_backend
from backends.interface import Head
from evals.delivery import Judged, delivery_table
from evals.items.load import built_in
from evals.items.records import MeterItem
from evals.meter import choose, encode_pair, read_pairs
from models.chat import ChatEncoder
from models.errors import UserError
from models.store import prepare
from tests.support.arc2_bench import FLAGS, PLANTED, Bench
from tests.support.planted_heads import VARIED, plant
from tests.support.printed import printed, widened
from tests.support.report_links import check_counts, selected


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("arc2"))


@pytest.fixture(scope="module")
def planted(bench: Bench) -> tuple[Path, dict[str, Any]]:
    return bench.run(bench.flags("planted"))


def words(metrics: dict[str, Any]) -> dict[str, str]:
    return {one["word"]: one["state"] for one in metrics["words"]}


# -- planted effect and placebo -------------------------------------------------------------------


def test_a_planted_head_is_found_first_and_its_damping_is_supported(
    planted: tuple[Path, dict[str, Any]],
) -> None:
    _, metrics = planted
    first = metrics["rankings"]["causal"]["heads"][0]
    assert Head(first["layer"], first["head"]) == PLANTED and first["p_corrected"] < 0.05
    assert metrics["selection"]["arms"]["top"] == [list(PLANTED)]
    assert metrics["claim"]["verdict"] == "SUPPORTED"
    assert words(metrics)["clean positive"] == "holds"


def test_the_same_model_without_it_is_not_supported(bench: Bench) -> None:
    _, metrics = bench.run(bench.flags("quiet"))
    assert metrics["claim"]["verdict"] != "SUPPORTED"
    assert not metrics["rankings"]["causal"]["significant"]


def test_noise_heads_of_the_planted_model_are_not_supported(bench: Bench) -> None:
    """Its size does not tell the cohorts apart, so ranked by size others are damped."""
    _, metrics = bench.run(bench.flags("planted", rank_by="magnitude", causal_items=0))
    assert list(PLANTED) not in metrics["selection"]["arms"]["top"]
    assert "causal" not in metrics["rankings"]
    assert metrics["claim"]["verdict"] in ("REFUTED", "INCONCLUSIVE")
    assert words(metrics)["no separable axis"] == "open"


def test_a_head_built_to_differ_between_cohorts_is_first_by_magnitude(bench: Bench) -> None:
    out = bench.root / "differs"
    model = plant(bench.quiet, out, bench.cache, head=PLANTED.head, strength=1.0, differs=True)
    encoder = ChatEncoder(model)
    items = choose(built_in("meter", MeterItem), ("hedging",), VARIED)
    pairs = [encode_pair(encoder, item) for item in items]
    answers = [one.negative for one in pairs] + [one.positive for one in pairs]
    with open_backend("torch", model) as engine:
        found = engine.head_outputs(
            [one.ids for one in answers], [one.start for one in answers], last_n=32
        )
    heads = tuple(Head(layer, head) for layer in found.layers for head in range(6))
    reading = HeadReading(
        tuple(map(str, range(len(answers)))),
        heads,
        np.concatenate(found.norms, axis=1),
        tuple(block[:, head] for block in found.means for head in range(6)),
    )
    flat = [True] * VARIED + [False] * VARIED
    ranking = magnitude(reading, flat, permutations=200, top=1, seed=0, alpha=0.05)
    assert ranking.ordered_heads[0] == PLANTED
    assert ranking.significant(0.05)[0] == PLANTED
    shuffled = np.random.default_rng(0).permutation(flat).tolist()
    assert not magnitude(
        reading, shuffled, permutations=200, top=1, seed=0, alpha=0.05
    ).significant(0.05)


# -- what a run holds -----------------------------------------------------------------------------


def test_every_point_is_there_and_lambda_one_is_the_unchanged_model(
    planted: tuple[Path, dict[str, Any]],
) -> None:
    run, metrics = planted
    names = [one["point"] for one in metrics["sweep"]]
    assert names == ["base", "top-0.5", "top-0", "bottom-0", "random-1-0"]  # what rules read
    by_name = {one["point"]: one for one in metrics["sweep"]}
    assert by_name["base"]["texts_changed"] == 0
    assert all(one["axis"]["n"] == 24 and one["answers"] == 6 for one in metrics["sweep"])
    shift = by_name["top-0"]["axis"]["mean"] - by_name["base"]["axis"]["mean"]
    assert by_name["top-0"]["axis_change"]["value"] == pytest.approx(shift)
    manifest = json.loads((run / "manifest.json").read_text())
    swept = {
        json.loads(line)["item_id"] for line in (run / "meter.top-0.jsonl").read_text().splitlines()
    }
    meter = manifest["meter"]  # not judged where they were chosen, by whatever ranking
    assert not swept & {*meter["ablated_on"], *meter["cohorts_on"]}
    cohorts = metrics["cohorts"]
    assert {*cohorts["lacking_items"], *cohorts["having_items"]} <= set(meter["cohorts_on"])


def test_the_stored_ablations_are_what_the_engine_gives(
    bench: Bench, planted: tuple[Path, dict[str, Any]]
) -> None:
    run, _ = planted
    records = [json.loads(line) for line in (run / "ablations.jsonl").read_text().splitlines()]
    assert len(records) == 1 + 3 * 6
    directory = prepare(str(bench.root / "planted"), cache=bench.cache)
    encoder = ChatEncoder(directory)
    items = {one.id: one for one in built_in("meter", MeterItem)}
    ids = json.loads((run / "manifest.json").read_text())["meter"]["ablated_on"]
    pairs = [encode_pair(encoder, items[name]) for name in ids]
    stored = next(one for one in records if one["head"] == list(PLANTED))
    with open_backend("torch", directory) as engine, engine.tempered({PLANTED: 0.0}):
        assert [one.contrast for one in read_pairs(engine, pairs)] == stored["values"]


def test_audits_read_arms_rankings_and_sweep(
    planted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, metrics = planted
    results = read_results(path)
    points = [one["point"] for one in metrics["sweep"]]
    assert [one.arm for one in results.sets] == [*points]
    for one, point in zip(results.sets, metrics["sweep"], strict=True):
        assert one.settings == results.sets[0].settings
        cut = sum(item.finish_reason == "length" for item in one.items)
        if point["point"] != "base":  # the base is also asked what is only ranked
            assert (len(one.items), cut) == (point["items"], point["truncated"])
    ranked = {one.name.rpartition(", ")[2]: one for one in results.rankings}
    heads = metrics["rankings"]["magnitude"]["heads"]
    assert [one.effect for one in ranked["magnitude"].effects] == [one["effect"] for one in heads]
    assert ranked["directional"].cross_fitted and not ranked["magnitude"].signed
    found = {audit.name: made for audit, made in run_audits(results)}
    for name in ("missing-control", "selection-without-null", "decoding-drift"):
        assert found[name].examined and not found[name].findings, name
    copy = shutil.copytree(path, tmp_path / "copy")
    alone = [one for one in metrics["sweep"] if one["arm"] != "base"]
    (copy / "metrics.json").write_text(json.dumps({**metrics, "sweep": alone}))
    found = {audit.name: made for audit, made in run_audits(read_results(copy))}
    assert "no control at all" in found["missing-control"].findings[0].message


def test_the_report_shows_nulls_words_and_the_claim(planted: tuple[Path, dict[str, Any]]) -> None:
    _, metrics = planted
    console = Console(width=160, file=None)
    with console.capture() as shown:
        console.print(report(metrics))
    text = shown.get()
    for part in ("SUPPORTED", "corrected", "p alone", "(paper's)", "centred",
                 "no more than random heads", "L2H4"):  # fmt: skip
        assert part in text


def test_every_number_of_the_page_leads_to_what_it_counts(
    planted: tuple[Path, dict[str, Any]],
) -> None:
    path, metrics = planted
    view = view_of(path)
    assert check_counts(view) >= 30
    (card,) = view.claims
    assert card.verdict == metrics["claim"]["verdict"] and card.number is not None
    assert card.select is not None and len(selected(view, card.select)) == card.number.n
    swept, heads = (
        next(one for one in view.figures if isinstance(one, Chart) and one.name == name)
        for name in ("axis over lambda", "heads")
    )
    top = next(one for one in swept.series if one.name == "top")
    assert [point.x for point in top.points] == [0.0, 0.5, 1.0]
    assert top.points[0].y.low is not None and top.points[0].y.high is not None
    ranking = metrics["rankings"]["causal"]
    assert len(heads.series[0].points) == len(ranking["heads"])
    assert ranking["critical"] in [value for _, value in heads.levels]
    ablated = selected(view, {"condition": "L2H4 at 0"})
    assert len(ablated) == FLAGS["causal_items"]
    item = next(one for one in view.items if one.id == ablated[0][0])
    assert item.prompt and [block.title for block in item.blocks] == [
        "positive continuation", "negative continuation",
    ]  # fmt: skip
    assert "transcripts.jsonl" not in " ".join(view.notes)
    assert write_report(path).read_text().count("<circle") > 20


def test_a_run_without_texts_says_so_and_links_nowhere(
    planted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    path, _ = planted
    for name in ("manifest.json", "metrics.json"):
        (tmp_path / name).write_text((path / name).read_text())
    view = view_of(tmp_path)
    assert not view.items and "has no transcripts.jsonl" in view.notes[0]
    assert 'href="#items?' not in page(view) and 'href="#items?' in page(view_of(path))


def test_no_cell_is_cut_at_80_columns(planted: tuple[Path, dict[str, Any]]) -> None:
    _, metrics = planted
    printed(report(metrics))
    wide = widened(metrics, count=1234, number=-12.3456)
    table = widened(
        delivery_table([Judged("a", True, True, True), Judged("b", False, False, True)]).to_json(),
        count=1234, number=0.9876,
    )  # fmt: skip
    for point in wide["sweep"]:
        point["arm"] = point["arm"].replace("random-1", "random-10")
        point |= {"table": table, "coverage": {"mean": 0.9876, "n": 1234}}
    arms = [point["arm"] for point in wide["sweep"]]
    wide["gguf"] = {"quantisation": "q4_k_m", "rounding": 1.2e-3, "points": wide["sweep"]}
    change = wide["sweep"][1]["axis_change"]
    wide["made_with"]["tasks"] = {"dataset": "humaneval"}
    wide["tasks"] = [
        {"point": f"{arm}-0.125", "right": 1234, "labelled": 1234, "change": change,
         "truncated": 1234, "answers": 1234}
        for arm in arms
    ]  # fmt: skip
    text = printed(report(wide))
    lines = text.splitlines()
    for arm in ("random-10", "top", "bottom"):  # in each of five tables, above their lambda
        at = [place for place, line in enumerate(lines) if line.startswith(f" {arm} ")]
        assert len(at) == 5 * arms.count(arm)
        assert all(lines[place + 1].startswith("   0.125 ") for place in at)
    for cell in ("[-12.346, -12.346]", "1234/1234", "0.99 of 1234", "[0.99, 0.99]", "L47H31"):
        assert cell in text


def test_the_papers_words_are_not_cut_or_broken() -> None:
    words = [one.to_json() for one in paper_words()]
    text = printed(paper_report(words))
    lines = text.splitlines()
    for one in words:
        cells = (one["word"], one["determined"], ", ".join(one["possible_states"]))
        assert any(all(cell in line for cell in cells) for line in lines), cells
        assert one["variant"] in text and one["paper_says"] in text


# -- engines --------------------------------------------------------------------------------------


def verdicts(metrics: dict[str, Any]) -> dict[str, Any]:
    first = {name: one["heads"][0] for name, one in metrics["rankings"].items()}
    return {
        "claim": metrics["claim"],
        "words": metrics["words"],
        "selection": metrics["selection"],
        "first": {name: (one["layer"], one["head"]) for name, one in first.items()},
        "cohorts": metrics["cohorts"],
    }


def test_mlx_gives_the_same_verdicts_from_its_own_generations(
    bench: Bench, planted: tuple[Path, dict[str, Any]]
) -> None:
    pytest.importorskip("mlx.core")
    _, metrics = planted
    _, found = bench.run(bench.flags("planted", backend="mlx"))
    assert verdicts(found) == verdicts(metrics)


def test_mlx_gives_the_same_verdicts_on_the_same_stored_ids(
    bench: Bench, planted: tuple[Path, dict[str, Any]]
) -> None:
    pytest.importorskip("mlx.core")
    run, metrics = planted
    flags = bench.flags("planted", backend="mlx")
    directory = bench.begin(flags)
    for path in run.glob("answers.*.jsonl"):
        shutil.copy(path, directory.path)
    found = bench.go_on(directory, flags)
    assert verdicts(found) == verdicts(metrics)
    ours, theirs = metrics["rankings"]["magnitude"], found["rankings"]["magnitude"]
    for one, two in zip(ours["heads"][:5], theirs["heads"][:5], strict=True):
        assert one["effect"] == pytest.approx(two["effect"], abs=1e-3)  # d of float32 norms


# -- a claim in one file --------------------------------------------------------------------------

TORCH = Engine("torch", "float32", "f32")


def again(
    document: dict[str, Any], patch: pytest.MonkeyPatch, engine: Engine | None = None, n: int = 48
) -> tuple[dict[str, Any], set[str]]:
    """What verify says of a capsule, and what of it does not come out; without an engine nothing is
    answered or read."""
    if engine is None:
        patch.setattr(sweep_replay.Replay, "made", lambda _: (compared([], exact=False), None))
    quiet = Reporter(quiet=True)
    found = sweep_replay.verify(document, None, engine or TORCH, n, 0, False, quiet)
    parts = {**found, **{one["what"]: one for one in found["decided"]},
             **{one["quantity"]: one for one in found["numbers"]},
             "verdict": found["verdicts"][0]}  # fmt: skip
    failing = {name for name, one in parts.items()
               if isinstance(one, dict) and one.get("reproduces") is False}  # fmt: skip
    assert replay.reproduced(found) is not bool(failing)
    return found, failing


@pytest.fixture
def document(
    bench: Bench, planted: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.setenv("THREEARC_CACHE", str(bench.cache))
    return make(planted[0])


def rows_at(document: dict[str, Any], arm: str, what: str = "rows") -> list[dict[str, Any]]:
    return [row for row in document[what] if row["arm"] == arm]


def test_everything_of_a_capsule_comes_out_again(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, failing = again(document, monkeypatch, TORCH, 12)
    assert not failing
    assert [one["reproduces"] for one in found["decided"]] == [True] * 3
    numbers = {one["quantity"]: one for one in found["numbers"]}
    assert numbers["change of the axis, top-0"]["recomputed"] > 0.1
    assert len(numbers) == 6 and all(one["reproduces"] for one in numbers.values())
    assert found["words"]["same"] == 9 and found["verdicts"][0]["here"] == "SUPPORTED"
    assert found["labels"]["same"] == found["labels"]["n"] == 48 + 4 * 6  # all, not the sample
    answers, readings = found["answers"], found["readings"]
    swept = {row["item_id"] for row in rows_at(document, "top-0")}
    both = len(swept & set(found["sample"]["items"]))
    assert answers["identical"] == answers["n"] == 12 + 4 * both and both
    # the base's 12 of 72 items, those of them that are swept at four points, 10 with a head at 0
    assert readings["n"] > 12 + 2 * 10 and readings["distance"]["largest"] < 1e-5
    assert not answers["not_replayed"] and not readings["not_replayed"]
    said = " ".join(command.lines(found))
    assert "Heads, reproduced: the first 1 of 18 by the stored ablations" in said
    assert "SUPPORTED (clean positive) as stated, SUPPORTED (clean positive) from what" in said


def test_what_was_changed_in_a_capsule_does_not_come_out(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part is held to what it rests on: all at once, since none rests on another's word."""
    document["claims"]["arc2"]["statement"] = "all is well"
    document["words"][0]["state"] = "holds"
    document["evidence"]["axis"][1]["interval"]["low"] = 0.5
    document["rows"][0]["asserted"] = not document["rows"][0]["asserted"]
    document["manifest"]["selection"]["arms"]["top"] = [[0, 0]]
    cohorts = document["manifest"]["cohorts"]
    cohorts["lacking_items"][0], cohorts["having_items"][0] = (
        cohorts["having_items"][0], cohorts["lacking_items"][0],
    )  # fmt: skip
    found, failing = again(document, monkeypatch)
    assert failing == {"verdict", "words", "change of the axis, top-0", "labels", "heads",
                       "cohorts"}  # fmt: skip
    assert found["labels"]["n"] - found["labels"]["same"] == 1
    assert [one["word"] for one in found["words"]["differing"]] == [document["words"][0]["word"]]


def test_answers_and_readings_of_another_model_do_not_come_out(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All else fits them, as a forger would have it; of the answers one point's are invented."""
    for row in rows_at(document, "top-0"):
        row["ids"][-1] ^= 1
    for row in rows_at(document, "top-0", "readings"):
        row["contrast"] += 0.1
    found, failing = again(document, monkeypatch, TORCH)
    assert {"answers", "readings"} <= failing
    assert found["answers"]["identical"] > 0.5 * found["answers"]["n"]  # one arm alone tells
    assert {one["arm"] for one in found["answers"]["differing"]} == {"top-0"}
    assert {one.split(", ")[1] for one in found["readings"]["outside"]} == {"top-0"}


def test_a_capsule_that_is_not_its_runs_is_one_line(
    bench: Bench, document: dict[str, Any], tmp_path: Path
) -> None:
    manifest, quiet = document["manifest"], Reporter(quiet=True)
    directory = prepare(str(bench.root / "planted"), cache=bench.cache)
    config = parse(manifest["config"])
    with RunDirectory.create(tmp_path / "run", {}) as run:

        def prepared(**other: Any) -> Any:
            mine = {**manifest, **other}
            return sweep_replay.prepared_again(mine, config, directory, TORCH, run, False, quiet)

        with pytest.raises(
            UserError, match=r"^the run's questions have other ids here than in the"
        ):
            prepared(labels={**manifest["labels"], "ids_sha256": "0"})
        with pytest.raises(UserError, match=r"^the meter's items are others here than in the caps"):
            prepared(meter={**manifest["meter"], "ablated_on_sha256": "0"})
        with pytest.raises(
            UserError, match=r"^the capsule: its gates are those of another version"
        ):
            prepared(gates={})
        made = prepared()
    rows, readings = document["rows"], document["readings"]
    for change, said in (
        ({"rows": rows[:-1]}, "answers at top-0 are 5, and not one to each of the 6 items"),
        ({"rows": [*rows, rows[-1]]}, "answers at top-0 are 7, and not one to each of the 6"),
        ({"rows": [*rows, {**rows[0], "arm": "top-1"}]}, "rows at .'top-1', None., which is no"),
        ({"readings": readings[1:]}, "readings at base are 71, and not one to each of the 72"),
    ):
        with pytest.raises(UserError, match=f"^the capsule('s| has) {said}"):
            Held.of({**document, **change}, config, made)
    fewer = Held.of({**document, "ablations": document["ablations"][:-1]}, config, made)
    with pytest.raises(UserError, match="ranks other heads than those of its run's layers"):
        _ = fewer.ranking
    manifest["model"]["fingerprint"] = "0"
    with pytest.raises(UserError, match="its weights are not the capsule's; give that model"):
        sweep_replay.verify(document, None, TORCH, 1, 0, False, quiet)


def test_a_run_without_its_texts_makes_no_capsule(
    planted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(planted[0], copy)
    (copy / "transcripts.jsonl").unlink()
    with pytest.raises(UserError, match=r"no transcripts.jsonl; finish the run with threearc arc2"):
        make(copy)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "module"), [("mlx", "mlx.core"), ("gguf", "llama_cpp")])
def test_a_capsule_of_torch_comes_out_on_other_engines(
    document: dict[str, Any], monkeypatch: pytest.MonkeyPatch, engine: str, module: str
) -> None:
    pytest.importorskip(module)
    found, failing = again(document, monkeypatch, Engine(engine, "float32", "f32", 1), 12)
    assert not failing and found["answers"]["reproduces"] and found["readings"]["reproduces"]
    scaled = {"top", "bottom", "random-1"}
    assert found["answers"]["not_replayed"].keys() == (scaled if engine == "gguf" else set())
    assert found["readings"]["not_replayed"].keys() == (
        scaled | {"ablated heads"} if engine == "gguf" else set()
    )


# -- continuation ---------------------------------------------------------------------------------


MADE_LAST = ("transcripts.jsonl", "metrics.json")
KILLS = {
    "an answer of a chunk": ("answers.base.jsonl", 17),
    "the meter": ("meter.base.jsonl", 5),
    "the heads": ("heads/000016.safetensors", None),
    "an ablation": ("ablations.jsonl", 7),
    "a point of the sweep": ("meter.top-0.jsonl", 3),
}


@pytest.mark.parametrize("hit", KILLS)
def test_a_run_that_was_killed_ends_in_the_same_bytes(
    bench: Bench, planted: tuple[Path, dict[str, Any]], hit: str
) -> None:
    """The files as a kill leaves them: a torn line, nothing of what comes after."""
    run, _ = planted
    name, lines = KILLS[hit]
    killed = bench.folder()
    shutil.copytree(run, killed)
    for made in MADE_LAST:
        (killed / made).unlink()
    if lines is None:
        (killed / name).unlink()
    else:
        kept = (killed / name).read_bytes().split(b"\n")
        (killed / name).write_bytes(b"\n".join(kept[:lines]) + b"\n" + kept[lines][:9])
    order = ["answers.base", "meter.base", "heads", "ablations", "answers.top-0.5", "meter.top-0.5",
             "answers.top-0", "meter.top-0"]  # fmt: skip
    reached = next(i for i, one in enumerate(order) if name.startswith(f"{one}.") or (one == "heads"
                   and name.startswith("heads")))  # fmt: skip
    for path in [*killed.glob("*.jsonl")]:
        later = [one for one in order[reached + 1 :] if path.name == f"{one}.jsonl"]
        if later or path.name.startswith(("answers.bottom", "meter.bottom", "answers.random")):
            path.unlink()
    with RunDirectory.resume(killed) as directory:
        bench.go_on(directory, bench.flags("planted"))
    for made in MADE_LAST:
        assert (killed / made).read_bytes() == (run / made).read_bytes()


# -- parts ----------------------------------------------------------------------------------------


def labelled(item: str, *, right: bool | None, asserted: bool | None, text: str = "x") -> Labelled:
    return Labelled(item, None, text, (5, 2), False, False, False, right, asserted)


def test_cells_are_confidently_wrong_against_confidently_right() -> None:
    answers = [labelled(f"w{i}", right=False, asserted=True) for i in range(12)]
    answers += [labelled(f"r{i}", right=True, asserted=True) for i in range(11)]
    answers += [
        labelled("h", right=False, asserted=False),
        labelled("m", right=None, asserted=True),
    ]
    found = by_cells(answers, "exact-match")
    assert (len(found.lacking), len(found.having), found.left_out) == (12, 11, 2)
    assert found.labels() == [True] * 12 + [False] * 11
    with pytest.raises(UserError, match="3 and 0 of 3 answers, and 10 are needed in each"):
        by_cells(answers[:3], "exact-match")


def test_ablated_heads_are_ranked_by_what_is_tested_and_shown_by_their_mean() -> None:
    """The first head moves items far to both sides, and by more in the mean."""
    rng = np.random.default_rng(0)
    heads = [Head(0, head) for head in range(12)]
    shifts = rng.normal(0, 0.01, size=(8, 12))
    shifts[:, 0] = np.tile([1.5, -1.0], 4)
    shifts[:, 5] += 0.1
    given: dict[str, Any] = {"permutations": 200, "top": 2, "seed": 0}
    ranking = causal(heads, shifts, alpha=0.05, unit="nats", **given)
    assert ranking.ordered_heads[0] == heads[5] and ranking.significant(0.05) == [heads[5]]
    made = ranking.to_json(0.05)
    first = made["heads"][0]
    assert first["effect"] == pytest.approx(shifts[:, 5].mean())
    assert first["statistic"] > made["critical"] and first["p_corrected"] == 1 / 128
    assert ranking.intervals[heads[5]] is not None and ranking.excludes_beyond is None
    matters = shifts[:, 5].mean()
    for smallest, separable in ((matters - 0.001, True), (matters + 0.001, False)):
        made = separation(ranking, gates_with(shift=smallest))
        assert made["separable"] is separable
        assert (made["too_small"] is None) is separable


def gates_with(**smallest: float) -> Gates:
    gates = load_gates()
    return replace(gates, smallest_effect=replace(gates.smallest_effect, **smallest))


def test_no_separation_is_excluded_along_an_estimated_direction_and_alpha_is_given() -> None:
    rng = np.random.default_rng(0)
    means = tuple(rng.normal(size=(60, 6)).astype(np.float32) for _ in range(4))
    heads = tuple(Head(0, head) for head in range(4))
    norms = rng.normal(size=(60, 4)).astype(np.float32)
    reading = HeadReading(tuple(map(str, range(60))), heads, norms, means)
    given: dict[str, Any] = {"permutations": 100, "top": 1, "seed": 0}
    labels = [True] * 30 + [False] * 30
    plain, cross = (way(reading, labels, alpha=0.05, **given) for way in (magnitude, directional))
    assert cross.excludes_beyond is None and cross.simultaneous is not None
    assert cross.to_json(0.05)["largest_effect_not_excluded"] is None
    assert plain.to_json(0.05)["largest_effect_not_excluded"] == plain.simultaneous
    assert plain.excludes_beyond == plain.simultaneous is not None
    lax = magnitude(reading, labels, alpha=0.4, **given)
    assert lax.simultaneous is not None and plain.simultaneous is not None
    assert lax.simultaneous < plain.simultaneous
    wide = [one.intervals[one.ordered_heads[0]] for one in (plain, cross)]
    assert wide[0] is not None and wide[1] is not None
    assert wide[1].high - wide[1].low > 1.2 * (wide[0].high - wide[0].low)


def test_a_measure_that_is_saturated_says_so_with_its_counts() -> None:
    answers = [labelled(str(i), right=True, asserted=True) for i in range(40)]
    curious, humble = DISPOSITIONS["curious"], DISPOSITIONS["humble"]
    with pytest.raises(UserError, match=r"curious cannot be measured .* 0 of 40 answers show it"):
        by_text(curious, answers, "exact-match")
    assert axis_of(humble, answers, by_meter=False).kind == "meter"
    assert axis_of(curious, answers, by_meter=False).kind == "none"
    mixed = [labelled(str(i), right=True, asserted=i < 20) for i in range(40)]
    assert axis_of(humble, mixed, by_meter=False).kind == "text"
    texts = ["Shall I?" if i < 15 else "Yes." for i in range(40)]
    asked = [labelled(str(i), right=None, asserted=True, text=t) for i, t in enumerate(texts)]
    found = by_text(curious, asked, "exact-match")
    assert (len(found.lacking), len(found.having)) == (25, 15)


def test_thirds_leave_the_middle_out() -> None:
    answers = [labelled(str(i), right=None, asserted=True) for i in range(30)]
    found = by_thirds({str(i): float(i) for i in range(30)}, "hedging", answers)
    assert found.lacking == tuple(map(str, range(10)))
    assert found.having == tuple(map(str, range(20, 30)))


def test_random_heads_come_from_the_layers_of_the_chosen_ones() -> None:
    ordered = [Head(layer, head) for head in range(8) for layer in range(6)]
    found = select(ordered, 5, 3, seed=0)
    layers = sorted(head.layer for head in found.arms["top"])
    for draw in (1, 2, 3):
        drawn = found.arms[f"random-{draw}"]
        assert sorted(head.layer for head in drawn) == layers
        assert not set(drawn) & set(found.arms["top"])
    assert len(points(found, (1.0, 0.5, 0.0))) == 1 + 5 * 2
    few = points(found, (1.0, 0.5, 0.0), "strongest")
    assert [one.name for one in few] == [
        "base", "top-0.5", "top-0", "bottom-0", "random-1-0", "random-2-0", "random-3-0",
    ]  # fmt: skip
    with pytest.raises(UserError, match="--top-k 5: 9 heads are ranked, and 10 are needed"):
        select(ordered[:9], 5, 1, seed=0)


@pytest.mark.parametrize(
    ("layers", "k", "possible"),
    [
        ([0] * 4, 2, 1),  # the two others
        ([0] * 5 + [1] * 6, 3, 6),  # both of layer 0's others and one of layer 1
        ([0, 0, 1, 1, 1, 1], 3, 1),  # however it is drawn: all others
        ([0, 0, 1, 1, 1, 1], 2, 6),  # layer 0 has none left: two of layer 1
        ([0, 0, 0, 1, 1, 1], 2, 3),  # one of layer 0 left, and it must be in: it and one of three
    ],
)
def test_random_sets_are_distinct_and_as_many_as_there_are(
    layers: list[int], k: int, possible: int
) -> None:
    ordered = [Head(layer, head) for head, layer in enumerate(layers)]
    found = select(ordered, k, 25, seed=1)
    drawn = [found.arms[arm] for arm in found.arms if arm.startswith("random")]
    assert found.random_sets == len(drawn) == len(set(drawn)) == possible
    exactly = select(ordered, k, possible, seed=1)
    assert len(set(exactly.arms.values()) - {exactly.arms["top"]}) >= possible
    assert select(ordered, k, 1, seed=1).random_sets == possible


def test_the_stop_token_is_no_part_of_the_response() -> None:
    from backends.interface import Completion

    ended = Completion("a", (7,), (5, 6, 2), "stop", 0.0)
    cut = Completion("b", (7,), (5, 6), "length", 0.0)
    empty = Completion("c", (7,), (2,), "stop", 0.0)
    found = [stages.response_of(one, (2,)) for one in (ended, cut, empty)]
    assert [one and one.response_ids for one in found] == [(5, 6), (5, 6), None]


def test_meter_items_that_were_asked_for_and_cannot_be_had_are_one_line(bench: Bench) -> None:
    with pytest.raises(UserError) as caught:
        bench.run(bench.flags("quiet", disposition="adversarial-self", limit=96))
    assert "--limit 96, --axis-items 24: the axis self_checking has 104" in str(caught.value)
    assert "swept on the other 8, so give fewer" in str(caught.value)


def test_the_quick_profile_leaves_items_for_the_sweep_whatever_decides_the_heads() -> None:
    quick = {"profile": "quick"}
    assert resolve(quick).limit == 96 and not resolve(quick).ranked_on_answers
    on_answers = resolve({**quick, "rank_by": "magnitude"})
    assert (on_answers.limit, on_answers.sweep_limit) == (120, None)  # half of them
    given = resolve({**quick, "rank_by": "magnitude", "limit": 70, "sweep_limit": 30})
    assert (given.limit, given.sweep_limit) == (70, 30)
    assert resolve(quick).sweep_limit == 60
    assert resolve({**quick, "disposition": "eager"}).limit == 120
    meter = resolve({**quick, "labels": "meter", "disposition": "adversarial-self"})
    items = len(choose(built_in("meter", MeterItem), ("self_checking",), None))
    assert meter.limit is not None and meter.axis_items is not None
    assert items - meter.limit >= meter.axis_items and not meter.ranked_on_answers


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"profile": "fast"}, "--profile 'fast': choose from quick"),
        ({"disposition": "kind"}, "--disposition: 'kind': choose one of humble"),
        ({"labels": "mood"}, "--labels: --labels mood: give execution"),
        ({"labels": "meter", "disposition": "eager"}, "no axis for eager, only for humble"),
        ({"scales": (0.5, 0.0)}, "--scales: give 1 and at least one factor"),
        ({"seeds": (1, 2, 3)}, "--seeds: greedy decoding draws nothing"),
        ({"temperature": 0.7, "seeds": (1, 2)}, "give at least 3 --seeds"),
        ({"rank_by": "causal", "causal_items": 0}, "needs --causal-items above 0"),
        ({"causal_items": 3}, "--causal-items 3: give at least 4, or 0"),
        ({"temperature": 0.7, "seeds": (1, 2, -3)}, "seed is -3: it must be a whole number"),
        ({"disposition": "self-improving"}, "give --labels execution"),
        ({"tasks_limit": 3}, "--tasks-limit: give --tasks as well"),
    ],
)
def test_what_cannot_be_is_one_line(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(flags)
    assert message in str(caught.value) and "\n" not in str(caught.value)

"""SIGKILL in each phase that Arc 1 whole has more than a training and a benchmark."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from arcs.measure.mcas import AXES, HOLISTIC
from evals.items.load import built_in
from evals.items.records import ChefItem, McasItem
from evals.judges.instruments import COVERAGE, DELIVERY, INSTRUMENTS
from tests.arcs.test_arc1_whole import whole
from tests.support.arc1_bench import Bench
from tests.support.kills import kill_in

pytestmark = pytest.mark.slow

FILES = {
    # what a phase writes: removed, with the result, so that a continued run does it and no other
    "train dpo": ("train-dpo", "training-dpo.json", "adapter", "adapter.gguf"),
    "train planted": ("controls/planted",),
    "decode sft": ("sft.completions.jsonl",),
    "evaluate small": ("evaluations/small",),
    "evaluate meter": ("evaluations/meter",),
    "evaluate chef": ("evaluations/chef",),
    "evaluate mcas": ("evaluations/mcas",),
    "evaluate recovery": ("evaluations/recovery",),
    "seed 1": ("seeds",),
}
PHASES = tuple(FILES)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("whole-kill"))


def recorded() -> Iterator[dict[str, Any]]:
    """A label, drawn at random, of all that is asked of the two items of each evaluation."""
    asked = [
        (f"{condition}/{item.id}@{n}{part}", instrument)
        for condition in ("base", "sft", "dpo", "planted", "placebo")
        for n in (5, 10)
        for items, parts in (
            (built_in("chef_fresh", ChefItem)[:2], _of_chef),
            (built_in("mcas", McasItem)[:2], _of_mcas),
        )
        for item in items
        for part, instrument in parts(item)
    ]
    for question, instrument in asked:
        values = INSTRUMENTS[instrument].values
        value = random.Random(question + instrument).choice(values)
        yield {"question_id": question, "instrument": instrument, "value": value}


def _of_chef(item: ChefItem) -> list[tuple[str, str]]:
    claims = [(f"#{i}", COVERAGE.name) for i in range(1, len(item.checklist) + 1)]
    return [*claims, ("", DELIVERY.name)]


def _of_mcas(_: McasItem) -> list[tuple[str, str]]:
    return [("", name) for name in (HOLISTIC, DELIVERY.name, *AXES)]


def finish(bench: Bench, command: list[str]) -> None:
    env = bench.environment(bench.root / "cache")
    done = subprocess.run(command, env=env, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def reference(bench: Bench) -> Path:
    out, labels = bench.root / "reference", bench.root / "labels.jsonl"
    # a judge that costs nothing and can apply MCAS
    labels.write_text("".join(json.dumps(one) + "\n" for one in recorded()))
    command = whole(bench, out)
    command[command.index("--evaluations") + 1] = "small,meter,chef,mcas,recovery"
    finish(bench, [*command, "--judge", f"recorded:{labels}", "--planted", "--seeds", "2"])
    for name in ("chef", "mcas"):  # else kills would compare nothing with nothing
        found = json.loads((out / "evaluations" / name / "metrics.json").read_text())
        for condition in found["conditions"].values():
            for instrument, one in condition["labels"].items():
                silent = one["statuses"].get("missing", 0) if instrument == "delivery" else 0
                assert one["statuses"]["ok"] + silent == sum(one["statuses"].values())
    return out


def rewind(run: Path, phase: str) -> None:
    """Take from a finished run what ``phase`` wrote, and the result."""
    for name in (*FILES[phase], "metrics.json", "items.jsonl"):
        path = run / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("phase", PHASES)
def test_a_kill_in_a_phase_leaves_the_same_result(
    bench: Bench, reference: Path, phase: str, tmp_path: Path
) -> None:
    timing = json.loads((reference / "timing.json").read_text())
    seconds = timing["phases"][phase]["seconds"]
    env, run = bench.environment(bench.root / "cache"), tmp_path / "run"
    shutil.copytree(reference, run, symlinks=True)
    rewind(run, phase)
    command = bench.command("--run", str(run), "--json")
    delay = random.Random(phase).uniform(0, 0.8 * seconds)
    while not kill_in(phase, command, env, run, delay):  # a phase can be faster than it was
        rewind(run, phase)
        delay /= 4
    finish(bench, command)
    for name in ("metrics.json", "items.jsonl"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()

"""Parts of Arc 3's analysis stand as they finish, and a mistake in them is no missing number."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from arcs.arc3 import analysis, kept, probing
from arcs.arc3.kept import Kept, study_sha256
from arcs.arc3.probing import Study
from arcs.gates import load_gates
from arcs.progress import Reporter
from arcs.runs import JsonLines
from evals.probing.probes import PRIMARY, PROBES
from tests.support.arc3_bench import SIGNAL, side, study

GATES = load_gates()


@pytest.fixture(autouse=True, scope="module")
def _short_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evals.probing.probes.MLP_ITERATIONS", 30)
        yield


def analysed(one: Study, path: Path) -> dict[str, Any]:
    return analysis.analyse(one, GATES, (), Reporter(quiet=True), JsonLines.open(path))


def test_a_kill_loses_one_part_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = study(side(0, signal=SIGNAL, layers=2), side(1, signal=SIGNAL, layers=2))
    path = tmp_path / "analysis.jsonl"
    whole = analysed(both, path)
    lines = path.read_bytes().splitlines(keepends=True)
    parts = [json.loads(line)["part"] for line in lines]
    assert len(set(parts)) == len(parts)
    assert {"null of layer 1", "permutations", "planted", "baseline token scalars"} <= set(parts)
    # killed behind the null of the first layer, in the middle of a line
    done = parts.index("null of layer 0") + 1
    path.write_bytes(b"".join(lines[:done]) + lines[done][:20])
    made: list[str] = []
    one_probe, permuted = probing.one_probe, probing.permuted
    monkeypatch.setattr(probing, "one_probe", lambda *a: made.append("probe") or one_probe(*a))
    monkeypatch.setattr(probing, "permuted", lambda *a: made.append("null") or permuted(*a))
    assert analysed(both, path) == whole
    assert made == ["null"] * 3  # of the real labels and the two controls; no probe again
    assert path.read_bytes().splitlines(keepends=True) == lines
    made.clear()
    assert analysed(both, path) == whole and not made


def test_parts_of_other_labels_are_not_used(tmp_path: Path) -> None:
    """As after a judge that failed was asked again."""
    one, store = study(side(0), side(1)), JsonLines.open(tmp_path / "analysis.jsonl")
    flipped = replace(one, fresh=one.fresh.relabelled(~one.fresh.y))
    assert Kept.of(one, store).part("a", lambda: (1, 0.1)) == [1, 0.1]
    again = JsonLines.open(store.path)
    assert Kept.of(one, again).part("a", lambda: 2) == [1, 0.1]
    assert Kept.of(one, again).part("b", lambda: 3) == 3
    assert Kept.of(flipped, again).part("a", lambda: 4) == 4
    assert Kept.of(one, again).part("a", lambda: 5) == [1, 0.1]


def test_whatever_is_read_is_in_the_hash() -> None:
    both = study(side(0), side(1))
    one = both.train
    changed = [
        replace(one, x={"h_last": one.x["h_last"] + 1}),
        replace(one, groups=one.groups[::-1]),
        replace(one, finished=~one.finished),
        replace(one, asserted=(None, *one.asserted[1:])),
        replace(one, answers=replace(one.answers, scalars=one.answers.scalars + 1)),
    ]
    found = {study_sha256(replace(both, train=each)) for each in [one, *changed]}
    assert len(found) == 1 + len(changed)
    assert study_sha256(replace(both, seed=1)) not in found
    assert study_sha256(study(side(0), side(1))) in found


def test_parts_of_other_code_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit of a tree that has changes does not say what is in it."""
    for name in kept.SOURCES:
        if (kept.ROOT / name).is_dir():
            shutil.copytree(kept.ROOT / name, tmp_path / name)
        else:
            shutil.copy(kept.ROOT / name, tmp_path / name)
    both = study(side(0), side(1))
    before = study_sha256(both)
    monkeypatch.setattr(kept, "ROOT", tmp_path)
    assert study_sha256(both) == before
    for name in kept.SOURCES:
        file = next((tmp_path / name).rglob("*.py"), tmp_path / name)
        file.write_text(file.read_text() + "# changed")
        kept.sources_sha256.cache_clear()
        after = study_sha256(both)
        assert after != before
        before = after
    monkeypatch.undo()
    kept.sources_sha256.cache_clear()


@pytest.mark.filterwarnings("ignore:invalid value")
def test_too_few_groups_are_missing_and_a_mistake_is_not() -> None:
    one, model = side(0), PROBES[PRIMARY]()
    few = replace(one, groups=("a", "b") * 50)
    assert probing.cross_validate(model, one.x["h_last"], few, (0,), grouped=True) is None
    with pytest.raises(ValueError, match="NaN"):
        probing.cross_validate(model, one.x["h_last"] * float("nan"), one, (0,))


def test_probe_and_baselines_are_compared_on_the_same_folds() -> None:
    both = study(side(0, signal=SIGNAL), side(1, signal=SIGNAL))
    cv, fresh = probing.primary_scores(both)
    found = probing.all_baselines(both, lambda _, make: make(), fresh, cv.scores.mean(axis=0))
    seeds = {one["name"]: one["train"]["seeds"] for one in found if one["fitted"]}
    assert len(seeds) == 7 and set(seeds.values()) == {len(both.seeds)} == {2}
    # what a reading of cut answers asks for is the same difference
    paired = {one["name"]: one["probe_minus_baseline"] for one in found}
    assert probing.differences(both, fresh) == paired

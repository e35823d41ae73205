"""A run made by one engine, copied to another place, is falsified there beside another engine's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from arcs.arc3 import command as arc3
from arcs.capsules.contents import make
from arcs.falsification import command
from arcs.falsification.report import report
from models.errors import UserError
from models.store import prepare
from tests.support.arc3_bench import SMALL, written_run
from tests.support.printed import printed
from tests.support.tiny_models import build_tiny

LIMIT = 24
SCHEMA = Path(__file__).resolve().parents[2] / "docs" / "falsify-metrics.schema.json"


def made_on(root: Path, arch: str, engine: str, patch: pytest.MonkeyPatch) -> Path:
    """A run of Arc 3 of a tiny model under ``root``, of answers that were written by hand."""
    patch.setenv("THREEARC_CACHE", str(root / "cache"))
    model = build_tiny(arch, root / f"model-{arch}")
    answers = written_run(root / f"answers-{arch}", prepare(str(model)), limit=LIMIT)
    flags = {"model": str(model), "backend": engine, "profile": "quick", "limit": LIMIT}
    out = root / "runs" / f"arc3-{engine}"
    arc3.start({**flags, "ids_from": answers}, out=out, run=None, as_json=True)
    return out


def falsified(out: Path, **flags: Any) -> dict[str, Any]:
    command.start(flags, out=out, run=None, as_json=True)
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text())
    return found


@pytest.mark.slow
def test_a_run_of_mlx_is_falsified_where_only_its_copy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlx.core")
    monkeypatch.setattr("evals.probing.probes.MLP_ITERATIONS", 5)
    for config in ("arcs.arc3.config.Arc3Config", "arcs.falsification.config.FalsifyConfig"):
        monkeypatch.setattr(f"{config}.sizes", property(lambda _: SMALL))
    laptop, box = tmp_path / "laptop", tmp_path / "box"
    run = made_on(laptop, "llama", "mlx", monkeypatch)
    there = falsified(laptop / "runs" / "falsify-there", source=run)
    shutil.copytree(laptop / "runs", box / "runs")
    shutil.rmtree(laptop)
    # nothing of threearc that opens an engine is needed, nor the model
    monkeypatch.setattr("backends.open_backend", None)
    copy = box / "runs" / "arc3-mlx"
    here = falsified(box / "here", source=copy)
    assert here["steps"] == there["steps"] and here["claims"] == there["claims"]
    assert here["made_with"]["train"]["definition"]["engine"]["engine"] == "mlx"
    # what was falsified on the laptop is still that of the run beside it
    capsule = make(box / "runs" / "falsify-there")
    assert capsule["falsification"]["steps"] == there["steps"]
    with pytest.raises(UserError, match=r"RUN .*laptop.*: no run here") as caught:
        command.start({}, out=None, run=box / "runs" / "falsify-there", as_json=True)
    assert "\n" not in str(caught.value)
    # step 5 by a run that was made here, with torch
    monkeypatch.undo()
    for config in ("arcs.arc3.config.Arc3Config", "arcs.falsification.config.FalsifyConfig"):
        monkeypatch.setattr(f"{config}.sizes", property(lambda _: SMALL))
    other = made_on(box, "qwen3", "torch", monkeypatch)
    both = falsified(box / "both", source=copy, replication=other)
    jsonschema.validate(both, json.loads(SCHEMA.read_text()))
    engines = [both["made_with"][name]["definition"]["engine"]["engine"] for name in ("train",)]
    engines.append(both["made_with"]["replication"]["train"]["definition"]["engine"]["engine"])
    assert engines == ["mlx", "torch"]
    assert both["sets"]["fresh"]["made_by"]["states"] == "mlx float32"
    step = both["steps"][4]
    assert step["state"] != "not run" and step["unlike"] == {
        "states": ["mlx float32", "torch float32"]
    }
    said = printed(report(both))
    assert "States read by mlx float32, answers given by hand." in said
    assert "read otherwise (states: torch float32, here mlx float32)" in said
    assert str(laptop) not in (box / "both" / "metrics.json").read_text()

"""Probes of the engines: their arithmetic, and what happens when they end badly."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from arcs.doctor.engines import engine_findings, usable
from backends.probe_checks import (
    ALPHA,
    BETA,
    Operations,
    Progress,
    check_dtype,
    check_dtypes,
    rounded,
)
from backends.probing import ENGINES, probe_engine

ROOT = Path(__file__).resolve().parent.parent.parent


def _package(folder: Path, name: str, source: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)


# Probes that end badly ----------------------------------------------------------------------


def _python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_segmentation_fault_is_reported_with_what_was_tried():
    code = (
        "import ctypes, sys; print('probe: devices: metal', file=sys.stderr, flush=True);"
        "ctypes.string_at(0)"
    )
    probed = probe_engine("mlx", command=_python(code))
    assert probed.status == "crashed"
    assert "SIGSEGV" in (probed.reason or "") and "devices: metal" in (probed.reason or "")
    assert not usable(probed)


def test_a_probe_that_hangs_is_killed_with_its_children():
    code = (
        "import subprocess, sys, time; print('probe: import: mlx', file=sys.stderr, flush=True);"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"
    )
    start = time.monotonic()
    probed = probe_engine("mlx", limit=2, command=_python(code))
    assert probed.status == "timeout" and "import: mlx" in (probed.reason or "")
    assert time.monotonic() - start < 20  # the children hold the pipes for 60 s if they live


@pytest.mark.parametrize(
    "printed", ["not json", "", "[1]", '{"a": 1}', '{"status": "ok", "reason": null}']
)
def test_an_answer_that_makes_no_sense_is_called_that(printed):
    probed = probe_engine("torch", command=_python(f"print({printed!r})"))
    assert probed.status == "garbage" and not usable(probed)
    assert engine_findings(probed)[0].level == "problem"


def test_what_an_engine_prints_on_stdout_is_not_taken_for_the_answer(tmp_path, monkeypatch):
    noisy = "import os; os.write(1, b'hello from native code\\n'); print('hello')\n"
    _package(tmp_path, "llama_cpp", noisy + "raise OSError('libcuda.so.1: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    probed = probe_engine("llamacpp")
    assert probed.status == "broken" and "libcuda.so.1" in (probed.reason or "")


_ABORTS_IN_BFLOAT16 = """
import json, os, sys
if "--without=bfloat16" not in sys.argv:
    print("probe: bfloat16: matmul 4x4", file=sys.stderr, flush=True)
    os.abort()
entry = {"works": True, "reduced": False, "checks": {}, "seconds": 1.0, "slowdown": 1.0}
print(json.dumps({"status": "ok", "reason": None, "dtypes": {"float32": entry}}))
"""


def test_a_dtype_that_aborts_the_process_costs_only_itself():
    """ml-explore/mlx#2037: half-precision products ended the process."""
    probed = probe_engine("mlx", command=_python(_ABORTS_IN_BFLOAT16))
    assert probed.status == "ok"
    assert probed.document["dtypes"]["float32"]["works"]
    bfloat16 = probed.document["dtypes"]["bfloat16"]
    assert not bfloat16["works"]
    assert "SIGABRT" in bfloat16["checks"]["matmul 4x4"]["reason"]


def test_a_dtype_that_was_skipped_and_still_crashes_ends_the_asking():
    code = _ABORTS_IN_BFLOAT16.replace('"--without=bfloat16" not in sys.argv', "True")
    probed = probe_engine("mlx", command=_python(code))
    assert probed.status == "crashed" and str(signal.SIGABRT.name) in (probed.reason or "")


# Qwen3.5's kernels (QwenLM/Qwen3.8#37, #101) -----------------------------------------------


def test_optional_kernels_change_the_path_and_a_broken_one_is_named(tmp_path, monkeypatch):
    """fla can be imported, so transformers takes it, on this machine without a GPU as well."""
    _package(tmp_path, "fla", "")
    ops = "fla/ops/gated_delta_rule"
    function = "def chunk_gated_delta_rule(q, k, v, g, beta, **kwargs): raise NotImplementedError\n"
    (tmp_path / ops).mkdir(parents=True)
    (tmp_path / "fla/ops/__init__.py").write_text("")
    (tmp_path / ops / "__init__.py").write_text(function)
    (tmp_path / "fla/__init__.py").write_text(
        "from fla.ops.gated_delta_rule import chunk_gated_delta_rule\n"
    )
    _package(tmp_path, "causal_conv1d", "raise ImportError('undefined symbol: _ZN3c10')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    probed = probe_engine("torch")
    assert probed.status == "ok", probed.reason
    deltanet = probed.document["attention"]["deltanet"]
    assert deltanet["path"] == "fla"
    assert deltanet["packages"]["fla"]["importable"]
    assert deltanet["packages"]["causal_conv1d"]["installed"]
    assert not deltanet["packages"]["causal_conv1d"]["importable"]
    messages = " ".join(finding.message for finding in engine_findings(probed))
    assert "undefined symbol" in messages
    if not deltanet["works"]:
        assert "Gated DeltaNet from fla" in messages


# The checks themselves ----------------------------------------------------------------------


def _numpy(dtype: str = "float32", **wrong: Any) -> Operations:
    """A right engine, made of numpy, but for what ``wrong`` replaces."""

    def cut(values: Any) -> Any:
        return rounded(np.asarray(values, dtype=np.float32), dtype)

    right: dict[str, Any] = {
        "matmul": lambda a, b: cut(a @ b),
        "prepare": lambda a, b: lambda: None,
        "addmm": lambda c, a, b: cut(BETA * c + ALPHA * (a @ b)),
        "gradient": lambda a, b, w: (cut(w @ b.T), cut(a.T @ w)),
        "addmm_gradient": lambda c, a, b, w: (cut(BETA * w), cut(ALPHA * (w @ b.T))),
    }
    return Operations(**(right | wrong))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_right_engine_passes_every_check(dtype):
    found = check_dtype(dtype, _numpy, Progress())
    assert found["works"] and len(found["checks"]) == 5


def _tf32(values: Any) -> Any:
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) + np.uint32(1 << 12)
    return (bits & np.uint32(0xFFFFE000)).view(np.float32)


def _raises(*_: Any) -> Any:
    raise RuntimeError("[Matmul::eval_cpu] float16 not supported.")


@pytest.mark.parametrize(
    ("wrong", "check", "reduced"),
    [
        ({"addmm": lambda c, a, b: c + ALPHA * (a @ b)}, "addmm alpha 2, beta 0.5", False),
        ({"addmm": lambda c, a, b: BETA * c + a @ b}, "addmm alpha 2, beta 0.5", False),
        ({"gradient": lambda a, b, w: (w @ b, a.T @ w)}, "gradient of matmul", False),
        ({"addmm_gradient": lambda c, a, b, w: (w, ALPHA * (w @ b.T))}, "gradient of addmm", False),
        ({"matmul": lambda a, b: np.full_like(a, np.nan)}, "matmul 4x4", False),
        ({"matmul": _raises}, "matmul 64x64", False),
        ({"matmul": lambda a, b: _tf32(a) @ _tf32(b)}, "matmul 64x64", True),
    ],
)
def test_each_known_fault_fails_its_check(wrong, check, reduced):
    found = check_dtype("float32", lambda dtype: _numpy(dtype, **wrong), Progress())
    assert not found["works"]
    assert not found["checks"][check]["ok"] and found["checks"][check]["reason"]
    assert found["reduced"] == reduced


def test_slowdown_is_the_ratio_of_the_times():
    delays = {"float32": 0.002, "bfloat16": 0.02, "float16": 0.002}
    found = check_dtypes(
        lambda dtype: _numpy(dtype, prepare=lambda a, b: lambda: time.sleep(delays[dtype])),
        Progress(),
    )
    assert 5 < found["bfloat16"]["slowdown"] < 12  # sleeping overshoots, the shorter one by more
    assert found["float16"]["slowdown"] < 3


def test_rounding_to_half_precision_is_that_of_torch():
    import torch

    values = np.random.default_rng(3).standard_normal(4096).astype(np.float32)
    for dtype in ("bfloat16", "float16"):
        theirs = torch.from_numpy(values).to(getattr(torch, dtype)).float().numpy()
        assert np.array_equal(rounded(values, dtype), theirs)
        assert not np.array_equal(values, theirs)


def test_every_engine_is_known_to_the_probe():
    assert set(ENGINES) == {"torch", "mlx", "llamacpp"}
    for engine in ENGINES:
        assert (ROOT / "backends" / engine / "probe.py").is_file()

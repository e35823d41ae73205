"""``threearc doctor``: engines that work, crash, hang, lie or are missing; GPUs left unused."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from arcs.doctor import offload
from arcs.doctor.engines import engine_findings, unused_gpus, usable
from arcs.doctor.examination import gpus_of_engines
from arcs.doctor.findings import SECTIONS
from arcs.doctor.fits import SHAPES, Shape, describe_fits, nominal_size
from arcs.doctor.hardware import Gpu, find_gpus
from arcs.doctor.report import show
from arcs.doctor.system import (
    cpu_quota,
    describe_system,
    disk_findings,
    sandbox_findings,
    system_findings,
)
from arcs.progress import Reporter
from backends.llamacpp.library import Library
from backends.memory import model_size
from backends.probe_checks import TOLERANCES
from backends.probing import Probed
from models.registry import MODELS, find

ROOT = Path(__file__).resolve().parent.parent.parent
KEYS = {
    "schema", "ok", "seconds", "engines", "gpus", "sandbox", "memory", "disk", "system",
    "capabilities", "will_not_work", "findings",
}  # fmt: skip
ENGINE_KEYS = {"title", "status", "usable", "reason", "seconds", "install"}
ANSWERED_KEYS = ENGINE_KEYS | {
    "versions", "missing_packages", "devices", "build", "dtypes", "threads", "blas", "tf32",
    "attention",
}  # fmt: skip


def _doctor(*flags: str, shadow: Path | None = None, **more: str) -> subprocess.CompletedProcess:
    """Run the command; modules in ``shadow`` hide installed ones."""
    paths = [str(ROOT), *([str(shadow)] if shadow else [])]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), **more}
    code = "from arcs.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "doctor", *flags],
        env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def _package(folder: Path, name: str, source: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(source)


def _absent(folder: Path, *names: str) -> None:
    """Packages that cannot be found, as far as importing them tells."""
    for name in names:
        _package(
            folder, name, f"raise ModuleNotFoundError('No module named {name}', name='{name}')"
        )


# On this machine ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> dict[str, Any]:
    done = _doctor("--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_document_has_its_keys_and_each_is_documented(real):
    assert set(real) == KEYS
    text = (ROOT / "docs" / "doctor.md").read_text()
    for entry in real["engines"].values():
        assert set(entry) >= ANSWERED_KEYS
    for key in {*KEYS, *(key for entry in real["engines"].values() for key in entry)}:
        assert f"`{key}`" in text, key
    for section in ("sandbox", "disk", "memory"):
        for key in real[section]:
            assert f"`{key}`" in text, key
    assert {finding["section"] for finding in real["findings"]} <= set(SECTIONS)


def test_installed_engines_work_in_float32_and_are_compared_with_numpy(real):
    for name, entry in real["engines"].items():
        assert entry["status"] == "ok" and entry["usable"], (name, entry["reason"])
        float32 = entry["dtypes"]["float32"]
        assert float32["works"] and float32["slowdown"] == 1.0
        assert {"matmul 4x4", "matmul 64x64"} <= set(float32["checks"])
        assert all(check["error"] < 1e-5 for check in float32["checks"].values())
    training = ("addmm alpha 2, beta 0.5", "gradient of matmul", "gradient of addmm")
    for name in ("torch", "mlx"):
        for dtype in ("float32", "bfloat16", "float16"):
            assert set(training) <= set(real["engines"][name]["dtypes"][dtype]["checks"])


def test_half_precision_was_really_computed_in_half_precision(real):
    """Else the bfloat16 row would be float32 under another name."""
    for name in ("torch", "mlx"):
        error = real["engines"][name]["dtypes"]["bfloat16"]["checks"]["matmul 64x64"]["error"]
        assert 1e-4 < error <= TOLERANCES["bfloat16"]


def test_it_is_fast_enough_to_be_run_by_anyone(real):
    """Some ten seconds here; the bound is wide since CI machines are busy."""
    assert real["seconds"] < 60


def test_capabilities_devices_and_memory_are_said(real):
    assert all(capability["works"] for capability in real["capabilities"].values())
    for entry in real["engines"].values():
        assert sum(device["used"] for device in entry["devices"]) == 1
    assert real["memory"]["free"] > 0
    assert {model["name"] for model in real["memory"]["models"]} == {spec.name for spec in MODELS}
    assert real["engines"]["torch"]["attention"]["deltanet"]["path"] == "transformers"


def test_the_report_shows_every_section_and_finding(real):
    out = io.StringIO()
    show(real, Console(file=out, width=100, highlight=False))
    text = out.getvalue()
    for title in ("Engines", "GPUs", "Model-written code", "Memory", "Disk", "System"):
        assert title in text
    for finding in real["findings"]:
        assert finding["message"] in text
        assert finding["level"] in text


# Sick machines, through the command ---------------------------------------------------------


@pytest.fixture(scope="module")
def sick(tmp_path_factory) -> subprocess.CompletedProcess:
    """MLX segfaults on import, llama.cpp is missing, and there is a GPU that torch cannot use."""
    shadow = tmp_path_factory.mktemp("sick")
    _package(shadow, "mlx", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    _absent(shadow, "llama_cpp")
    _fake_nvidia_smi(shadow / "bin")
    path = f"{shadow / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return _doctor("--json", shadow=shadow, PATH=path)


def _fake_nvidia_smi(folder: Path) -> None:
    folder.mkdir()
    script = folder / "nvidia-smi"
    script.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 580.65.06'\n")
    script.chmod(0o755)


def test_a_crash_a_missing_engine_and_an_unused_gpu_leave_the_rest_of_the_report(sick):
    assert sick.returncode == 0, sick.stderr
    document = json.loads(sick.stdout)
    engines = document["engines"]
    assert {name: entry["status"] for name, entry in engines.items()} == {
        "torch": "ok", "mlx": "crashed", "llamacpp": "missing",
    }  # fmt: skip
    assert "SIGSEGV" in engines["mlx"]["reason"]
    messages = {finding["message"]: finding for finding in document["findings"]}
    crash = next(m for m in messages if m.startswith("MLX crashes"))
    assert messages[crash]["level"] == "problem"
    missing = next(m for m in messages if m.startswith("llama.cpp is not installed"))
    assert messages[missing]["fix"].endswith('-m pip install "threearc[llama]"')
    quantised = document["capabilities"]["quantised evaluation (threearc arc1)"]
    assert not quantised["works"] and "threearc[llama]" in quantised["reason"]
    assert any("quantised" in row["what"] for row in document["will_not_work"])


def test_a_gpu_that_torch_does_not_use_is_loud_and_names_the_command(sick):
    document = json.loads(sick.stdout)
    assert document["gpus"] == [
        {"maker": "nvidia", "name": "NVIDIA H100 80GB HBM3", "memory": 81559 << 20,
         "driver": "580.65.06", "source": "nvidia-smi"}
    ]  # fmt: skip
    loud = [finding for finding in document["findings"] if finding["loud"]]
    assert len(loud) == 1 and loud[0]["level"] == "problem"
    assert "H100" in loud[0]["message"] and "PyTorch does not use it" in loud[0]["message"]
    assert "pip install" in loud[0]["fix"] and "download.pytorch.org/whl/cu130" in loud[0]["fix"]
    out = io.StringIO()
    show(document, Console(file=out, width=100, highlight=False))
    assert "GPU NOT USED" in out.getvalue()


def test_without_any_engine_the_exit_status_is_1_and_every_install_line_is_given(tmp_path):
    _absent(tmp_path, "torch", "mlx", "llama_cpp")
    done = _doctor("--json", shadow=tmp_path)
    assert done.returncode == 1
    document = json.loads(done.stdout)
    assert not document["ok"]
    fixes = " ".join(finding["fix"] or "" for finding in document["findings"])
    for extra in ("torch", "mlx", "llama"):
        assert f'pip install "threearc[{extra}]"' in fixes
    people = _doctor(shadow=tmp_path)
    assert people.returncode == 1 and "No engine works" in people.stdout


# Findings -----------------------------------------------------------------------------------


def _entry(**changes: Any) -> dict[str, Any]:
    return {
        "works": True,
        "reduced": False,
        "checks": {},
        "seconds": 1.0,
        "slowdown": 1.0,
    } | changes


def _answer(engine: str = "torch", kind: str = "cpu", **dtypes: Any) -> Probed:
    device = {"name": kind, "kind": kind, "title": "X", "free": 1, "total": None, "used": True}
    document = {
        "missing_packages": [], "devices": [device], "build": "cpu", "attention": {},
        "dtypes": {"float32": _entry()} | dtypes, "tf32": {"switch": "export X=0"},
    }  # fmt: skip
    return Probed(engine, "ok", None, document)


def test_slow_and_failing_dtypes_are_warned_about(monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)  # a finding of its own
    failing = {"matmul 4x4": {"ok": False, "error": None, "reason": "not supported"}}
    probed = _answer(bfloat16=_entry(slowdown=11.2), float16=_entry(works=False, checks=failing))
    messages = [finding.message for finding in engine_findings(probed)]
    assert any("bfloat16 is 11 times slower" in message for message in messages)
    assert any("float16 does not work here: matmul 4x4" in message for message in messages)
    quiet = [f.level for f in engine_findings(_answer(bfloat16=_entry(slowdown=0.5)))]
    assert quiet == ["ok"]


def test_a_preloaded_blas_is_warned_about_where_it_does_harm(monkeypatch):
    """Torch brings its own BLAS (backends.wants_fast_blas)."""
    monkeypatch.setenv("LD_PRELOAD", "/usr/lib/libopenblas.so.0")
    assert any(finding.fix == "unset LD_PRELOAD" for finding in engine_findings(_answer("torch")))
    assert [f.level for f in engine_findings(_answer("llamacpp"))] == ["ok"]


def test_a_missing_fast_blas_is_warned_about_where_mlx_needs_it(monkeypatch):
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    monkeypatch.setattr("backends.blas.needed", lambda: True)
    monkeypatch.setattr("backends.blas.find_library", lambda: None)
    assert any("libopenblas0-pthread" in f.message for f in engine_findings(_answer("mlx")))
    monkeypatch.setattr("backends.blas.find_library", lambda: "/usr/lib/libopenblas.so.0")
    assert [f.level for f in engine_findings(_answer("mlx"))] == ["ok"]


def test_an_engine_that_is_wrong_in_float32_is_not_usable_and_tf32_is():
    assert not usable(_answer(float32=_entry(works=False)))
    reduced = _answer(float32=_entry(works=False, reduced=True))
    assert usable(reduced)
    assert any(finding.fix == "export X=0" for finding in engine_findings(reduced))


def test_an_engine_that_is_only_slow_is_asked_again_before_it_is_installed_anew():
    (slow,) = engine_findings(Probed("torch", "timeout", "no answer within 90 s"))
    (dead,) = engine_findings(Probed("torch", "crashed", "SIGILL"))
    assert slow.level == dead.level == "problem"
    assert slow.fix is not None and slow.fix.startswith(
        "run doctor again when the machine is quiet"
    )
    assert dead.fix is not None and dead.fix.startswith("install it anew")


NVIDIA = Gpu("nvidia", "NVIDIA L4", 24 << 30, "550.54", "nvidia-smi")


@pytest.mark.parametrize(
    ("engine", "kind", "fix"),
    [
        ("torch", "cuda", "download.pytorch.org/whl/cu126"),
        ("mlx", "cuda", "mlx[cuda12]"),
        ("llamacpp", "gpu", "-DGGML_CUDA=on"),
    ],
)
def test_a_gpu_is_loud_for_each_engine_that_leaves_it_and_silent_for_one_that_uses_it(
    engine, kind, fix, monkeypatch
):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (finding,) = unused_gpus([NVIDIA], [_answer(engine)])
    assert finding.loud and fix in (finding.fix or "")
    assert unused_gpus([NVIDIA], [_answer(engine, kind)]) == []
    assert unused_gpus([], [_answer(engine)]) == []


def test_a_gpu_that_only_torch_sees_is_loud_for_llamacpp():
    torch, llama = _answer("torch", "cuda"), _answer("llamacpp")
    (seen,) = gpus_of_engines([torch, llama])
    assert (seen.maker, seen.source) == ("nvidia", "PyTorch")
    (finding,) = unused_gpus([seen], [torch, llama])
    assert finding.loud and 'CMAKE_ARGS="-DGGML_CUDA=on"' in (finding.fix or "")
    assert gpus_of_engines([_answer("torch"), llama]) == []


@pytest.mark.parametrize(
    ("gpu", "flag"),
    [
        (NVIDIA, "-DGGML_CUDA=on"),
        (Gpu("apple", "Apple M3 GPU", None, None, "x"), "-DGGML_METAL=on"),
    ],
)
def test_a_decode_begins_with_one_warning_where_llamacpp_leaves_a_gpu(
    gpu, flag, monkeypatch, capsys
):
    monkeypatch.setattr(offload, "find_gpus", lambda: [gpu])
    offload.warn_unused_gpu(-1, Reporter())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {gpu.name} is present") and flag in line
    assert "--force-reinstall --no-deps --no-cache-dir llama-cpp-python" in line
    offload.warn_unused_gpu(0, Reporter())  # the CPU was asked for
    monkeypatch.setattr(offload, "find_gpus", lambda: [replace(gpu, maker="amd")])
    offload.warn_unused_gpu(-1, Reporter())
    monkeypatch.setattr(offload, "find_gpus", lambda: [gpu])
    monkeypatch.setattr(Library, "supports_gpu", True)
    offload.warn_unused_gpu(-1, Reporter())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", [["eval"], ["arc1", "--backend", "torch"]])
def test_eval_and_arc1_warn_before_anything_else(command, monkeypatch, capsys, tmp_path):
    from arcs.cli import main

    monkeypatch.setattr(offload, "find_gpus", lambda: [NVIDIA])
    gone = str(tmp_path / "no-such-model")
    with pytest.raises(SystemExit):
        main([*command, "--model", gone, "--out", str(tmp_path / "run")])
    assert "warning: NVIDIA L4 is present and this llama.cpp cannot use it" in (
        capsys.readouterr().err
    )


def test_hidden_gpus_are_to_be_unhidden_and_not_reinstalled(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (finding,) = unused_gpus([NVIDIA], [_answer("torch")])
    assert finding.fix == "unset CUDA_VISIBLE_DEVICES"


def test_apple_silicon_is_loud_when_mlx_is_on_the_cpu():
    m3 = Gpu("apple", "Apple M3 GPU", None, None, "sysctl")
    assert unused_gpus([m3], [_answer("mlx")])[0].loud
    assert unused_gpus([m3], [_answer("mlx", "metal")]) == []


def test_gpus_are_found_without_nvidia_smi(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    card = tmp_path / "proc/driver/nvidia/gpus/0000:01:00.0"
    card.mkdir(parents=True)
    (card / "information").write_text("Model: \t NVIDIA RTX 4090\nIRQ: 5\n")
    (found,) = find_gpus(tmp_path / "proc", tmp_path / "none")
    assert (found.name, found.source) == ("NVIDIA RTX 4090", "/proc/driver/nvidia")
    device = tmp_path / "sys/bus/pci/devices/0000:02:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030200\n")
    (found,) = find_gpus(tmp_path / "none", tmp_path / "sys")
    assert "no driver" in found.source
    (device / "class").write_text("0x020000\n")  # a network card of the same maker
    assert find_gpus(tmp_path / "none", tmp_path / "sys") == []


def test_missing_isolation_and_a_full_disk_are_problems():
    none = {"level": None, "unavailable": {"bubblewrap": "not installed"}}
    assert sandbox_findings(none)[0].level == "problem"
    assert "--allow-weak-sandbox" in (sandbox_findings(none)[0].fix or "")
    disk = {"cache": "/c", "cache_bytes": 0, "free": 10**8, "writable": True}
    assert disk_findings(disk)[0].level == "problem"
    assert disk_findings(disk | {"free": 10**11})[0].level == "ok"
    assert disk_findings(disk | {"writable": False, "free": 10**11})[0].level == "problem"


def test_a_busy_machine_makes_times_rough_and_an_idle_one_does_not():
    system = describe_system() | {"usable_cores": 2, "cpu_quota": None}
    busy = [finding.message for finding in system_findings(system | {"load": 7.0})]
    assert any("times are rough" in message for message in busy)
    idle = [finding.message for finding in system_findings(system | {"load": 0.5})]
    assert not any("times are rough" in message for message in idle)
    assert [f.level for f in system_findings(system | {"load": 0.5, "cpu_quota": 1.0})][-1] != "ok"


def test_a_cpu_quota_is_read_in_cores(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path) is None


# Memory -------------------------------------------------------------------------------------


def test_published_shapes_are_those_of_the_files_where_there_are_files(smollm_directory):
    real = model_size(smollm_directory)
    spec = find("SmolLM2-135M-Instruct")
    nominal = nominal_size(spec, SHAPES[spec.name])
    assert nominal.linear_modules == real.linear_modules
    assert (nominal.hidden, nominal.intermediate, nominal.vocab) == (
        real.hidden, real.intermediate, real.vocab,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arch", "shape", "head_dim", "o_proj_layers"),
    [
        ("llama", Shape(96, 192, 512, 6, 2), 16, (0, 1, 2)),
        ("qwen3", Shape(96, 192, 512, 4, 2), 32, (0, 1, 2)),
        ("qwen3_5", Shape(96, 192, 512, 4, 2, 4, 32), 32, (3,)),
    ],
)
def test_layers_made_from_a_shape_are_those_of_a_real_model(
    arch, shape, head_dim, o_proj_layers, tiny_directory
):
    """But for the two projections of a DeltaNet layer to one number a head."""
    real = model_size(tiny_directory(arch)).linear_modules
    spec = replace(
        MODELS[0], n_layers=4 if arch == "qwen3_5" else 3, o_proj_layers=o_proj_layers,
        head_dims=(head_dim,),
    )  # fmt: skip
    made = nominal_size(spec, shape).linear_modules
    small = {name for name in real if name.endswith(("in_proj_a", "in_proj_b"))}
    assert made == {name: sizes for name, sizes in real.items() if name not in small}


def test_shapes_account_for_the_nominal_parameter_counts():
    """Linear layers and one embedding make up the count, within what a name rounds off.

    Gemma 4 has 2.4 B parameters of per-layer embeddings beside them (and the wide MLP of its
    upper layers is taken for all of them), Qwen3.5 a vision tower in no count here.
    """
    for spec in MODELS:
        if spec.family == "gemma4":
            continue
        size = nominal_size(spec, SHAPES[spec.name])
        linear = sum(out * into for out, into in size.linear_modules.values())
        counted = linear + size.vocab * size.hidden
        assert abs(counted / spec.parameters - 1) < 0.08, (spec.name, counted)


def test_less_memory_fits_less():
    roomy, tight = describe_fits(10**12, "CPU"), describe_fits(10**9, "CPU")
    assert all(m["training"]["float32"]["fits"] == "yes" for m in roomy["models"])
    assert all(m["training"]["float32"]["fits"] == "no" for m in tight["models"])
    for model in roomy["models"]:
        assert model["inference"]["bfloat16"]["bytes"] < model["inference"]["float32"]["bytes"]
        assert model["training"]["float32"]["bytes"] > model["inference"]["float32"]["bytes"] / 2

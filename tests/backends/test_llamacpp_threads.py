"""The default number of threads: cores that this process really has."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("psutil")

from backends.llamacpp import threads


@pytest.fixture
def machine(monkeypatch):
    """64 physical cores, all allowed, no quota."""
    monkeypatch.setattr(threads.psutil, "cpu_count", lambda logical: 128 if logical else 64)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: set(range(128)), raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)
    monkeypatch.setattr(threads.platform, "system", lambda: "Linux")
    return monkeypatch


def test_hyperthreads_do_not_count(machine):
    assert threads.default_threads() == 64


def test_a_process_bound_to_three_cpus_gets_three(machine):
    machine.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1, 5})
    assert threads.default_threads() == 3


@pytest.mark.parametrize(("quota", "wanted"), [(2.0, 2), (3.9, 3), (0.5, 1), (500.0, 64)])
def test_a_containers_quota_counts(machine, quota, wanted):
    machine.setattr(threads, "cpu_quota", lambda: quota)
    assert threads.default_threads() == wanted


@pytest.mark.parametrize(("stdout", "code", "wanted"), [("8\n", 0, 8), ("", 1, 64)])
def test_only_apples_fast_cores_count(machine, stdout, code, wanted):
    def sysctl(asked, **_):
        assert asked[-1] == "hw.perflevel0.physicalcpu"
        return subprocess.CompletedProcess(asked, code, stdout, "")

    machine.setattr(threads.platform, "system", lambda: "Darwin")
    machine.setattr(threads.subprocess, "run", sysctl)
    machine.delattr(threads.os, "sched_getaffinity", raising=False)
    assert threads.default_threads() == wanted


def _groups(root: Path, own: str, **files: str) -> tuple[Path, Path]:
    for name, text in files.items():
        path = root / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "own").write_text(own)
    return root / "groups", root / "own"


@pytest.mark.parametrize(
    ("own", "files", "wanted"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1.5),
        ("0::/a\n", {"a/cpu.max": "400000 100000\n", "a/c/cpu.max": "100000 100000\n"}, 4.0),
        ("3:cpu,cpuacct:/x\n2:memory:/y\n",
         {"cpu/x/cpu.cfs_quota_us": "300000\n", "cpu/x/cpu.cfs_period_us": "100000\n"}, 3.0),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/a\n", {"cpu.max": "100000 100000\n", "a/cpu.max": "900000 100000\n"}, 1.0),
        ("3:cpu:/x\n2:memory:/y\n",
         {"cpu/y/cpu.cfs_quota_us": "100000\n", "cpu/y/cpu.cfs_period_us": "100000\n"}, None),
    ],
)  # fmt: skip
def test_quotas_of_both_versions_of_control_groups(tmp_path, own, files, wanted):
    assert threads.cpu_quota(*_groups(tmp_path, own, **files)) == wanted


def test_no_control_groups_is_no_limit(tmp_path):
    assert threads.cpu_quota(tmp_path, tmp_path / "absent") is None

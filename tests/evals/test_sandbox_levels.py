"""Which isolation level is used, and that its declaration is tried before it is believed."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from evals.humaneval.problems import dataset_path
from evals.humaneval.sandbox import Hazard, Limits, detect, detect_level, level_named, levels_here
from evals.humaneval.sandbox.interpreter import hidden_paths, without
from evals.humaneval.sandbox.level import IsolationLevel
from evals.humaneval.sandbox.linux import NotAvailableError, limits_only
from evals.humaneval.sandbox.macos import profile
from evals.humaneval.sandbox.programs import lockdown, seccomp
from models.errors import UserError

WEAK = limits_only()


def unavailable() -> IsolationLevel:
    raise NotAvailableError("not here")


@pytest.fixture
def nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detect, "_known", lambda: {"bubblewrap": unavailable})
    detect._availability.cache_clear()
    yield
    detect._availability.cache_clear()


def test_the_strongest_that_works_is_chosen() -> None:
    working = [found.level for found in levels_here() if found.level is not None]
    assert detect_level(allow_weak=True) is working[0]


@pytest.mark.skipif(sys.platform != "linux", reason="the levels of Linux")
@pytest.mark.parametrize(
    ("name", "trial"),
    [
        ("bubblewrap", ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]),
        ("namespaces", ["unshare", "--user", "--map-root-user", "--pid", "--net", "true"]),
        ("landlock", ["true"]),
    ],
)
def test_a_level_is_not_lost_where_its_mechanism_works(name: str, trial: list[str]) -> None:
    """Otherwise a defect of ours would only make its tests disappear."""
    if shutil.which(trial[0]) is None or subprocess.run(trial, check=False).returncode:
        pytest.skip(f"{trial[0]} does not work on this machine")
    if name != "bubblewrap" and lockdown.landlock_version() < lockdown.LANDLOCK_MINIMUM:
        pytest.skip("no Landlock of a sufficient version")
    assert level_named(name).name == name


def test_every_level_but_limits_declares_everything() -> None:
    for found in levels_here():
        if found.level is not None and found.name != "limits":
            assert found.level.contains == set(Hazard)
    assert Hazard.NETWORK not in WEAK.contains


@pytest.mark.usefixtures("nothing_works")
def test_without_isolation_one_line_says_what_to_do() -> None:
    with pytest.raises(UserError, match=r"no isolation available.*--allow-weak-sandbox") as error:
        detect_level()
    assert "bubblewrap: not here" in str(error.value)
    assert "\n" not in str(error.value)
    assert detect_level(allow_weak=True).name == "limits"


@pytest.mark.usefixtures("nothing_works")
def test_a_level_asked_for_by_name_is_never_replaced() -> None:
    with pytest.raises(UserError, match="bubblewrap does not work here: not here"):
        level_named("bubblewrap")
    with pytest.raises(UserError, match="choose from bubblewrap, limits"):
        level_named("docker")


@pytest.mark.parametrize(
    "hazard", [Hazard.READ_FILES, Hazard.WRITE_OUTSIDE, Hazard.NETWORK, Hazard.SIGNALS]
)
def test_a_level_that_declares_what_it_does_not_contain_is_refused(hazard: Hazard) -> None:
    boast = dataclasses.replace(WEAK, contains=WEAK.contains | {hazard})
    with pytest.raises(NotAvailableError, match="failed: assert candidate"):
        detect._probe(boast)


def test_a_launcher_that_fails_is_refused_with_its_own_words() -> None:
    script = "import sys; sys.exit('cannot do it here')"
    broken = dataclasses.replace(WEAK, launch=lambda scratch, line: [sys.executable, "-c", script])
    with pytest.raises(NotAvailableError, match="did not start: cannot do it here"):
        detect._probe(broken)


def test_the_descriptions_are_for_a_manifest() -> None:
    described = WEAK.description()
    assert described["contains"] == ["cpu", "wall", "memory", "output"]
    assert "network" in described["does_not_contain"]
    assert Limits(cpu_seconds=3).description()["cpu_seconds"] == 3


def test_the_dataset_is_below_a_hidden_path() -> None:
    path = dataset_path().resolve()
    assert any(path.is_relative_to(hidden) for hidden in hidden_paths())


def test_a_folder_is_granted_without_what_it_hides(tmp_path: Path) -> None:
    for name in ("a/kept", "a/site-packages/x", "b"):
        (tmp_path / name).mkdir(parents=True)
    hidden = (tmp_path / "a/site-packages",)
    assert without(tmp_path, hidden) == [tmp_path / "a/kept", tmp_path / "b"]
    assert without(tmp_path / "b", hidden) == [tmp_path / "b"]
    assert without(hidden[0], hidden) == []


def test_the_macos_profile_denies_first_and_quotes_paths() -> None:
    rules = profile(Path('/tmp/a "b"')).splitlines()
    assert rules[:2] == ["(version 1)", "(allow default)"]
    assert "(deny network*)" in rules
    assert "(deny process-fork)" in rules
    written = next(rule for rule in rules if rule.startswith("(allow file-write* "))
    assert written == '(allow file-write* (subpath "/tmp/a \\"b\\""))'
    assert rules.index("(deny file-write*)") < rules.index(written)


@pytest.mark.parametrize("machine", sorted(seccomp.ARCHITECTURES))
def test_the_filter_refuses_and_allows_as_written(machine: str) -> None:
    """The program is interpreted here, as the kernel does, for every call it names."""
    program = seccomp.filter_program(machine, 77)
    architecture = seccomp.ARCHITECTURES[machine]

    def verdict(number: int, *arguments: int, arch: int = architecture) -> str:
        return {0x7FFF0000: "allow", 0x80000000: "kill", 0x00050001: "refuse"}[
            interpret(program, number, arch, arguments)
        ]

    for call in seccomp.DENIED.values():
        number = getattr(call, machine)
        assert number is None or verdict(number) == "refuse"
    for call in seccomp.OWN_PROCESS_ONLY.values():
        number = getattr(call, machine)
        assert [verdict(number, pid) for pid in (0, 77, 78)] == ["allow", "allow", "refuse"]
    for call, commands in seccomp.DENIED_COMMANDS.values():
        number = getattr(call, machine)
        assert {verdict(number, 3, command) for command in commands} == {"refuse"}
        assert verdict(number, 3, 1) == "allow"
    write, read = {"x86_64": (1, 0), "aarch64": (64, 63)}[machine]
    assert [verdict(write), verdict(read)] == ["allow", "allow"]
    assert verdict(write, arch=1) == "kill"
    assert verdict(0x40000000 | write) == "refuse"


def interpret(program: bytes, number: int, arch: int, arguments: tuple[int, ...]) -> int:
    import struct

    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("=IIQ6Q", number, arch, 0, *padded)
    at = accumulator = 0
    while True:
        code, if_true, if_false, value = struct.unpack_from("=HBBI", program, 8 * at)
        at += 1
        if code == 0x06:
            return int(value)
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        else:
            holds = accumulator == value if code == 0x15 else accumulator >= value
            at += if_true if holds else if_false


def test_a_machine_without_a_table_has_no_filter() -> None:
    with pytest.raises(OSError, match="no system-call table"):
        seccomp.filter_program("riscv64", 1)

"""The mistakes of the first hour, before there is a threearc: installing it; and CI for users."""

from __future__ import annotations

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

NO_COMPILER = """\
      *** scikit-build-core 1.1.2 using CMake 4.4.5 (wheel)
      *** Configuring CMake...
        Could not find the compiler specified in the environment variable CC:
        gcc.
      CMake Error: CMAKE_C_COMPILER not set, after EnableLanguage
      CMake Error: CMAKE_CXX_COMPILER not set, after EnableLanguage
      *** CMake configuration failed
  ERROR: Failed building wheel for llama-cpp-python
"""
"""As pip said it where there was none."""
KILLED = """\
      c++: fatal error: Killed signal terminated program cc1plus
  ERROR: Failed building wheel for llama-cpp-python
"""
NO_NETWORK = """\
WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError("Failed to \
establish a new connection: [Errno -3] Temporary failure in name resolution")': /simple/numpy/
ERROR: Could not find a version that satisfies the requirement numpy>=2.0 (from versions: none)
ERROR: No matching distribution found for numpy>=2.0
"""
NO_BUILD = """\
ERROR: Could not find a version that satisfies the requirement torch>=2.9 (from versions: none)
ERROR: No matching distribution found for torch>=2.9
"""


def set_up(
    folder: Path, pip_says: str, version: str = "3.11.7"
) -> subprocess.CompletedProcess[str]:
    """``.ci/setup all`` in a copy whose Python has ``version`` and whose pip fails as it says."""
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci" / "setup", folder / ".ci" / "setup")
    for name in ("pyproject.toml", "constraints.txt"):
        (folder / name).touch()
    (folder / "said").write_text(pip_says)
    python = folder / "python"
    major, minor, _ = version.split(".")
    python.write_text(
        "#!/bin/sh\n"
        f'[ "$1" = -V ] && {{ echo "Python {version}"; exit 0; }}\n'
        f'[ "$1" = -c ] && exit {int((int(major), int(minor)) < (3, 11))}\n'
        f'if [ "$2" = venv ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; exit 0; fi\n'
        f'if [ "$4" = --upgrade ] || [ ! -s said ]; then exit 0; fi\n'
        "cat said; exit 1\n"
    )
    python.chmod(0o755)
    return subprocess.run(
        ["sh", ".ci/setup", "all"], cwd=folder, check=False, capture_output=True, text=True,
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("pip_says", "version", "complaint"),
    [
        ("", "3.10.13", "needs Python 3.11 or newer"),
        (NO_COMPILER, "3.11.7", "there is no C++ compiler: on Debian and Ubuntu apt install build"),
        (KILLED, "3.11.7", "killed, most likely for memory: run again with CMAKE_BUILD_PARALLEL"),
        (NO_NETWORK, "3.11.7", "the package registry cannot be reached: check the network"),
        ("ERROR: [Errno 28] No space left on device\n", "3.11.7", "the disk is full"),
        (NO_BUILD, "3.14.0", "the registry has no torch>=2.9 for Python 3.14.0 here: remove .venv"),
        ("ERROR: something new\n", "3.11.7", "pip could not install threearc[all]"),
    ],
)
def test_what_keeps_threearc_from_being_installed_is_one_line(
    tmp_path: Path, pip_says: str, version: str, complaint: str
) -> None:
    done = set_up(tmp_path / "clone", pip_says, version)
    assert done.returncode == 2 and done.stdout == ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and complaint in errors[0]
    assert done.stderr.splitlines()[-1] == errors[0]
    assert not (tmp_path / "clone" / ".venv" / ".threearc-all").exists()  # the next try installs
    log = tmp_path / "clone" / ".venv" / "threearc-install.log"
    assert not pip_says or log.read_text() == pip_says


def test_an_installation_that_succeeds_is_not_repeated(tmp_path: Path) -> None:
    assert set_up(tmp_path / "clone", "").returncode == 0
    assert (tmp_path / "clone" / ".venv" / ".threearc-all").exists()


def test_every_file_of_the_packages_goes_into_the_wheel() -> None:
    """What .ci/wheel checks on the wheel itself, for each kind of file."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    for top in ("models", "backends", "evals", "arcs"):
        assert f"{top}*" in settings["packages"]["find"]["include"]
        files = {one for one in (ROOT / top).rglob("*")
                 if one.is_file() and "__pycache__" not in one.parts}  # fmt: skip
        code = {one for one in files if one.suffix == ".py"}
        assert not [one for one in code if not (one.parent / "__init__.py").exists()]
        globs = settings["package-data"].get(top, [])
        assert files - code <= {one for glob in globs for one in (ROOT / top).glob(glob)}


def test_ci_for_users_builds_the_wheel_once_and_uses_it_on_both_systems() -> None:
    jobs = yaml.safe_load((ROOT / ".github/workflows/users.yml").read_text())["jobs"]
    for job in jobs.values():
        assert set(job["strategy"]["matrix"]["os"]) == {"macos-14", "ubuntu-latest"}
    scripts = {name: "\n".join(step.get("run", "") for step in job["steps"])
               for name, job in jobs.items()}  # fmt: skip
    assert ".ci/wheel" in scripts["wheel"] and ".ci/wheel all" in scripts["everything"]
    assert jobs["everything"]["needs"] == "wheel"
    script = ROOT / ".ci" / "wheel"
    assert script.stat().st_mode & 0o111
    assert "threearc arc1 --profile quick" in script.read_text()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0

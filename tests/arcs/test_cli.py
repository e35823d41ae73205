"""The command line as a whole: quick to start, engines untouched until they are needed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import call_here

THREEARC = str(Path(sys.executable).parent / "threearc")


def test_help_loads_no_engine_and_nothing_heavy():
    """What keeps ``threearc --help`` under half a second, without a timed test."""
    code = (
        "import sys\nfrom arcs.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'mlx', 'llama_cpp', 'transformers', 'numpy', 'scipy', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "arc1" in done.stdout


def test_models_json_is_one_document():
    done = subprocess.run(
        [THREEARC, "models", "--json"], capture_output=True, text=True, check=True
    )
    names = {row["name"] for row in json.loads(done.stdout)["models"]}
    assert {"Qwen3-0.6B", "Qwen3-1.7B", "SmolLM2-1.7B-Instruct", "SmolLM2-135M-Instruct"} <= names


def test_unfinished_downloads_are_said_only_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "a b"))
    assert "unfinished" not in call_here("models").stdout
    blobs = tmp_path / "a b" / "models--me--tiny" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "e.1.incomplete").write_bytes(bytes(1500))
    (blobs / "whole").write_bytes(bytes(9))
    said = call_here("models").stdout
    assert "1 unfinished download(s), 1.5 kB" in said and f"rm '{blobs}'/*.incomplete" in said
    found = json.loads(call_here("models", "--json").stdout)["unfinished_downloads"]
    assert found == [{"path": str(blobs / "e.1.incomplete"), "bytes": 1500}]


def test_a_mistake_has_a_non_zero_exit():
    done = subprocess.run([THREEARC, "arc9"], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""


def test_reading_only_the_head_of_the_output_is_no_error():
    done = subprocess.run(
        f"{THREEARC} models --json | head -c 1",
        check=False,
        shell=True,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr


def test_engines_are_imported_only_inside_their_own_module():
    """The layering of DESIGN section 2, read from the source."""
    import ast

    root = Path(__file__).resolve().parent.parent.parent
    homes = {"torch": "backends/torch", "mlx": "backends/mlx", "mlx_lm": "backends/mlx",
             "llama_cpp": "backends/llamacpp", "peft": "backends/torch"}  # fmt: skip
    left_of = {"models": ("backends", "evals", "arcs"), "backends": ("evals", "arcs"),
               "evals": ("arcs",)}  # fmt: skip
    for package in ("models", "backends", "evals", "arcs"):
        for path in sorted((root / package).rglob("*.py")):
            where = path.relative_to(root).as_posix()
            for node in ast.walk(ast.parse(path.read_text())):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module or ""]
                for top in {name.split(".")[0] for name in names}:
                    assert where.startswith(homes.get(top, "")), f"{where} imports {top}"
                    assert top not in left_of.get(package, ()), f"{where} imports {top}"


def test_no_backend_is_named_in_a_condition_outside_backends():
    import re

    root = Path(__file__).resolve().parent.parent.parent
    pattern = re.compile(r"""(==|!=|\bin\b)\s*\(?\s*["'](mlx|torch)["']""")
    for package in ("models", "evals", "arcs"):
        for path in (root / package).rglob("*.py"):
            assert not pattern.search(path.read_text()), path

"""The GitHub Actions workflow: it parses, and runs what exists."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def workflow() -> dict[Any, Any]:
    return yaml.safe_load((ROOT / ".github/workflows/consistency.yml").read_text())


def test_workflow_covers_metal_and_linux_on_both_pythons(workflow):
    matrix = workflow["jobs"]["engines"]["strategy"]["matrix"]
    assert set(matrix["os"]) == {"macos-14", "ubuntu-latest"}
    assert set(matrix["python"]) == {"3.11", "3.13"}  # strings: 3.10 as a number would be 3.1


def test_workflow_runs_recipes_that_exist_and_the_readmes_test_command(workflow):
    steps = workflow["jobs"]["engines"]["steps"]
    scripts = "\n".join(step.get("run", "") for step in steps)
    recipes = set(
        re.findall(r"^([a-z][\w-]*)[^\n:=]*:(?!=)", (ROOT / "Justfile").read_text(), re.M)
    )
    used = set(re.findall(r"\bjust ([a-z][\w-]*)", scripts))
    assert used == {"test", "doctor", "consistency"}
    assert used <= recipes, used - recipes
    assert "pip install rust-just && just test" in (ROOT / "README.md").read_text()
    assert "pip install rust-just && just test" in scripts
    upload = next(step for step in steps if "upload-artifact" in step.get("uses", ""))
    assert upload["if"] == "always()" and upload["with"]["path"] == "results/"

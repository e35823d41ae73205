"""Fixtures shared by all tests: the embedded model, tiny models, the paper's files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from models.directory import ModelDirectory
from tests.support.tiny_models import build_tiny

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
# A busy machine is no fault of what is tested: neither an example's time nor how long it took to
# draw the first one (which builds a table of Unicode) fails a test.
settings.register_profile("threearc", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("threearc")


@pytest.fixture(scope="session")
def smollm_directory() -> ModelDirectory:
    """The embedded SmolLM2-135M-Instruct, prepared in the user's cache (made once, kept)."""
    from models.store import prepare

    return prepare("SmolLM2-135M-Instruct")


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelDirectory]:
    """``tiny_directory(arch, **build_tiny_arguments)``: a prepared tiny model, built once each."""
    from models.store import prepare

    root = tmp_path_factory.mktemp("tiny")
    made: dict[str, ModelDirectory] = {}

    def make(arch: str, **arguments: object) -> ModelDirectory:
        key = f"{arch} {sorted(arguments.items())}"
        if key not in made:
            source = build_tiny(arch, root / f"{arch}-{len(made)}", **arguments)  # type: ignore[arg-type]
            made[key] = prepare(str(source), cache=root / "cache")
        return made[key]

    return make


@pytest.fixture(scope="session")
def paper_artifacts() -> Path:
    """The paper's published result files, which are not part of this repository."""
    named = os.environ.get("THREEARC_PAPER_ARTIFACTS")
    folder = Path(named) if named else ROOT.parent / "shared" / "paper-artifacts"
    if not folder.is_dir():
        pytest.skip(f"no paper artifacts at {folder}; set THREEARC_PAPER_ARTIFACTS to their folder")
    return folder

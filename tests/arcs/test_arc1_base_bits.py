"""Arc 1 over a quantised base: the whole command on MLX, and its refusals."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("mlx.core")
pytest.importorskip("llama_cpp")

from tests.support.arc1_bench import Bench


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bits"))


def test_a_run_trains_over_packed_layers_and_says_so(bench: Bench) -> None:
    done = bench.call_here([*bench.fresh(bench.root / "run", "mlx"), "--base-bits", "4"])
    assert done.returncode == 0, done.stderr
    manifest = json.loads((bench.root / "run" / "manifest.json").read_text())
    assert manifest["config"]["base_bits"] == 4
    assert manifest["engine_training"]["quantised_base"]["bits"] == [4]
    losses = json.loads((bench.root / "run" / "training.json").read_text())
    assert losses


@pytest.mark.parametrize(
    ("backend", "bits", "words"),
    [("torch", "4", ("the torch engine", "quantised base", "--backend mlx")),
     ("mlx", "5", ("base-bits", "4 or 8"))],
)  # fmt: skip
def test_what_cannot_be_done_is_one_line(
    bench: Bench, backend: str, bits: str, words: tuple[str, ...]
) -> None:
    out = bench.root / f"refused-{backend}"
    done = bench.call_here([*bench.fresh(out, backend), "--base-bits", bits])
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    last = done.stderr.rstrip("\n").splitlines()[-1]
    assert last.startswith("error: ")
    assert all(word in last for word in words)

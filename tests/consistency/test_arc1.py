"""The same Arc 1 run on both training engines gives the same verdict (issue 2)."""

from __future__ import annotations

import json

import pytest

from tests.support.arc1_bench import Bench


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    root = tmp_path_factory.mktemp("both")
    bench = Bench(root)
    found = {}
    for backend in ("torch", "mlx"):
        done = bench.call_here(bench.fresh(root / backend, backend))
        assert done.returncode == 0, done.stderr
        found[backend] = json.loads(done.stdout)
    return found


def test_torch_and_mlx_give_the_same_verdict_and_reasons(results) -> None:
    torch, mlx = results["torch"], results["mlx"]
    assert torch["made_with"]["training_backend"] == "torch"
    assert mlx["made_with"]["training_backend"] == "mlx"
    for name in ("verdict", "reasons", "n_items", "delta"):
        assert torch["claim"][name] == mlx["claim"][name], name
    for one, other in zip(torch["budgets"], mlx["budgets"], strict=True):
        assert one["trained"]["outcomes"] == other["trained"]["outcomes"]


def test_torch_and_mlx_trained_alike_and_not_at_all_on_other_numbers(results) -> None:
    losses = [
        [point["loss"] for point in results[name]["training"]["held_out"]]
        for name in ("torch", "mlx")
    ]
    # float32 rounding over nine steps; the loss itself moves by far more than that
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert abs(losses[0][0] - losses[0][-1]) > 1e-3

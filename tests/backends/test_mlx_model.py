"""Opening models on mlx, what the engine says of itself, and its kernels for a CPU."""

# ruff: noqa: E402 (without mlx the module is skipped before it imports any of it)
from __future__ import annotations

import json
import math
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

mx = pytest.importorskip("mlx.core")

from mlx import nn

from backends.mlx import cpu
from backends.mlx import decoder as decoder_module
from backends.mlx.device import blas_name
from backends.mlx.library import open_file_limit_kept
from backends.mlx.model import open_model
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.tolerances import tolerance
from tests.support.training_data import example

Tiny = Callable[..., ModelDirectory]
ROOT = Path(__file__).resolve().parents[2]


def test_the_engine_says_what_made_its_numbers(tiny_directory: Tiny) -> None:
    directory = tiny_directory("llama")
    with open_model(directory, dtype="bfloat16") as model:
        described = model.describe()
        json.dumps(described)
        assert described["engine"] == model.capabilities.engine == "mlx"
        assert described["dtype"] == "bfloat16"
        assert described["model_fingerprint"] == directory.fingerprint
        assert set(described["versions"]) == {"mlx", "mlx-lm"}
        assert model.capabilities.train
        if described["device"] == "cpu":
            assert described["blas"]


def test_the_blas_is_read_from_the_memory_map() -> None:
    line = "7f11 r-xp 0 fe:00 1 /usr/lib/x86_64-linux-gnu/"
    bundled = "7f11 r-xp 0 fe:00 1 /venv/numpy.libs/libscipy_openblas64_-32a4.so"
    if sys.platform == "linux":
        assert blas_name(f"{bundled}\n") == "reference BLAS (slow)"
        assert blas_name(f"{bundled}\n{line}openblas-pthread/libopenblasp-r0.3.21.so") == (
            "libopenblasp-r0.3.21.so"
        )
        assert blas_name(f"{line}libmkl_rt.so.2\n") == "libmkl_rt.so.2"


def test_importing_the_engine_leaves_the_limit_of_open_files_alone() -> None:
    """mlx-lm lowers the hard limit as well, which an ordinary user cannot undo."""
    program = (
        "import importlib, resource as r; limit = lambda: r.getrlimit(r.RLIMIT_NOFILE)\n"
        "before = limit(); from backends.mlx import library; ours = limit()\n"
        "import mlx_lm.utils; importlib.reload(mlx_lm.utils); print(before, ours, limit(), sep=';')"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    before, ours, plain = done.stdout.strip().split(";")
    assert ours == before
    if before != "(2048, 4096)":
        assert plain != before  # the negative twin: mlx-lm still does it


def test_other_limits_can_be_set_meanwhile() -> None:
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    original = resource.setrlimit
    with open_file_limit_kept():
        resource.setrlimit(resource.RLIMIT_CORE, (0, limits[1]))
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0
    assert resource.setrlimit is original
    resource.setrlimit(resource.RLIMIT_CORE, limits)


def test_gemma_3_embeddings_are_scaled_by_the_exact_root(
    tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """sqrt(96) is 9.798, in bfloat16 9.8125: off by 0.15 percent in every embedding."""
    ids = example(5, 30).ids
    with open_model(tiny_directory("gemma3")) as model:
        exact = model.logits(ids)
        factor = model._decoder.backbone.embed_tokens._factor
        assert factor * 9.8125 == pytest.approx(math.sqrt(96), rel=1e-7)
    monkeypatch.setattr(decoder_module, "math", replace_sqrt())
    with open_model(tiny_directory("gemma3")) as model:
        assert np.abs(model.logits(ids) - exact).max() > 10 * tolerance("logits")


def replace_sqrt() -> Any:
    """A math module whose root is already rounded, so that no correction is made."""
    return type("Rounded", (), {"sqrt": staticmethod(lambda _: 9.8125)})


def test_a_longer_context_than_the_model_has_is_known(tiny_directory: Tiny) -> None:
    with open_model(tiny_directory("gemma4")) as model:
        assert model._context == 512


def test_directories_that_cannot_be_loaded_get_one_line(
    tiny_directory: Tiny, tmp_path: Path
) -> None:
    directory = tiny_directory("llama")
    with pytest.raises(UserError, match="unknown dtype 'int8'"):
        open_model(directory, dtype="int8")  # type: ignore[arg-type]
    copy = Path(shutil.copytree(directory.path, tmp_path / "copy"))
    for weights in copy.glob("*.safetensors"):
        weights.unlink()
    with pytest.raises(UserError, match=r"cannot load .*copy"):
        open_model(replace(directory, path=copy))
    strange = Path(shutil.copytree(directory.path, tmp_path / "strange"))
    config = json.loads((strange / "config.json").read_text())
    (strange / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}))
    with pytest.raises(UserError, match="unheard_of"):
        open_model(replace(directory, path=strange))


def test_a_closed_model_is_refused(tiny_directory: Tiny) -> None:
    model = open_model(tiny_directory("llama"))
    model.close()
    with pytest.raises(UserError, match="closed"):
        model.logits([1, 2, 3])


def test_memory_errors_get_one_line(tiny_directory: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise RuntimeError("[malloc] Unable to allocate 123 bytes.")

    from backends.interface import Prompt

    with open_model(tiny_directory("llama")) as model:
        monkeypatch.setattr(type(model._decoder), "hidden", failing)
        with pytest.raises(UserError, match="out of memory while generating"):
            model.generate([Prompt("p", (1, 2))], max_tokens=2, stop_ids=[])


# Kernels for a CPU -------------------------------------------------------------------------

CPU = pytest.mark.skipif(mx.default_device() == mx.gpu, reason="these replace CPU kernels only")


def assert_same(found: Any, expected: Any) -> None:
    largest = float(mx.abs(expected).max())
    np.testing.assert_allclose(
        np.array(found), np.array(expected), rtol=0, atol=tolerance("fast_kernels") * largest
    )


def drawn(*shape: int, scale: float = 1.0, seed: int = 0) -> Any:
    return scale * mx.random.normal(shape, key=mx.random.key(seed))


@CPU
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2), (4, 1)])
@pytest.mark.parametrize("kind", ["causal", "none", "boolean", "batch"])
def test_attention_equals_mlx_own_in_value_and_gradient(heads: int, groups: int, kind: str) -> None:
    queries, keys, values = (
        drawn(2, h, 20, 8, seed=i) for i, h in enumerate((heads, groups, groups))
    )
    lower = mx.arange(20)[:, None] >= mx.arange(20)[None]
    window = lower & (mx.arange(20)[:, None] < mx.arange(20)[None] + 5)
    per_row = mx.stack([lower, window])[:, None]
    mask = {"causal": "causal", "none": None, "boolean": lower, "batch": per_row}[kind]

    def loss(attend: Any) -> Any:
        return lambda q, k, v: (
            attend(q, k, v, scale=0.3, mask=mask) * drawn(2, heads, 20, 8)
        ).sum()

    own = mx.fast.scaled_dot_product_attention
    assert_same(
        cpu.attention(queries, keys, values, scale=0.3, mask=mask),
        own(queries, keys, values, scale=0.3, mask=mask),
    )
    gradients = [
        mx.grad(loss(attend), argnums=(0, 1, 2))(queries, keys, values)
        for attend in (cpu.attention, own)
    ]
    for found, expected in zip(*gradients, strict=True):
        assert_same(found, expected)


@CPU
def test_causal_attention_lines_up_at_the_end_when_keys_are_cached() -> None:
    queries, keys, values = (
        drawn(1, 4, 3, 8),
        drawn(1, 2, 10, 8, seed=1),
        drawn(1, 2, 10, 8, seed=2),
    )
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0, mask="causal")
    assert_same(cpu.attention(queries, keys, values, scale=1.0, mask="causal"), expected)


@CPU
def test_attention_that_is_not_covered_is_refused() -> None:
    x = drawn(1, 1, 2, 8)
    with pytest.raises(NotImplementedError):
        cpu.attention(x, x, x, scale=1.0, mask=mx.zeros((2, 2)))


@CPU
@pytest.mark.parametrize(
    ("ours", "own"),
    [(cpu.gated_silu, nn.silu), (cpu.gated_gelu, nn.gelu_approx)],
    ids=["silu", "gelu"],
)
@pytest.mark.parametrize("scale", [1.0, 30.0, 200.0])
def test_activations_equal_mlx_own_in_value_and_gradient(ours: Any, own: Any, scale: float) -> None:
    """Large arguments too: 2^(-x log2 e) overflows to infinity there, and 1 / infinity is 0."""
    gate, up = drawn(4, 50, scale=scale), drawn(4, 50, seed=1)
    weights = drawn(4, 50, seed=2)
    assert_same(ours(gate, up), own(gate) * up)
    found = mx.grad(lambda g, u: (ours(g, u) * weights).sum(), argnums=(0, 1))(gate, up)
    expected = mx.grad(lambda g, u: (own(g) * u * weights).sum(), argnums=(0, 1))(gate, up)
    for a, b in zip(found, expected, strict=True):
        assert_same(a, b)


@CPU
def test_every_family_gets_the_faster_activations(tiny_directory: Tiny) -> None:
    for arch in ("llama", "qwen3", "qwen3_5", "gemma3", "gemma4"):
        with open_model(tiny_directory(arch)) as model:
            for layer in model._decoder.backbone.layers:
                assert "_faster" in type(layer.mlp).__call__.__qualname__, arch


@CPU
def test_attention_is_put_back_after_an_error() -> None:
    own = mx.fast.scaled_dot_product_attention

    def failing() -> None:
        with cpu.fast_attention():
            assert mx.fast.scaled_dot_product_attention is cpu.attention
            raise KeyError

    with pytest.raises(KeyError):
        failing()
    assert mx.fast.scaled_dot_product_attention is own

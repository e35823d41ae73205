"""The consistency suite: every quantity of every architecture, and mistakes that must show.

Bounds with their reasons are in backends/consistency/bounds.py. The real model's run is slow
and marked so.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx.core")

import backends.sampling
import backends.torch.generate
import backends.torch.heads
import backends.torch.hidden
import backends.torch.lora
import backends.torch.model
from backends.consistency.bisect import bisect, write_reproduction
from backends.consistency.bounds import BOUNDS
from backends.consistency.compare import Row, compare
from backends.consistency.inputs import Inputs, make_inputs
from backends.consistency.measure import Measured, measure
from backends.consistency.run import opener_of, run
from backends.interface import HiddenPoint
from models.chat import ChatEncoder
from models.directory import ModelDirectory
from models.geometry import read_geometry
from tests.support.tiny_models import ARCHITECTURES, GEMMA3_OF_LLAMACPP

Tiny = Callable[..., ModelDirectory]
SMALL = {"prompts": 4, "max_tokens": 16}
EVERY_ENGINE = {"gemma3": GEMMA3_OF_LLAMACPP}
"""Changes to a tiny model without which an engine refuses it."""


def quiet(_: str) -> None:
    """Say nothing."""


def unexplained(*_: object) -> bool:
    """No near-tie explains a difference of these texts."""
    return False


@pytest.fixture(scope="module")
def tiny(tiny_directory: Tiny) -> Tiny:
    return tiny_directory


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_every_quantity_of_every_architecture_is_within_its_bound(tiny: Tiny, arch: str) -> None:
    found = run(tiny(arch, **EVERY_ENGINE.get(arch, {})), **SMALL, say=quiet)
    assert [row for row in found.rows if not row.passed] == []
    quantities = {row.quantity.partition(",")[0] for row in found.rows}
    assert quantities == set(BOUNDS)
    engines = {engine for row in found.rows for engine in row.engines}
    assert engines == {"torch", "mlx", "llamacpp"} and not found.skipped
    json.dumps(found.to_json(), allow_nan=False)


# -- Mistakes in the product's own code, each of which must break a row by name.


def inputs_for(directory: ModelDirectory) -> tuple[Inputs, int]:
    shape = read_geometry(directory.path)
    made = make_inputs(ChatEncoder(directory), shape.vocab_size, prompts=2, max_tokens=8)
    return made, shape.n_layers


def measured(directory: ModelDirectory, engine: str) -> Measured:
    inputs, layers = inputs_for(directory)
    return measure(engine, opener_of(engine, directory), inputs, n_layers=layers, say=quiet)


@pytest.fixture(scope="module")
def reference(tiny: Tiny) -> Callable[[str], Measured]:
    kept: dict[str, Measured] = {}

    def of(arch: str) -> Measured:
        if arch not in kept:
            kept[arch] = measured(tiny(arch), "mlx")
        return kept[arch]

    return of


def wrong_rope(patch: pytest.MonkeyPatch) -> None:
    real = backends.torch.model._load

    def load(*arguments: Any) -> Any:
        model = real(*arguments)
        model.model.rotary_emb.inv_freq.mul_(1.02)
        return model

    patch.setattr(backends.torch.model, "_load", load)


def doubled_alpha(patch: pytest.MonkeyPatch) -> None:
    real = backends.torch.lora.attach

    def attach(backbone: Any, config: Any, *rest: Any) -> Any:
        return real(backbone, replace(config, alpha=2 * config.alpha), *rest)

    patch.setattr(backends.torch.lora, "attach", attach)


def next_head(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        backends.torch.heads, "column_factors", lambda row, dim: np.repeat(np.roll(row, 1), dim)
    )


def first_layers_head_dim(patch: pytest.MonkeyPatch) -> None:
    def factors(row: Any, dim: int) -> Any:
        made = np.ones(len(row) * dim, dtype=np.float32)
        made[: len(row) * 16] = np.repeat(row, 16)  # 16 is right for the sliding layers only
        return made

    patch.setattr(backends.torch.heads, "column_factors", factors)


def norm_skipped(patch: pytest.MonkeyPatch) -> None:
    real = backends.torch.hidden.hidden_states

    def states(model: Any, sequences: Any, positions: Any, points: Any) -> Any:
        return real(model, sequences, positions, [HiddenPoint(p.layer, False) for p in points])

    patch.setattr(backends.torch.hidden, "hidden_states", states)


def shifted_mask(patch: pytest.MonkeyPatch) -> None:
    real = backends.torch.model.TorchModel.accumulate

    def accumulate(self: Any, batch: Any) -> Any:
        mask = np.roll(batch.loss_mask, 1, axis=1)
        mask[:, 0] = False
        mask &= np.arange(mask.shape[1]) < batch.lengths[:, None]
        return real(self, replace(batch, loss_mask=mask))

    patch.setattr(backends.torch.model.TorchModel, "accumulate", accumulate)


def base_path_only(patch: pytest.MonkeyPatch) -> None:
    real = backends.torch.heads.o_proj

    def o_proj(backbone: Any, layer: int) -> Any:
        module = real(backbone, layer)
        return getattr(module, "base_layer", module)

    patch.setattr(backends.torch.heads, "o_proj", o_proj)


def one_position_early(patch: pytest.MonkeyPatch) -> None:
    real = backends.torch.hidden.hidden_states

    def states(model: Any, sequences: Any, positions: Any, points: Any) -> Any:
        return real(model, sequences, [p - 1 for p in positions], points)

    patch.setattr(backends.torch.hidden, "hidden_states", states)


MUTATIONS = [
    (wrong_rope, "llama", "logits"),
    (doubled_alpha, "llama", "lora, logits"),
    (next_head, "qwen3", "tempered, one head 0.5"),
    (next_head, "qwen3_5", "tempered, several"),
    (first_layers_head_dim, "gemma4", "tempered, one head 0.5"),
    (norm_skipped, "gemma3", "h_last"),
    (one_position_early, "gemma4", "h_last"),
    (shifted_mask, "llama", "loss curve"),
    (base_path_only, "qwen3", "tempered, with a LoRA, one head 0.5"),
]


@pytest.mark.parametrize(
    ("mutate", "arch", "quantity"), MUTATIONS, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_mistake_breaks_the_row_that_is_about_it(
    tiny: Tiny, reference: Any, mutate: Any, arch: str, quantity: str
) -> None:
    expected = reference(arch)
    with pytest.MonkeyPatch.context() as patch:
        mutate(patch)
        found = measured(tiny(arch), "torch")
    rows = {row.quantity: row for row in compare(found, expected, unexplained)}
    assert not rows[quantity].passed
    assert rows[quantity].difference > 10 * rows[quantity].bound  # by far, not by rounding


def test_texts_from_another_seed_differ_and_no_near_tie_explains_it(
    tiny: Tiny, reference: Any
) -> None:
    expected = reference("llama")
    with pytest.MonkeyPatch.context() as patch:
        real = backends.sampling.noise_key
        patch.setattr(
            backends.torch.generate,
            "noise_key",
            lambda sampling, prompt: replace(real(sampling, prompt), seed=1),
            raising=False,
        )
        found = measured(tiny("llama"), "torch")
    inputs, _ = inputs_for(tiny("llama"))
    from backends.consistency.run import _explainer

    explain = _explainer(opener_of("torch", tiny("llama")), inputs, found)
    rows = {row.quantity: row for row in compare(found, expected, explain)}
    assert not rows["texts, sampled"].passed and rows["texts, greedy"].passed


# -- Bisection


def test_bisection_finds_nothing_where_engines_agree(tiny: Tiny) -> None:
    directory = tiny("qwen3_5")
    inputs, _ = inputs_for(directory)
    openers = opener_of("torch", directory), opener_of("mlx", directory)
    found = bisect(("torch", "mlx"), openers, inputs.sequences[0])
    assert found.stage is None and len(found.ids) == len(inputs.sequences[0])
    assert "layers.3.mixer" in found.stages and list(found.stages)[-1] == "logits"


@pytest.mark.parametrize(
    ("stage", "module"),
    [
        ("layers.1.norm", "input_layernorm"),
        ("layers.1.mlp", "mlp.down_proj"),
        ("layers.1.o_proj", "self_attn.o_proj"),
    ],
)
def test_bisection_names_the_module_that_was_changed(
    tiny: Tiny, tmp_path: Path, stage: str, module: str
) -> None:
    directory = tiny("qwen3")
    inputs, _ = inputs_for(directory)
    with pytest.MonkeyPatch.context() as patch:
        real = backends.torch.model._load

        def load(*arguments: Any) -> Any:
            model = real(*arguments)
            model.model.layers[1].get_submodule(module).weight.data.mul_(1.05)
            return model

        patch.setattr(backends.torch.model, "_load", load)
        openers = opener_of("torch", directory), opener_of("mlx", directory)
        found = bisect(("torch", "mlx"), openers, inputs.sequences[0])
    assert found.stage == stage and len(found.ids) == 2
    path = write_reproduction(
        tmp_path, found, model=str(directory.path), fingerprint="f", versions={"torch": "2"}
    )
    record = json.loads((tmp_path / "parting.json").read_text())
    assert record["stage"] == stage and record["ids"] == list(found.ids)
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    assert done.returncode == 0, done.stderr
    assert "layers.1.o_proj" in done.stdout  # the engines agree again: nothing was changed on disk


@pytest.mark.slow
def test_the_real_model_agrees_on_all_engines(smollm_directory: ModelDirectory) -> None:
    found = run(smollm_directory, prompts=20, max_tokens=128, say=quiet)
    assert [row for row in found.rows if not row.passed] == []
    pairs: set[tuple[str, str]] = {row.engines for row in found.rows}
    assert len(pairs) == 3
    texts: list[Row] = [row for row in found.rows if row.quantity.startswith("texts")]
    assert all(row.n == 20 for row in texts) and len(texts) == 6

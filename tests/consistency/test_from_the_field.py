"""Public bug reports (ANCHORS.md section B) about inference, each with its smallest input.

B16 (gradients of rows > 0) is in tests/backends/test_*_training.py, B19 (bfloat16 and addmm on a
CPU) and B44 (which DeltaNet path is taken) in tests/backends/test_probing.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx.core")

from backends import open_backend
from backends.interface import Head, HiddenPoint
from models.chat import ChatEncoder, Message
from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import read_geometry
from models.store import prepare
from tests.support.tiny_models import ARCHITECTURES, build_tiny

Tiny = Callable[..., ModelDirectory]
ENGINES = ("torch", "mlx")
IDS = tuple(int(i) for i in np.random.default_rng(5).integers(3, 500, 70))
ROUNDING = 2e-5
"""Of the range: another shape of batch sums in another order, measured 4e-6."""

both = pytest.mark.parametrize("engine", ENGINES)
every = pytest.mark.parametrize("arch", ARCHITECTURES)

TWO_TURNS = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
"""As Qwen3.5 in trl#5213: the prompt opens a block that the finished conversation lacks."""


def of_range(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max() / np.ptp(a))


def test_b31_a_prompt_that_is_no_prefix_of_the_conversation_names_the_template(
    tmp_path: Path,
) -> None:
    source = build_tiny("qwen3_5", tmp_path / "m", template=TWO_TURNS)
    encoder = ChatEncoder(prepare(str(source), cache=tmp_path / "c"))
    with pytest.raises(UserError, match="template") as caught:
        encoder.encode_example("What is 2+2?", "4", item="row 1")
    assert "row 1" in str(caught.value) and "\n" not in str(caught.value)


def test_b32_a_prompt_is_a_row_of_ids_whatever_the_template_call_returns(
    smollm_directory: ModelDirectory,
) -> None:
    ids = ChatEncoder(smollm_directory).encode_prompt([Message("user", "Hi")]).ids
    assert len(ids) > 20 and all(type(token) is int for token in ids)


@both
@every
def test_b37_h_last_is_after_the_final_norm_and_gives_the_logits(
    tiny_directory: Tiny, engine: str, arch: str
) -> None:
    directory = tiny_directory(arch)
    layers = read_geometry(directory.path).n_layers
    with open_backend(engine, directory) as model:
        points = [HiddenPoint(layers, True), HiddenPoint(layers, False)]
        normed, raw = model.hidden_states([IDS], [len(IDS) - 1], points)[0]
        expected = model.logits(IDS)[-1]
    weight, cap = _head(directory)
    logits = weight @ normed
    if cap is not None:
        logits = cap * np.tanh(logits / cap)
    assert of_range(expected, logits) < ROUNDING
    wrong = weight @ raw
    assert of_range(expected, wrong if cap is None else cap * np.tanh(wrong / cap)) > 1e-2


def _head(directory: ModelDirectory) -> tuple[np.ndarray, float | None]:
    """The tied head [vocab, d] as it is stored, and the soft cap."""
    import json

    from safetensors.numpy import load_file

    config = json.loads((directory.path / "config.json").read_text())
    tensors = load_file(next(directory.path.glob("*.safetensors")))
    name = next(n for n in tensors if n.endswith("embed_tokens.weight"))
    return tensors[name], config.get("final_logit_softcapping")


@both
@every
def test_b38_b41_the_last_real_token_is_read_and_never_padding(
    tiny_directory: Tiny, engine: str, arch: str
) -> None:
    directory = tiny_directory(arch)
    point = [HiddenPoint(read_geometry(directory.path).n_layers, True)]
    rows = [IDS, IDS[:9], IDS[:33]]
    ends = [len(row) - 1 for row in rows]
    with open_backend(engine, directory) as model:
        together = model.hidden_states(rows, ends, point)
        alone = [model.hidden_states([r], [e], point)[0] for r, e in zip(rows, ends, strict=True)]
        padding = model.hidden_states([(*IDS[:9], *[0] * 61)], [len(IDS) - 1], point)[0]
    for one, other in zip(together, alone, strict=True):
        assert of_range(other, one) < ROUNDING
    assert of_range(alone[1], padding) > 1e-2  # what index -1 of a padded row would give


@both
@pytest.mark.parametrize("arch", ["qwen3", "gemma4"])
def test_b39_b40_heads_are_slices_of_the_o_proj_input_with_the_layers_own_head_dim(
    tiny_directory: Tiny, engine: str, arch: str
) -> None:
    directory = tiny_directory(arch)
    shape = read_geometry(directory.path)
    with open_backend(engine, directory) as model:
        heads, linear = model.attention_heads(), model.linear_modules()
        for layer, (count, head_dim) in heads.items():
            assert count * head_dim == linear[f"model.layers.{layer}.self_attn.o_proj"][1]
            assert head_dim == shape.layers[layer].head_dim
        # as in the report, o_proj's input is not as wide as its output
        assert any(n * d != shape.hidden_size for n, d in heads.values())
        last = max(heads)
        plain = model.trace(IDS[:12])
        with model.tempered({Head(last, head): 0.0 for head in range(heads[last][0])}):
            silent = model.trace(IDS[:12])
    assert np.abs(silent[f"layers.{last}.o_proj"]).max() == 0.0
    assert np.abs(plain[f"layers.{last}.o_proj"]).max() > 0.0


@both
def test_b39_a_deltanet_layer_has_no_heads_and_the_error_lists_those_that_have(
    tiny_directory: Tiny, engine: str
) -> None:
    with (
        open_backend(engine, tiny_directory("qwen3_5")) as model,
        pytest.raises(UserError, match=r"layer 0 has no attention heads.*: 3$"),
        model.tempered({Head(0, 0): 0.5}),
    ):
        pass


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"),
        (
            "{{ bos_token }}{% for m in messages %}{{ '<turn>' + m['role'] + '\n' + "
            "(m['content'] | trim) + eos_token + '\n' }}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<turn>model\n' }}{% endif %}",
            "<|im_start|><turn>user\nHi<|im_end|>\n<turn>model\n",
        ),
    ],
    ids=["chatml", "gemma"],
)
def test_b45_the_rendered_prompt_is_the_golden_text(
    tmp_path: Path, template: str | None, expected: str
) -> None:
    more = {} if template is None else {"template": template}
    source = build_tiny("gemma4", tmp_path / "m", **more)  # type: ignore[arg-type]
    encoder = ChatEncoder(prepare(str(source), cache=tmp_path / "c"))
    assert encoder.encode_prompt([Message("user", "Hi")]).text == expected

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from models.directory import ModelDirectory
from models.errors import UserError
from models.geometry import geometry, read_geometry
from tests.support.tiny_models import ARCHITECTURES, build_tiny


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_geometry_is_that_of_the_model_torch_loads(
    tiny_directory: Callable[..., ModelDirectory], arch: str
) -> None:
    from transformers import AutoModelForCausalLM

    path = tiny_directory(arch).path
    shape = read_geometry(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    assert shape.n_layers == len(model.model.layers) == len(shape.layers)
    assert (shape.vocab_size, shape.hidden_size) == tuple(model.lm_head.weight.shape)
    for layer, module in zip(shape.layers, model.model.layers, strict=True):
        assert layer.has_o_proj == hasattr(module, "self_attn")
        if layer.has_o_proj:
            assert module.self_attn.o_proj.in_features == layer.n_heads * layer.head_dim
        else:
            assert module.linear_attn.out_proj.in_features == layer.n_heads * layer.head_dim


def test_kinds_and_o_proj_layers() -> None:
    base = {"hidden_size": 64, "vocab_size": 9, "max_position_embeddings": 99, "head_dim": 8}
    base |= {"num_attention_heads": 4, "linear_num_value_heads": 6, "linear_num_key_heads": 2}
    base |= {"linear_value_head_dim": 16}
    hybrid = geometry({**base, "model_type": "qwen3_5_text", "num_hidden_layers": 8})
    assert hybrid.o_proj_layers == (3, 7)
    assert [layer.kind for layer in hybrid.layers[:4]] == ["linear"] * 3 + ["full"]
    assert (hybrid.layers[0].n_heads, hybrid.layers[0].head_dim) == (6, 16)
    gemma = geometry({**base, "model_type": "gemma3_text", "num_hidden_layers": 7})
    assert [layer.kind for layer in gemma.layers] == ["sliding"] * 5 + ["full", "sliding"]
    assert gemma.o_proj_layers == tuple(range(7))
    assert gemma.context_length == 99


GEMMA4 = {
    "model_type": "gemma4_text", "hidden_size": 64, "vocab_size": 9, "num_hidden_layers": 4,
    "max_position_embeddings": 99, "head_dim": 16, "num_attention_heads": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}  # fmt: skip


@pytest.mark.parametrize(
    ("extra", "dims"),
    [
        ({"global_head_dim": 32}, [16, 32, 16, 32]),
        ({"per_layer_config": {"1": {"head_dim": 32}, "3": {"head_dim": 24}}}, [16, 32, 16, 24]),
        ({"per_layer_config": [{}, {"head_dim": 32}, {}, {"head_dim": 32}]}, [16, 32, 16, 32]),
        ({}, [16, 512, 16, 512]),
    ],
)
def test_gemma_4_head_dims_in_every_dialect(extra: dict[str, object], dims: list[int]) -> None:
    assert [layer.head_dim for layer in geometry({**GEMMA4, **extra}).layers] == dims


def test_a_multimodal_config_is_read_through_its_text_part() -> None:
    wrapped = {"model_type": "gemma4", "text_config": {**GEMMA4, "global_head_dim": 32}}
    assert geometry(wrapped).layers == geometry({**GEMMA4, "global_head_dim": 32}).layers
    assert geometry(wrapped).family == "gemma4"


def test_head_dim_defaults_to_hidden_over_heads_only_when_absent() -> None:
    config = {"model_type": "llama", "hidden_size": 96, "vocab_size": 9, "num_hidden_layers": 1,
              "max_position_embeddings": 9, "num_attention_heads": 6}  # fmt: skip
    assert geometry(config).layers[0].head_dim == 16
    assert geometry({**config, "head_dim": 32}).layers[0].head_dim == 32


def test_too_few_layer_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not list 4 layers"):
        geometry({**GEMMA4, "layer_types": ["full_attention"]})
    with pytest.raises(UserError, match="unknown layer type 'chunked'"):
        geometry({**GEMMA4, "layer_types": ["chunked"] * 4})


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = build_tiny("llama", tmp_path / "m")
    text = (path / "config.json").read_text()
    (path / "config.json").write_text(text.replace('"hidden_size": 96', '"hidden_size": -1'))
    with pytest.raises(UserError, match=r"m/config\.json: hidden_size"):
        read_geometry(path)

"""A model directory written as GGUF, read back with the gguf package's own reader."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import models.disk
from models.directory import ModelDirectory
from models.errors import UserError
from models.gguf.export import export_gguf
from models.gguf.inspect import inspect_gguf
from models.gguf.llama import interleave_rope_rows
from tests.support.tiny_models import build_tiny

HEADS, KV_HEADS, HEAD_DIM = 6, 2, 16


@pytest.fixture
def tiny(tmp_path: Path) -> ModelDirectory:
    """A directory of the test's own, to be damaged."""
    return _directory(build_tiny("llama", tmp_path / "tiny"))


def _directory(path: Path, family: str = "llama") -> ModelDirectory:
    return ModelDirectory(path, path.name, family, "0" * 64, str(path))


def _tensors(path: Path) -> dict[str, np.ndarray]:
    return {t.name: np.array(t.data) for t in gguf.GGUFReader(path).tensors}


def _edit_config(directory: ModelDirectory, **changes: object) -> None:
    path = directory.path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _pairs_of(rows: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order written out as loops: row 2 i from i, row 2 i + 1 from i + d / 2."""
    d = rows.shape[0] // heads
    order = [
        h * d + i + half * d // 2 for h in range(heads) for i in range(d // 2) for half in (0, 1)
    ]
    return rows[order]


def test_every_tensor_arrives_and_only_q_and_k_rows_change_order(
    tiny: ModelDirectory, tmp_path: Path
) -> None:
    written = _tensors(export_gguf(tiny, tmp_path / "tiny.gguf", dtype="f32"))
    source = load_file(tiny.path / "model.safetensors")
    assert len(written) == len(source) == 2 + 3 * 9
    part = "model.layers.1.self_attn."
    for name, heads in (("q", HEADS), ("k", KV_HEADS)):
        rows = source[f"{part}{name}_proj.weight"]
        assert np.array_equal(written[f"blk.1.attn_{name}.weight"], _pairs_of(rows, heads))
        assert not np.array_equal(written[f"blk.1.attn_{name}.weight"], rows)
    for ours, theirs in (
        ("blk.1.attn_v.weight", f"{part}v_proj.weight"),
        ("blk.1.attn_output.weight", f"{part}o_proj.weight"),
        ("blk.2.ffn_down.weight", "model.layers.2.mlp.down_proj.weight"),
        ("blk.0.ffn_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("output_norm.weight", "model.norm.weight"),
    ):
        assert np.array_equal(written[ours], source[theirs])


def test_the_file_states_the_hyper_parameters_and_takes_only_ids(
    tiny: ModelDirectory, tmp_path: Path
) -> None:
    out = export_gguf(tiny, tmp_path / "tiny.gguf", dtype="f16")
    info = inspect_gguf(out)
    assert (info.architecture, info.file_type) == ("llama", "MOSTLY_F16")
    assert (info.n_ctx_train, info.layers, info.vocab) == (512, 3, 512)
    assert info.tokenizer == "none"
    assert info.tensor_types == {"F16": 1 + 3 * 7, "F32": 1 + 3 * 2}
    fields = gguf.GGUFReader(out).fields
    stated = {
        "rope.freq_base": 1e5,
        "rope.dimension_count": HEAD_DIM,
        "attention.key_length": HEAD_DIM,
        "attention.head_count": HEADS,
        "attention.head_count_kv": KV_HEADS,
        "embedding_length": 96,
        "feed_forward_length": 192,
    }
    assert {key: fields[f"llama.{key}"].contents() for key in stated} == stated
    assert fields["llama.attention.layer_norm_rms_epsilon"].contents() == pytest.approx(1e-6)


@given(heads=st.integers(1, 4), half=st.integers(1, 5), columns=st.integers(1, 3))
def test_rope_rows_are_interleaved_within_each_head(heads: int, half: int, columns: int) -> None:
    rows = np.arange(heads * 2 * half * columns, dtype=np.float32).reshape(-1, columns)
    assert np.array_equal(interleave_rope_rows(rows, heads), _pairs_of(rows, heads))


def test_bfloat16_weights_are_widened_exactly(tiny: ModelDirectory, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file as save_torch

    halves = {
        name: torch.from_numpy(values).to(torch.bfloat16)
        for name, values in load_file(tiny.path / "model.safetensors").items()
    }
    save_torch(halves, tiny.path / "model.safetensors")
    written = _tensors(export_gguf(tiny, tmp_path / "out.gguf", dtype="f32"))
    expected = halves["model.layers.0.mlp.up_proj.weight"].float().numpy()
    assert np.array_equal(written["blk.0.ffn_up.weight"], expected)


def test_sharded_weights_give_the_same_file(tiny: ModelDirectory, tmp_path: Path) -> None:
    whole = _tensors(export_gguf(tiny, tmp_path / "whole.gguf", dtype="f32"))
    tensors = load_file(tiny.path / "model.safetensors")
    (tiny.path / "model.safetensors").unlink()
    shards = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in set(shards.values()):
        save_file({n: t for n, t in tensors.items() if shards[n] == shard}, tiny.path / shard)
    index = {"metadata": {}, "weight_map": shards}
    (tiny.path / "model.safetensors.index.json").write_text(json.dumps(index))
    sharded = _tensors(export_gguf(tiny, tmp_path / "sharded.gguf", dtype="f32"))
    assert whole.keys() == sharded.keys()
    assert all(np.array_equal(whole[name], sharded[name]) for name in whole)
    (tiny.path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(UserError, match="has no model-00002-of-00002"):
        export_gguf(tiny, tmp_path / "missing.gguf", dtype="f32")


def test_an_untied_head_is_written(tmp_path: Path) -> None:
    path = build_tiny("llama", tmp_path / "untied", tie_word_embeddings=False)
    written = _tensors(export_gguf(_directory(path), tmp_path / "out.gguf", dtype="f32"))
    head = load_file(path / "model.safetensors")["lm_head.weight"]
    assert np.array_equal(written["output.weight"], head)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e5}}, "RoPE type 'llama3'"),
        ({"hidden_act": "gelu"}, "activation 'gelu'"),
        ({"vocab_size": 511}, "config.json says 511 tokens"),
        ({"num_hidden_layers": 4}, "lack blk.3.attn_q.weight"),
        ({"num_hidden_layers": 2}, "no place in a llama GGUF for model.layers.2."),
        ({"tie_word_embeddings": False}, "lack output.weight"),
        ({"rope_parameters": None, "rope_theta": None}, "has no rope_theta"),
    ],
)
def test_what_would_be_written_wrongly_is_refused(
    tiny: ModelDirectory, tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    _edit_config(tiny, **changes)
    with pytest.raises(UserError, match=message) as caught:
        export_gguf(tiny, tmp_path / "out.gguf", dtype="f32")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.gguf").exists()


def test_a_value_beyond_float16_is_refused_and_leaves_nothing(
    tiny: ModelDirectory, tmp_path: Path
) -> None:
    tensors = load_file(tiny.path / "model.safetensors")
    tensors["model.layers.2.mlp.down_proj.weight"][0, 0] = 7e4
    save_file(tensors, tiny.path / "model.safetensors")
    folder = tmp_path / "made"
    with pytest.raises(UserError, match=r"layers\.2\.mlp\.down_proj\.weight does not fit float16"):
        export_gguf(tiny, folder / "out.gguf", dtype="f16")
    assert list(folder.iterdir()) == []
    assert export_gguf(tiny, folder / "out.gguf", dtype="f32").is_file()


def test_a_full_disk_is_refused_and_the_earlier_file_kept(
    tiny: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"earlier")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(models.disk.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(UserError, match=r"not enough disk space for out\.gguf"):
        export_gguf(tiny, out, dtype="f32")
    assert out.read_bytes() == b"earlier"


def test_what_a_killed_export_left_is_removed(tiny: ModelDirectory, tmp_path: Path) -> None:
    left = tmp_path / ".out.gguf.abc.part"
    left.write_bytes(b"half")
    export_gguf(tiny, tmp_path / "out.gguf", dtype="f32")
    assert not left.exists()

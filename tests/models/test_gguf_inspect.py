"""What is read from GGUF files, sound and damaged."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.directory import ModelDirectory
from models.errors import UserError
from models.gguf.export import export_gguf
from models.gguf.inspect import check_gguf, inspect_gguf
from tests.support.tiny_models import build_tiny


@pytest.fixture(scope="module")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    path = build_tiny("llama", folder / "tiny")
    directory = ModelDirectory(path, "tiny", "llama", "0" * 64, "test")
    return export_gguf(directory, folder / "tiny.gguf", dtype="f16")


def test_the_embedded_model_is_described(smollm_directory: ModelDirectory) -> None:
    assert smollm_directory.gguf is not None
    info = inspect_gguf(smollm_directory.gguf)
    assert (info.architecture, info.file_type) == ("llama", "MOSTLY_Q4_1")
    assert info.sha256 == smollm_directory.gguf_sha256
    assert (info.n_ctx_train, info.layers, info.vocab) == (8192, 30, 49152)
    assert info.tokenizer == "gpt2"
    assert info.tensor_types == {"Q4_1": 210, "F32": 61, "Q8_0": 1}


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 0.999))
def test_a_file_cut_short_is_refused_in_one_line(
    tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory, share: float
) -> None:
    whole = tiny_gguf.read_bytes()
    cut = tmp_path_factory.mktemp("cut") / "cut.gguf"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UserError) as caught:
        check_gguf(cut)
    assert "\n" not in str(caught.value)
    assert "cut.gguf" in str(caught.value)


def test_an_adapter_is_not_taken_for_a_model(tmp_path: Path) -> None:
    path = tmp_path / "adapter.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match="of type adapter; give one of type model"):
        inspect_gguf(path)
    assert check_gguf(path, kind="adapter").architecture == "llama"


def test_a_file_without_hyper_parameters_is_no_language_model(tmp_path: Path) -> None:
    path = tmp_path / "bare.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(UserError, match=r"does not state llama\.\w+; it is not a language model"):
        inspect_gguf(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere\.gguf"):
        inspect_gguf(tmp_path / "nowhere.gguf")

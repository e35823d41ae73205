"""Whatever is done to the bytes of a model file, the answer is a model or one UserError line."""

from __future__ import annotations

import json
import random
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from models.config_fixes import mlx_overrides
from models.errors import UserError
from models.from_directory import check_directory
from models.from_gguf import build_from_gguf, check_gguf_model
from models.geometry import geometry
from models.gguf_file import read_gguf
from models.safetensors_file import read_header
from models.store import prepare
from tests.support.tiny_gguf import write_gguf
from tests.support.tiny_models import build_tiny, write_tokenizer

SETTINGS = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
WHOLE = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("damaged")
    path = build_tiny("llama", root / "llama", vocab=300, num_hidden_layers=1)
    write_gguf(path, root / "m.gguf", kind="Q8_0")
    return path


@pytest.fixture(scope="module")
def gguf_bytes(directory: Path) -> bytes:
    return (directory.parent / "m.gguf").read_bytes()


@pytest.fixture(scope="module")
def header_size(gguf_bytes: bytes, directory: Path) -> int:
    file = read_gguf(directory.parent / "m.gguf")
    return min(t.start for t in file.tensors.values())


@st.composite
def damage(draw: st.DrawFn) -> tuple[str, float, int, int]:
    kind = draw(st.sampled_from(["truncate", "flip", "number", "insert", "delete", "noise"]))
    where = draw(st.floats(0, 1, exclude_max=True))
    return kind, where, draw(st.integers(0, 2**64 - 1)), draw(st.integers(0, 2**32))


def damaged(raw: bytes, how: tuple[str, float, int, int], within: int) -> bytes:
    kind, where, value, seed = how
    at = int(where * within)
    if kind == "truncate":
        return raw[: int(where * len(raw))]
    if kind == "flip":
        return raw[:at] + bytes([raw[at] ^ (1 << value % 8)]) + raw[at + 1 :]
    if kind == "number":
        return raw[:at] + struct.pack("<Q", value) + raw[at + 8 :]
    if kind == "insert":
        return raw[:at] + value.to_bytes(8, "big") + raw[at:]
    if kind == "delete":
        return raw[:at] + raw[at + 1 + value % 64 :]
    noise = random.Random(seed).randbytes(1 + value % 200)
    return raw[:at] + noise + raw[at + len(noise) :]


def one_line_or_fine(action: object, *arguments: object) -> None:
    try:
        action(*arguments)  # type: ignore[operator]
    except UserError as error:
        lines = str(error).splitlines()
    else:
        return
    assert len(lines) == 1, lines


@SETTINGS
@given(how=damage())
def test_a_damaged_gguf_header_is_read_or_refused_in_one_line(
    tmp_path: Path, gguf_bytes: bytes, header_size: int, how: tuple[str, float, int, int]
) -> None:
    path = tmp_path / "d.gguf"
    path.write_bytes(damaged(gguf_bytes, how, header_size))
    one_line_or_fine(read_gguf, path)


@WHOLE
@given(how=damage(), in_header=st.booleans())
def test_a_damaged_gguf_is_imported_or_refused_in_one_line(
    tmp_path: Path, gguf_bytes: bytes, header_size: int, how: tuple, in_header: bool
) -> None:
    path, out = tmp_path / "d.gguf", tmp_path / "out"
    path.write_bytes(damaged(gguf_bytes, how, header_size if in_header else len(gguf_bytes)))
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    one_line_or_fine(lambda: build_from_gguf(check_gguf_model(path), out))


@SETTINGS
@given(how=damage(), in_header=st.booleans())
def test_damaged_safetensors_are_read_or_refused_in_one_line(
    tmp_path: Path, directory: Path, how: tuple, in_header: bool
) -> None:
    raw = (directory / "model.safetensors").read_bytes()
    within = 8 + struct.unpack("<Q", raw[:8])[0] if in_header else len(raw)
    path = tmp_path / "d.safetensors"
    path.write_bytes(damaged(raw, how, within))
    one_line_or_fine(read_header, path)


@WHOLE
@given(how=damage(), name=st.sampled_from(["config.json", "tokenizer.json", "model.safetensors",
       "tokenizer_config.json", "generation_config.json"]))  # fmt: skip
def test_a_directory_with_a_damaged_file_is_prepared_or_refused_in_one_line(
    tmp_path: Path, directory: Path, how: tuple, name: str
) -> None:
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(directory, copy)
    raw = (copy / name).read_bytes()
    (copy / name).write_bytes(damaged(raw, how, min(len(raw), 4000)))
    one_line_or_fine(prepare, str(copy))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREEARC_CACHE", str(tmp_path / "cache"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
KEYS = ("model_type", "layer_types", "num_hidden_layers", "head_dim", "rope_parameters",
        "text_config", "vocab_size", "num_attention_heads", "per_layer_config")  # fmt: skip


@SETTINGS
@given(key=st.sampled_from(KEYS), value=JSON)
def test_any_value_in_a_config_is_accepted_or_refused_in_one_line(
    tmp_path: Path, directory: Path, key: str, value: object
) -> None:
    copy = tmp_path / "copy"
    if not copy.exists():
        shutil.copytree(directory, copy)
    config = json.loads((directory / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, key: value}))
    one_line_or_fine(check_directory, copy)
    one_line_or_fine(mlx_overrides, {**config, key: value})
    for kind in ("gemma3_text", "gemma4_text", "qwen3_5_text"):
        wrapped = {"model_type": kind, "text_config": {**config, "model_type": kind, key: value}}
        one_line_or_fine(mlx_overrides, wrapped)
        one_line_or_fine(geometry, wrapped)


@SETTINGS
@given(raw=st.binary(max_size=400))
def test_arbitrary_bytes_are_refused(tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(raw)
    with pytest.raises(UserError):
        read_gguf(path)
    path.write_bytes(b"GGUF\x03\0\0\0" + raw)
    one_line_or_fine(read_gguf, path)


@pytest.mark.parametrize(
    ("raw", "complaint"),
    [
        (b"", "only 0 bytes"),
        (b"GGUF", "only 4 bytes"),
        (b"GGML" + bytes(40), "letters GGUF"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0) + bytes(8), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "announces"),
    ],
)
def test_known_damage_is_named(tmp_path: Path, raw: bytes, complaint: str) -> None:
    (tmp_path / "x.gguf").write_bytes(raw)
    with pytest.raises(UserError, match=complaint):
        read_gguf(tmp_path / "x.gguf")


def test_every_truncation_of_the_data_is_noticed(tmp_path: Path, gguf_bytes: bytes) -> None:
    path = tmp_path / "t.gguf"
    path.write_bytes(gguf_bytes)
    read_gguf(path)
    for cut in (64, 1000, len(gguf_bytes) // 2):
        path.write_bytes(gguf_bytes[:-cut])
        with pytest.raises(UserError, match="truncated"):
            read_gguf(path)


def test_a_sound_directory_is_accepted(directory: Path) -> None:
    write_tokenizer(directory, 300)
    assert check_directory(directory).n_layers == 1

"""``threearc models export``: the file, what is said of it, and what leaves no file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGMLQuantizationType

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

from arcs.cli import main
from backends.llamacpp import tokenizer as llamacpp_tokenizer
from backends.llamacpp.model import open_gguf
from backends.llamacpp.tokenizer import Difference
from models.gguf_file import read_gguf
from tests.support.tiny_models import build_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny("llama", tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THREEARC_CACHE", str(tmp_path_factory.getbasetemp() / "export-cache"))


def export(*arguments: object) -> None:
    main(["models", "export", *map(str, arguments)])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as ended:
        export(*arguments)
    assert ended.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("quant", "stored"), [("f32", "F32"), ("f16", "F16"), ("q8_0", "Q8_0"), ("q4_k_m", "Q5_0")]
)
def test_a_model_becomes_a_file_with_its_tokenizer(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], quant: str, stored: str
) -> None:
    """Of width 96, so that llama.cpp stores what should be Q4_K as Q5_0."""
    out = tmp_path / "new" / "m.gguf"
    with pytest.raises(SystemExit) as ended:
        export(model, "--quant", quant, "--out", out, "--json")
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["tokenizer"] == "gpt2/gpt-2" and said["bytes"] == out.stat().st_size
    assert said["tokenizer_note"].startswith("equal to the model's own on 36 varied texts")
    file = read_gguf(out)
    assert GGMLQuantizationType(file.tensors["blk.0.attn_q.weight"].type_id).name == stored
    assert file.metadata["tokenizer.ggml.model"] == "gpt2"
    assert [one.name for one in out.parent.iterdir()] == ["m.gguf"]


def test_an_unknown_tokenizer_is_said_and_the_file_still_evaluates_by_ids(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for file in model.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    spec = json.loads((other / "tokenizer.json").read_text())
    spec["normalizer"] = {"type": "Lowercase"}
    (other / "tokenizer.json").write_text(json.dumps(spec))
    out = tmp_path / "m.gguf"
    with pytest.raises(SystemExit) as ended:
        export(other, "--quant", "f16", "--out", out)
    assert ended.value.code == 0
    done = capsys.readouterr()
    assert (
        "normalises text by Lowercase; the file gets no tokenizer and takes token ids" in done.err
    )
    assert "none: token ids in, token ids out" in done.out
    assert "(its tokenizer normalises text by" in read_gguf(out).metadata["threearc.tokenizer"]
    with open_gguf(out, context=64, width=1, threads=1) as opened:
        assert opened.logits([5, 6, 7]).shape == (3, 512)


def test_a_tokenizer_that_llamacpp_reads_otherwise_leaves_no_file(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def differ(*_: Any) -> list[Difference]:
        return [Difference("Hello", (1,), (2,))]

    monkeypatch.setattr(llamacpp_tokenizer, "differences", differ)
    line = refused(capsys, model, "--quant", "f16", "--out", tmp_path / "m.gguf")
    assert "tokenises 1 test texts otherwise than model does, the first 'Hello'" in line
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SystemExit) as ended:
        export(model, "--quant", "f16", "--out", tmp_path / "m.gguf", "--no-tokenizer")
    assert ended.value.code == 0
    assert read_gguf(tmp_path / "m.gguf").metadata["tokenizer.ggml.model"] == "none"


def test_mistakes_are_one_line(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there.gguf").write_text("mine")
    out = tmp_path / "m.gguf"
    for arguments, message in (
        ((model, "--to", "onnx", "--out", out), "--to onnx: gguf is what"),
        ((model, "--quant", "q3", "--out", out), "--quant q3: give f32, f16, q8_0"),
        ((model, "--out", tmp_path / "m.bin"), "give a file name that ends in .gguf"),
        ((model, "--out", tmp_path / "there.gguf"), "already exists"),
    ):
        assert message in refused(capsys, *arguments)
    assert (tmp_path / "there.gguf").read_text() == "mine"
    assert [one.name for one in tmp_path.iterdir()] == ["there.gguf"]

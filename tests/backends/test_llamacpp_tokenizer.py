"""Exported tokenizers: llama.cpp tokenises as ``tokenizers`` does, and tells when it does not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

from backends.llamacpp import tokenizer as llamacpp_tokenizer
from backends.llamacpp.tokenizer import SAMPLES, differences, vocabulary
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from models.gguf.export import export_gguf
from models.gguf.tokenizer import GgufTokenizer, _scores, kind_of, read_tokenizer
from models.gguf_file import read_gguf
from models.store import prepare
from tests.support.tiny_models import GEMMA3_OF_LLAMACPP, build_tiny
from tests.support.tokenizers import save, train

VOCAB = 1600
CASES = {
    # family, tokenizer -> llama.cpp's kind and rule
    ("llama", "gpt-2"): ("gpt2", "gpt-2"),
    ("llama", "smollm"): ("gpt2", "smollm"),
    ("llama", "llama-bpe"): ("gpt2", "llama-bpe"),
    ("qwen3", "qwen2"): ("gpt2", "qwen2"),
    ("qwen3_5", "qwen35"): ("gpt2", "qwen35"),
    ("gemma3", "pieces"): ("llama", None),
    ("gemma4", "pieces"): ("gemma4", None),
}
OTHER_RULE = {"gpt-2": "qwen2", "smollm": "qwen2", "llama-bpe": "qwen2", "qwen2": "gpt-2",
              "qwen35": "qwen2"}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Prepared tiny models with a trained tokenizer, by family and kind."""
    root, known = tmp_path_factory.mktemp("tokenizers"), {}
    patch = pytest.MonkeyPatch()
    patch.setenv("THREEARC_CACHE", str(root / "cache"))

    def make(family: str, kind: str) -> ModelDirectory:
        if (family, kind) not in known:
            more = GEMMA3_OF_LLAMACPP if family == "gemma3" else {}
            path = build_tiny(family, root / f"{family}-{kind}", vocab=VOCAB, **more)
            save(train(kind, SAMPLES, VOCAB), path)
            known[family, kind] = prepare(str(path), say=lambda _: None)
        return known[family, kind]

    yield make
    patch.undo()


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_llamacpp_tokenises_an_export_as_the_model_does(
    made: Any, tmp_path: Path, family: str, kind: str
) -> None:
    """All five families; and with a wrong rule, or wrong scores, it does not."""
    directory = made(family, kind)
    tokenizer = read_tokenizer(directory, VOCAB)
    assert (tokenizer.model, tokenizer.pre) == CASES[family, kind]
    assert len(tokenizer.tokens) == VOCAB and tokenizer.tokens[-1] == f"[PAD{VOCAB - 1}]"
    out = export_gguf(directory, tmp_path / "m.gguf", dtype="f32", tokenizer=tokenizer)
    assert differences(out, directory) == []
    wrong = spoilt(tokenizer)
    export_gguf(directory, tmp_path / "wrong.gguf", dtype="f32", tokenizer=wrong)
    assert differences(tmp_path / "wrong.gguf", directory)


def spoilt(tokenizer: GgufTokenizer) -> GgufTokenizer:
    """Another word rule; for pieces, the merges or scores in the opposite order."""
    if tokenizer.pre is not None:
        return replace(tokenizer, pre=OTHER_RULE[tokenizer.pre])
    if tokenizer.merges is not None:
        return replace(tokenizer, merges=tokenizer.merges[::-1])
    assert tokenizer.scores is not None
    return replace(tokenizer, scores=tuple(-score for score in tokenizer.scores))


def test_the_file_says_what_a_chat_needs(made: Any, tmp_path: Path) -> None:
    directory = made("qwen3", "qwen2")
    out = export_gguf(
        directory, tmp_path / "m.gguf", dtype="f32", tokenizer=read_tokenizer(directory, VOCAB)
    )
    said = read_gguf(out).metadata
    assert said["tokenizer.ggml.bos_token_id"] == 1 and said["tokenizer.ggml.eos_token_id"] == 2
    assert said["tokenizer.ggml.padding_token_id"] == 0
    assert said["tokenizer.ggml.add_bos_token"] is False
    assert "<|im_start|>assistant" in said["tokenizer.chat_template"]
    kinds = said["tokenizer.ggml.token_type"]
    tokens = said["tokenizer.ggml.tokens"]
    assert [int(kinds[tokens.index(t)]) for t in ("<|im_end|>", "<think>", "a")] == [3, 4, 1]
    assert said["tokenizer.ggml.merges"] and "threearc.tokenizer" not in said


def test_the_real_tokenizer_of_smollm2_is_llamacpps(
    smollm_directory: ModelDirectory, tmp_path: Path
) -> None:
    """Its metadata alone, against its directory, and against the file that it came from."""
    tokenizer = read_tokenizer(smollm_directory, 49152)
    original = read_gguf(smollm_directory.gguf).metadata  # type: ignore[arg-type]
    assert tokenizer.pre == original["tokenizer.ggml.pre"] == "smollm"
    assert list(tokenizer.tokens) == original["tokenizer.ggml.tokens"]
    assert list(tokenizer.merges or ()) == original["tokenizer.ggml.merges"]
    assert list(tokenizer.types) == [int(n) for n in original["tokenizer.ggml.token_type"]]
    out = tmp_path / "vocabulary.gguf"
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_type("model")
    tokenizer.write(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert differences(out, smollm_directory) == []


def test_decoding_that_is_not_the_text_is_a_difference(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = made("llama", "gpt-2")
    tokenizer = read_tokenizer(directory, VOCAB)
    out = export_gguf(directory, tmp_path / "m.gguf", dtype="f32", tokenizer=tokenizer)
    with vocabulary(out) as (encode, decode):
        ids = encode("def add<|im_end|>")
        assert decode(ids) == b"def add<|im_end|>" and ids[-1] == 2
    monkeypatch.setattr(llamacpp_tokenizer, "_decode", lambda *_: b"Hello, world!")
    assert len(differences(out, directory)) >= len(SAMPLES) - 1  # one text is that


def test_the_earliest_merge_that_makes_a_piece_is_its_score() -> None:
    pairs = [("a", "b"), ("b", "c"), ("ab", "c"), ("a", "bc")]
    assert _scores(("a", "ab", "bc", "abc"), pairs) == (-4.0, -0.0, -1.0, -2.0)


def test_without_a_tokenizer_the_file_says_so_and_has_no_vocabulary(
    made: Any, tmp_path: Path
) -> None:
    directory = made("llama", "gpt-2")
    out = export_gguf(directory, tmp_path / "m.gguf", dtype="f32", tokenizer="it is Unigram")
    said = read_gguf(out).metadata
    assert said["tokenizer.ggml.model"] == "none"
    assert said["threearc.tokenizer"] == "none: token ids in, token ids out (it is Unigram)"


BPE: dict[str, Any] = {"type": "BPE", "vocab": {}, "merges": []}
LEVEL: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"model": {"type": "Unigram"}}, "Unigram, which is not known"),
        ({"model": BPE}, "splits text by a rule that is not known"),
        ({"model": BPE, "pre_tokenizer": {"type": "Whitespace"}}, "splits text by a rule"),
        (
            {"model": BPE, "pre_tokenizer": {**LEVEL, "add_prefix_space": True}},
            "splits text by a rule",
        ),
        ({"model": BPE, "pre_tokenizer": {**LEVEL, "use_regex": False}}, "splits text by a rule"),
        (
            {"model": BPE, "pre_tokenizer": LEVEL, "normalizer": {"type": "Lowercase"}},
            "normalises text by Lowercase",
        ),
        (
            {"model": {**BPE, "ignore_merges": True}, "pre_tokenizer": LEVEL},
            "splits as gpt-2 and merges otherwise",
        ),
        (
            {"model": {**BPE, "byte_fallback": True}, "normalizer": {"type": "NFKC"}},
            "normalises text in a way",
        ),
    ],
)
def test_a_tokenizer_without_a_counterpart_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(CapabilityError, match=message):
        kind_of(spec, "llama")


def test_a_damaged_tokenizer_and_one_of_another_model_are_one_line(
    made: Any, tmp_path: Path
) -> None:
    directory = made("llama", "gpt-2")
    with pytest.raises(UserError, match="has no row in an embedding of 300"):
        read_tokenizer(directory, 300)
    damaged = replace(directory, path=tmp_path)
    spec = json.loads((directory.path / "tokenizer.json").read_text())
    del spec["model"]["merges"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match=r"damaged .*merges.*; fetch or save the model again"):
        read_tokenizer(damaged, VOCAB)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(CapabilityError, match=r"has no tokenizer\.json"):
        read_tokenizer(damaged, VOCAB)

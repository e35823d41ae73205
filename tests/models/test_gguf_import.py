from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from models.chat import load_tokenizer
from models.directory import ModelDirectory
from models.embedded import embedded_gguf
from models.errors import UserError
from models.from_gguf import build_from_gguf, write_weights
from models.gguf_file import read_gguf
from models.gguf_llama import llama_config, llama_weights, unpermute
from models.gguf_tokenizer import write_tokenizer
from models.store import prepare
from tests.support.tiny_gguf import write_gguf
from tests.support.tiny_models import build_tiny

# ruff: noqa: E501
TEXTS = [
    *["Hello world", "hello  two   spaces", "tabs\tand\t\ttabs", "new\nline\n\nand\n\n\nmore", " leading", "trailing "],
    *["12345", "3.14159 1,000,000 0x1F", "a1b2c3", "2024-01-31T12:00:00Z", "v1.2.3-rc4", "½ ² ٣ ५ 一二三"],
    *["don't I'll you've WE'RE it'S", "naïve café déjà-vu Œuvre", "ÀÉÎÕÜ ñ ß ø", "Größe und Straße"],
    *["日本語のテキスト", "中文字符測試", "한국어 텍스트", "Привет, мир!", "Γειά σου Κόσμε", "שלום עולם", "مرحبا بالعالم", "नमस्ते दुनिया"],
    *["🙂 emoji 👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈", "é combining", "zero\u200bwidth\u200djoiner", "non\xa0breaking", "\ufeffbom", "\u2028line sep"],
    "def f(x):\n    return x ** 2\n\n\nclass A:\n\tpass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i]; }",
    "SELECT * FROM t WHERE a='b' AND c<>\"d\";",
    "<html><body class=\"x\">&nbsp;&lt;</body></html>",
    "https://example.org/a?b=c&d=e#f user@example.org /usr/local/bin",
    "# Title\n\n- item\n  - nested\n\n```python\nprint('hi')\n```\n",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|>", "<|im_end|>", "text<|im_end|>text", "<repo_name>x<file_sep>y", "<|im_start", "|>",
    " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", " \n ", "\n \n", "a" * 50, "ab" * 40, " a b  c   d    e",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?`~", "...", "???!!!", "--- *** ___", "((()))", "a.b.c", "a_b_c", "camelCaseWord",
    "UPPER lower MiXeD", "x" + " " * 20 + "y", "\x00\x01\x02", "\x7f\x80", "𝕳𝖊𝖑𝖑𝖔 𝒎𝒂𝒕𝒉 ∑∫√∞≠≤",
    "The quick brown fox jumps over the lazy dog.", "La sauce béarnaise, c'est délicieux !", "1 2 3 10 20 30 100",
    "5 pommes, 12 œufs et 250g de beurre", "10:30", "(555) 123-4567", "10^-3", "1e-5", "007", " 1", "  12", "\n3", "x=1",
    "if x==1:return[y for y in z]", "λx.x", "€100 £50 ¥1000", "“quoted” ‘single’ – dash — em…", "a\u0300\u0301\u0302",
    "Mr. Smith's U.S.A. trip", "end.Start", "word\n    indented", "'''doc'''", '"""doc"""', "\\n escaped \\t", "%s %d {x}",
    "I'm'm''s", "can’t", "ﬁ ligature", "Ａｆｕｌｌｗｉｄｔｈ", "ı İ ſ", "\u3000ideographic space", "௧௨௩", "x² + y²",
]  # fmt: skip

# Values away from transformers' defaults, so that a guessed one shows.
UNUSUAL = {
    "qwen3": {"rope_parameters": {"rope_type": "default", "rope_theta": 3e6}},
    "gemma3": {
        "num_hidden_layers": 6,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "default", "rope_theta": 3e5},
        },
    },
}


def test_the_rows_of_q_and_k_come_back_in_hugging_face_order() -> None:
    rows = np.arange(24, dtype=np.float32).reshape(12, 2)
    interleaved = rows[[0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]]
    np.testing.assert_array_equal(unpermute(interleaved, 2), rows)
    assert not np.array_equal(unpermute(interleaved, 1), rows)


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])
def test_a_llama_gguf_gives_back_the_weights_it_was_made_from(tmp_path: Path, kind: str) -> None:
    source = build_tiny("llama", tmp_path / "llama")
    made = prepare(str(write_gguf(source, tmp_path / "m.gguf", kind=kind)), cache=tmp_path / "c")
    before, after = load_file(source / "model.safetensors"), load_file(_weights(made.path))
    assert before.keys() == after.keys()
    bits = {
        "F32": 0,
        "F16": 2.0**-11,
        "Q8_0": 1 / 127,
        "Q5_0": 1 / 15,
        "Q4_0": 1 / 7,
        "Q4_1": 1 / 7,
    }
    for name, array in before.items():  # one step of a block's scale is the largest error
        assert np.abs(after[name] - array).max() <= bits[kind] * np.abs(array).max(), name


def test_a_llama_gguf_gives_back_the_config_it_was_made_from(tmp_path: Path) -> None:
    source = build_tiny("llama", tmp_path / "llama")
    made = prepare(str(write_gguf(source, tmp_path / "m.gguf")), cache=tmp_path / "c")
    before, after = (json.loads((p / "config.json").read_text()) for p in (source, made.path))
    ignored = {"transformers_version", "initializer_range", "pretraining_tp", "attention_dropout"}
    ignored |= {"use_cache"}
    assert {k: v for k, v in before.items() if k not in ignored}.items() <= after.items()
    assert after["rope_theta"] == before["rope_parameters"]["rope_theta"]


def test_untied_weights_several_files_and_linear_rope_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rope = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e5}
    source = build_tiny("llama", tmp_path / "l", tie_word_embeddings=False, rope_parameters=rope)
    scaling = {"llama__rope__scaling__type": "linear", "llama__rope__scaling__factor": 4.0}
    monkeypatch.setattr("models.from_gguf.SHARD_BYTES", 200_000)
    made = prepare(str(write_gguf(source, tmp_path / "m.gguf", **scaling)), cache=tmp_path / "c")
    assert len(list(made.path.glob("model-*-of-*.safetensors"))) > 1
    ids = [5, 80, 200, 7]
    np.testing.assert_array_equal(_torch_logits(made.path, ids), _torch_logits(source, ids))


@pytest.mark.parametrize("arch", ["qwen3", "gemma3"])
def test_other_architectures_come_through_transformers(tmp_path: Path, arch: str) -> None:
    source = build_tiny(arch, tmp_path / arch, **UNUSUAL[arch])
    made = prepare(str(write_gguf(source, tmp_path / "m.gguf")), cache=tmp_path / "c")
    assert made.family == arch
    ids = [5, 80, 200, 7, 9, 11, 300, 4, 17, 31, 400]
    # Gemma's norms travel as w + 1, which costs each a float32 rounding; logits reach 30.
    tolerance = 1e-3 if arch == "gemma3" else 0
    np.testing.assert_allclose(
        _torch_logits(made.path, ids), _torch_logits(source, ids), rtol=0, atol=tolerance
    )


@pytest.mark.parametrize("arch", ["qwen3", "gemma3"])
def test_rope_scaling_that_transformers_would_drop_is_refused(tmp_path: Path, arch: str) -> None:
    source = build_tiny(arch, tmp_path / arch, **UNUSUAL[arch])
    scaled = write_gguf(source, tmp_path / "m.gguf", **{f"{arch}__rope__scaling__type": "linear"})
    with pytest.raises(UserError, match="RoPE scaling"):
        prepare(str(scaled), cache=tmp_path / "c")


@pytest.mark.slow
def test_the_embedded_model_equals_transformers_own_dequantisation() -> None:
    _assert_same_as_transformers(embedded_gguf())


@pytest.mark.parametrize("kind", ["Q4_1", "Q8_0"])
def test_a_quantised_file_equals_transformers_own_dequantisation(tmp_path: Path, kind: str) -> None:
    # head_dim 16 of 6 heads and 2 KV heads; vocab_size 385 leaves transformers nothing to guess
    source = build_tiny("llama", tmp_path / "llama", vocab=385)
    _assert_same_as_transformers(write_gguf(source, tmp_path / "m.gguf", kind=kind))


def _assert_same_as_transformers(path: Path) -> None:
    from transformers import AutoModelForCausalLM, GgufConfig

    model = AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, quantization_config=GgufConfig(dequantize=True)
    )
    theirs = {k: v.float().numpy() for k, v in model.state_dict().items()}
    theirs.pop("lm_head.weight")
    file = read_gguf(path)
    names = set()
    for name, array in llama_weights(file, llama_config(file)):
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)
        names.add(name)
    assert names == theirs.keys()


def test_the_embedded_tokenizer_gives_llama_cpps_ids(tmp_path: Path) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", exc_type=ImportError)
    engine = llama_cpp.Llama(str(embedded_gguf()), vocab_only=True, verbose=False)
    file = read_gguf(embedded_gguf())
    write_tokenizer(file, tmp_path)  # afresh: the prepared copy may be of an older version
    (tmp_path / "config.json").write_text(json.dumps(llama_config(file)))
    tokenizer = load_tokenizer(tmp_path)
    assert len(TEXTS) >= 100
    for text in TEXTS:
        theirs = engine.tokenize(text.encode(), add_bos=False, special=True)
        assert tokenizer.encode(text, add_special_tokens=False) == theirs, repr(text)


def test_the_embedded_directory_states_bos_eos_pad_and_template(
    smollm_directory: ModelDirectory,
) -> None:
    tokenizer = load_tokenizer(smollm_directory.path)
    ids = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert ids == (1, 2, 2)
    template = read_gguf(embedded_gguf()).metadata["tokenizer.chat_template"]
    assert tokenizer.chat_template == template
    generation = json.loads((smollm_directory.path / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2]


def test_a_llama_import_needs_no_torch(tmp_path: Path) -> None:
    source = build_tiny("llama", tmp_path / "llama")
    write_gguf(source, tmp_path / "m.gguf")
    run = _without_torch(tmp_path / "m.gguf", tmp_path / "c")
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[-1] == "llama"


def test_other_architectures_without_torch_give_one_line(tmp_path: Path) -> None:
    source = build_tiny("qwen3", tmp_path / "qwen3")
    write_gguf(source, tmp_path / "m.gguf")
    run = _without_torch(tmp_path / "m.gguf", tmp_path / "c")
    assert "UserError" in run.stderr.splitlines()[-1]
    assert "needs torch" in run.stderr.splitlines()[-1]


WITHOUT_TORCH = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
def hidden(name, path=None, target=None):
    return None if name.split(".")[0] in ("torch", "mlx", "llama_cpp") else find(name, path, target)
importlib.machinery.PathFinder.find_spec = hidden
from pathlib import Path
from models.gguf_tokenizer import write_tokenizer
from models.store import prepare
from models.chat import ChatEncoder
made = prepare(sys.argv[1], cache=Path(sys.argv[2]))
ChatEncoder(made).describe()
assert "torch" not in sys.modules
print(made.family)
"""


def _without_torch(model: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(model), str(cache)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"general__architecture": "qwen35"}, "qwen35"),
        ({"general__architecture": "mamba"}, "cannot be dequantised"),
        ({"general__type": "adapter"}, "holds no model"),
        ({"llama__expert_count": 8}, "mixture of experts"),
        ({"llama__rope__scaling__type": "yarn"}, "RoPE scaling"),
        ({"llama__block_count": 4}, "lacks blk.3"),
        ({"llama__block_count": 2}, "unexpected blk.2"),
        ({"llama__attention__head_count": 5}, "imply"),
        ({"llama__embedding_length": None}, "embedding_length"),
        ({"tokenizer__ggml__tokens": None}, "no tokenizer"),
        ({"tokenizer__ggml__pre": "unheard-of"}, "pre-tokenizer"),
        ({"tokenizer__ggml__pre": None}, "pre-tokenizer"),
        ({"tokenizer__ggml__eos_token_id": 5000}, "eos_token_id"),
        ({"tokenizer__ggml__merges": ["no-space"]}, "tokenizer"),
        ({"tokenizer__ggml__tokens": [str(i) for i in range(600)]}, "tokenizer"),
    ],
)
def test_an_unusable_gguf_gives_one_line(
    tmp_path: Path, change: dict[str, object], complaint: str
) -> None:
    source = build_tiny("llama", tmp_path / "llama")
    changed = _rewritten(source, tmp_path / "m.gguf", change)
    with pytest.raises(UserError, match=complaint) as caught:
        prepare(str(changed), cache=tmp_path / "c")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "c" / "prepared").glob("*"))


def _rewritten(source: Path, out: Path, change: dict[str, object]) -> Path:
    if "general__architecture" in change:
        write_gguf(source, out)
        arch = str(change["general__architecture"]).encode()
        raw, old = out.read_bytes(), len(b"llama").to_bytes(8, "little") + b"llama"
        at = raw.index(old)
        rest = raw[at + len(old) :]
        out.write_bytes(raw[:at] + len(arch).to_bytes(8, "little") + arch + rest)
        return out
    removed = dict.fromkeys(change)  # a key cannot be written twice
    if "general__type" in change or "llama__expert_count" in change:
        removed = {}
    write_gguf(source, out, **{**removed, **change})
    return out


def test_infinite_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    source = build_tiny("llama", tmp_path / "llama")
    weights = load_file(source / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = np.inf
    save_file(weights, source / "model.safetensors")
    with pytest.raises(UserError, match=r"blk\.1\.ffn_up.*infinities"):
        prepare(str(write_gguf(source, tmp_path / "m.gguf")), cache=tmp_path / "c")


def test_the_builder_writes_what_the_parts_say(tmp_path: Path) -> None:
    file = read_gguf(write_gguf(build_tiny("llama", tmp_path / "l"), tmp_path / "m.gguf"))
    out, parts = tmp_path / "out", tmp_path / "parts"
    out.mkdir(), parts.mkdir()
    build_from_gguf(file, out)
    write_weights(llama_weights(file, llama_config(file)), parts)
    assert _weights(out).read_bytes() == _weights(parts).read_bytes()


def _weights(path: Path) -> Path:
    return path / "model.safetensors"


def _torch_logits(path: Path, ids: list[int]) -> np.ndarray:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0].numpy()

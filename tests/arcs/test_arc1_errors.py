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
def threearc(monkeypatch, capsys, tmp_path, tmp_path_factory):
    """Run the command line in this process; returns (status, stdout, stderr)."""
    monkeypatch.setenv("THREEARC_CACHE", str(tmp_path_factory.getbasetemp() / "errors-cache"))
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


def test_a_missing_adapter_is_said_before_engines_are_compared(threearc, tiny_model, monkeypatch):
    import arcs.arc1.pipeline as pipeline

    def compared(*_: object, **__: object) -> None:
        raise AssertionError("the engines were compared first, which takes minutes")

    monkeypatch.setattr(pipeline, "verify", compared)
    line = error_line(threearc("arc1", "--model", tiny_model, "--adapter", "nix"))
    assert line.endswith("nix is not a LoRA adapter: it has no adapter_config.json")


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


def test_paths_are_kept_whole(tmp_path, monkeypatch):
    from arcs.arc1.config import absolute_paths

    monkeypatch.chdir(tmp_path)
    made = absolute_paths({"data": ["mine.jsonl"], "adapter": "lora"})
    assert made == {"data": (tmp_path / "mine.jsonl",), "adapter": tmp_path / "lora"}


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


def test_a_mistake_found_at_the_start_leaves_no_run_behind(threearc, tmp_path):
    error_line(threearc("arc1", "--model", "Qwen9-9B", "--out", "bad"))
    error_line(threearc("arc1", "--data", "missing.jsonl", "--out", "bad"))
    assert not (tmp_path / "bad").exists()


def test_asking_for_the_original_gguf_of_a_model_without_one_is_refused(threearc, tiny_model):
    line = error_line(threearc("arc1", "--model", tiny_model, "--quantisation", "original"))
    assert "not made from a GGUF" in line and "q8_0" in line


def test_thinking_on_a_model_without_the_mode_is_refused(threearc, tiny_model):
    line = error_line(threearc("arc1", "--model", tiny_model, "--thinking"))
    assert "no thinking mode" in line


@pytest.mark.parametrize(
    "content", ['{"name": "a browser extension"}', '{"arc": "arc1"}', "[1]", "not json", ""]
)
def test_a_directory_that_is_no_run_is_refused_and_not_touched(threearc, tmp_path, content):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "manifest.json").write_text(content)
    assert "error: other: " in error_line(threearc("arc1", "--run", "other")).replace("--run ", "")
    assert "nix: no run here (no such folder)" in error_line(threearc("arc1", "--run", "nix"))
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["manifest.json"]
    assert (tmp_path / "other" / "manifest.json").read_text() == content


def test_a_run_is_not_continued_with_another_state_of_the_code(threearc, tmp_path):
    from arcs.arc1.config import resolve
    from arcs.arc1.pipeline import first_manifest
    from arcs.runs import RunDirectory

    manifest = first_manifest(resolve({}), [])
    manifest["code"]["git_commit"] = "0" * 40
    RunDirectory.create(tmp_path / "r", manifest).close()
    assert "commit 000000000000" in error_line(threearc("arc1", "--run", "r"))


@pytest.mark.parametrize("where", ["--out", "--run", "--model"])
def test_a_name_that_is_too_long_is_one_line(threearc, where):
    assert "too long" in error_line(threearc("arc1", where, "x" * 300))


@pytest.mark.parametrize("name", ["alpha", "learning-rate", "alpha=nan"])
def test_numbers_that_are_not_finite_are_refused(threearc, tmp_path, name):
    flag, _, value = name.partition("=")
    line = error_line(threearc("arc1", f"--{flag}", value or "inf"))
    assert flag in line
    assert not (tmp_path / "runs").exists()


def test_a_profile_of_another_type_is_refused(threearc, tmp_path):
    (tmp_path / "s.toml").write_text('profile = ["quick"]\n')
    assert "profile" in error_line(threearc("arc1", "--config", "s.toml"))


def test_a_directory_that_cannot_be_written_is_one_line(threearc, tmp_path, monkeypatch):
    import os

    real = os.open

    def refuse(path: object, *rest: object, **more: object) -> int:
        if str(path).endswith(".lock"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return real(path, *rest, **more)

    monkeypatch.setattr(os, "open", refuse)
    assert "Read-only" in error_line(threearc("arc1", "--out", "there"))


def test_a_byte_order_mark_is_no_mistake_and_deep_nesting_is_one_line(tmp_path):
    from arcs.training_data import load

    row = json.dumps({"id": "a", "prompt": "p", "response": "r"})
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + row.encode() + b"\n")
    assert load([tmp_path / "bom.jsonl"])[0].id == "a"
    (tmp_path / "deep.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(UserError, match=r"deep.jsonl, line 1"):
        load([tmp_path / "deep.jsonl"])


@pytest.mark.parametrize("declared", ["someone/Another-Model", "tiny-base"])
def test_a_plain_adapter_that_names_another_model_is_refused(
    threearc, tiny_model, tmp_path, declared
):
    folder = plain_adapter(tmp_path / "lora", tiny_model, declared)
    line = error_line(threearc("arc1", "--model", tiny_model, "--adapter", folder))
    assert declared in line and "base_model_name_or_path" in line


@pytest.mark.parametrize("declared", ["someone/tiny", None])
def test_a_plain_adapter_that_names_this_model_or_none_is_taken(tiny_model, tmp_path, declared):
    from backends.lora import load_adapter
    from models.store import prepare

    folder = plain_adapter(tmp_path / "lora", tiny_model, declared)
    assert load_adapter(folder, prepare(str(tiny_model), cache=tmp_path / "cache"))[1]


def plain_adapter(folder, model, declared):
    """An adapter as plain PEFT leaves it: without our sidecar."""
    from backends.interface import LoraConfig
    from backends.lora import initial_weights, save_adapter
    from models.store import prepare

    config = LoraConfig(rank=2, alpha=4.0)
    modules = {"model.layers.0.self_attn.q_proj": (96, 96)}
    directory = prepare(str(model), cache=folder.parent / "cache")
    save_adapter(folder, config, initial_weights(config, modules, 0), directory)
    (folder / "threearc_adapter.json").unlink()
    settings = json.loads((folder / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = declared
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_what_comparing_the_engines_gave_is_kept_with_the_run(tmp_path, monkeypatch):
    # free memory at the moment of continuing must not decide whether a run can be continued
    import arcs.arc1.pipeline as pipeline
    from arcs.progress import Reporter
    from arcs.runs import RunDirectory

    monkeypatch.setattr(pipeline, "verify", lambda *_, **__: "verified: now")
    before = RunDirectory.create(tmp_path / "a", {"model": {"verification": "unverified: then"}})
    with before, RunDirectory.create(tmp_path / "b", {}) as new:
        assert pipeline._verification(before, None, Reporter()) == "unverified: then"
        assert pipeline._verification(new, None, Reporter()) == "verified: now"


def test_a_model_without_a_chat_template_names_all_that_it_needs(threearc, tmp_path):
    plain = build_tiny("llama", tmp_path / "plain", max_position_embeddings=4096, template=None)
    line = error_line(threearc("arc1", "--model", plain))
    assert line.endswith("give --adapter PATH, --prompt-style raw, --evaluations none")
    line = error_line(
        threearc("arc1", "--model", plain, "--adapter", "lora", "--prompt-style", "raw")
    )
    assert "no chat template" in line and line.endswith("give --evaluations none")


def test_options_of_a_judge_that_nobody_named_are_refused(threearc, tiny_model):
    line = error_line(threearc("arc1", "--model", tiny_model, "--judge-budget-usd", "1"))
    assert "--judge-budget-usd: it is of a --judge" in line
    line = error_line(threearc("arc1", "--model", tiny_model, "--judge-threads", "2"))
    assert "they are of a --judge" in line
    line = error_line(
        threearc("arc1", "--model", tiny_model, "--judge", "gguf", "--judge-budget-usd", "1")
    )
    assert "--judge-budget-usd means nothing to a gguf judge" in line
    line = error_line(threearc("arc1", "--model", tiny_model, "--judge", "gguf",
                               "--judge-below-bar"))  # fmt: skip
    assert "--judge-below-bar means nothing to a gguf judge" in line
    for more in (("--evaluations", "none"), ("--judge", "lexical"), ()):
        line = error_line(threearc("arc1", "--model", tiny_model, "--judge-cache", "x", *more))
        assert "--judge-cache: no api or gguf judge labels anything in this run" in line


def test_a_continued_run_has_the_judges_cap_of_the_sitting_before(threearc, tmp_path, monkeypatch):
    import arcs.arc1.command as command
    from arcs import provenance
    from arcs.arc1.config import resolve
    from arcs.arc1.pipeline import first_manifest
    from arcs.runs import RunDirectory

    monkeypatch.setattr(provenance, "code_state", lambda: {"git_commit": "one"})
    monkeypatch.setattr(command, "_arrange_blas", lambda *_: None)
    went = []
    monkeypatch.setattr(command, "_go", lambda *given, begun: went.append(given[4].options))
    settings = resolve({"profile": "quick", "judge": "api:http://h/v1#m"})
    RunDirectory.create(tmp_path / "r", first_manifest(settings, [])).close()
    prices = ("--judge-usd-per-million-input", "1", "--judge-usd-per-million-output", "2")
    for more in (("--judge-budget-usd", "3", *prices), ("--judge-tries", "2"),
                 ("--judge-budget-usd", "4"), ()):  # fmt: skip
        assert threearc("arc1", "--run", "r", *more)[0] == 0
    assert [one.budget_usd for one in went] == [3, 3, 4, 4]
    assert {one.usd_per_million_output for one in went} == {2} and went[3].tries is None

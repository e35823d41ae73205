"""Arc 1 with DPO: one run end to end, its mistakes, and that a kill changes nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_cpp")

import arcs.arc1.training as training_module
from arcs.arc1.config import Arc1Config, resolve
from arcs.arc1.metrics import Arc1Metrics
from arcs.arc1.table import preference_line
from arcs.training_data import Preference, Record, load_preferences, require_apart
from models.errors import UserError
from tests.support.arc1_bench import Bench
from tests.support.command_line import call_here


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("dpo"))


def finish(command: list[str], bench: Bench) -> str:
    done = subprocess.run(
        command,
        env={**bench.environment(bench.root / "cache"), "THREEARC_BLAS_TRIED": "1"},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def whole(bench: Bench) -> tuple[Path, Arc1Metrics]:
    out = bench.root / "whole"
    printed = finish(bench.both(out), bench)
    metrics = Arc1Metrics.model_validate(json.loads(printed))
    assert json.loads((out / "metrics.json").read_text()) == json.loads(printed)
    return out, metrics


def test_sft_then_dpo_in_one_run(whole: tuple[Path, Arc1Metrics]) -> None:
    out, metrics = whole
    sft, dpo = metrics.training, metrics.training_dpo
    assert sft is not None and dpo is not None
    assert sft.last_loss < sft.first_loss
    assert dpo.policy_is_reference
    assert dpo.step0_loss == pytest.approx(np.log(2), abs=1e-3)
    assert (dpo.pairs, dpo.optimiser_steps, dpo.beta) == (7, 12, 0.1)
    assert dpo.last_loss < dpo.step0_loss - 0.01
    assert [point.step for point in dpo.held_out] == [0, 3, 6, 9, 12]
    assert dpo.held_out[0].loss == pytest.approx(np.log(2), abs=1e-3)
    assert dpo.held_out[-1].pairs == 2
    # the reference is the adapter that SFT made
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["reference"]["given"] == "sft"
    assert dpo.reference.kind == "adapter"
    assert dpo.reference.weights_sha256 == sft.weights_sha256
    assert manifest["reference"]["weights_sha256"] == sft.weights_sha256
    assert metrics.made_with["pairs"]["records"] == 9
    assert dpo.weights_sha256 != sft.weights_sha256
    for name in ("adapter-sft", "adapter", "train/log.jsonl", "train-dpo/reference.jsonl"):
        assert (out / name).exists(), name


def test_the_evaluated_adapter_is_the_one_dpo_made(whole: tuple[Path, Arc1Metrics]) -> None:
    from backends.lora import adapter_sha256

    out, metrics = whole
    assert metrics.made_with["adapter"]["sha256"] == adapter_sha256(out / "adapter")
    assert adapter_sha256(out / "adapter") != adapter_sha256(out / "adapter-sft")


def test_the_table_tells_a_person_about_dpo(whole: tuple[Path, Arc1Metrics]) -> None:
    dpo = whole[1].training_dpo
    assert dpo is not None
    line = preference_line(dpo)
    assert "first loss 0.6931 (= ln 2)" in line
    assert "reward margin +" in line and "of 2 pairs ranked right" in line
    plain = preference_line(dpo.model_copy(update={"held_out": [], "policy_is_reference": False}))
    assert "policy is not the reference" in plain and "held-out" not in plain


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["train", "train dpo"])
def test_kills_in_either_training_leave_the_same_result(
    bench: Bench, whole: tuple[Path, Arc1Metrics], tmp_path: Path, phase: str
) -> None:
    """Four kills, each after one more line of the phase's log, or of DPO's reference."""
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    gone = ["train-dpo", "training-dpo.json", "adapter", "adapter.gguf", "metrics.json"]
    gone += ["items.jsonl", "executions.jsonl", "trained.completions.jsonl"]
    gone += ["train", "training.json", "adapter-sft"] if phase == "train" else []
    for name in gone:
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    folder = run / ("train" if phase == "train" else "train-dpo")
    watched = ["log.jsonl"] if phase == "train" else ["reference.jsonl", "log.jsonl"]
    command = bench.command("--run", str(run))
    for lines in (2, 4, 5, 7):
        environment = {**bench.environment(bench.root / "cache"), "THREEARC_BLAS_TRIED": "1"}
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        ) as process:  # fmt: skip
            while process.poll() is None and _lines(folder, watched) < lines:
                time.sleep(0.002)
            os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    finish(command, bench)
    for name in ("metrics.json", "items.jsonl", "train-dpo/reference.jsonl"):
        assert (run / name).read_bytes() == (whole[0] / name).read_bytes()


def _lines(folder: Path, names: list[str]) -> int:
    files = [folder / name for name in names]
    return max((file.read_text().count("\n") for file in files if file.exists()), default=0)


def test_a_training_that_stops_says_where_the_last_good_adapter_is(
    bench: Bench, tmp_path: Path
) -> None:
    """A rate that breaks the model: one line, and an adapter that loads."""
    out = tmp_path / "run"
    done = bench.call_here([*bench.both(out), "--dpo-learning-rate", "1e25"])
    assert done.returncode == 2 and done.stdout == ""
    assert "Traceback" not in done.stderr
    line = done.stderr.rstrip("\n").splitlines()[-1]
    assert line.startswith("error: the loss became nan at step 2 (items p")
    assert "last good adapter, after step 0" in line
    kept = out / "adapter-last-good"
    assert f"as a PEFT adapter: {kept}" in line
    from backends.lora import adapter_sha256

    assert adapter_sha256(kept) == adapter_sha256(out / "adapter-sft")  # before any DPO update
    assert not (out / "adapter").exists()


# Settings -----------------------------------------------------------------------------------


def test_the_papers_recipe_is_the_paper_profile() -> None:
    """PAPER.md 3.1: learning rate 5e-6, beta 0.1, two epochs, batch 1 x 16, 1,280 tokens."""
    settings = resolve({"profile": "paper", "method": "sft+dpo"})
    dpo = settings.dpo()
    assert (dpo.beta, dpo.train.learning_rate, dpo.train.epochs) == (0.1, 5e-6, 2)
    assert (dpo.train.micro_batch_size, dpo.train.accumulation) == (1, 16)
    assert dpo.train.max_length == 1280
    assert settings.training().learning_rate == 2e-4
    assert dpo.train.lora == settings.training().lora


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"method": "ppo"}, "method"),
        ({"method": "dpo", "beta": 0.0}, "beta"),
        ({"method": "sft", "pairs": (Path("p"),)}, "method: sft uses no --pairs"),
        ({"method": "sft", "reference": "base"}, "method: sft uses no --pairs and no --reference"),
        ({"method": "dpo", "data": (Path("d"),)}, "dpo trains on --pairs alone"),
        ({"method": "dpo", "reference": "sft"}, "reference: sft needs"),
        ({"method": "dpo", "adapter": Path("a")}, "adapter: it is evaluated as it is"),
        ({"method": "dpo", "learning_rate": 1e-6}, "use it; its own is --dpo-learning-rate"),
        ({"method": "dpo", "train_limit": 3}, "train-limit: dpo does not use it; leave"),
        ({"method": "sft", "beta": 0.5}, "beta: method sft does not use it"),
        ({"method": "sft", "dpo_epochs": 9}, "dpo-epochs: method sft does not use it"),
        ({"adapter": Path("a"), "rank": 3}, "rank: --adapter is evaluated as it is"),
        ({"adapter": Path("a"), "base_bits": 4}, "base-bits: --adapter is evaluated"),
    ],
)
def test_settings_that_would_go_unused_are_refused(flags: dict, named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        resolve(flags)
    assert "\n" not in str(caught.value)


def test_what_is_wrong_is_named_as_the_flag_that_gave_it() -> None:
    for flags, said in (
        ({"limit": 0}, "--limit: "), ({"profile": "nix"}, "--profile 'nix': "),
        ({"method": "sft", "dpo_epochs": 9}, "--dpo-epochs: "),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            resolve(flags)
        assert str(caught.value).startswith(said)


def test_a_profiles_own_settings_are_not_what_was_asked_for() -> None:
    for profile in ("quick", "standard", "paper"):
        for flags in ({"method": "sft"}, {"method": "dpo"}, {"adapter": Path("a")}):
            assert resolve({"profile": profile, **flags}).profile == profile


def test_what_sft_trains_on_is_not_held_out_for_dpo() -> None:
    def record(split: str) -> Record:
        return Record(id="r", prompt="What is a roux?", response="Flour.", split=split)

    def pair(split: str) -> Preference:
        return Preference(**{**GOOD, "prompt": "What is  a ROUX?", "split": split})

    require_apart([record("train")], [pair("train")])
    for one, other in (("train", "held_out"), ("held_out", "train")):
        with pytest.raises(UserError, match="have the same prompt; remove one"):
            require_apart([record(one)], [pair(other)])


def test_room_for_dpo_is_asked_before_sft(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def no_room(*_: object) -> None:
        asked.append("room")
        raise UserError("no room")

    monkeypatch.setattr(training_module, "make_pairs", lambda *_: ([], []))
    monkeypatch.setattr(training_module, "cut_both", lambda *_: None)
    monkeypatch.setattr(training_module, "_require_room_for_pairs", no_room)
    monkeypatch.setattr(training_module, "_sft", lambda *_: asked.append("sft"))
    run: Any = SimpleNamespace(path=Path("nowhere"))
    nothing: Any = None
    trainer = training_module.Trainer(
        resolve({"method": "sft+dpo"}), run, nothing, "torch", nothing, nothing
    )
    with pytest.raises(UserError, match="no room"):
        training_module.train_or_take(trainer, [], [])
    assert asked == ["room"]


def test_the_reference_is_what_the_policy_starts_from_unless_asked() -> None:
    assert resolve({"method": "dpo"}).dpo_reference == "base"
    assert resolve({"method": "sft+dpo"}).dpo_reference == "sft"
    assert resolve({"method": "sft+dpo", "reference": "base"}).dpo_reference == "base"


@pytest.mark.parametrize("key", ["max_grad_value", "clip", "max_gradient_norm", "grad_clip"])
def test_there_is_one_clipping_option_and_others_are_errors(tmp_path: Path, key: str) -> None:
    """B17: two settings for one thing, of which one silently cancels the other."""
    file = tmp_path / "settings.toml"
    file.write_text(f"max_grad_norm = 0.5\n{key} = 1.0\n")
    done = call_here("arc1", "--config", file)
    assert done.returncode == 2 and f"{key}: threearc arc1 has no such option" in done.stderr
    names = [name for name in Arc1Config.model_fields if "clip" in name or "grad_" in name]
    assert names == ["max_grad_norm"]
    settings = resolve({"method": "sft+dpo", "max_grad_norm": 0.5})
    assert settings.training().max_grad_norm == settings.dpo().train.max_grad_norm == 0.5


# Pairs --------------------------------------------------------------------------------------

GOOD = {"id": "a", "prompt": "p", "chosen": "c", "rejected": "r"}


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([GOOD, GOOD], r"line 2: id 'a' again"),
        ([{**GOOD, "rejected": " c\n"}], "line 1: chosen and rejected are the same"),
        ([{**GOOD, "rejected": " \n"}], "line 1: rejected"),
        ([{**GOOD, "chosen": ""}], "line 1: chosen"),
        ([{**GOOD, "response": "r"}], "line 1: response"),
        ([GOOD, {**GOOD, "id": "b", "prompt": " P ", "split": "held_out"}], "same prompt"),
        ([], "holds no pairs"),
    ],
)
def test_wrong_pairs_are_named_with_file_and_line(tmp_path: Path, rows: list, named: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=named) as caught:
        load_preferences([file])
    assert "\n" not in str(caught.value)


def test_pairs_that_differ_in_indentation_are_pairs(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({**GOOD, "chosen": "if x:\n    y()", "rejected": "if x:\ny()"}))
    assert load_preferences([file])[0].split == "train"


def test_a_pair_that_cannot_be_encoded_is_found_before_sft(bench: Bench, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(json.dumps({**GOOD, "id": "odd", "rejected": "<|im_end|> and more"}) + "\n")
    out = tmp_path / "run"
    done = bench.call_here([*bench.fresh(out), "--method", "sft+dpo", "--pairs", str(bad)])
    assert done.returncode == 2
    assert "item odd" in done.stderr.splitlines()[-1]
    assert not (out / "train").exists()

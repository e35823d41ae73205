"""Training on pairs by the shared loop: reference, first loss, resume, records, both engines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("mlx.core")

from backends import open_backend
from backends.interface import Batch, Float64, LanguageModel, LoraConfig
from backends.preference_loss import LN2
from backends.preferences import PreferencePair
from backends.reference import (
    Reference,
    ReferenceModel,
    compute_reference,
    is_complete,
    load_reference,
)
from backends.training import (
    DpoConfig,
    StepRecord,
    TrainConfig,
    TrainResult,
    train,
    train_preferences,
)
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.devices import DEVICE
from tests.support.preference_pairs import moved, pairs
from tests.support.tiny_models import ARCHITECTURES
from tests.support.training_data import examples

Tiny = Callable[..., ModelDirectory]
ENGINES = ("torch", "mlx")
DATA, HELD = pairs(10), pairs(3, seed=5000)
CONFIG = DpoConfig(
    TrainConfig(
        lora=LoraConfig(4, 8.0, dropout=0.1),  # dropout on: its masks must resume as well
        epochs=2,
        learning_rate=2e-3,
        micro_batch_size=2,
        accumulation=2,
        checkpoint_every=2,
        eval_every=2,
    )
)
STEPS = 6


class Killed(Exception):
    """Stands for SIGKILL: nothing in the loop may catch it."""


def changed(config: DpoConfig = CONFIG, **train_settings: Any) -> DpoConfig:
    return replace(config, train=replace(config.train, **train_settings))


def base_reference(
    engine: str, tiny: ModelDirectory, file: Path, config: DpoConfig = CONFIG
) -> Reference:
    with open_backend(engine, tiny) as model:
        return compute_reference(model, ReferenceModel.base(), DATA, HELD, config, file=file)


def run(
    engine: str,
    tiny: ModelDirectory,
    out: Path,
    config: DpoConfig = CONFIG,
    *,
    on_step: Any = None,
    held: list[PreferencePair] = HELD,
    start: Any = None,
    reference: Reference | None = None,
) -> TrainResult:
    if reference is None:
        reference = base_reference(engine, tiny, out / "reference.jsonl", config)
    with open_backend(engine, tiny) as model:
        return train_preferences(
            model, DATA, held, config,
            reference=reference, directory=out / "train", start=start, on_step=on_step,
        )  # fmt: skip


def same(a: TrainResult, b: TrainResult) -> bool:
    equal = all(np.array_equal(a.weights[name], b.weights[name]) for name in a.weights)
    return equal and (a.steps, a.evals, a.start, a.summary) == (
        b.steps,
        b.evals,
        b.start,
        b.summary,
    )


def kill_after(step: int) -> Callable[[StepRecord], None]:
    def on_step(record: StepRecord) -> None:
        if record.step == step:
            raise Killed

    return on_step


@pytest.fixture(scope="module")
def tiny(tiny_directory: Tiny) -> ModelDirectory:
    return tiny_directory("llama")


@pytest.fixture(scope="module", params=ENGINES)
def whole(
    tiny: ModelDirectory, tmp_path_factory: pytest.TempPathFactory, request: Any
) -> tuple[str, TrainResult, Path]:
    out = tmp_path_factory.mktemp(f"whole-{request.param}")
    return request.param, run(request.param, tiny, out), out


def test_training_starts_at_ln_2_and_learns_the_preferences(
    whole: tuple[str, TrainResult, Path],
) -> None:
    _, result, out = whole
    assert result.start is not None
    assert result.start.policy_is_reference
    assert result.start.loss == pytest.approx(LN2, abs=1e-4)
    assert result.start.largest_reward < 1e-3
    assert [record.step for record in result.steps] == list(range(1, STEPS + 1))
    assert [record.step for record in result.evals] == [0, 2, 4, 6]
    assert result.evals[0].loss == pytest.approx(LN2, abs=1e-4)
    last = result.steps[-1]
    assert last.preferences is not None
    assert last.loss < LN2 - 0.05
    assert last.preferences.margin > 0.1
    assert last.preferences.accuracy == 1.0
    found = last.preferences
    assert found.margin == pytest.approx(found.reward_chosen - found.reward_rejected)
    assert found.pairs == 2  # 10 pairs in steps of 4
    assert json.loads((out / "train" / "log.jsonl").read_text().splitlines()[0])["kind"] == "start"


def test_summary_counts_pairs_and_names_the_reference(
    whole: tuple[str, TrainResult, Path],
) -> None:
    summary = whole[1].summary
    assert summary["pairs"] == 10 and summary["held_out_pairs"] == 3
    assert summary["optimiser_steps"] == STEPS
    assert summary["response_tokens"] == 2 * sum(pair.tokens for pair in DATA)
    assert whole[1].positions == 2 * sum(
        len(pair.chosen.ids) + len(pair.rejected.ids) for pair in DATA
    )
    reference = summary["identity"]["reference"]
    stored = load_reference(whole[2] / "reference.jsonl")
    assert reference["kind"] == "base"
    assert reference["logprobs_sha256"] == stored.sha256
    assert json.dumps(summary)


@pytest.mark.parametrize("step", [1, 2, 5])
def test_killed_and_continued_equals_uninterrupted(
    tiny: ModelDirectory, tmp_path: Path, whole: tuple[str, TrainResult, Path], step: int
) -> None:
    engine, result, out = whole
    with pytest.raises(Killed):
        run(engine, tiny, tmp_path, on_step=kill_after(step))
    assert same(run(engine, tiny, tmp_path), result)
    logs = [(path / "train" / "log.jsonl").read_bytes() for path in (tmp_path, out)]
    assert logs[0] == logs[1]


def test_another_seed_or_beta_is_not_the_same(
    tiny: ModelDirectory, tmp_path: Path, whole: tuple[str, TrainResult, Path]
) -> None:
    """The negative twin: the comparison above can fail."""
    engine, result, _ = whole
    assert not same(run(engine, tiny, tmp_path / "seed", changed(seed=1)), result)
    other = run(engine, tiny, tmp_path / "beta", replace(CONFIG, beta=0.5))
    assert other.steps[1].loss != result.steps[1].loss


KILLED_PROCESS = """
import sys
from pathlib import Path
from models.store import prepare
from tests.backends.test_preference_training import run
source, out, cache, engine = sys.argv[1:]
model = prepare(source, cache=Path(cache))
run(engine, model, Path(out), on_step=lambda record: print(record.step, flush=True))
"""


@pytest.mark.parametrize("after", ["reference", "2", pytest.param("3", marks=pytest.mark.slow)])
def test_sigkill_and_resume_is_bit_identical(
    tiny: ModelDirectory, tmp_path: Path, after: str
) -> None:
    """A real process, killed while it writes the reference and while it trains (torch)."""
    whole_out = tmp_path / "whole"
    expected = run("torch", tiny, whole_out)
    out = tmp_path / "run"
    cache = tiny.path.parents[1]  # where it is prepared already
    source = tiny.source.split("@")[0]
    command = [sys.executable, "-c", KILLED_PROCESS, source, str(out), str(cache), "torch"]
    root = Path(__file__).resolve().parents[2]
    env = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=env, cwd=root, text=True) as process:
        assert process.stdout is not None
        if after == "reference":
            file = out / "reference.jsonl"
            while not file.exists() or file.read_text().count("\n") < 3:
                assert process.poll() is None
                time.sleep(0.002)
        else:
            for line in process.stdout:
                if line.strip() == after:
                    break
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert same(run("torch", tiny, out), expected)
    for name in ("reference.jsonl", "train/log.jsonl"):
        assert (out / name).read_bytes() == (whole_out / name).read_bytes()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_rewards_are_exactly_0_on_a_cpu(
    tiny: ModelDirectory, tmp_path: Path, engine: str, dtype: Any
) -> None:
    """The batches are those of the reference: in others, bfloat16 alone would look like a
    different model (its rewards reach 0.1 on SmolLM2-135M)."""
    with open_backend(engine, tiny, dtype=dtype) as model:
        reference = compute_reference(
            model, ReferenceModel.base(), DATA, HELD, CONFIG, file=tmp_path / "r.jsonl"
        )
    with open_backend(engine, tiny, dtype=dtype) as model:
        result = train_preferences(
            model, DATA, HELD, changed(epochs=1), reference=reference, directory=tmp_path / "t"
        )
    assert result.start is not None
    assert result.start.largest_reward == 0.0
    assert result.start.loss == pytest.approx(LN2, abs=1e-15)


# The reference ------------------------------------------------------------------------------


def test_a_stored_reference_is_not_computed_again(tiny: ModelDirectory, tmp_path: Path) -> None:
    file = tmp_path / "reference.jsonl"
    first = base_reference("torch", tiny, file)
    assert is_complete(file)
    before = file.read_bytes()

    class Refusing(type(open_backend("torch", tiny))):  # type: ignore[misc]
        def sequence_logprobs(self, batch: Batch) -> Float64:
            raise AssertionError("computed again")

    with Refusing(tiny, device=DEVICE) as model:
        again = compute_reference(model, ReferenceModel.base(), DATA, HELD, CONFIG, file=file)
    assert again == first
    assert file.read_bytes() == before


@pytest.mark.parametrize("lines", [1, 2, 6, 7, 14])
def test_a_torn_reference_is_finished_as_it_would_have_been(
    tiny: ModelDirectory, tmp_path: Path, lines: int
) -> None:
    file = tmp_path / "reference.jsonl"
    base_reference("torch", tiny, file)
    text = file.read_text()
    assert text.count("\n") == 15  # what it is of, 13 pairs, the hash
    file.write_text("".join(text.splitlines(keepends=True)[:lines]) + '{"chosen": -1')
    assert not is_complete(file)
    with pytest.raises(UserError, match="damaged or not complete"):
        load_reference(file)
    base_reference("torch", tiny, file)
    assert file.read_text() == text


def test_any_id_that_a_pair_may_have_stands_in_the_reference(
    tiny: ModelDirectory, tmp_path: Path
) -> None:
    """Line separators of other alphabets, and the name of the file's last key."""
    names = ("a\u2028b", "c\u0085d", "sha256", '"sha256"')
    odd = [replace(pair, item_id=name) for pair, name in zip(pairs(4), names, strict=True)]
    file = tmp_path / "reference.jsonl"
    with open_backend("torch", tiny) as model:
        first = compute_reference(model, ReferenceModel.base(), odd, [], CONFIG, file=file)
    assert is_complete(file) and load_reference(file) == first
    assert set(first.values) == set(names)
    whole = file.read_text(encoding="utf-8")
    file.write_text("\n".join(whole.split("\n")[:4]), encoding="utf-8")
    assert not is_complete(file)
    with open_backend("torch", tiny) as model:
        compute_reference(model, ReferenceModel.base(), odd, [], CONFIG, file=file)
    assert file.read_text(encoding="utf-8") == whole
    file.write_bytes(b"\xff\n")
    assert not is_complete(file)


def test_a_reference_of_something_else_is_refused(tiny: ModelDirectory, tmp_path: Path) -> None:
    file = tmp_path / "reference.jsonl"
    reference = base_reference("torch", tiny, file)
    with pytest.raises(UserError, match="of another model, adapter, data or setting"):
        base_reference("mlx", tiny, file)
    with pytest.raises(
        UserError, match=r"log-probabilities are of (engine torch|device cuda.*) and not (mlx|cpu)"
    ):
        run("mlx", tiny, tmp_path / "a", reference=reference)
    with pytest.raises(UserError, match="max_length"):
        run("torch", tiny, tmp_path / "b", changed(max_length=69), reference=reference)
    with pytest.raises(UserError, match="held_out_pairs"):
        run("torch", tiny, tmp_path / "c", held=HELD[:1], reference=reference)
    other = replace(tiny, fingerprint="0" * 64)
    with pytest.raises(UserError, match="model_fingerprint"):
        run("torch", other, tmp_path / "d", reference=reference)
    file.write_text(file.read_text().replace("-", "-1", 1))
    with pytest.raises(UserError, match="damaged"):
        load_reference(file)


def test_a_reference_model_must_be_what_is_said(tiny: ModelDirectory, tmp_path: Path) -> None:
    lora = CONFIG.train.lora
    with open_backend("torch", tiny) as model:
        weights = fresh(model)
        what = ReferenceModel.adapter(lora, weights)
        with pytest.raises(UserError, match="the model given is the base model"):
            compute_reference(model, what, DATA, HELD, CONFIG, file=tmp_path / "r.jsonl")
        model.attach_lora(lora, moved(weights, 0.01))
        for wrong in (what, ReferenceModel.base()):
            with pytest.raises(UserError, match="the model given is the adapter"):
                compute_reference(model, wrong, DATA, HELD, CONFIG, file=tmp_path / "r.jsonl")


def fresh(model: LanguageModel) -> Any:
    from backends.lora import initial_weights

    return initial_weights(CONFIG.train.lora, model.linear_modules(), 0)


# SFT, then DPO from the SFT adapter (B30) ----------------------------------------------------


@pytest.fixture(scope="module", params=ENGINES)
def tuned(
    tiny: ModelDirectory, tmp_path_factory: pytest.TempPathFactory, request: Any
) -> tuple[str, Any]:
    """An adapter that SFT made."""
    out = tmp_path_factory.mktemp("sft")
    config = replace(CONFIG.train, learning_rate=2e-2, epochs=4)
    with open_backend(request.param, tiny) as model:
        result = train(model, examples(8), [], config, directory=out)
    return request.param, result.weights


def adapter_reference(engine: str, tiny: ModelDirectory, weights: Any, file: Path) -> Reference:
    what = ReferenceModel.adapter(CONFIG.train.lora, weights)
    with open_backend(engine, tiny) as model:
        model.attach_lora(CONFIG.train.lora, weights)
        return compute_reference(model, what, DATA, HELD, CONFIG, file=file)


def test_dpo_continues_the_sft_adapter_with_it_as_reference(
    tiny: ModelDirectory, tmp_path: Path, tuned: tuple[str, Any]
) -> None:
    """B30: with the SFT adapter as reference the first loss is ln 2 and the rewards are 0."""
    engine, weights = tuned
    reference = adapter_reference(engine, tiny, weights, tmp_path / "reference.jsonl")
    result = run(engine, tiny, tmp_path, start=weights, reference=reference)
    assert result.start is not None
    assert result.start.policy_is_reference
    assert result.start.loss == pytest.approx(LN2, abs=1e-3)
    assert abs(result.start.reward_chosen) < 1e-3 and abs(result.start.reward_rejected) < 1e-3
    assert result.summary["identity"]["reference"]["kind"] == "adapter"
    # it went on from the SFT adapter and not from a fresh one
    travelled = sum(float(np.abs(result.weights[n] - weights[n]).sum()) for n in weights)
    with open_backend(engine, tiny) as model:
        start = fresh(model)
    from_fresh = sum(float(np.abs(result.weights[n] - start[n]).sum()) for n in weights)
    assert travelled < 0.5 * from_fresh


def test_the_base_as_reference_of_an_sft_policy_is_seen_and_recorded(
    tiny: ModelDirectory, tmp_path: Path, tuned: tuple[str, Any]
) -> None:
    """The mistake of B30: allowed when asked for, but then the first loss is not ln 2."""
    engine, weights = tuned
    result = run(engine, tiny, tmp_path, start=weights)
    assert result.start is not None
    assert not result.start.policy_is_reference
    assert result.start.tolerance is None
    assert abs(result.start.loss - LN2) > 1e-2
    assert result.summary["identity"]["reference"]["kind"] == "base"


def test_a_policy_that_is_not_the_reference_it_should_be_is_refused(
    tiny: ModelDirectory, tmp_path: Path, tuned: tuple[str, Any]
) -> None:
    """Log-probabilities of the base under the name of the SFT adapter."""
    engine, weights = tuned
    base = base_reference(engine, tiny, tmp_path / "base.jsonl")
    right = adapter_reference(engine, tiny, weights, tmp_path / "right.jsonl")
    with pytest.raises(UserError, match=r"before any update is .* not ln 2 = 0.693147"):
        run(
            engine, tiny, tmp_path, start=weights,
            reference=replace(right, values=base.values),
        )  # fmt: skip


def test_rewards_that_are_not_0_are_refused_even_where_the_loss_is_ln_2(
    tiny: ModelDirectory, tmp_path: Path
) -> None:
    """B30 asks for both: the same mistake on both sides of a pair cancels in the loss."""
    right = base_reference("torch", tiny, tmp_path / "right.jsonl")
    values = {item: (chosen - 5, rejected - 5) for item, (chosen, rejected) in right.values.items()}
    with pytest.raises(UserError, match=r"is 0\.6931\d\d with rewards up to 0\.5"):
        run("torch", tiny, tmp_path, reference=replace(right, values=values))


def test_a_small_beta_hides_no_wrong_reference(tiny: ModelDirectory, tmp_path: Path) -> None:
    """Five nats on both sides are a reward of 0.005 only at beta 0.001."""
    small = replace(CONFIG, beta=1e-3)
    right = base_reference("torch", tiny, tmp_path / "right.jsonl", small)
    run("torch", tiny, tmp_path / "right", small, reference=right)
    values = {item: (chosen - 5, rejected - 5) for item, (chosen, rejected) in right.values.items()}
    with pytest.raises(UserError, match=r"with rewards up to 0\.005"):
        run("torch", tiny, tmp_path / "wrong", small, reference=replace(right, values=values))


# Engines against each other -----------------------------------------------------------------


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_ten_steps_give_one_curve_on_both_engines(
    tiny_directory: Tiny, tmp_path: Path, arch: str
) -> None:
    """Loss by step to 1e-4, as in SFT: Adam enlarges float noise in the weights, hardly in the
    loss. Ten pairs in steps of two, two epochs."""
    config = changed(
        lora=LoraConfig(4, 8.0, targets="all"), accumulation=1, eval_every=None, learning_rate=2e-4
    )
    found = {
        engine: run(engine, tiny_directory(arch), tmp_path / engine, config) for engine in ENGINES
    }
    curves = [np.array([step.loss for step in found[engine].steps]) for engine in ENGINES]
    assert len(curves[0]) == 10
    assert np.abs(curves[0] - curves[1]).max() < 1e-4, np.abs(curves[0] - curves[1]).max()
    assert np.ptp(curves[0]) > 1e-2  # it moves by far more
    if arch == "llama":  # negative twin: another order of the pairs is another curve
        other = run("torch", tiny_directory(arch), tmp_path / "other", changed(config, seed=1))
        wrong = np.array([step.loss for step in other.steps])
        assert np.abs(curves[1] - wrong).max() > 1e-3


@pytest.mark.slow
def test_ten_steps_of_the_real_model_give_one_curve(
    smollm_directory: ModelDirectory, tmp_path: Path
) -> None:
    config = DpoConfig(
        TrainConfig(lora=LoraConfig(8, 16.0), epochs=5, learning_rate=2e-4, micro_batch_size=2)
    )
    given, curves = short_pairs(smollm_directory), []
    for engine in ENGINES:
        with open_backend(engine, smollm_directory) as model:
            reference = compute_reference(
                model, ReferenceModel.base(), given, [], config, file=tmp_path / engine / "r.jsonl"
            )
        with open_backend(engine, smollm_directory) as model:
            result = train_preferences(
                model, given, [], config, reference=reference, directory=tmp_path / engine / "train"
            )
        curves.append(np.array([step.loss for step in result.steps]))
    assert len(curves[0]) == 10
    assert curves[0][0] == pytest.approx(LN2, abs=1e-4)
    assert curves[0][-1] < LN2 - 0.05
    assert np.abs(curves[0] - curves[1]).max() < 1e-4, np.abs(curves[0] - curves[1]).max()


def short_pairs(directory: ModelDirectory) -> list[PreferencePair]:
    from backends.batching import TrainingExample
    from models.chat import ChatEncoder

    encoder = ChatEncoder(directory)
    rows = (
        ("What is the capital of France?", "Paris.", "I like turtles a lot."),
        ("2+2?", "Four.", "It is five, obviously."),
        ("Name a colour.", "Blue.", "Cheese is a colour."),
        ("Who wrote Hamlet?", "William Shakespeare.", "Bob."),
    )
    made = []
    for prompt, *answers in rows:
        sides = [encoder.encode_example(prompt, answer) for answer in answers]
        for side in sides:  # the last id trained on is the end of the turn
            last = max(place for place, mask in enumerate(side.response_mask) if mask)
            assert side.ids[last] == encoder.end_of_turn_id
        chosen, rejected = (TrainingExample(prompt, s.ids, s.response_mask) for s in sides)
        made.append(PreferencePair(prompt, chosen, rejected))
    return made

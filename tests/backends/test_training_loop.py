"""The shared loop on the torch engine: resume, refusal, logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from backends import open_backend
from backends.interface import Batch, LoraConfig, LossTerms
from backends.torch.model import TorchModel, open_model
from backends.training import StepRecord, TrainConfig, TrainResult, train
from models.directory import ModelDirectory
from models.errors import UserError
from tests.support.devices import DEVICE
from tests.support.training_data import example, examples

DATA, HELD = examples(14), examples(4, seed=1000)
CONFIG = TrainConfig(
    lora=LoraConfig(4, 8.0, dropout=0.1),  # dropout on: its masks must resume as well
    epochs=2,
    learning_rate=5e-3,
    micro_batch_size=2,
    accumulation=2,
    checkpoint_every=3,
    eval_every=2,
)
STEPS = 8


class Killed(Exception):
    """Stands for SIGKILL: nothing in the loop may catch it."""


@pytest.fixture(scope="module")
def tiny(tiny_directory: Callable[..., ModelDirectory]) -> ModelDirectory:
    return tiny_directory("llama")


def run(
    tiny: ModelDirectory,
    directory: Path,
    config: TrainConfig = CONFIG,
    on_step: Callable[[StepRecord], None] | None = None,
) -> TrainResult:
    with open_model(tiny, device=DEVICE) as model:
        return train(model, DATA, HELD, config, directory=directory, on_step=on_step)


def kill_after(step: int) -> Callable[[StepRecord], None]:
    def on_step(record: StepRecord) -> None:
        if record.step == step:
            raise Killed

    return on_step


def same(a: TrainResult, b: TrainResult) -> bool:
    """Everything but the times."""
    equal_weights = a.weights.keys() == b.weights.keys() and all(
        np.array_equal(a.weights[name], b.weights[name]) for name in a.weights
    )
    return equal_weights and (a.steps, a.evals, a.summary) == (b.steps, b.evals, b.summary)


@pytest.fixture(scope="module")
def whole(
    tiny: ModelDirectory, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, Path]:
    directory = tmp_path_factory.mktemp("whole")
    return run(tiny, directory), directory


def test_training_lowers_both_losses_and_logs_them(whole: tuple[TrainResult, Path]) -> None:
    result, directory = whole
    assert [record.step for record in result.steps] == list(range(1, STEPS + 1))
    assert [record.step for record in result.evals] == [0, 2, 4, 6, 8]
    # mean of the second epoch against the first: no single noisy step decides
    losses = [record.loss for record in result.steps]
    assert np.mean(losses[4:]) < np.mean(losses[:4]) - 0.1
    assert result.tokens_per_second > 0
    text = (directory / "log.jsonl").read_text()
    assert "seconds" not in text
    kinds = [json.loads(line)["kind"] for line in text.splitlines()]
    assert kinds.count("step") == STEPS
    assert len((directory / "timing.jsonl").read_text().splitlines()) == STEPS


def test_summary_counts(whole: tuple[TrainResult, Path]) -> None:
    summary = whole[0].summary
    assert summary["optimiser_steps"] == STEPS
    assert summary["response_tokens"] == 2 * sum(sum(row.response_mask) for row in DATA)
    assert len(summary["padding_share"]) == 2
    assert all(0 < share < 1 for share in summary["padding_share"])
    assert json.dumps(summary)


def test_only_the_last_two_checkpoints_are_kept(whole: tuple[TrainResult, Path]) -> None:
    names = sorted(path.name for path in (whole[1] / "checkpoints").glob("step-*"))
    assert names == ["step-00000006", "step-00000008"]


@pytest.mark.parametrize("step", [1, 3, 4, 6, 7])
def test_killed_and_continued_equals_uninterrupted(
    tiny: ModelDirectory, tmp_path: Path, whole: tuple[TrainResult, Path], step: int
) -> None:
    with pytest.raises(Killed):
        run(tiny, tmp_path, on_step=kill_after(step))
    assert same(run(tiny, tmp_path), whole[0])
    assert (tmp_path / "log.jsonl").read_bytes() == (whole[1] / "log.jsonl").read_bytes()


def test_killed_often_and_with_a_torn_log_line(
    tiny: ModelDirectory, tmp_path: Path, whole: tuple[TrainResult, Path]
) -> None:
    for step in (2, 4, 5):
        with pytest.raises(Killed):
            run(tiny, tmp_path, on_step=kill_after(step))
        with (tmp_path / "log.jsonl").open("a") as log:
            log.write('{"kind": "st')
        (tmp_path / "checkpoints" / ".step-00000009.torn").mkdir(exist_ok=True)
    assert same(run(tiny, tmp_path), whole[0])
    assert (tmp_path / "log.jsonl").read_bytes() == (whole[1] / "log.jsonl").read_bytes()
    left = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert left == {"identity.json", "step-00000006", "step-00000008"}


def test_a_training_goes_on_from_given_weights(
    tiny: ModelDirectory, tmp_path: Path, whole: tuple[TrainResult, Path]
) -> None:
    """From what the first training gave: its first loss is near where that one ended."""

    def again(start: dict[str, np.ndarray]) -> TrainResult:
        config = replace(CONFIG, learning_rate=1e-6)
        with open_model(tiny, device=DEVICE) as model:
            return train(model, DATA, HELD, config, directory=tmp_path, start=start)

    first, end = whole[0], whole[0].weights
    result = again(end)
    assert result.evals[0].loss == first.evals[-1].loss
    assert abs(result.evals[0].loss - first.evals[0].loss) > 1e-2  # not where that one began
    with pytest.raises(UserError, match="start_weights"):
        again({name: value + 1 for name, value in end.items()})
    with pytest.raises(UserError, match="does not fit"):
        again({name: value[:-1] for name, value in end.items()})


def test_another_seed_is_not_the_same(
    tiny: ModelDirectory, tmp_path: Path, whole: tuple[TrainResult, Path]
) -> None:
    """The negative twin: the comparison above can fail."""
    assert not same(run(tiny, tmp_path, replace(CONFIG, seed=1)), whole[0])


def test_a_resume_that_loses_the_optimiser_state_is_noticed(
    tiny: ModelDirectory,
    tmp_path: Path,
    whole: tuple[TrainResult, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The negative twin of the resume tests: weights and step alone are not enough."""
    with pytest.raises(Killed):
        run(tiny, tmp_path, on_step=kill_after(4))
    restore = TorchModel.load_training_state

    def forget(self: TorchModel, state: dict[str, np.ndarray]) -> None:
        zeroed = {n: a * 0 if n.startswith("exp_avg") else a for n, a in state.items()}
        restore(self, zeroed)

    monkeypatch.setattr(TorchModel, "load_training_state", forget)
    assert not same(run(tiny, tmp_path), whole[0])


def test_calling_a_finished_training_again_changes_nothing(
    tiny: ModelDirectory, whole: tuple[TrainResult, Path]
) -> None:
    seen: list[StepRecord] = []
    again = run(tiny, whole[1], on_step=seen.append)
    assert same(again, whole[0])
    assert seen == []
    assert again.seconds_this_call == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"learning_rate": 1e-3}, "config.learning_rate = 0.005"),
        ({"lora": LoraConfig(4, 9.0, dropout=0.1)}, "config.lora.alpha"),
        ({"max_length": 60}, "config.max_length"),
    ],
)
def test_other_settings_are_refused_with_one_line(
    tiny: ModelDirectory, whole: tuple[TrainResult, Path], change: dict[str, object], named: str
) -> None:
    with pytest.raises(UserError, match=named) as caught:
        run(tiny, whole[1], replace(CONFIG, **change))
    assert "\n" not in str(caught.value)


def test_other_data_or_another_model_is_refused(
    tiny: ModelDirectory, whole: tuple[TrainResult, Path]
) -> None:
    with open_model(tiny, device=DEVICE) as model, pytest.raises(UserError, match="training_data"):
        train(model, DATA[:-1], HELD, CONFIG, directory=whole[1])
    other = replace(tiny, fingerprint="0" * 64)
    with pytest.raises(UserError, match="model_fingerprint"):
        run(other, whole[1])


def test_a_damaged_checkpoint_is_noticed(tiny: ModelDirectory, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tiny, tmp_path, on_step=kill_after(7))
    state = tmp_path / "checkpoints" / "step-00000006" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"\x01")
    with pytest.raises(UserError, match="step-00000006 is damaged: delete"):
        run(tiny, tmp_path)


class Exploding(TorchModel):
    """Returns an infinite loss at the third optimiser step."""

    calls = 0

    def accumulate(self, batch: Batch) -> LossTerms:
        self.calls += 1
        terms = super().accumulate(batch)
        return LossTerms(float("inf"), terms.tokens) if self.calls > 4 else terms


def test_a_loss_that_is_no_number_stops_with_one_line(tiny: ModelDirectory, tmp_path: Path) -> None:
    with (
        Exploding(tiny, device=DEVICE) as model,
        pytest.raises(UserError, match=r"at step 3 \(items item-.*learning_rate") as caught,
    ):
        train(model, DATA, HELD, CONFIG, directory=tmp_path)
    assert "\n" not in str(caught.value)
    assert '"step": 3' not in (tmp_path / "log.jsonl").read_text()


def test_overflow_in_the_weights_stops_with_one_line(tiny: ModelDirectory, tmp_path: Path) -> None:
    wild = replace(CONFIG, learning_rate=1e25, max_grad_norm=None, eval_every=None)
    with pytest.raises(UserError, match=r"became (nan|inf)|validation loss"):
        run(tiny, tmp_path, wild)


def test_a_last_step_that_breaks_the_model_is_found_without_held_out_data(
    tiny: ModelDirectory, tmp_path: Path
) -> None:
    wild = replace(CONFIG, learning_rate=1e30, epochs=1, checkpoint_every=1000)
    one_step = replace(wild, micro_batch_size=len(DATA), accumulation=1)
    with (
        open_model(tiny, device=DEVICE) as model,
        pytest.raises(UserError, match=r"loss after the update became .* at step 1"),
    ):
        train(model, DATA, [], one_step, directory=tmp_path)


def test_no_held_out_examples_means_no_validation_loss(
    tiny: ModelDirectory, tmp_path: Path
) -> None:
    with open_model(tiny, device=DEVICE) as model:
        result = train(model, DATA, [], replace(CONFIG, epochs=1), directory=tmp_path)
    assert result.evals == ()


def test_accumulation_equals_one_large_batch(tiny: ModelDirectory, tmp_path: Path) -> None:
    """4 micro-batches of 1 against 1 of 4; float32 sums differ in order only (seen: 4e-6)."""
    plain = replace(CONFIG, lora=LoraConfig(4, 8.0), epochs=1)
    small = run(tiny, tmp_path / "s", replace(plain, micro_batch_size=1, accumulation=4))
    large = run(tiny, tmp_path / "l", replace(plain, micro_batch_size=4, accumulation=1))
    for a, b in zip(small.steps, large.steps, strict=True):
        assert a.loss == pytest.approx(b.loss, abs=1e-4)
        assert a.grad_norm == pytest.approx(b.grad_norm, rel=1e-3)
    wrong = run(tiny, tmp_path / "w", replace(plain, micro_batch_size=2, accumulation=1))
    assert abs(wrong.steps[0].loss - large.steps[0].loss) > 1e-2


def test_dropped_examples_are_reported(tiny: ModelDirectory, tmp_path: Path) -> None:
    many = [example(4, 8, seed=i) for i in range(110)] + [example(40, 60)]
    config = replace(CONFIG, epochs=1, max_length=32, micro_batch_size=64, eval_every=None)
    with open_backend("torch", tiny) as model:
        result = train(model, many, [], config, directory=tmp_path)
    assert result.summary["examples_dropped"] == ["item-0-40-60"]
    assert result.summary["examples"] == 110

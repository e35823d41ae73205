"""One model trained by two processes: what one process accumulates, kills included."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("torch")
pytest.importorskip("accelerate")

import torch

from backends import open_backend, require_processes
from backends.batching import plan_steps
from backends.interface import AdamWConfig, LoraConfig
from backends.lora import initial_weights
from backends.reference import ReferenceModel, compute_reference
from backends.torch import parallel
from backends.torch.model import TorchModel, open_model
from backends.training import DpoConfig, TrainConfig, TrainResult, train, train_preferences
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from tests.support.devices import DEVICE
from tests.support.preference_pairs import pairs
from tests.support.tolerances import TOLERANCES
from tests.support.training_data import examples

pytestmark = pytest.mark.skipif(DEVICE != "cpu", reason="two processes need two GPUs, or a CPU")
ROOT = Path(__file__).resolve().parents[2]
CURVE = TOLERANCES["loss_curve", "float32", "processes"].value
WEIGHTS = TOLERANCES["adapter", "float32", "processes"].value
DATA, HELD = examples(13), examples(2, seed=1000)
CONFIG = TrainConfig(
    lora=LoraConfig(4, 8.0, dropout=0.1),  # the masks of a micro-batch are the same anywhere
    epochs=2,
    learning_rate=5e-3,
    micro_batch_size=2,
    accumulation=3,  # so that the shares differ, and each epoch ends with one micro-batch
    checkpoint_every=2,
)


@pytest.fixture(scope="module")
def tiny(tiny_directory: Callable[..., ModelDirectory]) -> ModelDirectory:
    return tiny_directory("llama")


@pytest.fixture(scope="module")
def alone(tiny: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    with open_model(tiny) as model:
        return train(model, DATA, HELD, CONFIG, directory=tmp_path_factory.mktemp("alone"))


def gradient_of(model: TorchModel, batches: list) -> torch.Tensor:
    for batch in batches:
        model.accumulate(batch)
    found = model._training().gradient()
    model._training().take_gradient(None)
    return found


def test_shares_of_a_step_add_up_to_its_gradient(tiny: ModelDirectory) -> None:
    """Weighted by response ids, though the shares have different numbers of them."""
    (step, *_) = plan_steps(DATA, epochs=1, micro_batch_size=2, accumulation=3, seed=0)
    linear = None
    with open_model(tiny) as model:
        linear = model.linear_modules()
        model.attach_lora(CONFIG.lora, initial_weights(CONFIG.lora, linear, 0))
        model.configure_optimizer(AdamWConfig())
        whole = gradient_of(model, list(step.batches))
        first, second = (gradient_of(model, list(step.batches[rank::2])) for rank in (0, 1))
        tokens = [int(batch.loss_mask.sum()) for batch in step.batches]
        assert tokens[0] + tokens[2] != tokens[1]
        assert torch.linalg.norm(first + second - whole) < 1e-6 * torch.linalg.norm(whole)
        # a mean of the shares' own means, as an unweighted average would give
        other = first * sum(tokens) / (tokens[0] + tokens[2]) + second * sum(tokens) / tokens[1]
        assert torch.linalg.norm(other / 2 - whole) > 1e-2 * torch.linalg.norm(whole)
        model._training().take_gradient(whole)
        assert torch.equal(model._training().gradient(), whole)


def test_what_cannot_be_shared_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlx")
    with pytest.raises(CapabilityError, match="the mlx engine cannot train in 2 processes"):
        require_processes("mlx", 2)
    monkeypatch.setattr(parallel, "default_device", lambda: "cuda")
    monkeypatch.setattr(parallel.torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="a GPU of its own, and this machine has 1; lower it"):
        require_processes("torch", 2)
    monkeypatch.setattr(parallel, "default_device", lambda: "mps")
    with pytest.raises(UserError, match="not MPS"):
        require_processes("torch", 2)


# -- real processes -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(
    tiny: ModelDirectory, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TrainResult, bytes]:
    """The training by two processes, and its log."""
    folder = tmp_path_factory.mktemp("together")
    threads = torch.get_num_threads()
    with open_backend("torch", tiny, processes=2) as model:
        described = model.describe()
        assert (described["exchange"], described["processes"]) == ("gloo", 2)
        (member,) = model._team._members  # type: ignore[attr-defined]
        found = train(model, DATA, HELD, CONFIG, directory=folder)
    assert member.returncode == 0  # gone with the model
    assert torch.get_num_threads() == threads
    return found, (folder / "log.jsonl").read_bytes()


def distance(one: TrainResult, other: TrainResult) -> float:
    a, b = (np.concatenate([w.ravel() for w in r.weights.values()]) for r in (one, other))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def require_close(found: TrainResult, wanted: TrainResult) -> None:
    assert [one.tokens for one in found.steps] == [one.tokens for one in wanted.steps]
    for attribute in ("loss", "grad_norm"):
        ours, theirs = ([getattr(s, attribute) for s in r.steps] for r in (found, wanted))
        np.testing.assert_allclose(ours, theirs, rtol=CURVE)
    assert distance(found, wanted) < WEIGHTS


@pytest.mark.slow
def test_two_processes_give_what_one_accumulates(
    tiny: ModelDirectory, alone: TrainResult, together: tuple[TrainResult, bytes], tmp_path: Path
) -> None:
    require_close(together[0], alone)
    assert len(alone.steps) == 6
    with open_model(tiny) as model:  # one record less: the tolerances must see that
        less = train(model, DATA[:-1], HELD, CONFIG, directory=tmp_path)
    assert distance(less, alone) > 100 * WEIGHTS


_TRAINING = """
import sys, time
from pathlib import Path
from backends import open_backend
from backends.training import train
from models.store import prepare
from tests.backends.test_torch_parallel import CONFIG, DATA, HELD

def slowly(record):
    print(record.step, flush=True)
    time.sleep(0.3)

with open_backend("torch", prepare(sys.argv[1]), processes=2) as model:
    train(model, DATA, HELD, CONFIG, directory=Path(sys.argv[2]), on_step=slowly)
"""


@pytest.mark.slow
def test_a_killed_training_leaves_no_process_and_ends_the_same(
    tiny: ModelDirectory, together: tuple[TrainResult, bytes], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", _TRAINING, str(tiny.path), str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 3:
                break
        others = psutil.Process(process.pid).children(recursive=True)
        # asked while they live: they end by themselves when the first is gone
        workers = [one for one in others if "parallel_worker" in " ".join(one.cmdline())]
        process.send_signal(signal.SIGKILL)
    assert workers
    assert not psutil.wait_procs(others, timeout=30)[1]
    assert (tmp_path / "checkpoints" / "step-00000002").is_dir()
    with open_backend("torch", tiny, processes=2) as model:
        resumed = train(model, DATA, HELD, CONFIG, directory=tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == together[1]
    assert resumed.summary == together[0].summary  # the adapter's hash among it
    with (
        open_model(tiny) as model,  # another number of processes rounds otherwise
        pytest.raises(UserError, match=r"model.processes = 2 and not None"),
    ):
        train(model, DATA, HELD, CONFIG, directory=tmp_path)


@pytest.mark.slow
def test_pairs_are_shared_out_and_a_lost_process_is_one_line(
    tiny: ModelDirectory, tmp_path: Path
) -> None:
    config = DpoConfig(replace(CONFIG, epochs=1, accumulation=2))
    given = pairs(6)
    with open_model(tiny) as model:
        reference = compute_reference(
            model, ReferenceModel.base(), given, (), config, file=tmp_path / "reference.jsonl"
        )
    arguments = {"config": config, "reference": reference}
    with open_model(tiny) as model:
        alone = train_preferences(model, given, (), directory=tmp_path / "1", **arguments)
    with open_backend("torch", tiny, processes=2) as model:
        found = train_preferences(model, given, (), directory=tmp_path / "2", **arguments)
        require_close(found, alone)
        (member,) = model._team._members  # type: ignore[attr-defined]
        member.kill()
        member.wait()
        (step, *_) = plan_steps(DATA, epochs=1, micro_batch_size=2, accumulation=3, seed=0)
        begun = time.monotonic()
        with pytest.raises(UserError, match=r"process 2 of 2 ended \(was killed by signal 9\)"):
            list(model.accumulate_step(step.batches))
        with pytest.raises(UserError, match="process 2 of 2 ended"):
            model.apply(1e-3, 1.0)
        assert time.monotonic() - begun < 20  # not a time-out of the exchange

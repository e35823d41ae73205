"""A process that computes gradients for :mod:`backends.torch.parallel`, which starts it.

Commands come through the pipe whose file descriptor is the only argument; each is answered by
(True, result) or (False, one line). The process ends when the pipe is closed.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any

import torch

from backends.interface import AdamWConfig, Batch, LoraConfig, PreferenceBatch
from backends.torch import collectives
from backends.torch.model import TorchModel, default_device, open_model
from models.errors import UserError


def main(argv: list[str]) -> None:
    """Serve until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process decides how all end
    pipe = Connection(int(argv[0]))
    try:
        directory, dtype, rank, processes, port, threads = pipe.recv()
        torch.set_num_threads(threads)
        device = f"cuda:{rank}" if default_device() == "cuda" else "cpu"
        member = _answered(pipe, lambda: open_model(directory, dtype=dtype, device=device))
        if member is None:
            return
        pipe.send((True, None))
        pipe.recv()  # join
        store = collectives.found_place(port, processes)
        collectives.join(store, rank, processes, member.device)
        pipe.send((True, None))
        serve(pipe, member)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the first process has ended, or needs us no more
    except RuntimeError:  # of torch, in an exchange
        if not _closed(pipe):
            raise


def serve(pipe: Connection, model: TorchModel) -> None:
    """Answer commands. Raises EOFError at the end."""
    commands: Mapping[str, Callable[..., Any]] = {
        "attach_lora": lambda *given: _attach(model, *given),
        "configure_optimizer": lambda config: _configure(model, config),
        "accumulate": lambda batches: _accumulate(model, batches),
        "accumulate_preferences": lambda batches: _accumulate_preferences(model, batches),
        "gradient": lambda: _add_gradient(model),
    }
    while True:
        name, *arguments = pipe.recv()
        done = _answered(pipe, lambda: (commands[name](*arguments),))  # noqa: B023
        if done is not None:
            pipe.send((True, done[0]))


def _answered(pipe: Connection, work: Callable[[], Any]) -> Any:
    """What ``work`` gives; None where it failed as a user's mistake, which is answered."""
    try:
        return work()
    except UserError as error:
        pipe.send((False, str(error)))
        return None


def _closed(pipe: Connection) -> bool:
    """Whether the first process has ended, as far as it shows within some seconds."""
    try:
        if pipe.poll(5):
            pipe.recv()
    except (EOFError, OSError):
        return True
    return False


def _attach(
    model: TorchModel, config: LoraConfig, weights: Mapping[str, Any], checkpointing: bool
) -> None:
    model.attach_lora(config, weights, gradient_checkpointing=checkpointing)


def _configure(model: TorchModel, config: AdamWConfig) -> None:
    model.configure_optimizer(config)


def _accumulate(model: TorchModel, batches: list[Batch]) -> list[Any]:
    _begin_step(model)
    return [model.accumulate(batch) for batch in batches]


def _accumulate_preferences(model: TorchModel, batches: list[PreferenceBatch]) -> list[Any]:
    _begin_step(model)
    return [model.accumulate_preferences(batch) for batch in batches]


def _begin_step(model: TorchModel) -> None:
    """Take the weights of the first process, and nothing of a step that came to no end."""
    trainer = model._training()
    trainer.take_gradient(None)
    trainer.take_weights(collectives.from_first(torch.empty_like(trainer.weights())))


def _add_gradient(model: TorchModel) -> None:
    trainer = model._training()
    collectives.summed(trainer.gradient())
    trainer.take_gradient(None)


if __name__ == "__main__":
    main(sys.argv[1:])

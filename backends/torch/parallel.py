"""One model trained by several processes on this machine: data-parallel, nothing is sharded.

The training loop runs in the first process alone. The others hold the same model and serve
gradients: at each step they are sent the weights and their share of the micro-batches, and the
sum of all gradients is applied by the first. Each micro-batch's gradient is divided by the
response ids (or pairs) of the *whole* step, so that the sum is what one process accumulates, up
to the order of float32 additions.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import torch

from backends.interface import (
    PROCESSES,
    AdamWConfig,
    Batch,
    Dtype,
    Float32,
    Float64,
    LoraConfig,
    LossTerms,
    PreferenceBatch,
)
from backends.memory import available_memory
from backends.torch.model import TorchModel, default_device
from backends.torch.model import free_memory as free_on_device
from models.directory import ModelDirectory
from models.errors import UserError

B = TypeVar("B", Batch, PreferenceBatch)
T = TypeVar("T")
WORKER = "backends.torch.parallel_worker"
_ROOT = Path(__file__).resolve().parents[2]


def open_model(
    directory: ModelDirectory, *, dtype: Dtype = "float32", processes: int
) -> ParallelModel:
    """Open ``directory`` in this process and ``processes`` - 1 others."""
    return ParallelModel(directory, dtype=dtype, processes=processes)


def require_devices(processes: int) -> None:
    """Raise UserError where the default device cannot be used by so many processes."""
    device = default_device()
    if device == "mps":
        raise UserError("--processes: torch trains in several processes on CPUs and CUDA, not MPS")
    if device == "cuda" and processes > torch.cuda.device_count():
        raise UserError(
            f"--processes {processes}: each needs a GPU of its own, and this machine has "
            f"{torch.cuda.device_count()}; lower it"
        )


def free_memory(processes: int) -> int:
    """Free bytes for each of the processes."""
    if default_device() == "cuda":
        return free_on_device()  # each has its own GPU
    return available_memory() // processes


class ParallelModel(TorchModel):
    """The torch engine, whose training steps are computed by several processes."""

    def __init__(
        self, directory: ModelDirectory, *, dtype: Dtype = "float32", processes: int
    ) -> None:
        """Start the others while this process loads its own model."""
        require_devices(processes)
        self._threads = torch.get_num_threads()
        share = max(1, self._threads // processes)
        self._processes = processes
        self._team = Team(directory, dtype, processes, share)
        try:
            device = "cuda:0" if default_device() == "cuda" else default_device()
            super().__init__(directory, dtype=dtype, device=device)
            if device == "cpu":
                torch.set_num_threads(share)
            self._team.meet(self.device)
        except BaseException:
            self._team.close()
            torch.set_num_threads(self._threads)
            raise

    def describe(self) -> dict[str, Any]:
        """As torch, with how many processes train and what they exchange gradients by."""
        import importlib.metadata

        described = super().describe()
        described["versions"]["accelerate"] = importlib.metadata.version("accelerate")
        return {**described, PROCESSES: self._processes, "exchange": self._team.exchange}

    def attach_lora(
        self,
        config: LoraConfig,
        weights: Mapping[str, Float32],
        *,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Add LoRA layers in every process."""
        super().attach_lora(config, weights, gradient_checkpointing=gradient_checkpointing)
        self._team.tell("attach_lora", config, dict(weights), gradient_checkpointing)
        self._team.hear()

    def configure_optimizer(self, config: AdamWConfig) -> None:
        """Make a fresh AdamW here; the others need its parameters only."""
        super().configure_optimizer(config)
        self._team.tell("configure_optimizer", config)
        self._team.hear()

    def accumulate_step(self, batches: Sequence[Batch]) -> Iterator[LossTerms]:
        """Forward and backward of a step's micro-batches, shared out."""
        return iter(self._shared("accumulate", batches, self.accumulate))

    def accumulate_preferences_step(self, batches: Sequence[PreferenceBatch]) -> Iterator[Float64]:
        """Forward and backward of a step's micro-batches of pairs, shared out."""
        found = self._shared("accumulate_preferences", batches, self.accumulate_preferences)
        return iter(found)

    def apply(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Add up the gradients of all processes; clip, step, clear."""
        from backends.torch import collectives

        self._team.tell("gradient")
        trainer = self._training()
        mine = trainer.gradient()
        trainer.take_gradient(self._team.exchanging(lambda: collectives.summed(mine)))
        self._team.hear()
        return super().apply(learning_rate, max_grad_norm)

    def close(self) -> None:
        """End the others, and free the weights here."""
        self._team.close()
        torch.set_num_threads(self._threads)
        super().close()

    def _shared(self, name: str, batches: Sequence[B], here: Callable[[B], T]) -> list[T]:
        """What each micro-batch gave; number i is done by process i modulo their number.

        They come longest first, so that the shares take about the same time.
        """
        from backends.torch import collectives

        shares = [list(batches[rank :: self._processes]) for rank in range(self._processes)]
        self._team.tell_each(name, shares)
        weights = self._training().weights()
        self._team.exchanging(lambda: collectives.from_first(weights))
        own = [here(batch) for batch in shares[0]]
        found = [own, *self._team.hear()]
        return [found[i % self._processes][i // self._processes] for i in range(len(batches))]


class Team:
    """The other processes: each on a pipe, through which commands go and answers come.

    A process whose pipe is closed ends: none outlives the first, however that ended.
    """

    def __init__(
        self, directory: ModelDirectory, dtype: Dtype, processes: int, threads: int
    ) -> None:
        from backends.torch import collectives

        self._store: Any = collectives.meeting_place(processes)
        self._state: Any = None
        self._pipes: list[Connection] = []
        self._members: list[subprocess.Popen[bytes]] = []
        try:
            for _ in range(1, processes):
                self._start()
            port = self._store.port
            for rank, pipe in enumerate(self._pipes, start=1):
                pipe.send((directory, dtype, rank, processes, port, threads))
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        ours, theirs = Pipe()
        self._pipes.append(ours)
        self._members.append(
            subprocess.Popen(
                [sys.executable, "-m", WORKER, str(theirs.fileno())],
                cwd=_ROOT,  # so that -m finds this very package
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # ours is the user's, who may have asked for one document on it
            )
        )
        theirs.close()

    @property
    def exchange(self) -> str:
        """What tensors go through: gloo or nccl."""
        return str(self._state.backend)

    def meet(self, device: torch.device) -> None:
        """Wait until all have loaded the model and form a group."""
        from backends.torch import collectives

        self.hear()  # before a rendezvous, which would wait for one that failed
        self.tell("join")
        processes = len(self._members) + 1
        self._state = collectives.join(self._store, 0, processes, device)
        self.hear()

    def tell(self, name: str, *arguments: Any) -> None:
        """Give all the same command."""
        for rank, pipe in enumerate(self._pipes, start=1):
            self._send(rank, pipe, (name, *arguments))

    def tell_each(self, name: str, shares: Sequence[Any]) -> None:
        """Give each its own share of a command; the first share is of this process."""
        for rank, pipe in enumerate(self._pipes, start=1):
            self._send(rank, pipe, (name, shares[rank]))

    def hear(self) -> list[Any]:
        """What each answered. Raises UserError for one that failed or is gone."""
        return [self._receive(rank, pipe) for rank, pipe in enumerate(self._pipes, start=1)]

    def exchanging(self, work: Callable[[], T]) -> T:
        """What an exchange with the others gives. Raises UserError where one is gone meanwhile."""
        try:
            return work()
        except RuntimeError:  # torch's DistBackendError among them
            for rank, member in enumerate(self._members, start=1):
                if _status(member) is not None:
                    raise self._gone(rank) from None
            raise

    def close(self) -> None:
        """Let all end, and wait until they have."""
        for pipe in self._pipes:
            pipe.close()
        if self._state is not None:
            from backends.torch import collectives

            collectives.leave(self._state)
        self._state = self._store = None
        for member in self._members:
            try:
                member.wait(timeout=20)
            except subprocess.TimeoutExpired:
                member.kill()
                member.wait()
        self._pipes, self._members = [], []

    def _send(self, rank: int, pipe: Connection, message: tuple[Any, ...]) -> None:
        try:
            pipe.send(message)
        except OSError:
            raise self._gone(rank) from None

    def _receive(self, rank: int, pipe: Connection) -> Any:
        try:
            succeeded, answer = pipe.recv()
        except (EOFError, OSError):
            raise self._gone(rank) from None
        if not succeeded:
            raise UserError(f"training process {rank + 1} of {len(self._members) + 1}: {answer}")
        return answer

    def _gone(self, rank: int) -> UserError:
        status = _status(self._members[rank - 1])
        how = f"was killed by signal {-status}" if status and status < 0 else f"status {status}"
        return UserError(
            f"training process {rank + 1} of {len(self._members) + 1} ended ({how}); its memory "
            "may have run out: try with fewer --processes. Nothing up to the last checkpoint is "
            "lost"
        )


def _status(member: subprocess.Popen[bytes]) -> int | None:
    """Its exit status, once it is there; None where it still runs."""
    try:
        return member.wait(timeout=5)
    except subprocess.TimeoutExpired:
        return None

"""Whether a batch fits, asked before MLX runs it on a CPU.

There MLX and its BLAS write to memory that they did not get: the process dies of it, without a
word. On Metal and CUDA a failed allocation is an exception, and nothing is asked.
"""

from __future__ import annotations

import resource
from pathlib import Path

from backends.interface import Batch, Dtype, LoraConfig
from backends.memory import available_memory, estimate_training, model_size
from backends.mlx.memory import MODEL
from backends.training import TrainConfig
from models.directory import ModelDirectory
from models.errors import UserError


class Room:
    """Compares each batch that is larger than all before it with what is free."""

    def __init__(self, directory: ModelDirectory, dtype: Dtype, lora: LoraConfig) -> None:
        self._size, self._dtype, self._lora = model_size(directory), dtype, lora
        self._had = 0
        """What the largest batch so far took: the allocator still has it."""

    def require(self, batch: Batch, *, checkpointing: bool, advice: str) -> None:
        """Raise UserError where ``batch`` needs more than is free."""
        rows, length = batch.ids.shape
        config = TrainConfig(
            self._lora,
            micro_batch_size=rows,
            max_length=max(2, length),
            gradient_checkpointing=checkpointing,
        )
        estimate = estimate_training(self._size, config, dtype=self._dtype, engine=MODEL)
        needed = estimate.activations + estimate.head + estimate.slack
        free = min(available_memory(), *_limits())
        if needed - self._had > free:
            raise UserError(
                f"the mlx engine would run out of memory while training: {rows} x {length} ids "
                f"need about {needed >> 20:,} MiB and {free >> 20:,} are free: {advice}"
            )
        self._had = max(self._had, needed)


def _limits() -> list[int]:
    """Bytes left below this process's own limits of data and address space; Linux only."""
    try:
        status = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return [1 << 62]
    sizes = {line.split(":")[0]: line.split()[1] for line in status if line.startswith("Vm")}
    left = [1 << 62]
    for kind, name in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        limit = resource.getrlimit(kind)[0]
        if limit != resource.RLIM_INFINITY:
            left.append(max(0, limit - (int(sizes[name]) << 10)))
    return left

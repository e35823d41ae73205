"""What processes that train one model together exchange, through accelerate."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from accelerate import PartialState
from accelerate.utils import broadcast, reduce
from torch import Tensor
from torch.distributed import TCPStore

HOST = "127.0.0.1"
WAIT = datetime.timedelta(minutes=10)
"""For the others to appear, and for one exchange: all are told to begin it at the same time."""
LOOPBACK = {"linux": "lo", "darwin": "lo0"}


def meeting_place(processes: int) -> TCPStore:
    """Where the others find the first process; its ``port`` is free."""
    return TCPStore(HOST, 0, processes, is_master=True, timeout=WAIT, wait_for_workers=False)


def found_place(port: int, processes: int) -> TCPStore:
    """The first process's meeting place."""
    return TCPStore(HOST, port, processes, is_master=False, timeout=WAIT)


def join(store: TCPStore, rank: int, processes: int, device: torch.device) -> PartialState:
    """Become number ``rank`` of ``processes``; returns when all are there.

    accelerate takes gloo on a CPU and NCCL on CUDA.
    """
    on_cpu = device.type == "cpu"
    names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
    with _environment({**names, "LOCAL_WORLD_SIZE": processes,
                       "OMP_NUM_THREADS": torch.get_num_threads()}):  # fmt: skip
        PartialState._reset_state()  # a state of one process would make every sum its own
        state = PartialState(
            cpu=on_cpu, store=store, rank=rank, world_size=processes, timeout=WAIT,
        )  # fmt: skip
    if (state.num_processes, state.process_index) != (processes, rank):
        raise RuntimeError(f"accelerate made no group of {processes}: {state}")
    return state


def leave(state: PartialState) -> None:
    """End the group, so that this process may join another one."""
    state.destroy_process_group()
    PartialState._reset_state()


def from_first(vector: Tensor) -> Tensor:
    """Every process gets the first one's values; ``vector`` is overwritten elsewhere."""
    found: Tensor = broadcast(vector, from_process=0)
    return found


def summed(vector: Tensor) -> Tensor:
    """The sum of all processes' vectors."""
    found: Tensor = reduce(vector, reduction="sum")
    return found


@contextmanager
def _environment(values: Mapping[str, object]) -> Iterator[None]:
    """accelerate reads who we are from there; what later code sees of it is as before."""
    given = {name: str(value) for name, value in values.items()}
    if sys.platform in LOOPBACK:  # gloo would look the host's name up, which may lead nowhere
        given.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])
    before = {name: os.environ.get(name) for name in (*given, "MASTER_PORT")}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

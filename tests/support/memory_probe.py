"""Peak memory of one piece of work in a process of its own.

Run as a module it does the work that its JSON argument names and prints what it measured;
:func:`measure` starts it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from models.directory import ModelDirectory
from models.store import prepare

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Job:
    """What to do on which engine; rows of random ids, all but the first ``prompt`` trained on."""

    engine: str
    model: str
    """A prepared directory, or a registry name."""
    work: Literal["train", "growth"] = "train"
    """``growth``: a loss, a loss without gradient and log-probabilities, each at ``length`` and
    then at four times the length; reports by how much the peak rises from one to the other."""
    rows: int = 2
    length: int = 64
    prompt: int = 4
    checkpointing: bool = False
    targets: str = "attention"
    rank: int = 16
    dtype: str = "float32"
    steps: int = 2
    whole_head: bool = False
    """Compute all logits in one go: the mistake that a test of growth must notice."""
    data_limit: int | None = None
    """Bytes of data (RLIMIT_DATA, on CUDA device memory) that may be added to an open model."""


def measure(job: Job) -> dict[str, Any]:
    """Run ``job``; returns what :func:`_work` printed. Raises when the process fails."""
    done = start(job)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def start(job: Job) -> subprocess.CompletedProcess[str]:
    """Run ``job`` with the BLAS its engine wants."""
    from backends.blas import environment

    env = environment() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    if job.engine == "torch":
        env.pop("LD_PRELOAD", None)
    return subprocess.run(
        [sys.executable, "-m", "tests.support.memory_probe", json.dumps(asdict(job))],
        env=env, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


def directory_of(model: str) -> ModelDirectory:
    """A prepared directory as it is, or a registry model."""
    path = Path(model)
    if not path.is_dir():
        return prepare(model)
    return ModelDirectory(path, path.name, family="llama", fingerprint="test", source="test")


def status_bytes(key: str) -> int:
    """A size of this process from /proc/self/status, e.g. VmHWM: the highest resident size."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) << 10
    raise KeyError(key)


def _work(job: Job) -> dict[str, Any]:
    from backends import open_backend
    from backends.batching import make_batch
    from backends.interface import AdamWConfig, LoraConfig
    from backends.lora import initial_weights
    from tests.support.training_data import example

    directory = directory_of(job.model)
    rows = [example(job.prompt, job.length, seed=i) for i in range(job.rows)]
    batch = make_batch(rows, normaliser=float(sum(sum(r.response_mask) for r in rows)))
    if job.whole_head:
        _take_the_whole_head(job.engine)
    with open_backend(job.engine, directory, dtype=job.dtype) as model:  # type: ignore[arg-type]
        opened = status_bytes("VmHWM")
        current = status_bytes("VmRSS")
        lora = LoraConfig(job.rank, 2.0 * job.rank, targets=job.targets)  # type: ignore[arg-type]
        weights = initial_weights(lora, model.linear_modules(), 0)
        model.attach_lora(lora, weights, gradient_checkpointing=job.checkpointing)
        model.configure_optimizer(AdamWConfig())
        if job.work == "growth":
            return _growth(job, model)
        if job.data_limit is not None:
            _limit(job.data_limit, _on_cuda(model))
        result: Any = None
        for _ in range(job.steps):
            result = model.accumulate(batch).nll_sum
            norm = model.apply(1e-3, 1.0)
        peak = {"open": opened, "open_now": current, "peak": status_bytes("VmHWM")}
        if _on_cuda(model):
            import torch

            peak["peak"] = torch.cuda.max_memory_reserved()
        if job.engine == "mlx":
            import mlx.core as mx

            peak["engine_peak"] = int(mx.get_peak_memory())
    return {**peak, "result": result, "gradient_norm": norm}


def _growth(job: Job, model: Any) -> dict[str, Any]:
    """Bytes by which the peak rises from ``length`` to four times as much, by kind of work."""
    from backends.batching import make_batch
    from tests.support.training_data import example

    def work(kind: str, length: int) -> None:
        rows = [example(job.prompt, length, seed=i) for i in range(job.rows)]
        batch = make_batch(rows, normaliser=1.0)
        if kind == "train":
            model.accumulate(batch)
        elif kind == "loss":
            model.evaluate_loss(batch)
        else:
            model.logprobs([row.ids for row in rows], [job.prompt] * job.rows)

    found = {}
    for kind in ("logprobs", "loss", "train"):
        work(kind, 8)  # what is made once: threads, kernels
        peaks = []
        for length in (job.length, 4 * job.length):
            peaks.append(_peak_of(model, lambda n=length, k=kind: work(k, n)))
        found[kind] = peaks[1] - peaks[0]
    return found


def _on_cuda(model: Any) -> bool:
    return str(model.capabilities.device).startswith("cuda")


def _limit(more: int, on_cuda: bool) -> None:
    """Allow this process ``more`` bytes than it has."""
    if on_cuda:
        import torch

        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + more) / total)
        return
    import resource

    limit = status_bytes("VmData") + more
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _peak_of(model: Any, work: Any) -> int:
    """Bytes at the peak of ``work``: live ones where the engine counts them, else resident ones.

    MLX keeps freed buffers for later, so that its resident size rises with every new shape.
    """
    if model.capabilities.engine == "mlx":
        import mlx.core as mx

        mx.reset_peak_memory()
        work()
        return int(mx.get_peak_memory())
    if _on_cuda(model):
        import torch

        torch.cuda.reset_peak_memory_stats()
        work()
        return int(torch.cuda.max_memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    work()
    return status_bytes("VmHWM")


def _take_the_whole_head(engine: str) -> None:
    if engine == "torch":
        from backends.torch import hidden, train

        for module in (hidden, train):
            vars(module)["HEAD_CHUNK_ELEMENTS"] = 1 << 40
    else:
        from backends.mlx import loss

        vars(loss)["CHUNK_BYTES"] = 1 << 40


def main() -> None:
    """Do the job; an error of the user's kind is one line, as in the command line."""
    from models.errors import UserError

    try:
        print(json.dumps(_work(Job(**json.loads(sys.argv[1])))))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()

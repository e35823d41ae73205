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

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True)
class Job:
    """What to do on which engine; rows of random ids, all but the first ``prompt`` trained on."""

    engine: str
    model: str
    """A prepared directory, or a registry name."""
    work: Literal["open", "train", "loss", "logprobs"] = "train"
    rows: int = 2
    length: int = 64
    prompt: int = 4
    checkpointing: bool = False
    targets: str = "attention"
    rank: int = 16
    dtype: str = "float32"
    steps: int = 2
    data_limit: int | None = None
    """Bytes of data (RLIMIT_DATA) that may be added once the model is open."""


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
    from models.store import prepare
    from tests.support.training_data import example

    directory = prepare(job.model)
    rows = [
        example(job.prompt, job.length, seed=i, vocab=1000 if job.rows > 1 else 500)
        for i in range(job.rows)
    ]
    batch = make_batch(rows, normaliser=float(sum(sum(r.response_mask) for r in rows)))
    with open_backend(job.engine, directory, dtype=job.dtype) as model:  # type: ignore[arg-type]
        opened = status_bytes("VmHWM")
        current = status_bytes("VmRSS")
        if job.work == "train":
            lora = LoraConfig(job.rank, 2.0 * job.rank, targets=job.targets)  # type: ignore[arg-type]
            weights = initial_weights(lora, model.linear_modules(), 0)
            model.attach_lora(lora, weights, gradient_checkpointing=job.checkpointing)
            model.configure_optimizer(AdamWConfig())
        if job.data_limit is not None:
            import resource

            limit = status_bytes("VmData") + job.data_limit
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        result: Any = None
        if job.work == "train":
            for _ in range(job.steps):
                result = model.accumulate(batch).nll_sum
                model.apply(1e-3, 1.0)
        elif job.work == "loss":
            result = model.evaluate_loss(batch).nll_sum
        elif job.work == "logprobs":
            ids = [row.ids for row in rows]
            found = model.logprobs(ids, [job.prompt] * len(ids))
            result = -float(sum(row.sum() for row in found))
        peak = {"open": opened, "open_now": current, "peak": status_bytes("VmHWM")}
        if job.engine == "mlx":
            import mlx.core as mx

            peak["engine_peak"] = int(mx.get_peak_memory())
    return {**peak, "result": result}


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

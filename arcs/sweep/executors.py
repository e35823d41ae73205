"""Who runs the cells: this process one after the other, or Ray."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcs.sweep.running import Outcome, Task, run_cell
from models.errors import UserError

SEQUENCE, RAY = "sequence", "ray"
EXECUTORS = (SEQUENCE, RAY)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Resources:
    """What each run over Ray is given; None: see :func:`_needs`."""

    cpus: float | None = None
    gpus: float | None = None


def require_executor(name: str, resources: Resources) -> None:
    """Raise UserError where there is no such executor here, or it has no use for what is given."""
    if name not in EXECUTORS:
        raise UserError(f"--executor {name}: give {' or '.join(EXECUTORS)}")
    if name == SEQUENCE and resources != Resources():
        raise UserError(
            "--cpus-per-run, --gpus-per-run: they are for --executor ray; leave them out"
        )
    for flag, value in (("--cpus-per-run", resources.cpus), ("--gpus-per-run", resources.gpus)):
        if value is not None and not 0 <= value < math.inf:
            raise UserError(f"{flag} {value:g}: a number of at least 0 is needed")
    if resources.gpus is not None and resources.gpus > 1 and resources.gpus % 1:
        raise UserError(f"--gpus-per-run {resources.gpus:g}: above 1, Ray gives whole GPUs alone")
    if name == RAY and importlib.util.find_spec("ray") is None:
        raise UserError('--executor ray: ray is not installed: pip install "threearc[ray]"')


def in_sequence(tasks: Sequence[Task], say: Say) -> Iterator[tuple[Task, Outcome]]:
    """Run each to its end before the next."""
    for task in tasks:
        say(f"cell {task.name}: begun; what it says is in {task.log}")
        yield task, run_cell(task, say)


def over_ray(
    tasks: Sequence[Task], say: Say, resources: Resources, processes: Mapping[str, int]
) -> Iterator[tuple[Task, Outcome]]:
    """Run them on a Ray cluster, as many at once as fit; outcomes come as they are there.

    The cluster is the one at RAY_ADDRESS, or one of this machine alone that ends with the sweep.
    ``processes``: by cell, how many train together, each of which needs a GPU where there are any.
    """
    import ray
    from ray.exceptions import RayError

    if not tasks:
        return
    with _cluster(ray, Path(tasks[0].log).parent):
        needs = {task.name: _needs(ray, resources, processes[task.name]) for task in tasks}
        for name, (cpus, gpus) in needs.items():
            _require_room(ray, name, cpus, gpus)
        # a name of its own: workers find it by import, as installed there
        remote = ray.remote(run_on_node)
        waiting = {
            remote.options(num_cpus=needs[task.name][0], num_gpus=needs[task.name][1],
                           max_retries=0).remote(task): task
            for task in tasks
        }  # fmt: skip
        cpus, gpus = needs[tasks[0].name]
        say(f"{len(tasks)} cells over Ray, {cpus:g} CPUs and {gpus:g} GPUs each")
        try:
            while waiting:
                (ready, *_), _ = ray.wait(list(waiting), num_returns=1)
                task = waiting.pop(ready)
                try:
                    yield task, ray.get(ready)
                except RayError as error:
                    words = " ".join(str(error).split())[:200]
                    yield task, Outcome("failed", None, f"Ray lost it: {words}")
        except BaseException:
            for one in waiting:
                ray.cancel(one)  # as Ctrl-C there; nothing that is finished is lost
            ray.wait(list(waiting), num_returns=len(waiting), timeout=30)
            raise


def run_on_node(task: Task) -> Outcome:
    """A cell on a machine of the cluster, which must see the sweep's folder."""
    if not Path(task.log).parent.is_dir():
        import platform

        return Outcome(
            "failed", None,
            f"{platform.node()} does not see {Path(task.log).parent.parent}: over Ray the sweep "
            "must be in a folder that all machines share; put it there with --out",
        )  # fmt: skip
    return run_cell(task, has_terminal=False)


@contextmanager
def _cluster(ray: Any, folder: Path) -> Iterator[None]:
    """``folder``: of our own. Ray's workers import from where they are asked for, and a file of
    the user's there that is named like a module would end them."""
    if ray.is_initialized():  # by whoever called us
        yield
        return
    try:
        with chdir(folder):
            ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        words = " ".join(str(error).split())[:200]
        raise UserError(f"--executor ray: no cluster can be reached or started ({words})") from None
    try:
        yield
    finally:
        ray.shutdown()


def _needs(ray: Any, resources: Resources, processes: int) -> tuple[float, float]:
    """CPUs and GPUs of one run. By default all CPUs of a machine, so that no two runs share one,
    and where the cluster has GPUs one for each process that trains.

    Raises UserError where machines differ in their CPUs and nothing is given; those without any,
    such as a head that runs nothing, are not counted.
    """
    cpus = resources.cpus
    if cpus is None:
        sizes = {node["Resources"].get("CPU", 0.0) for node in _nodes(ray)} - {0.0}
        if len(sizes) != 1:
            there = f"{min(sizes):g} to {max(sizes):g}" if sizes else "no"
            raise UserError(
                f"--executor ray: the cluster's machines have {there} CPUs; say with "
                "--cpus-per-run how many each run takes"
            )
        (cpus,) = sizes
    gpus = resources.gpus
    if gpus is None:
        gpus = float(processes) if ray.cluster_resources().get("GPU", 0) else 0.0
    return cpus, gpus


def _require_room(ray: Any, name: str, cpus: float, gpus: float) -> None:
    """Raise UserError for a run that Ray would wait for ever to place."""
    for node in _nodes(ray):
        has = node["Resources"]
        if has.get("CPU", 0.0) >= cpus and has.get("GPU", 0.0) >= gpus:
            return
    raise UserError(
        f"cell {name}: no machine of the Ray cluster has {cpus:g} CPUs and {gpus:g} GPUs; lower "
        "--cpus-per-run or --gpus-per-run"
    )


def _nodes(ray: Any) -> list[Any]:
    return [node for node in ray.nodes() if node["Alive"]]

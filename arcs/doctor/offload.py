"""Whether llama.cpp leaves a GPU of this machine unused: one line before a long decode."""

from __future__ import annotations

from arcs.doctor.hardware import Gpu, find_gpus
from arcs.progress import Reporter


def warn_unused_gpu(gpu_layers: int, reporter: Reporter) -> None:
    """Say which GPU the installed llama.cpp cannot use, and the command that builds one that can.

    Says nothing where the user asked for the CPU (``gpu_layers`` 0). Raises UserError where
    llama.cpp is not installed.
    """
    line = unused_gpu_line(find_gpus()) if gpu_layers != 0 else None
    if line is not None:
        reporter.say(f"warning: {line}")


def unused_gpu_line(gpus: list[Gpu]) -> str | None:
    """The warning for the first GPU that this build could not offload to; None where all is well.

    AMD's driver lists integrated graphics too, so those are left to ``threearc doctor``.
    """
    from backends.llamacpp.library import library
    from backends.llamacpp.probe import gpu_fix

    gpu = next((gpu for gpu in gpus if gpu.maker != "amd"), None)
    if gpu is None or library().supports_gpu:
        return None
    fix = gpu_fix(gpu.maker, gpu.driver, {"build": "cpu"})
    return (
        f"{gpu.name} is present and this llama.cpp cannot use it, so decoding runs on the CPU; "
        f"to change that, {fix} (or give --gpu-layers 0 to be told no more)"
    )

"""An adapter written in another format, whole and proven or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from backends.adapter_files import (
    AdapterFormat,
    StoredAdapter,
    make_sidecar,
    read_adapter,
    require_base,
    write_format,
    write_sidecar,
)
from backends.adapters.contents import require_whole
from backends.adapters.proof import Proof, Say, Target, prove_export
from backends.interface import Float32
from backends.lora import check_weights
from backends.memory import model_size
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from models.files import write_directory_atomically

TARGETS: tuple[Target, ...] = ("mlx", "gguf", "peft")


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    out: Path
    source: StoredAdapter
    target: Target
    base: ModelDirectory
    proof: Proof


def export_adapter(
    stored: StoredAdapter, target: str, out: Path, base: ModelDirectory, say: Say
) -> Exported:
    """Write ``stored`` in the format ``target`` to the new directory ``out`` and prove it.

    ``mlx`` and ``peft``: that program's own two files; ``gguf``: ``adapter.gguf``. Our sidecar
    lies beside them. The directory appears when the proof has passed, or could not be made,
    which its proof then says.

    Raises UserError when ``out`` exists, the adapter is damaged or does not fit ``base``, or
    the engine of the target computes something else; CapabilityError for GGUF of a variant
    that llama.cpp would compute differently.
    """
    chosen = next((name for name in TARGETS if name == target), None)
    if chosen is None:
        raise UserError(f"cannot export to {target!r}: choose one of {', '.join(TARGETS)}")
    require_new(out)
    linear = require_fits(stored, base)
    config, weights = stored.contents.config, stored.contents.weights
    proofs: list[Proof] = []

    def fill(folder: Path) -> None:
        if chosen == "gguf":
            _write_gguf(stored, folder, base)
        else:
            write_format(folder, chosen, config, weights, base, list(linear))
            _read_back(folder, chosen, stored)
        proofs.append(prove_export(base, config, weights, chosen, folder, say))
        extra = {} if stored.sidecar is None else stored.sidecar.extra
        write_sidecar(
            folder, make_sidecar(config, weights, base, extra, proofs[-1].to_json())
        )  # fmt: skip

    write_directory_atomically(out, fill)
    return Exported(out, stored, chosen, base, proofs[-1])


def require_new(out: Path) -> None:
    """Raise UserError when something is at ``out`` already: nothing is overwritten."""
    if out.exists() or out.is_symlink():
        raise UserError(f"{out} exists already: choose another --out, or remove it first")


def require_fits(stored: StoredAdapter, base: ModelDirectory) -> Mapping[str, tuple[int, int]]:
    """Check that the adapter is whole and belongs to ``base``; returns the base's modules."""
    require_base(stored, base)
    require_whole(stored.path, stored.contents.weights)
    linear = model_size(base).linear_modules
    try:
        check_weights(stored.contents.config, stored.contents.weights, linear)
    except UserError as error:
        raise UserError(f"{stored.path}, for {base.name}: {error}") from None
    return linear


def _write_gguf(stored: StoredAdapter, folder: Path, base: ModelDirectory) -> None:
    from backends.llamacpp.adapter import convert_adapter

    try:
        convert_adapter(stored.path, base, folder / "adapter.gguf")
    except CapabilityError as error:
        raise CapabilityError(f"{error}; --to mlx and --to peft work for this model") from None


def _read_back(folder: Path, kind: AdapterFormat, stored: StoredAdapter) -> None:
    """What our own reader makes of the files must equal the source to the last bit."""
    again = read_adapter(folder).contents
    first = stored.contents
    same = again.config == first.config and again.weights.keys() == first.weights.keys()
    if not same or not all(_equal(first.weights[n], again.weights[n]) for n in first.weights):
        raise UserError(
            f"the {kind} files do not read back as {stored.path}; nothing was written: please "
            "report this with the adapter's adapter_config.json"
        )


def _equal(one: Float32, other: Float32) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()

"""A llama-type model directory in llama.cpp with float32 weights and KV cache.

This is the form in which llama.cpp is compared with the other engines: what is left are
sums in another order (BACKENDS section 6: 1e-4 on logits; F16 weights or KV cost 5e-2).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from backends.interface import Head
from backends.llamacpp.adapter import convert_adapter
from backends.llamacpp.model import LlamaCppModel, open_gguf
from models.directory import ModelDirectory
from models.gguf.export import EXPORT_VERSION, export_gguf
from models.gguf.temper import temper_gguf


def exact_gguf(directory: ModelDirectory, cache: Path) -> Path:
    """Return ``directory`` (family ``llama``) as a float32 GGUF, made once in ``cache``.

    Raises as :func:`models.gguf.export.export_gguf`.
    """
    name = f"{directory.fingerprint[:24]}-export{EXPORT_VERSION}-f32.gguf"
    out = cache / name
    return out if out.is_file() else export_gguf(directory, out, dtype="f32")


@contextmanager
def open_exact(
    directory: ModelDirectory,
    cache: Path,
    *,
    peft_dir: Path | None = None,
    scales: Mapping[Head, float] | None = None,
    context: int = 512,
    width: int = 1,
    threads: int | None = None,
) -> Iterator[LlamaCppModel]:
    """Open ``directory`` in float32 throughout, adapted and with scaled heads if asked.

    The export stays in ``cache``; the tempered copy and the converted adapter are removed at
    the end. ``peft_dir``: a PEFT adapter, scaled with the heads. No layer is offloaded. Raises
    CapabilityError for another family, UserError for what a part of it refuses.
    """
    gguf = exact_gguf(directory, cache)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".exact-") as folder:
        if scales:
            temper_gguf(gguf, Path(folder) / "tempered.gguf", scales)
            gguf = Path(folder) / "tempered.gguf"
        adapter = None
        if peft_dir is not None:
            adapter = convert_adapter(
                peft_dir, directory, Path(folder) / "adapter.gguf", scales=scales
            )
        with open_gguf(
            gguf,
            adapter=adapter,
            context=context,
            width=width,
            kv_dtype="f32",
            threads=threads,
            gpu_layers=0,
        ) as model:
            yield model

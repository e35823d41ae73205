"""``threearc models export``: a model as a GGUF file for llama.cpp, Ollama and the like."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from arcs.progress import Reporter
from models.directory import ModelDirectory
from models.errors import CapabilityError, UserError
from models.geometry import read_geometry
from models.gguf.export import IDS_ONLY, GgufDtype, export_gguf
from models.gguf.tokenizer import GgufTokenizer, read_tokenizer
from models.store import prepare

FLOATS = ("f32", "f16")
QUANTISED = ("q8_0", "q5_k_m", "q4_k_m")


@dataclass(frozen=True)
class Exported:
    """What was written."""

    path: str
    model: str
    fingerprint: str
    quantisation: str
    bytes: int
    tokenizer: str | None
    """llama.cpp's kind, e.g. ``gpt2/qwen2``; None: the file takes and gives token ids only."""
    tokenizer_note: str
    """That llama.cpp tokenises as the model's own tokenizer does, or why that is not known."""


def export(
    model: str, *, to: str, quant: str, out: Path, with_tokenizer: bool, as_json: bool
) -> None:
    """Write ``model`` to ``out`` and say what it is; the file appears whole or not at all."""
    if to != "gguf":
        raise UserError(f"--to {to}: gguf is what a model can be exported to")
    if quant not in (*FLOATS, *QUANTISED):
        raise UserError(f"--quant {quant}: give {', '.join((*FLOATS, *QUANTISED))}")
    if out.suffix != ".gguf":
        raise UserError(f"--out {out}: give a file name that ends in .gguf")
    if out.exists():
        raise UserError(f"--out {out}: already exists; remove it or name another")
    reporter = Reporter()
    directory = prepare(model, say=reporter.say)
    done = _export(directory, quant, out, with_tokenizer, reporter)
    if as_json:
        sys.stdout.write(json.dumps(asdict(done), sort_keys=True, indent=1) + "\n")
        return
    print(f"{done.path}: {done.model}, {done.quantisation}, {done.bytes / 1e6:.1f} MB")
    print(f"tokenizer: {done.tokenizer or IDS_ONLY}; {done.tokenizer_note}")


def _export(
    directory: ModelDirectory, quant: str, out: Path, with_tokenizer: bool, reporter: Reporter
) -> Exported:
    tokenizer = _tokenizer(directory, with_tokenizer, reporter)
    prefix = f".{out.name}."
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be made ({error.strerror})") from None
    for left in out.parent.glob(f"{prefix}*.export"):  # a killed export's
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=prefix, suffix=".export") as folder:
        reporter.say(f"writing {directory.name} as GGUF")
        dtype: GgufDtype = "f32" if quant == "f32" else "f16"
        made = Path(folder) / out.name
        export_gguf(directory, made, dtype=dtype, tokenizer=tokenizer)
        if quant in QUANTISED:
            from backends.llamacpp.quantise import quantise

            reporter.say(f"quantising to {quant}")
            made = quantise(made, made.with_name("quantised.gguf"), quant)  # type: ignore[arg-type]
        note = tokenizer if isinstance(tokenizer, str) else _compared(made, directory, tokenizer)
        made.chmod(0o644)
        made.replace(out)
    kind = None
    if isinstance(tokenizer, GgufTokenizer):
        kind = "/".join(filter(None, (tokenizer.model, tokenizer.pre)))
    return Exported(
        path=str(out),
        model=directory.name,
        fingerprint=directory.fingerprint,
        quantisation=quant,
        bytes=out.stat().st_size,
        tokenizer=kind,
        tokenizer_note=note,
    )


def _tokenizer(directory: ModelDirectory, wanted: bool, reporter: Reporter) -> GgufTokenizer | str:
    """What llama.cpp is to tokenise by, or why the file will have nothing of the kind."""
    if not wanted:
        return "--no-tokenizer"
    try:
        return read_tokenizer(directory, read_geometry(directory.path).vocab_size)
    except CapabilityError as error:
        reporter.say(
            f"{directory.name}: {error}; the file gets no tokenizer and takes token ids only"
        )
        return str(error)


def _compared(gguf: Path, directory: ModelDirectory, tokenizer: GgufTokenizer) -> str:
    """Compare with the model's own tokenizer. Raises UserError where texts get other ids."""
    from backends.llamacpp import require_installed

    try:
        require_installed()
    except UserError:
        return "not compared with the model's own, since llama.cpp is not installed here"
    from backends.llamacpp.tokenizer import SAMPLES, differences

    found = differences(gguf, directory)
    if found:
        raise UserError(
            f"llama.cpp ({tokenizer.model}, {tokenizer.pre or 'no pre-tokenizer'}) tokenises "
            f"{len(found)} test texts otherwise than {directory.name} does, the first "
            f"{found[0].text[:40]!r}; nothing was written: export with --no-tokenizer"
        )
    return f"equal to the model's own on {len(SAMPLES)} varied texts and its special tokens"

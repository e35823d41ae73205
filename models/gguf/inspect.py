"""What a GGUF file says about itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.errors import UserError
from models.fingerprint import file_sha256
from models.gguf_file import GgufFile, read_gguf


@dataclass(frozen=True)
class GgufInfo:
    """The parts of a model file's metadata that decide what can be done with it."""

    path: Path
    sha256: str
    architecture: str
    file_type: str
    """llama.cpp's name for the mix of tensor types, e.g. ``MOSTLY_Q4_1``."""
    tensor_types: dict[str, int]
    """How many tensors are stored in each type, the commonest first."""
    n_ctx_train: int
    layers: int
    vocab: int
    tokenizer: str
    """``none`` for a file that only takes and gives ids."""


def inspect_gguf(path: Path) -> GgufInfo:
    """Read a model's GGUF file, the whole of it once for the hash.

    Raises UserError when the file is missing, damaged, cut short, or not a language model.
    """
    file = check_gguf(path)
    architecture = str(_required(file, "general.architecture"))
    return GgufInfo(
        path=path,
        sha256=file_sha256(path),
        architecture=architecture,
        file_type=_file_type(file),
        tensor_types=_tensor_types(file),
        n_ctx_train=int(_required(file, f"{architecture}.context_length")),
        layers=int(_required(file, f"{architecture}.block_count")),
        vocab=_vocab(file, architecture),
        tokenizer=str(file.metadata.get("tokenizer.ggml.model", "none")),
    )


def check_gguf(path: Path, *, kind: str = "model") -> GgufFile:
    """Parse a GGUF file that holds a ``kind`` (``model`` or ``adapter``).

    Raises UserError for a damaged file, and for one that holds something else.
    """
    file = read_gguf(path)
    found = file.metadata.get("general.type", "model")
    if found != kind:
        raise UserError(f"{path} is a GGUF file of type {found}; give one of type {kind}")
    return file


def _required(file: GgufFile, key: str) -> Any:
    if key not in file.metadata:
        raise UserError(f"{file.path} does not state {key}; it is not a language model's file")
    return file.metadata[key]


def _file_type(file: GgufFile) -> str:
    import gguf

    number = file.metadata.get("general.file_type")
    known: dict[Any, str] = {kind.value: kind.name for kind in gguf.LlamaFileType}
    return known.get(number, f"unknown ({number})")


def _tensor_types(file: GgufFile) -> dict[str, int]:
    import gguf

    names = (gguf.GGMLQuantizationType(info.type_id).name for info in file.tensors.values())
    return dict(Counter(names).most_common())


def _vocab(file: GgufFile, architecture: str) -> int:
    stated = file.metadata.get(f"{architecture}.vocab_size")
    return int(stated if stated is not None else len(_required(file, "tokenizer.ggml.tokens")))

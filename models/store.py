"""From a name, hub id, directory or GGUF to the one directory that all engines read.

Prepared directories live under ``cache_root()/prepared`` and are never written to again. Their
``threearc_model.json`` records where they come from, their fingerprint, and the sizes and times
of their files; a directory that no longer matches its record is built afresh.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from models.cache import build_directory, cache_root, locked, remembered_sha256
from models.directory import ModelDirectory
from models.disk import require_free
from models.embedded import embedded_gguf
from models.errors import UserError
from models.fingerprint import fingerprint, fingerprinted_files
from models.from_directory import build_from_directory, check_directory
from models.from_gguf import build_from_gguf, check_gguf_model, float32_bytes
from models.hub import download, is_hub_id, is_offline
from models.joined import JOINED, join
from models.registry import ModelSpec, find, lookup

__all__ = ["RECORD", "Source", "cache_root", "prepare", "read_record"]

RECORD = "threearc_model.json"
FORMAT = 1
"""Raised when prepared directories of older versions must be built again."""
SMALL_FILES = 64 * 2**20
"""Room for configs and tokenizer of a prepared copy whose weights are links."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """A model that has been found, and how to build its directory."""

    name: str
    key: str
    """Directory name in the cache: changes with the content."""
    label: str
    """For the manifest, see :attr:`ModelDirectory.source`."""
    n_bytes: int
    """Bytes that building will write."""
    build: Callable[[Path], None]
    gguf: Path | None = None
    gguf_sha256: str | None = None
    details: tuple[tuple[str, str], ...] = ()
    """More for the record, such as hub id and commit."""
    terms: str = ""
    """What using the model binds to, as one line; "" where it binds to nothing."""


def prepare(
    model: str,
    *,
    offline: bool | None = None,
    say: Say | None = None,
    cache: Path | None = None,
) -> ModelDirectory:
    """Return the prepared directory of ``model``, building it on first use.

    ``model`` is, in this order: a registry name; a path to a Hugging Face directory or a .gguf
    file; a hub id ``owner/name`` or ``owner/name@revision``. ``offline``: never contact the hub
    (default: HF_HUB_OFFLINE). ``say`` receives progress lines (default: stderr). ``cache``:
    default :func:`models.cache.cache_root`.

    Raises UserError, one line, for an unknown, damaged, unsupported or unreachable model, or a
    full disk. Safe to call from several processes at once: one builds, the others wait.
    """
    say = say or (lambda line: print(line, file=sys.stderr))
    root = (cache or cache_root()).expanduser().absolute()
    source = _resolve(model, root, is_offline(offline), say)
    target = root / "prepared" / source.key
    found = _load(target, source)
    if found is not None:
        return found
    with locked(root / "locks" / f"{source.key}.lock", lambda: _say_waiting(say, source)):
        found = _load(target, source)
        if found is not None:
            return found
        require_free(target, source.n_bytes, f"preparing {source.name}")
        if source.terms:
            say(source.terms)
        say(f"preparing {source.name} (first use)")
        build_directory(target, lambda out: _build(source, out))
    made = _load(target, source)
    if made is None:
        raise UserError(
            f"the prepared copy of {source.name} at {target} changed while it was made;"
            " is another program writing to its source?"
        )
    return made


def require_findable(model: str) -> None:
    """Raise UserError, as :func:`prepare` would, for a name or path that leads to no model.

    Nothing is downloaded or read: a hub id passes.
    """
    path = _as_path(model)
    if lookup(model) is None and not (model and path.exists()):
        _require_hub_id(model, path)


def _say_waiting(say: Say, source: Source) -> None:
    say(f"another process is preparing {source.name}: waiting for it")


# -- finding the source ---------------------------------------------------------------------


def _resolve(model: str, root: Path, offline: bool, say: Say) -> Source:
    path = _as_path(model)
    spec = None if path.suffix == ".gguf" else lookup(model)
    if spec is not None and not _names_existing_path(model, spec):
        return _embedded(spec, root, say) if spec.embedded else _hub(spec, model, offline, say)
    if model and path.is_dir():
        return _directory(path.resolve())
    if model and path.is_file():
        return _gguf_file(path.resolve(), root)
    _require_hub_id(model, path)
    return _hub(None, model, offline, say)


def _require_hub_id(model: str, path: Path) -> None:
    """Raise UserError for what is neither a model here nor one of the hub."""
    if model and (path.suffix == ".gguf" or model.startswith((".", "/", "~"))):
        raise UserError(f"{model}: no such file or directory; check the path")
    if not is_hub_id(model):
        find(model)
        raise AssertionError("find raises for a name that lookup does not know")


def _as_path(model: str) -> Path:
    try:
        path = Path(model).expanduser()
        path.exists()
    except (RuntimeError, OSError, ValueError) as error:  # unknown ~user, too long, NUL
        raise UserError(
            f"{model[:80]!r} is neither a model's name nor a path ({error}); see threearc models"
        ) from error
    return path


def _names_existing_path(model: str, spec: ModelSpec) -> bool:
    """A hub id may also be the relative path of a directory; then the directory is meant."""
    return model != spec.name and "/" in model and Path(model).exists()


def _embedded(spec: ModelSpec, root: Path, say: Say) -> Source:
    parts = JOINED.get(spec.name)
    path = embedded_gguf() if parts is None else join(spec.name, parts, root, say)
    found = _from_gguf(path, root, spec.name, "embedded")
    if not spec.terms:
        return found
    terms = (
        f"{spec.name} comes under the {spec.licence} ({spec.terms}); by using it you accept them"
    )
    return replace(found, terms=terms)


def _gguf_file(path: Path, root: Path) -> Source:
    if path.suffix != ".gguf":
        raise UserError(f"{path} is a file, but no .gguf; give a model directory or a .gguf file")
    return _from_gguf(path, root, path.stem, str(path))


def _from_gguf(path: Path, root: Path, name: str, label: str) -> Source:
    try:
        sha = remembered_sha256(path, root)
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror or error}") from error

    def build(out: Path) -> None:
        build_from_gguf(check_gguf_model(path), out)

    file = check_gguf_model(path)
    return Source(name, _key(name, sha), label, float32_bytes(file) + SMALL_FILES, build,
                  gguf=path, gguf_sha256=sha)  # fmt: skip


def _directory(path: Path) -> Source:
    check_directory(path)
    state = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns]
        for file in fingerprinted_files(path)
    ]
    digest = hashlib.sha256(json.dumps([str(path), state]).encode()).hexdigest()
    return Source(
        path.name,
        _key(path.name, digest),
        str(path),
        SMALL_FILES,
        lambda out: build_from_directory(path, out),
    )


def _hub(spec: ModelSpec | None, model: str, offline: bool, say: Say) -> Source:
    repo, _, revision = model.partition("@")
    if spec is not None:
        ids = [spec.hub_id, *(alias for alias in spec.aliases if "/" in alias)]
        repo = next((i for i in ids if i.casefold() == model.casefold()), spec.hub_id)
        revision = spec.revision
    snapshot, commit = download(repo, revision or "main", offline=offline, say=say)
    check_directory(snapshot)
    return Source(
        spec.name if spec is not None else repo.split("/")[-1],
        f"{repo.replace('/', '--')}-{commit[:12]}",
        f"{repo}@{commit}",
        SMALL_FILES,
        lambda out: build_from_directory(snapshot, out),
        details=(("hub_id", repo), ("commit", commit)),
    )


def _key(name: str, digest: str) -> str:
    safe = "".join(c if c.isalnum() or c in "._-" else "-" for c in name).lstrip(".-")
    return f"{safe or 'model'}-{digest[:12]}"


# -- building and loading ---------------------------------------------------------------------


def _build(source: Source, out: Path) -> None:
    source.build(out)
    shape = check_directory(out)
    has_template = _finish_tokenizer(out)
    record = {
        "format": FORMAT,
        "name": source.name,
        "family": shape.family,
        "source": source.label,
        "fingerprint": fingerprint(out),
        "gguf": None if source.gguf is None else str(source.gguf),
        "gguf_sha256": source.gguf_sha256,
        "chat_template": has_template,
        "files": _states(out),
        "versions": _versions(),
        **dict(source.details),
    }
    (out / RECORD).write_text(json.dumps(record, indent=2))


def _finish_tokenizer(out: Path) -> bool:
    """Check that the tokenizer loads, as tokenizer.json; return whether it has a chat template."""
    from models.chat import load_tokenizer

    tokenizer = load_tokenizer(out)
    if not (out / "tokenizer.json").is_file():
        tokenizer.save_pretrained(out)
    return bool(tokenizer.chat_template)


def _load(target: Path, source: Source) -> ModelDirectory | None:
    """Return the directory if it is there and as it was recorded, else None."""
    record = read_record(target)
    if record is None or record["files"] != _states(target):
        return None
    return ModelDirectory(
        path=target,
        name=source.name,
        family=record["family"],
        fingerprint=record["fingerprint"],
        source=source.label,
        gguf=source.gguf,
        gguf_sha256=source.gguf_sha256,
    )


def read_record(target: Path) -> dict[str, Any] | None:
    """Return a prepared directory's ``threearc_model.json``, or None if it is of no use."""
    try:
        record = json.loads((target / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        return None
    wanted = {"family": str, "fingerprint": str, "files": dict, "name": str, "source": str}
    if not all(isinstance(record.get(key), kind) for key, kind in wanted.items()):
        return None
    return record


def _states(path: Path) -> dict[str, list[int]]:
    files = fingerprinted_files(path)
    return {f.name: [f.stat().st_size, f.stat().st_mtime_ns] for f in files}


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in ("threearc", "transformers", "tokenizers", "gguf")}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

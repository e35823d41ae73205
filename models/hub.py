"""Fetching a model from the Hugging Face hub, with one clear line for what can go wrong."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
from collections.abc import Callable
from pathlib import Path

from models.disk import format_bytes, require_free
from models.errors import UserError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
WANTED = ["*.json", "*.safetensors", "*.jinja", "merges.txt", "tokenizer.model"]
UNWANTED = ["*/*"]
"""Files in subfolders (ONNX exports, originals) are other forms of the same weights."""


class NotOnDiskError(UserError):
    """Offline, and the model is not, or not completely, on this disk."""


def is_hub_id(text: str) -> bool:
    """Whether ``text`` has the form owner/name or owner/name@revision."""
    return HUB_ID.fullmatch(text) is not None


def is_offline(offline: bool | None) -> bool:
    """Whether the hub must not be contacted: the argument, else HF_HUB_OFFLINE."""
    if offline is not None:
        return offline
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def download(
    repo: str, revision: str, *, offline: bool, say: Callable[[str], None]
) -> tuple[Path, str]:
    """Return (snapshot directory, resolved commit) of ``repo`` at ``revision``.

    Files that have arrived are kept; the hub client begins one that broke off again. Offline, only
    what is already on disk is used. Raises UserError when the model is gated, missing, or cannot
    be fetched.
    """
    try:
        if not offline:
            offline = not _check_online(repo, revision, say)
        path = _snapshot(repo, revision, offline)
    except UserError:
        raise
    except Exception as error:
        from huggingface_hub.errors import LocalEntryNotFoundError

        absent = offline and isinstance(error, LocalEntryNotFoundError)
        kind = NotOnDiskError if absent else UserError
        raise kind(_explain(error, repo, revision, offline)) from error
    return path, path.name


def _snapshot(repo: str, revision: str, offline: bool) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            repo,
            revision=revision,
            allow_patterns=WANTED,
            ignore_patterns=UNWANTED,
            local_files_only=offline,
        )
    )


def unfinished_downloads() -> list[tuple[Path, int]]:
    """Files in the hub's cache that a download has begun, and their bytes.

    Each belongs to one that is running now, or to one that was killed: the hub client then leaves
    it, and no later try goes on with it.
    """
    from huggingface_hub import constants

    found = []
    for path in sorted(Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*.incomplete")):
        with contextlib.suppress(OSError):  # it has arrived meanwhile
            found.append((path, path.stat().st_size))
    return found


def cached_snapshot(repo: str, revision: str) -> Path | None:
    """The complete snapshot already on disk, or None. Contacts nobody."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return _snapshot(repo, revision, offline=True)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None


def _check_online(repo: str, revision: str, say: Callable[[str], None]) -> bool:
    """Ask the hub about the model; False when it does not answer and a copy is on disk."""
    from huggingface_hub import errors

    final = (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.HFValidationError)
    try:
        _check_space(repo, revision, say)
    except (UserError, *final):
        raise
    except Exception as error:
        if cached_snapshot(repo, revision) is None:
            raise
        say(f"the hub cannot be reached ({type(error).__name__}): using the copy on this disk")
        return False
    return True


def _check_space(repo: str, revision: str, say: Callable[[str], None]) -> None:
    """Refuse (UserError), before the download, what would not fit on the disk."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=20)
    missing = 0
    for file in info.siblings or []:
        wanted = any(fnmatch.fnmatch(file.rfilename, pattern) for pattern in WANTED)
        if not wanted or "/" in file.rfilename:
            continue
        if not isinstance(try_to_load_from_cache(repo, file.rfilename, revision=info.sha), str):
            missing += file.size or 0
    if missing:
        require_free(constants.HF_HUB_CACHE, missing, f"the download of {repo}")
        say(f"downloading {repo} ({format_bytes(missing)}) from the Hugging Face hub")


def _explain(error: Exception, repo: str, revision: str, offline: bool) -> str:
    from huggingface_hub import errors

    page = f"https://huggingface.co/{repo}"
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo} is gated: accept its terms at {page} while logged in, then run"
            " `hf auth login` (or set HF_TOKEN) and try again"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; see {page}/tree/main"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the hub has no public model {repo} (or it is private: run `hf auth login`);"
            " check the spelling"
        )
    if isinstance(error, errors.HFValidationError):
        return f"{repo!r} is not a valid hub id; give owner/name, a directory or a .gguf file"
    if offline and isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"{repo} is not (completely) on this disk and offline mode is on; unset"
            " HF_HUB_OFFLINE to download it"
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return (
        f"could not download {repo}: {type(error).__name__}: {reason}; check the network and try"
        " again (files that have arrived are kept), or use a local directory"
    )

"""Fetching the published files from the paper's repository, at one commit, by their hashes."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from arcs.reproduction.files import COMMIT, FILES, REPOSITORY, PublishedFile
from models.errors import UserError
from models.files import whole_file

BASE_URL = f"https://raw.githubusercontent.com/{REPOSITORY}/{COMMIT}"
_TIMEOUT = 60.0
"""Seconds without a byte before a request is given up."""


def download(
    cache: Path,
    *,
    base_url: str = BASE_URL,
    files: Sequence[PublishedFile] = FILES,
    instead: str = "give --artifacts DIR",
) -> Path:
    """Bring every published file into the folder ``cache``, some 8 MB; return that folder.

    A file that is there with the right content is not fetched again, so an interrupted
    download goes on where it stopped. A file appears under its name only after its SHA-256 was
    checked. ``instead``: what errors say a user can do without a download. Raises UserError
    without a connection, on an HTTP error and on other content.
    """
    for file in files:
        target = cache / file.name
        if not _is_there(target, file):
            content = _fetch(file, base_url, instead)
            with whole_file(target, needs=file.size) as temporary:
                temporary.write_bytes(content)
    return cache


def _is_there(target: Path, file: PublishedFile) -> bool:
    return target.is_file() and file.matches(target.read_bytes())


def _fetch(file: PublishedFile, base_url: str, instead: str) -> bytes:
    url = f"{base_url}/{file.path}"
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as reply:
            # One byte more than expected is enough to see that a file is too long.
            content: bytes = reply.read(file.size + 1)
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: HTTP {error.code}; try again later or {instead}") from None
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise UserError(
            f"{url}: cannot be fetched ({reason}); connect and run again, or {instead}"
        ) from None
    if not file.matches(content):
        raise UserError(
            f"{url}: {len(content)} bytes came that are not the published file "
            f"(SHA-256 {file.sha256[:16]}...); nothing was kept, try again"
        )
    return content

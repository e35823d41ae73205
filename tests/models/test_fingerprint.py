from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from models import disk
from models.disk import format_bytes, require_free
from models.errors import UserError
from models.fingerprint import file_sha256, fingerprint
from tests.support.tiny_models import build_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny("llama", tmp_path_factory.mktemp("fp") / "m", vocab=300)


def test_a_copy_elsewhere_has_the_same_fingerprint(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "other", copy_function=shutil.copyfile)
    (copy / "notes.txt").write_text("not part of the model")
    assert fingerprint(copy) == fingerprint(model)


@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json",
     "chat_template.jinja", "generation_config.json"],
)  # fmt: skip
def test_one_changed_byte_changes_the_fingerprint(model: Path, tmp_path: Path, name: str) -> None:
    copy = shutil.copytree(model, tmp_path / "m")
    raw = bytearray((copy / name).read_bytes())
    raw[-1] ^= 1
    (copy / name).write_bytes(raw)
    assert fingerprint(copy) != fingerprint(model)


def test_bytes_cannot_move_between_files(model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "m")
    config, generation = copy / "config.json", copy / "generation_config.json"
    text = config.read_text()
    config.write_text(text[:-3])
    generation.write_text(text[-3:] + generation.read_text())
    assert fingerprint(copy) != fingerprint(model)


def test_file_hash_is_plain_sha256(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 10)
    assert file_sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 10).hexdigest()


def test_space_is_measured_where_the_file_will_be(tmp_path: Path) -> None:
    require_free(tmp_path / "not" / "yet" / "there", 1, "a test")
    with pytest.raises(UserError, match="not enough disk space for a test"):
        require_free(tmp_path / "not" / "yet", 10**18, "a test")


def test_a_reserve_stays_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=disk.RESERVE + 10)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: usage)
    require_free(tmp_path, 10, "a test")
    with pytest.raises(UserError):
        require_free(tmp_path, 11, "a test")


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (999, "999 B"), (538_090_408, "538 MB"), (6.8e9, "6.8 GB"),
                    (3e12, "3.0 TB")],
)  # fmt: skip
def test_sizes_for_people(n: int, text: str) -> None:
    assert format_bytes(n) == text

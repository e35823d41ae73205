"""The hub client against a small hub of our own on loopback; the real one is never contacted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from models.hub import is_hub_id, is_offline, unfinished_downloads
from tests.support.command_line import call_here
from tests.support.tiny_models import build_tiny

COMMIT = hashlib.sha1(b"a commit").hexdigest()
PREPARE = """
import sys
from pathlib import Path
from models.errors import UserError
from models.store import prepare
try:
    made = prepare(sys.argv[1], cache=Path(sys.argv[2]))
    print("made", made.name, made.source, made.fingerprint)
except UserError as error:
    print("error", error)
"""


class Hub:
    """Serves one model, and the hub's ways of saying no."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.served: list[str] = []
        self.breaks_after: int | None = None
        """Bytes of the weights after which the connection ends."""
        self.stalls: threading.Event | None = None
        """Set when that many are sent; the connection is then left open."""
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def log_message(self, *_: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if "/gated/" in path:
            return self.refuse(403, "GatedRepo")
        if path.startswith("/api/models/me/tiny"):
            if path.rsplit("/", 1)[-1] not in ("main", COMMIT):
                return self.refuse(404, "RevisionNotFound")
            return self.tree() if "/tree/" in path else self.info()
        if path.startswith("/me/tiny/resolve/"):
            return self.file(path.rsplit("/", 1)[-1])
        return self.refuse(401, "RepoNotFound")

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def sizes(self) -> dict[str, int]:
        return {f.name: f.stat().st_size for f in self.hub.folder.iterdir()} | {"onnx/m.json": 10}

    def tree(self) -> None:
        files = [
            {"type": "file", "path": n, "size": s, "oid": COMMIT} for n, s in self.sizes().items()
        ]
        self.send(json.dumps(files).encode(), {"Content-Type": "application/json"})

    def info(self) -> None:
        siblings = [{"rfilename": n, "size": s} for n, s in self.sizes().items()]
        body = {"id": "me/tiny", "modelId": "me/tiny", "sha": COMMIT, "siblings": siblings,
                "private": False, "tags": [], "downloads": 0, "likes": 0}  # fmt: skip
        self.send(json.dumps(body).encode(), {"Content-Type": "application/json"})

    def file(self, name: str) -> None:
        self.hub.served.append(f"{self.command} {name}")
        raw = (self.hub.folder / name).read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(raw).hexdigest()}"', "X-Repo-Commit": COMMIT}
        breaks = self.hub.breaks_after is not None and name == "model.safetensors"
        if breaks and self.command == "GET":
            self.send(raw[: self.hub.breaks_after], headers, of=len(raw))
            if self.hub.stalls is not None:
                self.hub.stalls.set()
                with contextlib.suppress(OSError):
                    self.rfile.read(1)  # until the other side is gone
            self.close_connection = True
        else:
            self.send(raw, headers)

    def send(self, raw: bytes, headers: dict[str, str], of: int | None = None) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(of or len(raw))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(raw)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    served = Hub(build_tiny("qwen3", tmp_path / "served"))
    yield served
    served.server.shutdown()
    served.server.server_close()


def call(hub_url: str, tmp_path: Path, model: str, **more: str) -> dict[str, Any]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    settings = {"HF_ENDPOINT": hub_url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1"}
    return {"args": [sys.executable, "-c", PREPARE, model, str(tmp_path / "cache")],
            "env": {**clean, **settings, **more}}  # fmt: skip


def run(hub_url: str, tmp_path: Path, model: str, **environment: str) -> str:
    done = subprocess.run(
        **call(hub_url, tmp_path, model, **environment),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_model_is_fetched_prepared_and_then_found_without_network(
    hub: Hub, tmp_path: Path
) -> None:
    first = run(hub.url, tmp_path, "me/tiny")
    assert first.startswith(f"made tiny me/tiny@{COMMIT} ")
    fetched = {line.split()[1] for line in hub.served if line.startswith("GET")}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= fetched
    assert not any("onnx" in name for name in fetched)
    hub.server.shutdown()
    assert run("http://127.0.0.1:9", tmp_path, "me/tiny", HF_HUB_OFFLINE="1") == first
    assert run("http://127.0.0.1:9", tmp_path, "me/tiny") == first  # unreachable: copy on disk
    assert run("http://127.0.0.1:9", tmp_path, f"me/tiny@{COMMIT}") == first


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        ("gated/model", "is gated: accept its terms"),
        ("nobody/nothing", "no public model"),
        ("me/tiny@no-such-branch", "no revision 'no-such-branch'"),
    ],
)
def test_what_the_hub_refuses_is_explained_in_one_line(
    hub: Hub, tmp_path: Path, model: str, complaint: str
) -> None:
    said = run(hub.url, tmp_path, model)
    assert said.startswith("error ")
    assert "\n" not in said
    assert complaint in said


@pytest.mark.parametrize(
    ("environment", "complaint"),
    [({}, "check the network"), ({"HF_HUB_OFFLINE": "1"}, "offline mode is on")],
)
def test_no_network_and_no_copy_gives_one_line(
    tmp_path: Path, environment: dict[str, str], complaint: str
) -> None:
    said = run("http://127.0.0.1:9", tmp_path, "me/tiny", **environment)
    assert said.startswith("error ")
    assert "\n" not in said
    assert complaint in said


def test_an_incomplete_copy_is_not_used(hub: Hub, tmp_path: Path) -> None:
    run(hub.url, tmp_path, "me/tiny")
    next((tmp_path / "hf").rglob("model.safetensors")).unlink()
    said = run(hub.url, tmp_path, "me/tiny", HF_HUB_OFFLINE="1")
    assert said.startswith("error me/tiny is not (completely) on this disk")


@pytest.mark.slow
def test_a_download_that_breaks_off_is_one_line_and_the_next_try_gets_the_whole(
    hub: Hub, tmp_path: Path
) -> None:
    hub.breaks_after = 1000
    said = run(hub.url, tmp_path, "me/tiny")
    assert said.startswith("error could not download me/tiny") and "\n" not in said
    assert said.endswith("try again (files that have arrived are kept), or use a local directory")
    offline = run(hub.url, tmp_path, "me/tiny", HF_HUB_OFFLINE="1")
    assert offline.startswith("error me/tiny is not (completely) on this disk")
    hub.breaks_after = None
    assert run(hub.url, tmp_path, "me/tiny").startswith(f"made tiny me/tiny@{COMMIT} ")


@pytest.mark.slow
def test_what_a_killed_download_leaves_is_said_and_no_later_try_goes_on_with_it(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))
    assert unfinished_downloads() == []
    hub.breaks_after, hub.stalls = 1000, threading.Event()
    killed = subprocess.Popen(**call(hub.url, tmp_path, "me/tiny"))
    assert hub.stalls.wait(100)
    killed.kill()
    killed.wait()
    left = unfinished_downloads()  # several files are fetched at a time
    assert left
    done = call_here("models")
    assert done.returncode == 0
    assert f"{len(left)} unfinished download(s), " in done.stdout
    hub.breaks_after = hub.stalls = None
    assert run(hub.url, tmp_path, "me/tiny").startswith(f"made tiny me/tiny@{COMMIT} ")
    assert unfinished_downloads() == left  # as docs/first-hour.md says
    freed = done.stdout.rsplit("free the space with: ", 1)[1]
    assert subprocess.run(["sh", "-c", freed], check=False).returncode == 0
    assert unfinished_downloads() == []


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a/b", True), ("Qwen/Qwen3-0.6B@main", True), ("a", False), ("a/b/c", False), ("./a", False),
     ("/a/b", False), ("a/", False), ("a b/c", False)],
)  # fmt: skip
def test_hub_ids(text: str, is_one: bool) -> None:
    assert is_hub_id(text) is is_one


def test_offline_follows_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert is_offline(None)
    assert not is_offline(False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert not is_offline(None)
    assert is_offline(True)

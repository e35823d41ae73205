"""The download against a real HTTP server on loopback."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from arcs.reproduction.download import BASE_URL, download
from arcs.reproduction.files import COMMIT, FILES, PublishedFile
from models.errors import UserError

CONTENTS = {f"part{i}.json": f'{{"part": {i}}}'.encode() * 1000 for i in range(5)}
TABLE = [
    PublishedFile(name, f"eval/results/{name}", len(body), hashlib.sha256(body).hexdigest())
    for name, body in CONTENTS.items()
]


class Server:
    """What the server holds, what was asked for, and where it stops in the middle of a file."""

    def __init__(self) -> None:
        self.bodies = {f"/{file.path}": CONTENTS[file.name] for file in TABLE}
        self.asked: list[str] = []
        self.hang_at: str | None = None
        self.hanging = threading.Event()
        self.release = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.http.daemon_threads = True
        self.http.handle_error = lambda *_: None  # type: ignore[method-assign]  # a killed client
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                body = server.bodies.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.path == server.hang_at:
                    self.wfile.write(body[: len(body) // 2])
                    self.wfile.flush()
                    server.hanging.set()
                    server.release.wait(30)
                    return
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        return Handler


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield made
    made.release.set()
    made.http.shutdown()
    made.http.server_close()
    thread.join()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_every_file_is_fetched_once_and_not_again(server: Server, tmp_path: Path) -> None:
    assert download(tmp_path, base_url=server.url, files=TABLE) == tmp_path
    assert {name: (tmp_path / name).read_bytes() for name in CONTENTS} == CONTENTS
    assert _names(tmp_path) == set(CONTENTS)
    assert server.asked == [f"/{file.path}" for file in TABLE]
    download(tmp_path, base_url=server.url, files=TABLE)
    assert len(server.asked) == len(TABLE)


def test_a_file_that_was_changed_is_fetched_again(server: Server, tmp_path: Path) -> None:
    download(tmp_path, base_url=server.url, files=TABLE)
    server.asked.clear()
    (tmp_path / "part2.json").write_bytes(b"{}")
    download(tmp_path, base_url=server.url, files=TABLE)
    assert server.asked == ["/eval/results/part2.json"]
    assert (tmp_path / "part2.json").read_bytes() == CONTENTS["part2.json"]


@pytest.mark.parametrize(
    "wrong",
    [
        b"<html>sign in</html>",
        CONTENTS["part3.json"][:-1],
        CONTENTS["part3.json"] + b" ",
        CONTENTS["part3.json"] * 1000,
        b"",
    ],
)
def test_other_content_is_refused_and_nothing_is_kept(
    server: Server, tmp_path: Path, wrong: bytes
) -> None:
    server.bodies["/eval/results/part3.json"] = wrong
    with pytest.raises(UserError, match="not the published file") as error:
        download(tmp_path, base_url=server.url, files=TABLE)
    assert "part3.json" in str(error.value) and "\n" not in str(error.value)
    assert _names(tmp_path) == {"part0.json", "part1.json", "part2.json"}


def test_an_http_error_names_the_url(server: Server, tmp_path: Path) -> None:
    del server.bodies["/eval/results/part1.json"]
    with pytest.raises(UserError, match="HTTP 404") as error:
        download(tmp_path, base_url=server.url, files=TABLE)
    assert f"{server.url}/eval/results/part1.json" in str(error.value)
    assert "\n" not in str(error.value)
    assert _names(tmp_path) == {"part0.json"}


def test_no_connection_is_one_line(server: Server, tmp_path: Path) -> None:
    server.http.shutdown()
    server.http.server_close()
    with pytest.raises(UserError, match="cannot be fetched") as error:
        download(tmp_path, base_url=server.url, files=TABLE)
    assert "\n" not in str(error.value)


def test_a_connection_that_breaks_off_leaves_nothing(server: Server, tmp_path: Path) -> None:
    server.hang_at = "/eval/results/part0.json"
    server.release.set()  # the server closes the connection after half of the file
    with pytest.raises(UserError):
        download(tmp_path, base_url=server.url, files=TABLE)
    assert _names(tmp_path) == set()


def test_a_killed_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.hang_at = "/eval/results/part3.json"
    script = (
        "import sys; from pathlib import Path\n"
        "from tests.arcs.reproduction.test_download import TABLE, download\n"
        "download(Path(sys.argv[1]), base_url=sys.argv[2], files=TABLE)\n"
    )
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "cache"), server.url], cwd=root
    )
    try:
        assert server.hanging.wait(60)
    finally:
        process.kill()
    assert process.wait(30) == -signal.SIGKILL
    assert _names(tmp_path / "cache") == {"part0.json", "part1.json", "part2.json"}
    server.asked.clear()
    server.hang_at = None
    download(tmp_path / "cache", base_url=server.url, files=TABLE)
    assert server.asked == ["/eval/results/part3.json", "/eval/results/part4.json"]
    assert _names(tmp_path / "cache") == set(CONTENTS)


def test_the_address_is_pinned_to_the_commit() -> None:
    assert BASE_URL == (
        "https://raw.githubusercontent.com/tinmanlabsl/disposition-distillation/"
        "ed3d9219690e53661857c814f3be5069c095ec30"
    )
    assert len(COMMIT) == 40


def test_the_published_files_come_through_the_same_way(
    server: Server, paper_artifacts: Path, tmp_path: Path
) -> None:
    server.bodies = {f"/{file.path}": (paper_artifacts / file.name).read_bytes() for file in FILES}
    folder = download(tmp_path, base_url=server.url)
    for file in FILES:
        assert (folder / file.name).read_bytes() == (paper_artifacts / file.name).read_bytes()

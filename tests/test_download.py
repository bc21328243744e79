"""Downloads from a server on the loopback interface, with the faults that real ones have."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.recorder import Recorder
from whisper_factory import download as module
from whisper_factory.download import download, partial_name
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.progress import Progress, silent

BODY = bytes(range(256)) * 4096  # 1 MiB
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `body`; the attributes say how badly."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body = BODY
        self.ranges = True  # honour Range
        self.cut: list[int] = []  # each request in turn sends no more than this many bytes
        self.status: list[int] = []  # each request in turn answers this instead; 0: the body
        self.redirect = ""
        self.chunked = False  # do not say the length
        self.stall = threading.Event()  # once set, a body goes on past its first half
        self.stall.set()
        self.seen: list[str | None] = []  # the Range header of each request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/tiny.pt"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is part of these tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        server, asked = self.server, self.headers.get("Range")
        server.seen.append(asked)
        status = server.status.pop(0) if server.status else 0
        if status:
            return self.send_error(status)
        if server.redirect and "moved" not in self.path:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            return self.end_headers()
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and server.ranges else 0  # type: ignore[index]
        if start >= len(server.body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.body)}")
            return self.end_headers()
        self.send_response(206 if asked and server.ranges else 200)
        if asked and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(server.body) - 1}/{len(server.body)}")
        if not server.chunked:
            self.send_header("Content-Length", str(len(server.body) - start))
        self.end_headers()
        body = server.body[start:]
        if server.cut:
            body = body[: server.cut.pop(0)]
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        server.stall.wait()
        self.wfile.write(body[len(body) // 2 :])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(module, "PAUSE", 0.0)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.stall.set()
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def get(server: Server, tmp_path: Path) -> Callable[..., Path]:
    def run(sha256: str = SHA, url: str = "", say: Callable[[str], None] = lambda line: None,
            progress: Progress = silent) -> Path:
        download(url or server.url, tmp_path / "out" / "tiny.pt", sha256, tmp_path / "partial", say,
                 hint="weights=path avoids it", progress=progress)
        return tmp_path / "out" / "tiny.pt"

    return run


def _partial(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "partial" / partial_name(SHA)
    path.parent.mkdir()
    path.write_bytes(content)
    return path


def test_whole_and_a_second_call_asks_nothing(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    assert get().read_bytes() == BODY
    assert not list((tmp_path / "partial").glob("*.part"))
    assert get().read_bytes() == BODY
    assert server.seen == [None]


def test_a_destination_with_other_bytes_is_replaced(get: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "tiny.pt").write_bytes(b"something else")
    assert get().read_bytes() == BODY


def test_goes_on_after_cut_connections(server: Server, get: Callable[..., Path]) -> None:
    server.cut = [1000, 500, 1, 1, 1, 1]  # more cuts than attempts: each gained something
    assert get().read_bytes() == BODY
    assert server.seen == [None, *(f"bytes={size}-" for size in (1000, 1500, 1501, 1502, 1503, 1504))]


def test_goes_on_from_an_earlier_run(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    _partial(tmp_path, BODY[:700_000])
    assert get().read_bytes() == BODY
    assert server.seen == ["bytes=700000-"]


def test_a_server_that_ignores_range_starts_over(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    _partial(tmp_path, b"x" * 700_000)
    server.ranges = False
    assert get().read_bytes() == BODY
    assert server.seen == ["bytes=700000-"]


@pytest.mark.parametrize("content", [BODY, BODY + b"tail"], ids=["complete", "too long"])
def test_416(server: Server, get: Callable[..., Path], tmp_path: Path, content: bytes) -> None:
    _partial(tmp_path, content)
    assert get().read_bytes() == BODY
    assert server.seen == [f"bytes={len(content)}-", *([None] if len(content) > len(BODY) else [])]


def test_a_damaged_partial_is_fetched_anew(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    _partial(tmp_path, b"\0" * 4096)
    assert get().read_bytes() == BODY
    assert server.seen == ["bytes=4096-", None]


def test_no_content_length(server: Server, get: Callable[..., Path]) -> None:
    server.chunked = True
    assert get().read_bytes() == BODY


def test_wrong_sha256(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    wanted = "0" * 64
    with pytest.raises(UserError) as error:
        get(wanted)
    message = str(error.value)
    assert server.url in message
    assert SHA in message
    assert wanted in message
    assert "\n" not in message
    assert not list(tmp_path.glob("*/*.part"))
    assert not list((tmp_path / "out").iterdir())


def test_404_is_said_at_once(server: Server, get: Callable[..., Path]) -> None:
    server.status = [404]
    with pytest.raises(EnvironmentFault, match=r"tiny\.pt from http.*404.*; weights=path avoids it$"):
        get()
    assert len(server.seen) == 1


def test_a_busy_server_is_asked_again(server: Server, get: Callable[..., Path]) -> None:
    server.status = [503, 429]
    lines: list[str] = []
    assert get(say=lines.append).read_bytes() == BODY
    assert [line for line in lines if "503" in line]


def test_gives_up_and_keeps_what_it_has(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    server.cut, server.status = [1000], [0, 503, 503, 503]
    with pytest.raises(EnvironmentFault, match="503"):
        get()
    assert (tmp_path / "partial" / partial_name(SHA)).read_bytes() == BODY[:1000]


def test_refused_connection(server: Server, get: Callable[..., Path]) -> None:
    server.server_close()  # the port is free, and nobody listens
    with pytest.raises(EnvironmentFault, match=r"tiny\.pt from http.*refused.*; weights=path avoids it$") as error:
        get()
    assert "\n" not in str(error.value)


def test_a_silent_server_times_out(server: Server, get: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT", 0.1)
    server.cut = [0, 0, 0]
    server.stall.clear()
    with pytest.raises(EnvironmentFault, match="timed out"):
        get()


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "tiny.pt"])
def test_only_http(get: Callable[..., Path], url: str) -> None:
    with pytest.raises(UserError, match="http"):
        get(url=url)


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/tiny.pt", "file:///etc/hostname"])
def test_a_redirect_elsewhere_is_not_followed(server: Server, get: Callable[..., Path], target: str) -> None:
    server.redirect = target
    with pytest.raises((UserError, EnvironmentFault), match=target[:4]):
        get()


def test_a_redirect_is_followed_with_its_range(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    _partial(tmp_path, BODY[:10])
    server.redirect = "/moved"
    assert get().read_bytes() == BODY
    assert server.seen == ["bytes=10-"] * 2


def test_too_little_space(get: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 1234})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(EnvironmentFault, match=f"{len(BODY)} bytes are needed, 1234 are free"):
        get()


def test_disk_full(get: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "partial").mkdir()
    (tmp_path / "partial" / partial_name(SHA)).symlink_to("/dev/full")
    with pytest.raises(EnvironmentFault, match="no space left"):
        get()


def test_progress_of_a_resumed_download(server: Server, get: Callable[..., Path], tmp_path: Path) -> None:
    _partial(tmp_path, BODY[:700_000])
    server.cut = [100_000]
    lines: list[str] = []
    heard = Recorder()
    get(say=lines.append, progress=heard)
    assert heard.opened == [(len(BODY), "B", 700_000), (len(BODY), "B", 800_000)]
    assert sum(heard.amounts) == len(BODY) - 700_000
    assert lines[0] == "tiny.pt: downloading 0.3 MB"
    assert lines[-1] == "tiny.pt: downloading 0.2 MB"


def test_progress_where_the_server_says_no_length(server: Server, get: Callable[..., Path]) -> None:
    server.chunked = True
    heard = Recorder()
    get(progress=heard)
    assert heard.opened == [(None, "B", 0)]
    assert sum(heard.amounts) == len(BODY)


SCRIPT = """
import sys
from pathlib import Path
from whisper_factory.download import download
url, out, sha256, partial = sys.argv[1:]
download(url, Path(out), sha256, Path(partial), print)
"""


def _process(server: Server, tmp_path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-c", SCRIPT, server.url, str(tmp_path / "out.pt"), SHA, str(tmp_path / "partial")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_killed_midway_then_resumed(server: Server, tmp_path: Path) -> None:
    server.stall.clear()
    process, partial = _process(server, tmp_path), tmp_path / "partial" / partial_name(SHA)
    _wait_for(lambda: partial.exists() and partial.stat().st_size == len(BODY) // 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "out.pt").exists()
    server.stall.set()
    _process(server, tmp_path).communicate()
    assert (tmp_path / "out.pt").read_bytes() == BODY
    assert server.seen == [None, f"bytes={len(BODY) // 2}-"]


def test_two_processes_download_once(server: Server, tmp_path: Path) -> None:
    server.stall.clear()
    first = _process(server, tmp_path)
    _wait_for(lambda: bool(server.seen))
    second = _process(server, tmp_path)
    assert second.stdout is not None
    assert "another process" in second.stdout.readline()
    server.stall.set()
    first.communicate()
    second.communicate()
    assert (first.returncode, second.returncode) == (0, 0)
    assert (tmp_path / "out.pt").read_bytes() == BODY
    assert server.seen == [None]

"""Weights nobody should trust, given on the command line: one line each, exit code 2, nothing kept."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Command


class Trap:
    """A pickle that would leave a file behind if it were ever run."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.path}",)


def refused(factory: Command, *overrides: str, stop_after: str | None = "convert") -> str:
    done = factory("model=tiny.en", f"stop_after={stop_after or 'null'}", *overrides)
    assert done.returncode == 2, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in done.stderr
    return errors[0]


def test_a_truncated_pt(factory: Command, tmp_path: Path) -> None:
    import torch

    whole = tmp_path / "whole.pt"
    torch.save({"dims": {}, "model_state_dict": {"a": torch.zeros(1000)}}, whole)
    (tmp_path / "cut.pt").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    for stop_after in ("convert", None):  # without, the reference reads it first
        said = refused(factory, "weights=path", f"weights.path={tmp_path / 'cut.pt'}", stop_after=stop_after)
        assert f"'{tmp_path / 'cut.pt'}' is not a PyTorch checkpoint" in said


def test_a_malicious_pickle_is_refused_by_name_and_not_run(factory: Command, tmp_path: Path) -> None:
    import torch

    torch.save({"dims": {}, "model_state_dict": Trap(tmp_path / "sprung")}, tmp_path / "trap.pt")
    assert "posix.system" in refused(factory, "weights=path", f"weights.path={tmp_path / 'trap.pt'}")
    assert not (tmp_path / "sprung").exists()


def test_weights_of_another_model_name_each_dimension(factory: Command) -> None:
    said = refused(factory, "model.dimensions.n_audio_layer=6", "model.dimensions.n_text_layer=6")
    assert "n_audio_layer is 4, model 'tiny.en' says 6; n_text_layer is 4, model 'tiny.en' says 6" in said


class _Wrong(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"wrong")

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Wrong) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()
        thread.join()


def test_a_wrong_sha256_is_refused_and_nothing_is_kept(factory: Command, server: str, shared_store: Path) -> None:
    said = refused(factory, "weights=openai", f"model.url={server}/tiny.en.pt")
    assert "SHA-256 is 8810ad581e59f2bc3928b261707a71308f7e139eb04820366dc4d5c18d980225, expected d3dd57d3" in said
    assert not list((shared_store / "downloads").glob("*[!k]"))

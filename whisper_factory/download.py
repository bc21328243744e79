"""Downloads that resume, are checked against a SHA-256, land atomically, and never run twice.

Bytes collect in `<partial_dir>/<sha256>.<host>.part`, unbuffered, so that a killed process loses none of them; a lock
beside it lets one process download at a time.
"""

from __future__ import annotations

import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from whisper_factory import digest
from whisper_factory.errors import EnvironmentFault, UserError
from whisper_factory.progress import BYTES, Progress, silent
from whisper_factory.store import FULL, flush, holds

TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 3  # in a row without a byte gained
PAUSE = 1.0  # seconds before the second attempt; doubles
CHUNK = 1 << 18
SCHEMES = ("http", "https")
WORTH_RETRYING = (408, 425, 429, 500, 502, 503, 504)

Say = Callable[[str], None]


def download(url: str, destination: Path, sha256: str, partial_dir: Path, say: Say, hint: str = "",
             progress: Progress = silent) -> None:
    """Put the file with this SHA-256 at `destination`; does nothing if it is there already.

    Args:
        partial_dir: where an interrupted download waits, on the same file system as `destination`.
        say: told of the start, of waiting and of retries.
        hint: ends the message when the file cannot be got: what would avoid it.
        progress: of the bytes.

    Raises:
        UserError: the URL is not http(s), or what it gave has another SHA-256 (nothing of it is kept).
        EnvironmentFault: no network, no such file on the server, or no space left.
    """
    import filelock

    _check_scheme(url)
    partial_dir.mkdir(parents=True, exist_ok=True)
    destination.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(partial_dir / f"{sha256}.lock")
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        say(f"{_name(url)}: another process is downloading it, waiting")
        lock.acquire()
    try:
        if destination.is_file() and digest.of_file(destination) == sha256:
            return
        partial = partial_dir / partial_name(sha256)
        _get_checked(url, partial, sha256, say, hint, progress)
        os.replace(partial, destination)
        flush(destination.parent)
    finally:
        lock.release()


def partial_name(sha256: str) -> str:
    """Where a download that is not whole lies: hosts that share a directory but no locks do not share it."""
    return f"{sha256}.{holds.host()}.part"


def _get_checked(url: str, partial: Path, sha256: str, say: Say, hint: str, progress: Progress) -> None:
    """Complete `partial` and check it. One that was resumed and turns out wrong is fetched anew, once."""
    resumed = partial.exists() and partial.stat().st_size > 0
    _get(url, partial, say, hint, progress)
    got = digest.of_file(partial)
    if got != sha256 and resumed:
        say(f"{_name(url)}: the resumed download is damaged, starting again")
        partial.unlink()
        _get(url, partial, say, hint, progress)
        got = digest.of_file(partial)
    if got != sha256:
        partial.unlink()
        raise UserError(f"{url}: SHA-256 is {got}, expected {sha256}; the file was not kept: something else is served "
                        "there, or the digest in the configuration is wrong")


def _get(url: str, partial: Path, say: Say, hint: str, progress: Progress) -> None:
    """Ask until `partial` is whole, going on from what is there; a connection that broke is tried again."""
    failures = 0
    while True:
        before = _size(partial)
        try:
            return _append(url, partial, say, progress)
        except urllib.error.HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
            if error.code not in WORTH_RETRYING:
                raise _unreachable(url, reason, hint) from error
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        except OSError as error:
            if error.errno in FULL:
                raise _full(partial, None) from error
            raise
        failures = 0 if _size(partial) > before else failures + 1
        if failures == ATTEMPTS:
            raise _unreachable(url, reason, hint)
        say(f"{_name(url)}: {reason}; trying again")
        time.sleep(PAUSE * 2 ** max(0, failures - 1))


def _append(url: str, partial: Path, say: Say, progress: Progress) -> None:
    """One request: append to `partial` all that is missing. Raises if the connection ends early."""
    start = _size(partial)
    headers = {"User-Agent": "whisper-factory", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        error.close()
        if error.headers.get("Content-Range", "") == f"bytes */{start}":
            return  # nothing is missing
        partial.unlink()  # longer than the file: not its beginning
        return _append(url, partial, say, progress)
    with response:
        start, total = _extent(response, start)
        _check_space(partial, total - start if total is not None else 0)
        say(f"{_name(url)}: downloading" + (f" {(total - start) / 1e6:.1f} MB" if total else ""))
        with partial.open("ab" if start else "wb", buffering=0) as file, progress(total, BYTES, start) as advance:
            while chunk := response.read(CHUNK):
                _write_all(file, chunk)
                advance(len(chunk))
            if total is not None and file.tell() < total:
                raise ConnectionError(f"the connection ended at {file.tell()} of {total} bytes")
            os.fsync(file.fileno())


def _extent(response: Any, asked: int) -> tuple[int, int | None]:
    """Where the body begins in the file, and the file's size if the server says it."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if found and int(found[1]) == asked:
            return asked, int(found[2])
        raise http.client.HTTPException("the server answered with another range than was asked for")
    length = response.headers.get("Content-Length", "")  # 200: the whole file, whatever was asked for
    return 0, int(length) if length.isdigit() else None


def _write_all(file: Any, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:  # an unbuffered write may take a part
        rest = rest[file.write(rest):]


def _check_scheme(url: str) -> None:
    if urlsplit(url).scheme not in SCHEMES:
        raise UserError(f"'{url}' is not a URL to download from; it must begin with http:// or https://")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but only to http(s): urllib itself would also go to ftp."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Opens http(s), through the environment's proxy if it names one, and no file:, ftp: or data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _Redirects,
                    urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
                    urllib.request.UnknownHandler):
        opener.add_handler(handler())
    return opener


def _unreachable(url: str, reason: str, hint: str) -> EnvironmentFault:
    return EnvironmentFault(f"cannot download {_name(url)} from {url} ({reason})" + (f"; {hint}" if hint else ""))


def _full(partial: Path, needed: int | None) -> EnvironmentFault:
    free = shutil.disk_usage(partial.parent).free
    wanted = "" if needed is None else f"{needed} bytes are needed, "
    return EnvironmentFault(f"no space left for the download {partial} ({wanted}{free} are free); make room and run "
                            "again: it goes on where it stopped")


def _check_space(partial: Path, needed: int) -> None:
    if shutil.disk_usage(partial.parent).free < needed:
        raise _full(partial, needed)


def _name(url: str) -> str:
    return urlsplit(url).path.rsplit("/", 1)[-1] or url


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0

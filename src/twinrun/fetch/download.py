"""One file from the network, resumable: what is broken off goes on, and a wrong file never takes the right name."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import requests
import urllib3

from twinrun.fetch.digests import Digest, check_and_rename
from twinrun.study.errors import BusyError, InputError, MismatchError
from twinrun.study.files import explain_os_error, read_json, write_json

Progress = Callable[[int, int], None]
_BLOCK = 1 << 18
_RESERVE = 100_000_000  # bytes of the disk that stay free
_AGAIN_LATER = (408, 425, 429, 500, 502, 503, 504)
_HEADERS = {
    "User-Agent": "twinrun (python-requests)",
    "Accept-Encoding": "identity",  # compressed on the way, byte ranges would not be those of the file
}
ELSEWHERE = "the same command goes on where it was; or name a mirror or a downloaded file with --from"
_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a connection and for the next bytes, tries without any new byte, seconds before the first
    new try (doubled each time), and tries in all."""

    connect_seconds: float = 15.0
    read_seconds: float = 60.0
    tries: int = 6
    pause_seconds: float = 1.0
    tries_in_all: int = 200


PATIENCE = Patience()


class _Again(Exception):  # noqa: N818
    """This try failed, another may not: why, and seconds that the server asked for."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


def download(
    url: str,
    target: Path,
    digest: Digest | None = None,
    *,
    check: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
    patience: Patience = PATIENCE,
) -> None:
    """Fetch `url` into `target` by way of `target`.part, which a broken-off call leaves and the next one goes on with.

    A part is only continued when the server says that the file is still the same one, or when a digest will tell.
    `check` looks at the whole file before it takes its name. Raises InputError for a server's refusal, a web page in
    the file's place, a full disk or one that stays silent; MismatchError for another digest; BusyError.
    """
    part = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("ab") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(f"{target}: another process fetches it", "wait for it, or end it") from error
            transfer = _Transfer(url, stream, part, digest is not None, progress, patience)
            try:
                transfer.run()
                try:
                    check_and_rename(part, target, digest, check)
                except (MismatchError, InputError):
                    if not transfer.pieces:
                        raise
                    # Pieces of two different files may have been joined: once more, whole.
                    transfer.start_over()
                    transfer.run()
                    check_and_rename(part, target, digest, check)
            finally:
                if not part.exists() or not transfer.done:
                    part.unlink(missing_ok=True)
                    transfer.note.unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, part) from error


class _Transfer:
    """The tries to fill one part file."""

    def __init__(
        self, url: str, stream: IO[bytes], part: Path, verified: bool, progress: Progress | None, patience: Patience
    ) -> None:
        self.url, self.stream, self.verified = url, stream, verified
        self.progress, self.patience = progress, patience
        self.note = part.with_name(f"{part.name}.json")
        self.pieces = False  # whether the part is of more than one answer
        self.validator, self.total = "", 0
        if self.done and self.note.exists():
            note = read_json(self.note)
            if isinstance(note, dict) and note.get("url") == url:
                self.validator, self.total = str(note.get("validator", "")), int(note.get("total", 0))
                return
        self.start_over()

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return os.fstat(self.stream.fileno()).st_size

    def start_over(self) -> None:
        """Throw away what is there."""
        self.stream.truncate(0)
        self.validator, self.total, self.pieces = "", 0, False

    def run(self) -> None:
        """Try until the file is whole; a try that brings new bytes earns further ones."""
        failures = 0
        for _ in range(self.patience.tries_in_all):
            before = self.done
            try:
                self._try()
                return
            except _Again as again:
                reason, wait = str(again), again.wait_seconds
            failures = 0 if self.done > before else failures + 1
            if failures >= self.patience.tries:
                break
            time.sleep(max(min(wait, 120.0), self.patience.pause_seconds * 2**failures if failures else 0.0))
        raise InputError(f"{self.url}: given up after several tries: {reason}", ELSEWHERE)

    def _try(self) -> None:
        start = self.done
        headers = dict(_HEADERS)
        if start and (self.validator or self.verified):
            headers["Range"] = f"bytes={start}-"
            if self.validator:
                headers["If-Range"] = self.validator
        elif start:
            self.start_over()
        waits = (self.patience.connect_seconds, self.patience.read_seconds)
        try:
            answer = requests.get(self.url, headers=headers, stream=True, timeout=waits)
        except requests.TooManyRedirects as error:
            raise InputError(f"{self.url}: it redirects in a circle", ELSEWHERE) from error
        except (
            requests.exceptions.MissingSchema,
            requests.exceptions.InvalidSchema,
            requests.exceptions.InvalidURL,
        ) as e:
            raise InputError(f"{self.url}: not an address: {e}", "give one that begins with http:// or https://") from e
        except _BROKEN as error:
            raise _Again(_short(error)) from error
        with contextlib.closing(answer):
            self._receive(answer)

    def _receive(self, answer: requests.Response) -> None:
        if answer.status_code == 416:
            # Nothing after the last byte: either the part is the whole file, or of another one.
            if answer.headers.get("Content-Range", "").endswith(f"*/{self.done}"):
                return
            self.start_over()
            raise _Again("it has fewer bytes than were fetched before")
        if answer.status_code in _AGAIN_LATER:
            wait = answer.headers.get("Retry-After", "")
            raise _Again(f"it answers {answer.status_code} {answer.reason}", float(wait) if wait.isdigit() else 0.0)
        if answer.status_code not in (200, 206):
            raise InputError(f"{self.url}: it answers {answer.status_code} {answer.reason}", ELSEWHERE)
        if "text/html" in answer.headers.get("Content-Type", ""):
            raise InputError(f"{self.url}: a web page instead of the file", ELSEWHERE)
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise InputError(f"{self.url}: sent in another encoding than asked for", ELSEWHERE)
        if answer.status_code == 206:
            self._continue(answer)
        else:
            self.start_over()
            self._begin(answer)
        if self.total and self.total - self.done > shutil.disk_usage(self.note.parent).free - _RESERVE:
            message = f"{self.note.parent}: {(self.total - self.done) / 1e9:.1f} GB are still to come and do not fit"
            raise InputError(message, "free some space; the same command goes on where it was")
        try:
            for block in _blocks(answer):
                self.stream.write(block)
                if self.progress:
                    self.progress(self.stream.tell(), max(self.total, self.stream.tell()))
        finally:
            self.stream.flush()  # the next try asks for what follows after the bytes in the file
        if self.total and self.done != self.total:
            if self.done > self.total:
                self.start_over()
            raise _Again(f"{self.done} bytes of the {self.total} that were announced came")

    def _begin(self, answer: requests.Response) -> None:
        length = answer.headers.get("Content-Length", "")
        self.total = int(length) if length.isdigit() else 0
        etag = answer.headers.get("ETag", "")
        # A weak ETag says nothing about single bytes.
        self.validator = etag if etag.startswith('"') else answer.headers.get("Last-Modified", "")
        write_json(self.note, {"url": self.url, "validator": self.validator, "total": self.total})

    def _continue(self, answer: requests.Response) -> None:
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
        whole = int(found[3]) if found and found[3] != "*" else 0
        if not found or int(found[1]) != self.done or (self.total and whole and whole != self.total):
            self.start_over()
            raise _Again("it sent another part of the file than asked for")
        self.pieces = True
        self.total = self.total or whole


def _blocks(answer: requests.Response) -> Iterator[bytes]:
    try:
        yield from answer.raw.stream(_BLOCK, decode_content=False)
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Again(_short(error)) from error


def _short(error: BaseException) -> str:
    """The innermost reason of a network error, in words."""
    inner: Any = error
    while inner.args and isinstance(inner.args[-1], BaseException):
        inner = inner.args[-1]
    reason = getattr(inner, "reason", None)
    return (
        _short(reason)
        if isinstance(reason, BaseException) and reason is not inner
        else str(inner) or type(inner).__name__
    )

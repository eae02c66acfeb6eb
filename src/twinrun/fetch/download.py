"""One file from the network, resumable: what is broken off goes on, and no file without its digest takes the name.

The field's download library, pooch (1.9), checks digests and tries again, but begins anew after every break, and holds
no lock; urllib3's Retry repeats requests, not bodies. Of a data set of gigabytes the body is what breaks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from http.client import responses
from pathlib import Path

import requests
import urllib3

from twinrun.study.errors import InputError, MismatchError, ResourceError
from twinrun.study.files import explain_os_error, sha256_file, write_json, write_text
from twinrun.study.lock import hold


@dataclass(frozen=True)
class Digest:
    """Algorithm (md5, sha256), the digest or its beginning in hex, and who says so."""

    algorithm: str
    hexadecimal: str
    source: str

    def check(self, path: Path, name: str) -> None:
        """MismatchError when the file at `path` has another one."""
        with path.open("rb") as stream:
            actual = hashlib.file_digest(stream, self.algorithm).hexdigest()
        if not actual.startswith(self.hexadecimal):
            raise MismatchError(
                f"{name}: its {self.algorithm.upper()} is {actual}, but {self.source} says {self.hexadecimal}",
                "it is damaged or another file: remove it and fetch it again, or name another source with --from",
            )


def recorded(target: Path) -> Digest | None:
    """The digest recorded when `target` was first fetched, if it was."""
    path = target.with_name(f"{target.name}.sha256")
    if not path.exists():
        return None
    noted = re.match(r"[0-9a-f]{64}\b", path.read_text(encoding="utf-8", errors="replace"))
    if not noted:
        raise InputError(f"{path}: no SHA-256 in it", "remove it to trust the file that is fetched next")
    return Digest("sha256", noted[0], f"{path.name}, written at the first fetch,")


def record(target: Path) -> None:
    """Note the digest of `target` beside it, as `sha256sum -c` reads it, unless it is noted already."""
    path = target.with_name(f"{target.name}.sha256")
    if not path.exists():
        write_text(path, f"{sha256_file(target)}  {target.name}\n")


def check_and_rename(part: Path, target: Path, digest: Digest | None, check: Callable[[Path], None] | None) -> None:
    """Give `part` its name when it is no web page, has its digest and passes `check`; else it is removed."""
    try:
        with part.open("rb") as stream:
            head = stream.read(512).lstrip().lower()
        if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
            hint = "the server sent an error page: open the address in a browser, then name the file with --from"
            raise InputError(f"{target}: a web page and no data", hint)
        if digest:
            digest.check(part, target.name)
        if check:
            check(part)
    except (InputError, MismatchError) as error:
        if not isinstance(error, ResourceError):  # the machine's fault: what came may be right
            part.unlink(missing_ok=True)
        raise
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(target)


Progress = Callable[[int, int], None]
MOST_BYTES = 4_000_000_000  # of one file: the largest that is meant has half a gigabyte
_BLOCK = 1 << 18
_RESERVE = 100_000_000  # bytes of the disk that stay free
_TRIES = 200  # in all, however many of them bring something
_AGAIN_LATER = (408, 425, 429, 500, 502, 503, 504)
_HEADERS = {
    "User-Agent": "twinrun (python-requests)",
    "Accept-Encoding": "identity",  # compressed on the way, byte ranges would not be those of the file
}
ELSEWHERE = "the same command goes on where it was; or name a mirror or a downloaded file with --from"


@dataclass(frozen=True)
class Patience:
    """Seconds to wait for a connection and for the next bytes, tries in a row without any new byte, and seconds before
    the first new one (doubled each time)."""

    connect_seconds: float = 15.0
    read_seconds: float = 60.0
    tries: int = 6
    pause_seconds: float = 1.0


PATIENCE = Patience()


class _Again(Exception):  # noqa: N818
    """This try failed, another may not: why."""

    wait_seconds = 0  # that the server asked for


class _Part:
    """What has come of a file, and beside it what the server said of it at the first byte."""

    def __init__(self, path: Path, url: str) -> None:
        self.path, self.url = path, url
        self.note = path.with_name(f"{path.name}.json")
        self.validator, self.total = "", 0
        self.joined = False  # whether it is of more than one answer
        with suppress(OSError, ValueError, RecursionError, TypeError, KeyError, OverflowError):
            said = json.loads(self.note.read_text())
            if said["url"] == url:
                self.validator, self.total = str(said["validator"]), int(said["total"])
                return
        self.clear()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def begin(self, validator: str, total: int) -> None:
        self.clear()
        self.validator, self.total = validator, total
        write_json(self.note, {"url": self.url, "validator": validator, "total": total})

    def clear(self) -> None:
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.validator, self.total, self.joined = "", 0, False


def download(
    url: str,
    target: Path,
    digest: Digest | None = None,
    *,
    check: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
    patience: Patience = PATIENCE,
    most_bytes: int = MOST_BYTES,
) -> None:
    """Fetch `url` into `target` by way of `target`.part, which a broken-off call leaves and the next one goes on with.

    A part is only continued when the server says that the file is still the same one, or when a digest will tell.
    `check` looks at the whole file before it takes its name. Raises InputError for a server's refusal, a web page in
    the file's place, a full disk, a server that stays silent or never ends; MismatchError for another digest;
    BusyError when another process fetches it.
    """
    path = target.with_name(f"{target.name}.part")
    lock = target.with_name(f"{target.name}.lock")
    try:
        with hold(lock, f"{target}: another process fetches it"):
            part = _Part(path, url)
            try:
                _fill(part, digest is not None, progress, patience, most_bytes)
                try:
                    check_and_rename(path, target, digest, check)
                except (MismatchError, InputError):
                    if not part.joined:
                        raise
                    # Pieces of two different files may have been joined: once more, whole.
                    part.clear()
                    _fill(part, True, progress, patience, most_bytes)
                    check_and_rename(path, target, digest, check)
            finally:
                if not part.size:
                    part.clear()
                lock.unlink(missing_ok=True)
    except OSError as error:
        raise explain_os_error(error, path) from error


def _fill(part: _Part, verified: bool, progress: Progress | None, patience: Patience, most_bytes: int) -> None:
    """Try until the file is whole; a try that brings new bytes earns further ones."""
    failures, reason = 0, ""
    for _ in range(_TRIES):
        before = part.size
        try:
            with closing(_ask(part, verified, patience)) as answer:
                return _receive(part, answer, progress, most_bytes)
        except (_Again, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            reason, wait = _innermost(error), getattr(error, "wait_seconds", 0)
        failures = 0 if part.size > before else failures + 1
        if failures >= patience.tries:
            break
        time.sleep(max(min(wait, 120), patience.pause_seconds * 2**failures if failures else 0.0))
    raise InputError(f"{part.url}: given up after several tries: {reason}", ELSEWHERE)


def _ask(part: _Part, verified: bool, patience: Patience) -> requests.Response:
    """The answer to a request for what is missing; its body is still to be read."""
    headers = dict(_HEADERS)
    if part.size and (part.validator or verified):
        headers["Range"] = f"bytes={part.size}-"
        if part.validator:
            headers["If-Range"] = part.validator
    waits = (patience.connect_seconds, patience.read_seconds)
    try:
        return requests.get(part.url, headers=headers, stream=True, timeout=waits)
    except requests.TooManyRedirects as error:
        raise InputError(f"{part.url}: it redirects in a circle", ELSEWHERE) from error
    except ValueError as error:  # requests' own errors of an address are such, too
        hint = "give one that begins with http:// or https://"
        raise InputError(f"{part.url}: not an address: {str(error)[:300]}", hint) from error


def _receive(part: _Part, answer: requests.Response, progress: Progress | None, most_bytes: int) -> None:
    """Write the body behind what is there, or in its place, as the answer says."""
    code, headers = answer.status_code, answer.headers
    said = f"it answers {code} {responses.get(code, '')}".rstrip()  # never the server's own words
    if code == 416:
        # Nothing after the last byte: either the part is the whole file, or of another one.
        if headers.get("Content-Range", "").endswith(f"*/{part.size}"):
            return
        part.clear()
        raise _Again("it has fewer bytes than were fetched before")
    if code in _AGAIN_LATER:
        again = _Again(said)
        again.wait_seconds = _number(headers.get("Retry-After", ""))
        raise again
    if "text/html" in headers.get("Content-Type", "") and code in (200, 206):
        said = "a web page instead of the file"
    elif headers.get("Content-Encoding", "identity") != "identity":
        said = "sent in another encoding than asked for"
    elif code in (200, 206):
        said = ""
    if said:
        raise InputError(f"{part.url}: {said}", ELSEWHERE)
    if code == 206:
        span = re.fullmatch(r"bytes ([0-9]+)-[0-9]+/([0-9]+|\*)", headers.get("Content-Range", ""))
        whole = _number(span[2]) if span else 0
        if not span or _number(span[1]) != part.size or (part.total and whole and whole != part.total):
            part.clear()
            raise _Again("it sent another part of the file than asked for")
        part.joined, part.total = True, part.total or whole
    else:
        etag = headers.get("ETag", "")
        # A weak ETag says nothing about single bytes.
        validator = etag if etag.startswith('"') else headers.get("Last-Modified", "")
        part.begin(validator, _number(headers.get("Content-Length", "")))
    with part.path.open("ab") as stream:
        _require_room(part, most_bytes)
        for block in answer.raw.stream(_BLOCK, decode_content=False):
            stream.write(block)
            stream.flush()
            _require_room(part, most_bytes)
            if progress:
                progress(stream.tell(), max(part.total, stream.tell()))
    if part.total and (size := part.size) != part.total:
        reason = f"{size} bytes of the {part.total} that were announced came"
        if size > part.total:
            part.clear()
        raise _Again(reason)


def _require_room(part: _Part, most_bytes: int) -> None:
    size = part.size
    to_come = max(part.total - size, 0)
    if to_come > shutil.disk_usage(part.path.parent).free - _RESERVE:
        message = f"{part.path.parent}: {to_come / 1e9:.1f} GB are still to come and do not fit"
        raise ResourceError(message, "free some space; the same command goes on where it was")
    if max(size, part.total) > most_bytes:
        part.clear()
        message = f"{part.url}: more than {most_bytes / 1e9:g} GB, which is no file that is meant"
        raise InputError(message, "check the address, or fetch the file by hand and name it with --from")


def _number(text: str) -> int:
    """The number in a header, 0 for what is none or has no end."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else 0


def _innermost(error: BaseException) -> str:
    """The innermost reason of a network error, in words."""
    causes = [cause for cause in (getattr(error, "reason", None), *error.args[-1:]) if isinstance(cause, BaseException)]
    return _innermost(causes[0]) if causes else str(error)[:300] or type(error).__name__

"""Digests of fetched files: the publisher's, or the one recorded beside the file when it was first fetched."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twinrun.study.errors import InputError, MismatchError
from twinrun.study.files import sha256_file, write_text


@dataclass(frozen=True)
class Digest:
    """Algorithm (md5, sha256), the digest or its beginning in hex, and who says so."""

    algorithm: str
    hexadecimal: str
    source: str

    def check(self, path: Path, name: str) -> None:
        """MismatchError when the file at `path` has another one."""
        with path.open("rb") as stream:
            found = hashlib.file_digest(stream, self.algorithm).hexdigest()
        if not found.startswith(self.hexadecimal):
            raise MismatchError(
                f"{name}: its {self.algorithm.upper()} is {found}, but {self.source} says {self.hexadecimal}",
                "it is damaged or another file: remove it and fetch it again, or name another source with --from",
            )


def record_path(target: Path) -> Path:
    """The record beside a file, as sha256sum -c reads it."""
    return target.with_name(f"{target.name}.sha256")


def recorded(target: Path) -> Digest | None:
    """The digest recorded when `target` was first fetched, if it was."""
    path = record_path(target)
    if not path.exists():
        return None
    found = re.match(r"[0-9a-f]{64}\b", path.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise InputError(f"{path}: no SHA-256 in it", "remove it to trust the file that is fetched next")
    return Digest("sha256", found[0], f"{path.name}, written at the first fetch,")


def record(target: Path) -> None:
    """Note the digest of `target` beside it, unless it is noted already."""
    if not record_path(target).exists():
        write_text(record_path(target), f"{sha256_file(target)}  {target.name}\n")


def check_and_rename(part: Path, target: Path, digest: Digest | None, check: Callable[[Path], None] | None) -> None:
    """Give `part` its name when it has its digest and passes `check`; a file that does not is removed."""
    try:
        refuse_web_page(part, target)
        if digest:
            digest.check(part, target.name)
        if check:
            check(part)
    except (InputError, MismatchError):
        os.truncate(part, 0)
        raise
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(target)


def refuse_web_page(path: Path, target: Path) -> None:
    """InputError when a server's error page was saved in the place of the file."""
    with path.open("rb") as stream:
        head = stream.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
        hint = "the server sent an error page: open the address in a browser, then name the file with --from"
        raise InputError(f"{target}: a web page and no data", hint)

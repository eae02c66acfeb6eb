"""Digests of fetched files: the publisher's, or the one recorded beside the file when it was first fetched."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twinrun.study.errors import InputError, MismatchError, ResourceError
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

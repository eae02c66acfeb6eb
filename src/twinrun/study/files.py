"""Digests and atomic writes: the target either keeps its old content or has the whole new one."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tokenize import TokenError
from typing import Any

from twinrun.study.errors import InputError, ResourceError

_AGAIN = "free some space and run the same command again: finished work is kept"
_REASONS = {
    errno.ENOSPC: ("the disk is full", _AGAIN),
    errno.EDQUOT: ("the disk quota is used up", _AGAIN),
    errno.EFBIG: ("the file would be larger than is allowed", "raise the limit (`ulimit -f`): finished work is kept"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.EROFS: ("the file system is read-only", "run in a folder that can be written"),
    errno.EACCES: ("permission denied", "check who owns the folder"),
    errno.EPERM: ("operation not permitted", "check who owns the folder"),
    errno.ENOTDIR: ("a file stands where a folder should be", "move that file away"),
    errno.EISDIR: ("a folder stands where a file should be", "move that folder away"),
    errno.EEXIST: ("a file stands where a folder should be", "move that file away"),
}


def explain_os_error(error: OSError, path: Path | str | None = None) -> ResourceError:
    """The user's sentence for an operating-system error at `path`."""
    where = path or error.filename or "a file"
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), ""))
    return ResourceError(f"{where}: {reason}", hint)


# What numpy and zipfile raise at a damaged array: RuntimeError where it is encrypted or packed in another way, the
# others from a header that is Python source.
DAMAGED_ARRAY = (
    ValueError, KeyError, AttributeError, EOFError, RuntimeError, OverflowError, SyntaxError, TokenError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(value: Any) -> str:
    """Hex SHA-256 of a JSON-like value's canonical text."""
    return sha256_bytes(canonical_json(value).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, flush it to the disk and rename it over `path`.

    Raises InputError, and leaves no temporary file, when the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise explain_os_error(error, path) from error


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people and for comparison: sorted keys, two spaces, a final newline."""
    write_text(path, json.dumps(value, sort_keys=True, indent=2, ensure_ascii=True, allow_nan=False) + "\n")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is too large")
    return value


def refuse_pipe(path: Path, hint: str = "save it as a file first") -> None:
    """InputError for a pipe or a device, whose end might never come."""
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: a pipe or a device, no file", hint)


def read_json(path: Path) -> Any:
    """The JSON value in `path`; InputError names the file when it is missing or broken, or none that has an end."""
    refuse_pipe(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: no such file", "run the step before, in the study folder: the one that holds params.yaml"
        ) from error
    except (ValueError, RecursionError) as error:  # numbers of too many digits and deep nesting, too
        raise InputError(f"{path}: not valid JSON ({error})", "it is damaged: remove it and make it again") from error
    except OSError as error:
        raise explain_os_error(error, path) from error


def has_room(folder: Path, size: int) -> bool:
    """Whether `size` bytes fit on the disk of `folder` with some left."""
    return size * 1.1 + 2**20 <= shutil.disk_usage(folder).free


def code_digest(package_root: Path, parts: Iterable[str]) -> str:
    """SHA-256 over the Python files of the named sub-packages: relative path and bytes, in sorted order."""
    entries = [
        (file.relative_to(package_root).as_posix(), sha256_file(file))
        for part in parts
        for file in sorted((package_root / part).rglob("*.py"))
    ]
    return digest(entries)

"""One interface over a zip, a tar (plain or compressed) and an unpacked folder: names and random access reads."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

from twinrun.study.errors import DamagedError, InputError
from twinrun.study.files import digest, explain_os_error, sha256_file

_AGAIN = "it is damaged or was cut short: fetch it again"
_KINDS = "allowed: a .zip, a .tar (also .gz, .tgz, .bz2, .xz), or an unpacked folder"
_BESIDE = 5  # members of a zip that is only a wrapper of another one
_BROKEN = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, tarfile.TarError, zipfile.BadZipFile)
# The first bytes tell a compressed tar, whatever its name is.
_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}


class Archive:
    """Files of one source by posix name; `read` may be called from several threads at once.

    `sha256` is that of the archive file, None for a folder; `path` is where it was opened; `stamp` changes with the
    content (for a folder: with names, sizes and times).
    """

    def __init__(self, path: Path, sha256: str | None, names: Iterable[str], read: Callable[[str], bytes]) -> None:
        self.path = path
        self.sha256 = sha256
        self.names = sorted(names)
        self._known = frozenset(self.names)
        self._read = read
        self._streams: list[IO[bytes]] = []

    def read(self, name: str) -> bytes:
        """The bytes of that file; InputError names archive and file when it is missing or damaged."""
        if name not in self._known:
            raise InputError(f"{self.path}: {name} is missing in it", "fetch it again, or name the right source")
        try:
            return self._read(name)
        except _BROKEN as error:
            raise DamagedError(f"{self.path}: {name} cannot be read: {error}", _AGAIN) from error
        except OSError as error:
            raise explain_os_error(error, f"{self.path}: {name}") from error

    @property
    def stamp(self) -> str:
        """A digest that changes with the content."""
        if self.sha256:
            return self.sha256
        stats = [(name, (self.path / name).stat()) for name in self.names]
        return digest([(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])

    def close(self) -> None:
        """Close the files that are held open."""
        for stream in self._streams:
            stream.close()

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_archive(path: Path, sha256: str | None = None) -> Archive:
    """Open an archive or folder, checking its SHA-256 first where one is given.

    Raises InputError for a missing, damaged or foreign file, another digest, and members that are no plain files
    below the archive's own root (absolute or `..` names, links, devices).
    """
    try:
        if path.is_dir():
            if sha256 is not None:
                hint = "name the archive as source, or remove sha256 from the task's data"
                raise InputError(f"{path}: sha256 is that of an archive, but this is a folder", hint)
            return _open_folder(path)
        if not path.exists():
            hint = "put it there, or correct `source` in the params file"
            if "sample" in path.parts:
                hint = "`git checkout data.dvc && dvc pull data.dvc` brings the sample data back"
            raise InputError(f"{path}: no such file or folder", hint)
        found = sha256_file(path)
        if sha256 is not None and found != sha256:
            hint = "fetch the archive again, or correct sha256 in the task's data if this is the one you mean"
            raise InputError(f"{path}: its SHA-256 is {found}, but the params file says {sha256}", hint)
        with path.open("rb") as stream:
            head = stream.read(6)
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            return _open_zip(path, found, path.open("rb"))
        return _open_tar(path, found, head)
    except _BROKEN as error:
        raise InputError(f"{path}: not a whole archive: {error}", f"{_AGAIN}; {_KINDS}") from error
    except OSError as error:
        raise explain_os_error(error, path) from error


def _plain_name(path: Path, name: str, seen: Iterable[str]) -> str:
    pure = PurePosixPath(name)
    tricks = (
        pure.is_absolute()
        or ".." in pure.parts
        or "\\" in name
        or "\0" in name
        or not pure.parts
        or ":" in pure.parts[0]
    )
    if tricks:
        raise InputError(f"{path}: refused: its member {name!r} points outside the archive", _AGAIN)
    if str(pure) in seen:
        raise InputError(f"{path}: refused: its member {name!r} is there twice", _AGAIN)
    return str(pure)


def _refuse_kind(path: Path, name: str) -> InputError:
    return InputError(f"{path}: refused: {name!r} in it is a link or a device", "only files and folders are read")


def _open_folder(path: Path) -> Archive:
    names = []
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            item = Path(folder, name)
            # A link to a file is allowed in a folder: DVC makes them. One to a folder would hide files from the walk.
            if not item.is_file() and (item.is_symlink() or not item.is_dir()):
                raise _refuse_kind(path, item.relative_to(path).as_posix())
        names += [Path(folder, name).relative_to(path).as_posix() for name in files]

    def read(name: str) -> bytes:
        with open(f"{path}/{name}", "rb", buffering=0) as stream:  # noqa: PTH123  # three times as fast as a Path
            return stream.readall()

    return Archive(path, None, names, read)


def _pread(descriptor: int, count: int, offset: int) -> bytes:
    # pread has no shared position, so that threads need no lock.
    parts = []
    while count:
        part = os.pread(descriptor, count, offset)
        if not part:
            raise EOFError("the archive ends inside it")
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return b"".join(parts)


def _open_zip(path: Path, sha256: str, stream: IO[bytes], depth: int = 0) -> Archive:
    members: dict[str, zipfile.ZipInfo] = {}
    with zipfile.ZipFile(stream) as archive:
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if info.is_dir():
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _refuse_kind(path, info.filename)
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                hint = "pack it again with the usual deflate method, or unpack it and name the folder"
                raise InputError(f"{path}: {info.filename} is encrypted or packed in an unusual way", hint)
            members[_plain_name(path, info.filename, members)] = info
    inner = [name for name in members if name.lower().endswith(".zip")]
    if len(inner) == 1 and len(members) <= _BESIDE and not depth:
        # SDNET2018's publisher packs a zip and a text file into a zip: the images are in the inner one.
        plain = tempfile.TemporaryFile()  # noqa: SIM115
        with stream, zipfile.ZipFile(stream) as archive, archive.open(members[inner[0]]) as content:
            shutil.copyfileobj(content, plain, 1 << 20)
        plain.flush()
        return _open_zip(path, sha256, plain, depth + 1)

    def read(name: str) -> bytes:
        info = members[name]
        header = _pread(stream.fileno(), 30, info.header_offset)
        if header[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile("bad local header")
        skip = 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        data = _pread(stream.fileno(), info.compress_size, info.header_offset + skip)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            # One byte more than promised shows a member that would unpack to more than the archive says.
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise zipfile.BadZipFile("length or checksum differs")
        return data

    opened = Archive(path, sha256, members, read)
    opened._streams.append(stream)
    return opened


def _open_tar(path: Path, sha256: str, head: bytes) -> Archive:
    stream: IO[bytes] = path.open("rb")
    try:
        for magic, opener in _OPENERS.items():
            if head.startswith(magic):
                # Unpacked once into an unnamed file: random access then costs neither memory nor
                # time. No `with`: the archive keeps it open.
                plain = tempfile.TemporaryFile()  # noqa: SIM115
                with stream, opener(stream) as unpacked:
                    stream = plain
                    shutil.copyfileobj(unpacked, plain, 1 << 20)
                plain.flush()
                plain.seek(0)
                break
        members: dict[str, tuple[int, int]] = {}
        end = 0
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            for info in archive:
                end = info.offset_data + (-(-info.size // 512) * 512 if info.isreg() else 0)
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise _refuse_kind(path, info.name)
                members[_plain_name(path, info.name, members)] = (info.offset_data, info.size)
        # A tar ends with zero blocks; without this check one that is cut between two members would look whole.
        if any(_pread(stream.fileno(), 512, end)):
            raise EOFError("its end is missing")
    except BaseException:
        stream.close()
        raise

    def read(name: str) -> bytes:
        offset, size = members[name]
        return _pread(stream.fileno(), size, offset)

    opened = Archive(path, sha256, members, read)
    opened._streams.append(stream)
    return opened

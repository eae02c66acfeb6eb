"""One interface over a zip, a tar (plain or compressed) and an unpacked folder: names and random access reads."""

from __future__ import annotations

import bz2
import errno
import gzip
import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import IO, Any

from twinrun.data.faults import named_damage, out_of_memory
from twinrun.study.errors import InputError, TwinrunError
from twinrun.study.files import digest, explain_os_error, sha256_file

_AGAIN = "it is damaged or was cut short: fetch it again"
_KINDS = "allowed: a .zip, a .tar (also .gz, .tgz, .bz2, .xz), or an unpacked folder"
_BESIDE = 5  # members of a zip that is only a wrapper of another one
# What file managers, NAS boxes and notebooks leave behind; names that begin with a dot are, too.
_JUNK = frozenset((
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "@tmp", "#recycle", "#snapshot", "$recycle.bin",
    "system volume information", "lost+found", "__pycache__",
))  # fmt: skip
# The first bytes tell a compressed tar, whatever its name is.
_OPENERS: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"BZh": bz2.BZ2File,
}


class Archive:
    """Files of one source by posix name in Unicode's form NFC; `read` may be called from several threads at once.

    `sha256` is that of the archive file, None for a folder; `path` is where it was opened; `stamp` changes with the
    content (for a folder: with names, sizes and times).
    """

    def __init__(self, path: Path, sha256: str | None, places: Mapping[str, Any], read: Callable[[Any], bytes]) -> None:
        self.path = path
        self.sha256 = sha256
        self.names = sorted(places)
        self._places = places  # by name: what `read` needs to get at the file
        self._read = read
        self._streams: list[IO[bytes]] = []

    def read(self, name: str) -> bytes:
        """The bytes of that file; InputError names archive and file when it is missing or damaged."""
        if name not in self._places:
            raise InputError(f"{self.path}: {name} is missing in it", "fetch it again, or name the right source")
        with named_damage(f"{self.path}: {name}", "cannot be read", _AGAIN, "its bytes in the archive are damaged"):
            return self._read(self._places[name])

    @property
    def stamp(self) -> str:
        """A digest that changes with the content."""
        if self.sha256:
            return self.sha256
        stats = [(name, os.stat(self._places[name])) for name in self.names]  # noqa: PTH116  # strings, for speed
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
    below the archive's own root (absolute or `..` names, links, devices) or whose names are in no known encoding.
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
        if not path.is_file():
            raise InputError(f"{path}: a pipe or a device, neither a file nor a folder", _KINDS)
        actual = sha256_file(path)
        if sha256 is not None and actual != sha256:
            hint = "fetch the archive again, or correct sha256 in the task's data if this is the one you mean"
            raise InputError(f"{path}: its SHA-256 is {actual}, but the params file says {sha256}", hint)
        with path.open("rb") as stream:
            head = stream.read(6)
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            with _closed_on_failure(path.open("rb")) as stream:
                return _open_zip(path, actual, stream)
        return _open_tar(path, actual, head)
    except TwinrunError:
        raise
    except MemoryError as error:
        raise out_of_memory(str(path)) from error
    except Exception as error:
        # Offsets that no file can have are EINVAL, and bz2 and gzip have no number for what they find wrong. Python's
        # own readers raise ValueError, OverflowError, NotImplementedError and more, by what is wrong in a header.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise explain_os_error(error, path) from error
        said = str(error) or type(error).__name__
        raise InputError(f"{path}: not a whole archive: {said}", f"{_AGAIN}; {_KINDS}") from error


def pass_over(names: Iterable[str]) -> tuple[list[str], dict[str, int]]:
    """The names of a data set's own files; and how many files there are of each kind of junk around them."""
    kept, passed = [], Counter[str]()
    for name in names:
        junk = next((part for part in name.split("/") if part.startswith(".") or part.lower() in _JUNK), None)
        if junk is None:
            kept.append(name)
        else:
            passed[junk if not junk.startswith("._") else "._*"] += 1
    return kept, dict(sorted(passed.items()))


def _known_name(path: Path, name: str, seen: Collection[str]) -> str:
    """The name in form NFC, as people and tables write it: macOS takes letters and their accents apart."""
    if not name.isascii():
        try:
            name.encode()
        except UnicodeEncodeError as error:
            hint = "rename it in UTF-8 (`convmv` does it for whole folders), or pack the archive again"
            raise InputError(f"{path}: refused: its file {name!r} has a name that is not UTF-8", hint) from error
        name = unicodedata.normalize("NFC", name)
    if name in seen:
        raise InputError(f"{path}: refused: its member {name!r} is there twice", _AGAIN)
    return name


def _plain_name(path: Path, name: str, seen: Collection[str]) -> str:
    pure = PurePosixPath(name)
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if pure.is_absolute() or ".." in parts or "\0" in name or not parts or ":" in parts[0]:
        raise InputError(f"{path}: refused: its member {name!r} points outside the archive", _AGAIN)
    if "\\" in name:
        hint = "some Windows tools pack so: pack it again with another one, or unpack it and name the folder"
        raise InputError(f"{path}: refused: its member {name!r} has backslashes where folders need slashes", hint)
    return _known_name(path, str(pure), seen)


def _refuse_kind(path: Path, name: str) -> InputError:
    return InputError(f"{path}: refused: {name!r} in it is a link or a device", "only files and folders are read")


def _open_folder(path: Path) -> Archive:
    places: dict[str, str] = {}
    for folder, folders, files in os.walk(path):
        for name in folders + files:
            item = Path(folder, name)
            # A link to a file is allowed in a folder: DVC makes them, and looks behind them.
            if item.is_symlink() and item.is_dir():
                hint = "DVC does not look behind it, so that a change would go unnoticed: put the folder itself there"
                shown = item.relative_to(path).as_posix()
                raise InputError(f"{path}: refused: {shown!r} in it is a link to a folder", hint)
            if not item.is_file() and not item.is_dir():
                raise _refuse_kind(path, item.relative_to(path).as_posix())
        for name in files:
            places[_known_name(path, Path(folder, name).relative_to(path).as_posix(), places)] = f"{folder}/{name}"

    def read(place: str) -> bytes:
        with open(place, "rb", buffering=0) as stream:  # noqa: PTH123  # three times as fast as a Path
            return stream.readall()

    return Archive(path, None, places, read)


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


@contextmanager
def _closed_on_failure(stream: IO[bytes]) -> Iterator[IO[bytes]]:
    try:
        yield stream
    except BaseException:
        stream.close()
        raise


def _zip_name(path: Path, info: zipfile.ZipInfo) -> str:
    """The member's name: without the flag for UTF-8 it may be in any encoding, and garbled names would be classes."""
    name = info.orig_filename
    if name.isascii() or info.flag_bits & 0x800:
        return name
    try:
        return name.encode("cp437").decode("utf-8")  # zipfile took the bytes for cp437
    except UnicodeError as error:
        hint = "pack it again with a tool that writes UTF-8, such as 7-Zip, or unpack it and name the folder"
        raise InputError(f"{path}: refused: the name {name!r} in it is in an unknown encoding", hint) from error


def _open_zip(path: Path, sha256: str, stream: IO[bytes], depth: int = 0) -> Archive:
    members: dict[str, zipfile.ZipInfo] = {}
    with zipfile.ZipFile(stream) as archive:
        size = os.fstat(stream.fileno()).st_size
        for info in archive.infolist():
            mode = info.external_attr >> 16
            if info.is_dir():
                continue
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                raise _refuse_kind(path, info.filename)
            if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                hint = "pack it again with the usual deflate method, or unpack it and name the folder"
                raise InputError(f"{path}: {info.filename} is encrypted or packed in an unusual way", hint)
            name = _plain_name(path, _zip_name(path, info), members)
            if not 0 <= info.header_offset <= info.header_offset + info.compress_size <= size:
                raise zipfile.BadZipFile(f"{name} lies beyond its end")
            members[name] = info
    inner = [name for name in members if name.lower().endswith(".zip")]
    if len(inner) == 1 and len(members) <= _BESIDE and not depth:
        # SDNET2018's publisher packs a zip and a text file into a zip: the images are in the inner one.
        plain = tempfile.TemporaryFile()  # noqa: SIM115
        with stream, zipfile.ZipFile(stream) as archive, archive.open(members[inner[0]]) as content:
            shutil.copyfileobj(content, plain, 1 << 20)
        plain.flush()
        with _closed_on_failure(plain):
            return _open_zip(path, sha256, plain, depth + 1)

    def read(info: zipfile.ZipInfo) -> bytes:
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

    def read(place: tuple[int, int]) -> bytes:
        offset, size = place
        return _pread(stream.fileno(), size, offset)

    opened = Archive(path, sha256, members, read)
    opened._streams.append(stream)
    return opened

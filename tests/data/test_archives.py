"""Archives: one interface over zip, tar and folder; damage and path tricks are named and refused."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from twinrun.data.archives import open_archive
from twinrun.study.errors import InputError, ResourceError
from twinrun.study.files import sha256_file

MEMBERS = {"a/b.txt": b"one" * 1000, "a/c/d.bin": bytes(range(256)) * 40, "empty": b""}


def write_zip(path: Path, members: dict[str, bytes] = MEMBERS) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, content) in enumerate(members.items()):
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED)
    return path


def write_tar(path: Path, members: dict[str, bytes] = MEMBERS) -> Path:
    with tarfile.open(
        path, "w:" + {".gz": "gz", ".tgz": "gz", ".xz": "xz", ".bz2": "bz2"}.get(path.suffix, "")
    ) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def write_folder(path: Path, members: dict[str, bytes] = MEMBERS) -> Path:
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


WRITERS: dict[str, Callable[..., Path]] = {
    "x.zip": write_zip, "x.tar": write_tar, "x.tar.gz": write_tar, "x.tgz": write_tar, "x.tar.xz": write_tar,
    "x.tar.bz2": write_tar, "folder": write_folder,
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_same_content_from_every_kind(name: str, tmp_path: Path) -> None:
    path = WRITERS[name](tmp_path / name)
    with open_archive(path) as archive:
        assert archive.names == sorted(MEMBERS)
        assert archive.sha256 == (None if path.is_dir() else sha256_file(path))
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(archive.read, archive.names * 30))
        assert found == [MEMBERS[member] for member in archive.names * 30]
        with pytest.raises(InputError, match=r"a/none is missing"):
            archive.read("a/none")


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "folder"])
def test_truncated_archive_is_named(name: str, tmp_path: Path) -> None:
    whole = WRITERS[name](tmp_path / name).read_bytes()
    for length in (0, 1, 5, 300, len(whole) // 2, len(whole) - 1 if name != "x.tar" else 11 * 512):
        cut = tmp_path / f"cut-{name}"
        cut.write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"cut-{name}: not a whole archive"):
            open_archive(cut)


def test_tar_cut_between_two_members(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "x.tar", {"a": b"1" * 512, "b": b"2"}).read_bytes()
    (tmp_path / "x.tar").write_bytes(whole[:1024])
    with pytest.raises(InputError, match=r"x\.tar: not a whole archive"):
        open_archive(tmp_path / "x.tar")


def test_damaged_member_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip")
    content = bytearray(path.read_bytes())
    content[content.index(b"oneone") + 7] ^= 1
    path.write_bytes(content)
    with open_archive(path) as archive:
        assert archive.read("empty") == b""
        with pytest.raises(InputError, match=r"x\.zip: a/b\.txt cannot be read: length or checksum differs"):
            archive.read("a/b.txt")


def test_not_an_archive_and_missing(tmp_path: Path) -> None:
    (tmp_path / "page.zip").write_text("<html>Not found</html>" * 100)
    with pytest.raises(InputError, match=r"page\.zip: not a whole archive"):
        open_archive(tmp_path / "page.zip")
    with pytest.raises(InputError, match=r"gone\.zip: no such file or folder") as caught:
        open_archive(tmp_path / "gone.zip")
    assert "correct `source`" in caught.value.hint


def test_other_digest_names_both(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip")
    with pytest.raises(InputError) as caught:
        open_archive(path, "0" * 64)
    assert sha256_file(path) in caught.value.message
    assert "0" * 64 in caught.value.message
    open_archive(path, sha256_file(path)).close()
    with pytest.raises(InputError, match="this is a folder"):
        open_archive(tmp_path, "0" * 64)


@pytest.mark.parametrize("name", ["/etc/passwd", "../up.txt", "a/../../up.txt", "a\\..\\up.txt", "C:/x.txt"])
@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tar.gz"])
def test_path_tricks(name: str, kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path / kind, {name: b"x"})
    with pytest.raises(InputError, match="points outside"):
        open_archive(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar(kind: bytes, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("trick")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(InputError, match="'trick' in it is a link or a device"):
        open_archive(tmp_path / "x.tar")


def test_links_elsewhere(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("trick")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="link or a device"):
        open_archive(tmp_path / "x.zip")
    folder = write_folder(tmp_path / "folder")
    (folder / "linked").symlink_to(tmp_path)
    with pytest.raises(InputError, match="'linked' in it is a link"):
        open_archive(folder)
    (folder / "linked").unlink()
    (folder / "file").symlink_to(tmp_path / "x.zip")  # as DVC makes them
    with open_archive(folder) as opened:
        assert opened.read("file") == (tmp_path / "x.zip").read_bytes()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_twice_the_same_name(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a", "1")
        archive.writestr("a", "2")
    with pytest.raises(InputError, match="'a' is there twice"):
        open_archive(tmp_path / "x.zip")


def test_unusual_compression(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a", "1")
    with pytest.raises(InputError, match="a is encrypted or packed in an unusual way"):
        open_archive(tmp_path / "x.zip")


@pytest.mark.parametrize("kind", ["x.zip", "x.tar"])
def test_backslashes_are_named_as_such(kind: str, tmp_path: Path) -> None:
    path = WRITERS[kind](tmp_path / kind, {"cat\\1.png": b"x"})
    with pytest.raises(InputError, match="has backslashes where folders need slashes") as caught:
        open_archive(path)
    assert "pack it again" in caught.value.hint


def zip_with_raw_names(path: Path, names: list[bytes]) -> Path:
    """A zip whose names are those bytes, without the flag for UTF-8."""
    stand_ins = {f"{number:0{len(name)}d}".encode(): name for number, name in enumerate(names)}
    content = write_zip(path, {stand_in.decode(): b"x" for stand_in in stand_ins}).read_bytes()
    for stand_in, name in stand_ins.items():
        content = content.replace(stand_in, name)
    path.write_bytes(content)
    return path


def test_names_of_a_zip_are_right_or_refused(tmp_path: Path) -> None:
    path = zip_with_raw_names(tmp_path / "mac.zip", ["gru\u0308n/1.png".encode(), "日本/1.png".encode()])
    with open_archive(path) as archive:
        assert archive.names == ["grün/1.png", "日本/1.png"]
        assert archive.read("grün/1.png") == b"x"
    for encoding in ("cp437", "cp1252", "shift_jis"):
        name = "日本/1.png" if encoding == "shift_jis" else "grün/1.png"
        path = zip_with_raw_names(tmp_path / "old.zip", [name.encode(encoding)])
        with pytest.raises(InputError, match="is in an unknown encoding") as caught:
            open_archive(path)
        assert "UTF-8" in caught.value.hint


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", encoding="latin-1", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("gr\u00fcn.png"))
    folder = tmp_path / "folder"
    folder.mkdir()
    Path(os.fsdecode(bytes(folder) + b"/gr\xfcn.png")).write_bytes(b"x")
    for path in (tmp_path / "x.tar", folder):
        with pytest.raises(InputError, match=r"'gr\\udcfcn\.png' has a name that is not UTF-8") as caught:
            open_archive(path)
        str(caught.value).encode()


def test_names_that_differ_only_in_how_accents_are_written(tmp_path: Path) -> None:
    path = write_folder(tmp_path / "folder", {"gr\u00fcn": b"1", "gru\u0308n": b"2"})
    with pytest.raises(InputError, match="is there twice"):
        open_archive(path)


def test_a_linked_folder_says_what_to_do(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "folder")
    (folder / "cat").symlink_to(tmp_path)
    with pytest.raises(InputError, match="'cat' in it is a link to a folder") as caught:
        open_archive(folder)
    assert "put the folder itself there" in caught.value.hint


@pytest.mark.parametrize("inside", [False, True])
def test_pipes_and_devices_are_refused_and_not_waited_for(inside: bool, tmp_path: Path) -> None:
    path = tmp_path / "folder" / "x" if inside else tmp_path / "x"
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
    for source in [path.parent] if inside else [path, Path("/dev/zero")]:
        with pytest.raises(InputError, match="a device"):
            open_archive(source)


def entry(content: bytes, offset: int, value: bytes) -> bytes:
    """The zip with other bytes at that place of its first entry in the central directory."""
    start = content.index(b"PK\x01\x02") + offset
    return content[:start] + value + content[start + len(value) :]


def headers(**pax: str) -> bytes:
    """A tar whose one member has these pax headers."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.pax_headers = {name.replace("_", "."): value for name, value in pax.items()}
        archive.addfile(info)
    return buffer.getvalue()


@pytest.mark.parametrize("case", ["version", "offset", "size", "sparse map", "sparse size", "sparse 1.0"])
def test_headers_that_mean_nothing(case: str, tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "whole.zip").read_bytes()
    content = {
        "version": entry(whole, 6, (200).to_bytes(2, "little")),
        "offset": entry(whole, 42, (2**32 - 9).to_bytes(4, "little")),
        "size": entry(whole, 20, (2**31).to_bytes(4, "little")),
        "sparse map": headers(GNU_sparse_map="a,b"),
        "sparse size": headers(GNU_sparse_size="much", GNU_sparse_map="0,1"),
        "sparse 1.0": headers(GNU_sparse_major="1", GNU_sparse_minor="0"),
    }[case]
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"odd: (not a whole archive|refused)") as caught:
        open_archive(path)
    assert caught.value.exit_code == 2


def test_a_full_disk_while_unpacking_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_tar(tmp_path / "x.tar.gz")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(ResourceError, match="the disk is full"):
        open_archive(path)

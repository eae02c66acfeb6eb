"""Fetching: checked, recorded, enforced; mirrors and local files; CBIS-DDSM series by series; then DVC."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.data.readers.test_cbis_ddsm import FULL, USUAL, dicom, write
from tests.fetch.server import Server, serving

from twinrun.data.archives import open_archive
from twinrun.data.readers.cbis_cases import csv_name
from twinrun.data.readers.cbis_ddsm import index_cbis_ddsm
from twinrun.fetch import publishers as module
from twinrun.fetch.cbis_ddsm import copy_cbis, fetch_cbis
from twinrun.fetch.download import Digest, Patience
from twinrun.fetch.publishers import CIFAR10, FILES, SDNET2018, Remote, fetch, fetch_file
from twinrun.launch.dvc import track
from twinrun.study.errors import IncompleteError, InputError, MismatchError

QUICK = Patience(connect_seconds=2, read_seconds=0.5, tries=2, pause_seconds=0.01)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


ARCHIVE = zipped({"D/CD/7001-1.jpg": b"1" * 5000})
OTHER = zipped({"D/CD/7001-1.jpg": b"2" * 5000})


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(ARCHIVE) as running:
        yield running


def test_what_the_publishers_say() -> None:
    assert CIFAR10.digest is not None
    assert CIFAR10.digest.hexadecimal == "c58f30108f718f92721af3b95e74349a"
    assert SDNET2018.digest is not None
    assert {remote.name for remote in FILES["weights"]} >= {"weights/resnet18-f37072fd.pth"}
    assert all(remote.url.startswith("https://") for remotes in FILES.values() for remote in remotes)


def test_first_fetch_is_recorded_and_enforced(server: Server, tmp_path: Path) -> None:
    remote = Remote(server.url, "tiles.zip")
    target = fetch_file(remote, tmp_path, patience=QUICK)
    assert target.read_bytes() == ARCHIVE
    noted = (tmp_path / "tiles.zip.sha256").read_text()
    assert noted == f"{hashlib.sha256(ARCHIVE).hexdigest()}  tiles.zip\n"
    fetch_file(remote, tmp_path, patience=QUICK)
    assert len(server.requests) == 1, "what is there is not fetched again"
    target.unlink()
    server.content, server.etag = OTHER, '"two"'
    with pytest.raises(MismatchError, match=r"tiles\.zip\.sha256, written at the first fetch"):
        fetch_file(remote, tmp_path, patience=QUICK)
    assert not target.exists()
    target.write_bytes(OTHER)
    with pytest.raises(MismatchError):
        fetch_file(remote, tmp_path, patience=QUICK)


@pytest.mark.parametrize("content", [b"no archive at all" * 100, ARCHIVE[:-30], b"<html>moved</html>"])
def test_wrong_content_without_a_digest(content: bytes, tmp_path: Path) -> None:
    with serving(content) as server, pytest.raises(InputError, match=r"not a whole archive|web page") as caught:
        fetch_file(Remote(server.url, "tiles.zip"), tmp_path, patience=QUICK)
    assert caught.value.hint
    assert not list(tmp_path.glob("*"))


def test_local_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.zip").write_bytes(ARCHIVE)
    (tmp_path / "page.zip").write_bytes(b"<!doctype html>Please log in")
    remote = Remote("https://invalid.invalid/x", "tiles.zip")
    assert fetch_file(remote, tmp_path / "data", str(tmp_path / "mine.zip")).read_bytes() == ARCHIVE
    with pytest.raises(InputError, match="no such file"):
        fetch_file(remote, tmp_path / "other", str(tmp_path / "none.zip"))
    with pytest.raises(InputError, match="a web page and no data"):
        fetch_file(remote, tmp_path / "other", str(tmp_path / "page.zip"))
    with pytest.raises(MismatchError, match="its MD5 is"):
        fetch("cifar10", tmp_path / "other", str(tmp_path / "mine.zip"))
    assert list((tmp_path / "other").iterdir()) == []
    broken_off = tmp_path / "other" / "tiles.zip.part"  # a download, which nothing but a copy that is right replaces
    broken_off.write_bytes(b"gigabytes")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", _half_a_copy)
        with pytest.raises(InputError, match="the disk is full"):
            fetch_file(remote, tmp_path / "other", str(tmp_path / "mine.zip"))
    with pytest.raises(InputError, match="a web page and no data"):
        fetch_file(remote, tmp_path / "other", str(tmp_path / "page.zip"))
    assert [(path.name, path.read_bytes()) for path in (tmp_path / "other").iterdir()] == [
        (broken_off.name, b"gigabytes")
    ]
    fetch_file(remote, tmp_path / "other", str(tmp_path / "mine.zip"))
    assert not broken_off.exists()


def _half_a_copy(source: Path, target: Path) -> None:
    target.write_bytes(b"half")
    raise OSError(errno.ENOSPC, "full")


def test_several_files_from_a_mirror(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {name: name.encode() * 999 for name in ("a", "b")}
    remotes = []
    for name, content in files.items():
        short = f"{name}-{hashlib.sha256(content).hexdigest()[:8]}.pth"
        server.pages[f"/mirror/{short}"] = content
        digest = Digest("sha256", short[-12:-4], "its name")
        remotes.append(Remote(f"http://invalid.invalid/{short}", f"weights/{short}", digest, is_archive=False))
    monkeypatch.setitem(module.FILES, "weights", tuple(remotes))
    paths = fetch("weights", tmp_path, server.url.replace("file.bin", "mirror/"), patience=QUICK)
    assert [path.read_bytes() for path in paths] == list(files.values())
    again = fetch("weights", tmp_path / "copy", str(tmp_path / "weights"))
    assert [path.read_bytes() for path in again] == list(files.values())
    server.pages = dict.fromkeys(server.pages, b"something else")
    with pytest.raises(MismatchError, match="but its name says"):
        fetch("weights", tmp_path / "third", server.url.replace("file.bin", "mirror"), patience=QUICK)


@pytest.fixture
def tcia(tmp_path: Path) -> Iterator[Server]:
    """A server that answers like the archive's API for the five patients of USUAL."""
    tree = write(tmp_path / "tree", USUAL)
    with serving(b"") as running:
        series = []
        for number, folder in enumerate(sorted((tree / "CBIS-DDSM").iterdir())):
            images = {path.name: path.read_bytes() for path in sorted(folder.rglob("*.dcm"))}
            uid = f"1.3.6.{number}"
            rows = "".join(f"{name},{hashlib.md5(content).hexdigest()}\n" for name, content in images.items())
            content = zipped({"LICENSE": b"CC BY", "md5hashes.csv": f"Filename,MD5 hash\n{rows}".encode(), **images})
            running.pages[f"/api/getImageWithMD5Hash?SeriesInstanceUID={uid}"] = content
            series.append({"PatientID": folder.name, "SeriesInstanceUID": uid, "ImageCount": len(images)})
        running.pages["/api/getSeries?Collection=CBIS-DDSM&format=json"] = json.dumps(series).encode()
        for kind in ("mass", "calc"):
            for split in ("train", "test"):
                name = csv_name(kind, split)
                running.pages[f"/csv/{name}"] = (tree / name).read_bytes()
        running.etag = ""
        yield running


def homes(server: Server) -> dict[str, str]:
    root = server.url.removesuffix("/file.bin")
    return {"api": f"{root}/api", "csv_home": f"{root}/csv"}


def test_cbis_series_by_series(tcia: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    data = tmp_path / "data"
    folder = fetch_cbis(data, **homes(tcia), progress=lambda *step: seen.append(step), patience=QUICK)
    total = len([path for path in tcia.pages if "getImage" in path])
    assert seen[-1] == (total, total)
    for view in ("full", "crop"):
        with open_archive(folder) as ours, open_archive(tmp_path / "tree") as theirs:
            index, expected = index_cbis_ddsm(ours, view), index_cbis_ddsm(theirs, view)  # type: ignore[arg-type]
            assert [(e.id, e.split, e.label) for e in index.examples] == [
                (e.id, e.split, e.label) for e in expected.examples
            ]
            for one, two in zip(index.examples, expected.examples, strict=True):
                assert (index.load(one) == expected.load(two)).all()
    asked = len(tcia.requests)
    fetch_cbis(data, **homes(tcia), patience=QUICK)
    assert len(tcia.requests) == asked, "what is there is not fetched again"


def test_cbis_goes_on_after_failures(tcia: Server, tmp_path: Path) -> None:
    broken = sorted(path for path in tcia.pages if "getImage" in path)[:3]
    kept = {path: tcia.pages[path] for path in broken}
    tcia.pages[broken[0]] = kept[broken[0]][:200]  # cut short
    tcia.pages[broken[1]] = b"<html>busy</html>"
    tcia.pages[broken[2]] = kept[broken[2]].replace(b"DICM", b"DICN")  # damaged on the way: its checksum tells
    with pytest.raises(IncompleteError, match=r"3 of 13 series could not be had: 1\.3\.6\.0, 1\.3\.6\.1, 1\.3\.6\.10"):
        fetch_cbis(tmp_path / "data", **homes(tcia), patience=QUICK)
    assert not list((tmp_path / "data").rglob("*.part*"))
    tcia.pages |= kept
    asked = len(tcia.requests)
    fetch_cbis(tmp_path / "data", **homes(tcia), patience=QUICK)
    assert len(tcia.requests) == asked + 3


def test_cbis_wrong_digest_and_count(tcia: Server, tmp_path: Path) -> None:
    path = "/api/getImageWithMD5Hash?SeriesInstanceUID=1.3.6.0"
    images = {"1-1.dcm": dicom(FULL)}
    for hashes, message in (
        (f"1-1.dcm,{'0' * 32}", "its MD5 is not the one in md5hashes.csv"),
        (f"1-1.dcm,{hashlib.md5(images['1-1.dcm']).hexdigest()}", "1 images where the list of series says 2"),
    ):
        series = json.loads(tcia.pages["/api/getSeries?Collection=CBIS-DDSM&format=json"])
        series[0]["ImageCount"] = 2
        tcia.pages["/api/getSeries?Collection=CBIS-DDSM&format=json"] = json.dumps(series).encode()
        tcia.pages[path] = zipped({"md5hashes.csv": hashes.encode(), **images})
        with pytest.raises(IncompleteError) as caught:
            fetch_cbis(tmp_path / "data", **homes(tcia), patience=QUICK)
        assert message in caught.value.hint


def test_cbis_list_with_path_tricks(tcia: Server, tmp_path: Path) -> None:
    tricks = [{"PatientID": "../../etc", "SeriesInstanceUID": "1.2", "ImageCount": 1}]
    tcia.pages["/api/getSeries?Collection=CBIS-DDSM&format=json"] = json.dumps(tricks).encode()
    with pytest.raises(InputError, match=r"not that of CBIS-DDSM: it names \('../../etc', '1.2'\)"):
        fetch_cbis(tmp_path / "data", **homes(tcia), patience=QUICK)
    tcia.pages["/api/getSeries?Collection=CBIS-DDSM&format=json"] = b"[]"
    with pytest.raises(InputError, match="it is empty"):
        fetch_cbis(tmp_path / "data", **homes(tcia), patience=QUICK)


def test_cbis_from_a_local_copy(tmp_path: Path) -> None:
    tree = write(tmp_path / "tree", USUAL)
    target = copy_cbis(tree, tmp_path / "data")
    with open_archive(target) as archive:
        assert len(index_cbis_ddsm(archive, "full").examples) == 5
    with pytest.raises(InputError, match="there already"):
        copy_cbis(tree, tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"mass_case_description_train_set\.csv is missing"):
        copy_cbis(tmp_path / "empty", tmp_path / "other")
    for path in tree.rglob("*.dcm"):
        path.unlink()
    with pytest.raises(InputError, match="no images of CBIS-DDSM in it"):
        copy_cbis(tree, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_under_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], check=True)
    (tmp_path / ".gitignore").write_text((Path(__file__).parents[2] / ".gitignore").read_text())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x.zip").write_bytes(ARCHIVE)
    assert "no study folder" in track(Path(), Path("data/x.zip"))
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert track(Path(), Path("data/x.zip")) == "under DVC: data/x.zip.dvc; commit it with the study"
    listed = subprocess.run(["git", "status", "--short", "-uall"], check=True, capture_output=True, text=True).stdout
    assert "data/x.zip.dvc" in listed
    assert "data/x.zip\n" not in listed
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert "dvc config cache.type" in track(Path(), Path("data/x.zip"))


@pytest.mark.parametrize("name", ["cifar10", "weights", "cbis-ddsm"])
@pytest.mark.parametrize("origin", ["", " "])
def test_an_unset_variable_as_source_is_not_the_public_server(
    name: str, origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from twinrun.cli.app import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("requests.get", lambda *_, **__: pytest.fail("the public server was asked"))
    monkeypatch.setattr("sys.argv", ["twinrun", "data", "fetch", name, "--from", origin])
    with pytest.raises(SystemExit) as stop:
        main()
    assert (stop.value.code, "an empty word after --from" in capsys.readouterr().err) == (2, True)


def test_a_zip_with_an_impossible_offset_leaves_nothing(tmp_path: Path) -> None:
    start = ARCHIVE.index(b"PK\x01\x02") + 42
    odd = ARCHIVE[:start] + (2**32 - 9).to_bytes(4, "little") + ARCHIVE[start + 4 :]
    with serving(odd) as server, pytest.raises(InputError, match="not a whole archive"):
        fetch_file(Remote(server.url, "tiles.zip"), tmp_path / "data", patience=QUICK)
    assert not list(tmp_path.rglob("*.*"))


@pytest.mark.parametrize("listed", [b"{", b"[1]", b'{"a": 1}', b"[" * 100_000, b'[{"PatientID": 1}]'])
def test_cbis_list_of_another_shape(listed: bytes, tcia: Server, tmp_path: Path) -> None:
    tcia.pages["/api/getSeries?Collection=CBIS-DDSM&format=json"] = listed
    with pytest.raises(InputError, match="its list of series is not one"):
        fetch_cbis(tmp_path / "data", **homes(tcia), patience=QUICK)
    assert not list((tmp_path / "data").rglob("series.json"))

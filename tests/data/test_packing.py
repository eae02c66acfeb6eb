"""Packing by several processes: bad images by policy, duplicates found, a killed run goes on to the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from PIL import Image as Pillow
from tests.data.readers.test_sdnet2018 import jpeg

from twinrun.data import packed, packing
from twinrun.data import prepare as prepare_module
from twinrun.data.packed import load_packed
from twinrun.data.packing import moments_of
from twinrun.data.prepare import prepare, remarks
from twinrun.study.errors import BusyError, InputError, ResourceError
from twinrun.study.schema import Sdnet2018


def block(on_error: Literal["error", "skip"] = "error", size: int = 32) -> Sdnet2018:
    return Sdnet2018(
        reader="sdnet2018", source="tree", image_size=size, test_share=0.5, split_seed=0, on_error=on_error
    )  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two photos, one on each side of the split, 20 different tiles of each class in both."""
    return draw_tree(tmp_path)


def draw_tree(root: Path) -> Path:
    rng = np.random.default_rng(0)
    for photo in ("7001", "7002"):
        for folder in ("CD", "UD"):
            (root / "tree/D" / folder).mkdir(parents=True, exist_ok=True)
            for tile in range(20):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Pillow.fromarray(pixels).save(root / "tree/D" / folder / f"{photo}-{tile}.jpg", quality=95)
    return root / "tree"


def test_damaged_images_by_policy(tree: Path, tmp_path: Path) -> None:
    damaged = tree / "D/CD/7001-7.jpg"
    damaged.write_bytes(damaged.read_bytes()[:300])
    (tree / "D/UD/7002-3.jpg").write_bytes(jpeg(size=1))
    with pytest.raises(InputError, match=r"D/CD/7001-7\.jpg does not decode") as caught:
        prepare("t", block(), tmp_path, tmp_path / "out/t")
    assert "on_error: skip" in caught.value.hint
    assert list((tmp_path / "out").iterdir()) == []
    manifest = prepare("t", block("skip"), tmp_path, tmp_path / "out/t")
    assert manifest["on_error"] == "skip"
    assert sorted(manifest["skipped"]) == ["D/CD/7001-7", "D/UD/7002-3"]
    assert "1 x 1 pixels" in manifest["skipped"]["D/UD/7002-3"]
    assert any("2 images left out (on_error: skip): D/CD/7001-7, D/UD/7002-3" in line for line in remarks(manifest))
    assert manifest["n_train"] + manifest["n_test"] == 78
    with_them = load_packed(tmp_path / "out/t", manifest["params_digest"])
    for path in (damaged, tree / "D/UD/7002-3.jpg"):
        path.unlink()
    without = prepare("u", block(), tmp_path, tmp_path / "out/u")
    same = load_packed(tmp_path / "out/u", without["params_digest"])
    assert without["digest"] == manifest["digest"], "as if they had never been there"
    assert np.array_equal(with_them.images, same.images)


def test_nothing_left_of_a_class(tree: Path, tmp_path: Path) -> None:
    for path in (tree / "D/CD").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="no train images of class cracked"):
        prepare("t", block("skip"), tmp_path, tmp_path / "out/t")
    for path in (tree / "D/UD").iterdir():
        path.write_bytes(b"")
    with pytest.raises(InputError, match="not one of the images can be decoded"):
        prepare("t", block("skip"), tmp_path, tmp_path / "out/t")


def test_duplicates_are_found_and_told(tree: Path, tmp_path: Path) -> None:
    manifest = prepare("t", block(), tmp_path, tmp_path / "out/t")
    assert manifest["duplicates"]["groups"] == 0
    assert remarks(manifest) == []
    (tree / "D/CD/7001-98.jpg").write_bytes((tree / "D/CD/7001-1.jpg").read_bytes())  # same side and class
    (tree / "D/CD/7002-98.jpg").write_bytes((tree / "D/CD/7001-2.jpg").read_bytes())  # across the split
    (tree / "D/UD/7002-99.jpg").write_bytes((tree / "D/CD/7001-3.jpg").read_bytes())  # and another label
    manifest = prepare("t", block(), tmp_path, tmp_path / "out/t")
    found = manifest["duplicates"]
    assert {key: found[key] for key in ("groups", "images", "across_split", "contradictory")} == {
        "groups": 3, "images": 6, "across_split": 2, "contradictory": 1,
    }  # fmt: skip
    worst = found["listed"][0]
    assert sorted(worst["ids"]) == ["D/CD/7001-3", "D/UD/7002-99"]
    assert (worst["splits"], worst["classes"]) == (["train", "test"], ["uncracked", "cracked"])
    (line,) = remarks(manifest)
    assert "2 on both sides of the split, 1 with contradictory labels" in line


def test_equal_sums_are_not_enough(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (32, 32), np.uint8)
    for number, picture in enumerate((pixels, pixels[::-1], pixels[:, ::-1])):
        for folder in ("CD", "UD"):
            (tmp_path / "tree/D" / folder).mkdir(parents=True, exist_ok=True)
            path = tmp_path / "tree/D" / folder / f"{7000 + number}-1.jpg"
            Pillow.fromarray(picture if folder == "CD" else 255 - picture).save(path, quality=100, subsampling=0)
    manifest = prepare("t", block(), tmp_path, tmp_path / "out/t")
    assert manifest["duplicates"]["groups"] == 0


KILLED = """
import sys, time
from pathlib import Path
from twinrun.data import packed, packing, prepare
from twinrun.study.schema import Sdnet2018
packed._CHUNK_ROWS, packing._NOTE_SECONDS = 4, 0.0
original = packing.fit_square
def slow(image, size):
    time.sleep(0.05)
    return original(image, size)
packing.fit_square = slow
data = Sdnet2018(reader="sdnet2018", source="tree", image_size=32, test_share=0.5, split_seed=0)
prepare.prepare("t", data, Path(sys.argv[1]), Path(sys.argv[1], "out/t"))
"""


@pytest.fixture(scope="module")
def killed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a `prepare` that was killed after a few chunks; to be copied."""
    root = tmp_path_factory.mktemp("killed")
    draw_tree(root)
    part = root / "out/.t.part"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(root)])
    deadline = time.monotonic() + 30
    while not (part / "progress.json").exists() or noted(part) < 4:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return root


def noted(part: Path) -> int:
    """How many chunks a `prepare` that is not finished has noted."""
    return len(json.loads((part / "progress.json").read_text())["chunks"])


@pytest.fixture
def killed(killed_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the killed `prepare` left of its work, in this test's own folder, its images beside it."""
    monkeypatch.setattr(packed, "_CHUNK_ROWS", 4)
    shutil.copytree(killed_once, tmp_path, dirs_exist_ok=True)  # with times: the stamp of the source has them
    return tmp_path / "out/.t.part"


def count_loads(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    """A file that grows by one byte for each image decoded, in whatever process."""
    log = folder / "loads"
    original = packing.fit_square

    def counted(image: packing.Image, size: int) -> np.ndarray:
        with log.open("ab") as stream:
            stream.write(b"1")
        return original(image, size)

    monkeypatch.setattr(packing, "fit_square", counted)
    return log


def same_as_new(manifest: dict[str, Any], data: Sdnet2018, root: Path) -> bool:
    """Whether work that went on ended as work done at once does."""
    new = prepare("u", data, root, root / "out/u")
    load_packed(root / "out/t", manifest["params_digest"])
    images = [(root / "out" / name / "images.npy").read_bytes() for name in "tu"]
    return images[0] == images[1] and manifest["digest"] == new["digest"]


def test_a_killed_run_goes_on(killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (killed / "moments.bin").write_bytes(b"")  # as after a power cut
    log = count_loads(monkeypatch, tmp_path)
    manifest = prepare("t", block(), tmp_path, tmp_path / "out/t")
    assert log.stat().st_size <= 80 - 16
    assert same_as_new(manifest, block(), tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["t", "u"]


@pytest.mark.parametrize("what", ["rows", "end", "image", "params", "note"])
def test_what_does_not_fit_is_done_again(
    what: str, killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = 80
    if what == "rows":
        with (killed / "images.npy").open("r+b") as stream:
            stream.seek(1000)
            stream.write(b"xxxx")
        again = 80 - 4 * (noted(killed) - 1)  # of the chunks, that one alone
    elif what == "end":
        os.truncate(killed / "images.npy", 128 + 3 * 4 * 3 * 32 * 32 - 1)
        again = 80 - 4 * 2
    elif what == "image":
        shutil.copyfile(tmp_path / "tree/D/CD/7002-0.jpg", tmp_path / "tree/D/CD/7001-0.jpg")
    elif what == "note":
        note = json.loads((killed / "progress.json").read_text())
        (killed / "progress.json").write_text(json.dumps(note | {"chunks": 4}))
    log = count_loads(monkeypatch, tmp_path)
    data = block(size=16) if what == "params" else block()
    manifest = prepare("t", data, tmp_path, tmp_path / "out/t")
    assert log.stat().st_size == again
    assert same_as_new(manifest, data, tmp_path)


def test_no_process_outlives_a_killed_run(killed_once: Path) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        alive = [
            path.parent.name
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if str(killed_once).encode() in _read(path)
        ]
        if not alive:
            return
        time.sleep(0.1)
    pytest.fail(f"still alive: {alive}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_one_at_a_time(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)])
    while not (tmp_path / "out/.t.part/progress.json").exists():
        time.sleep(0.01)
    monkeypatch.setattr(prepare_module, "_PATIENCE_SECONDS", 0.1)
    with pytest.raises(BusyError, match="another process prepares it"):
        prepare("t", block(), tmp_path, tmp_path / "out/t")
    assert process.wait() == 0
    assert (tmp_path / "out/t/manifest.json").exists()


def test_a_worker_that_dies(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(packing, "fit_square", die)
    with pytest.raises(InputError, match="a process that decodes images was killed"):
        prepare("t", block(), tmp_path, tmp_path / "out/t")


def test_no_room(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(InputError, match=r"GB are needed and 0\.0 GB free"):
        prepare("t", block(), tmp_path, tmp_path / "out/t")


@pytest.mark.parametrize("size", [8, 31, 256, 257, 1000])
def test_moments_are_exact(size: int) -> None:
    rng = np.random.default_rng(size)
    for image in (rng.integers(0, 256, (3, size, size), np.uint8), np.full((1, size, size), 255, np.uint8)):
        values = image.astype(object)
        assert moments_of(image).tolist() == [[int(c.sum()), int((c * c).sum())] for c in values]


@pytest.mark.parametrize("room", ["disk", "while packing", "while writing", "memory", "memory of one"])
def test_want_of_room_keeps_what_is_finished(
    room: str, killed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = noted(killed)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def starved(*_: object) -> None:
        raise MemoryError

    log = count_loads(monkeypatch, tmp_path)
    with monkeypatch.context() as patch:
        if room == "disk":
            patch.setattr(packing.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
        elif room == "while packing":  # in a worker, into the sparse file
            patch.setattr(packing, "write_at", full)
        elif room == "while writing":
            patch.setattr(prepare_module, "write_text", full)
        elif room == "memory of one":
            patch.setattr(packing, "moments_of", starved)
        else:
            patch.setattr(packing, "fit_square", die)
        with pytest.raises(ResourceError) as caught:
            prepare("t", block(), tmp_path, tmp_path / "out/t")
    assert caught.value.exit_code == (6 if room.startswith("memory") else 2)
    assert noted(killed) >= finished
    log.unlink(missing_ok=True)
    manifest = prepare("t", block(), tmp_path, tmp_path / "out/t")
    assert log.stat().st_size <= 80 - 4 * finished
    assert same_as_new(manifest, block(), tmp_path)

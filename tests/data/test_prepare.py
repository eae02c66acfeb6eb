"""Packing: same digest from every kind of source, exact statistics, all or nothing; and reading it back."""

from __future__ import annotations

import csv
import json
import math
import os
import tarfile
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image as Pillow

from twinrun.data import packing as module
from twinrun.data.packed import Packed, load_packed
from twinrun.data.packing import fit_square
from twinrun.data.prepare import channel_moments, prepare
from twinrun.data.readers import DataBlock
from twinrun.study.errors import InputError, ResourceError
from twinrun.study.files import sha256_file
from twinrun.study.schema import CbisDdsm, Cifar10, Sdnet2018


def load(folder: Path) -> Packed:
    """The packed arrays, whatever params they were made for."""
    try:
        made_for = json.loads((folder / "manifest.json").read_text())["params_digest"]
    except (FileNotFoundError, TypeError):
        made_for = "unknown"
    return load_packed(folder, made_for)


def digits(source: str = "digits.tar.gz", size: int = 16, sha256: str | None = None) -> Cifar10:
    return Cifar10(reader="cifar10", source=source, image_size=size, sha256=sha256)


def cracks(source: str = "cracks.zip") -> Sdnet2018:
    return Sdnet2018(
        reader="sdnet2018", source=source, image_size=32, procedural=True, test_share=0.25, split_seed=0
    )  # fmt: skip


def mammograms(source: str = "mammograms.zip") -> CbisDdsm:
    return CbisDdsm(reader="cbis_ddsm", source=source, image_size=48, procedural=True, view="full")


def unpack(archive: Path, folder: Path) -> None:
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as opened:
            opened.extractall(folder)
    else:
        with tarfile.open(archive) as opened_tar:
            opened_tar.extractall(folder, filter="data")


@pytest.mark.parametrize(
    ("name", "block"), [("digits.tar.gz", digits), ("cracks.zip", cracks), ("mammograms.zip", mammograms)]
)
def test_same_digest_from_archive_folder_and_tar(
    name: str, block: Callable[[str], DataBlock], sample: Path, tmp_path: Path
) -> None:
    unpack(sample / name, tmp_path / "folder")
    with tarfile.open(tmp_path / "again.tar", "w") as archive:
        archive.add(tmp_path / "folder", "some/prefix")
    first = prepare("task", block(name), sample, tmp_path / "out" / "a")
    second = prepare("task", block("folder"), tmp_path, tmp_path / "out" / "b")
    third = prepare("task", block("again.tar"), tmp_path, tmp_path / "out" / "c")
    assert first["digest"] == second["digest"] == third["digest"]
    assert first["source"] == {"path": name, "sha256": sha256_file(sample / name)}
    assert second["source"]["sha256"] is None
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b", "c"]


def test_what_is_packed(sample: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    manifest = prepare("c", cracks(), sample, tmp_path / "c", lambda done, total: seen.append((done, total)))
    assert seen[-1] == (864, 864)
    assert seen == sorted(seen)
    assert json.loads((tmp_path / "c" / "manifest.json").read_text()) == manifest
    assert manifest["procedural"] is True
    assert manifest["groups"] == {"train": 12, "test": 6}
    packed = load(tmp_path / "c")
    assert packed.images.shape == (864, 3, 32, 32)
    assert (packed.n_train, packed.n_test, packed.classes) == (576, 288, ("uncracked", "cracked"))
    assert packed.digest == manifest["digest"]
    assert not packed.images.flags.writeable
    with (tmp_path / "c" / "ids.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["label"]) for row in rows] == packed.labels.tolist()
    assert [row["split"] for row in rows] == ["train"] * 576 + ["test"] * 288
    assert {row["group"] for row in rows[:576]}.isdisjoint(row["group"] for row in rows[576:])
    for split, part in (("train", packed.labels[:576]), ("test", packed.labels[576:])):
        assert manifest["counts"][split] == {"uncracked": int((part == 0).sum()), "cracked": int((part == 1).sum())}
    train = packed.images[:576].astype(float) / 255
    np.testing.assert_allclose(packed.channel_mean, train.mean((0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(packed.channel_std, train.std((0, 2, 3)), rtol=1e-12)


def test_identity_when_the_size_fits(sample: Path, tmp_path: Path) -> None:
    prepare("d", digits(size=32), sample, tmp_path / "d")
    images = load(tmp_path / "d").images
    assert np.array_equal(images[:, 0], images[:, 2])
    assert np.array_equal(images[:, :, ::4, ::4], images[:, :, 3::4, 3::4])
    # Halving nearest-neighbour blocks of 4 loses nothing either.
    prepare("d", digits(size=16), sample, tmp_path / "d")
    assert np.array_equal(load(tmp_path / "d").images, images[:, :, ::2, ::2])


@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))), st.integers(1, 12)
)
def test_fit_square(image: NDArray[np.uint8], size: int) -> None:
    found = fit_square(image, size)
    assert found.shape == (image.shape[2], size, size)
    side = max(image.shape[:2])
    padded = fit_square(image, side).transpose(1, 2, 0)
    assert np.array_equal(padded[: image.shape[0], : image.shape[1]], image)
    assert int(padded.sum()) == int(image.sum())
    whole = Pillow.fromarray(padded.squeeze(2) if image.shape[2] == 1 else np.ascontiguousarray(padded))
    resized = np.asarray(whole.resize((size, size), Pillow.Resampling.BOX))
    assert np.array_equal(found, resized.reshape(size, size, -1).transpose(2, 0, 1)), (
        "channels by themselves or at once"
    )


@given(st.lists(st.integers(0, 255), min_size=1))
def test_channel_moments(values: list[int]) -> None:
    count = len(values)
    mean, std = channel_moments(count, sum(values), sum(value * value for value in values))
    exact = Fraction(sum(values), 255 * count)
    assert mean == float(exact)
    variance = sum((Fraction(value, 255) - exact) ** 2 for value in values) / count
    assert std == (math.sqrt(variance) if variance else 1.0)


def failing(data: DataBlock, root: Path, out: Path, message: str) -> None:
    """It raises, and neither makes `out` nor leaves anything beside it."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(InputError, match=message):
        prepare("task", data, root, out)
    assert sorted(out.parent.iterdir()) == before


def test_failures_leave_nothing(sample: Path, tmp_path: Path) -> None:
    out = tmp_path / "prepared"
    out.mkdir()
    failing(digits("none.zip"), tmp_path, out / "t", r"none\.zip: no such file")
    failing(digits(sha256="1" * 64), sample, out / "t", "its SHA-256 is")
    (tmp_path / "cut.zip").write_bytes((sample / "cracks.zip").read_bytes()[:-1000])
    failing(cracks("cut.zip"), tmp_path, out / "t", r"cut\.zip: not a whole archive")
    unpack(sample / "cracks.zip", tmp_path / "tree")
    broken = sorted((tmp_path / "tree").rglob("P/CP/*.jpg"))[-1]
    whole = broken.read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    failing(cracks("tree"), tmp_path, out / "t", f"{broken.name} does not decode")
    broken.write_bytes(whole)
    for path in (tmp_path / "tree").rglob("C?/*.jpg"):
        path.unlink()
    failing(cracks("tree"), tmp_path, out / "t", "task task: no train images of class cracked")


def test_failure_keeps_the_older_folder(sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = prepare("d", digits(), sample, tmp_path / "d")
    failing(cracks("digits.tar.gz"), sample, tmp_path / "d", "no tiles of SDNET2018")
    assert load(tmp_path / "d").digest == old["digest"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module.os, "fsync", full)
        with pytest.raises(ResourceError, match="the disk is full") as caught:
            prepare("d", cracks(), sample, tmp_path / "d")
    assert "finished work is kept" in caught.value.hint
    assert (tmp_path / ".d.part" / "images.npy").stat().st_size > 864 * 3 * 32 * 32
    assert load(tmp_path / "d").digest == old["digest"]
    prepare("d", cracks(), sample, tmp_path / "d")
    assert load(tmp_path / "d").digest != old["digest"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_place_that_cannot_be_taken_is_refused_before_the_work(
    sample: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "pack_images", lambda *_, **__: pytest.fail("packed first"))
    (tmp_path / "linked").symlink_to("nowhere")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.docx").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    for name, said in (
        ("linked", "linked: a link to nothing"),
        ("file", "a file stands"),
        ("mine", "holds thesis.docx"),
    ):
        with pytest.raises(InputError, match=said):
            prepare("d", digits(), sample, tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def folder(sample: Path, tmp_path: Path) -> Path:
    prepare("d", digits(), sample, tmp_path / "d")
    return tmp_path / "d"


def refused(folder: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load(folder)
    assert "twinrun prepare d" in caught.value.hint


def test_packed_files_that_were_touched(folder: Path) -> None:
    load(folder)
    images, labels, manifest = (folder / name for name in ("images.npy", "labels.npy", "manifest.json"))
    whole = images.read_bytes()
    images.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(folder, r"images\.npy: from image 1792 on it is not as recorded: it was changed or is damaged")
    images.write_bytes(whole + b"x")
    refused(folder, r"images\.npy: from image")
    images.write_bytes(whole[:-100])
    refused(folder, r"images\.npy: not a whole \.npy file")
    np.save(images, np.zeros((3, 3), np.float32))
    refused(folder, r"images\.npy: float32 \(3, 3\), but the manifest says uint8")
    np.save(images, np.array([{}]), allow_pickle=True)
    refused(folder, r"images\.npy: not a whole \.npy file")
    images.unlink()
    refused(folder, r"images\.npy: no such file")
    os.mkfifo(images)
    refused(folder, r"images\.npy: a pipe or a device, no file")
    images.unlink()
    images.write_bytes(whole)
    np.save(labels, np.roll(np.load(labels), 1))
    refused(folder, r"labels\.npy: its SHA-256")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(content | {"n_train": content["n_train"] + 1}))
    refused(folder, r"manifest\.json: its digest is not that of its content")
    manifest.write_text(json.dumps({key: content[key] for key in content if key != "chunks"} | {"schema": 1}))
    refused(folder, r"manifest\.json: schema 1, but this version reads 2")
    manifest.write_text("[]")
    refused(folder, r"manifest\.json: schema is missing")
    manifest.unlink()
    refused(folder, "the task is not prepared")

"""The SDNET2018 reader: names of the real tree, and a split that keeps the tiles of a photo together."""

from __future__ import annotations

import io
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from twinrun.data.archives import open_archive
from twinrun.data.example import Index
from twinrun.data.prepare import prepare, remarks
from twinrun.data.readers.sdnet2018 import choose_photos, index_sdnet2018
from twinrun.study.errors import InputError
from twinrun.study.schema import Sdnet2018

photo_sets = st.sets(st.builds(lambda kind, number: f"{kind}{number}", st.sampled_from("DPW"), st.integers(1, 9999)))


def jpeg(value: int = 90, size: int = 8) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_tree(folder: Path, names: list[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg())
    return folder


def index_of(folder: Path, share: float = 0.5, seed: int = 0) -> Index:
    with open_archive(folder) as archive:
        return index_sdnet2018(archive, share, seed)


@given(photo_sets, st.floats(0.01, 0.99), st.integers(0, 99))
def test_choice_of_photos(photos: set[str], share: float, seed: int) -> None:
    chosen = choose_photos(photos, share, seed)
    assert chosen <= photos
    assert chosen == choose_photos(sorted(photos, reverse=True), share, seed)
    for kind in "DPW":
        members = {photo for photo in photos if photo[0] == kind}
        held_out = len(members & chosen)
        assert abs(held_out - share * len(members)) <= 1
        if len(members) >= 2:
            assert 0 < held_out < len(members)


def test_choice_is_fixed_for_good() -> None:
    photos = [f"D{number}" for number in range(7001, 7011)]
    assert sorted(choose_photos(photos, 0.3, 0)) == FIXED[0]
    assert sorted(choose_photos(photos, 0.3, 1)) == FIXED[1]


FIXED = [["D7005", "D7006", "D7010"], ["D7002", "D7006", "D7007"]]


def test_names_of_the_real_tree(tmp_path: Path) -> None:
    tree = write_tree(
        tmp_path / "x",
        ["S/D/CD/7001-115.jpg", "S/D/UD/7039-110_2.jpg", "S/P/CP/007-173.jpg", "S/P/UP/008-1.jpg",
         "S/W/CW/7133-99.jpg", "S/W/UW/7070-50.JPG", "S/D/CD/._7001-115.jpg", "S/D/UD/Thumbs.db"],
    )  # fmt: skip
    found = {example.id: (example.label, example.group) for example in index_of(tree).examples}
    assert found == {
        "D/CD/7001-115": (1, "D7001"), "D/UD/7039-110_2": (0, "D7039"), "P/CP/007-173": (1, "P007"),
        "P/UP/008-1": (0, "P008"), "W/CW/7133-99": (1, "W7133"), "W/UW/7070-50": (0, "W7070"),
    }  # fmt: skip


def test_bad_trees(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tiles of SDNET2018"):
        index_of(write_tree(tmp_path / "a", ["D/XD/7001-1.jpg"]))
    with pytest.raises(InputError, match=r"D/CD/photo\.jpg: no photo number"):
        index_of(write_tree(tmp_path / "b", ["D/CD/photo.jpg"]))
    with pytest.raises(InputError, match="the same tile"):
        index_of(write_tree(tmp_path / "c", ["a/D/CD/7001-1.jpg", "b/D/CD/7001-1.jpg"]))


def test_image_that_does_not_decode(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "x", ["D/CD/7001-1.jpg", "D/UD/7002-1.jpg"])
    for content in (b"", b"no image", jpeg(size=64)[:400]):
        (tree / "D/CD/7001-1.jpg").write_bytes(content)
        with open_archive(tree) as archive:
            index = index_sdnet2018(archive, 0.5, 0)
            example = next(example for example in index.examples if example.label)
            with pytest.raises(InputError, match=r"D/CD/7001-1\.jpg does not decode as an image"):
                index.load(example)


def check_photos_stay_together(index: Index) -> None:
    sides = defaultdict(set)
    for example in index.examples:
        sides[example.group].add(example.split)
    assert all(len(split) == 1 for split in sides.values())


def test_sample_photos_stay_together(sample: Path) -> None:
    index = index_of(sample / "cracks.zip", 0.25)
    assert len(index.examples) == 18 * 48
    check_photos_stay_together(index)
    for kind in "DPW":
        assert len({e.group for e in index.examples if e.split == "test" and e.group[0] == kind}) == 2


def test_real_tiles(real_data: Path) -> None:
    with open_archive(real_data / "cracks-pw-sample.tar.xz") as archive:
        index = index_sdnet2018(archive, 0.25, 0)
        assert len(index.examples) == 9
        assert all(index.load(example).shape == (256, 256, 3) for example in index.examples)
        check_photos_stay_together(index)


def test_publishers_zip_within_a_zip(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        for name in ("D/CD/7001-1.jpg", "D/UD/7002-1.jpg"):
            archive.writestr(name, jpeg())
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "SDNET2018.zip", "w", method) as archive:
            archive.writestr("README.txt", "tiles of concrete")
            archive.writestr("SDNET2018.zip", inner.getvalue())
        index = index_of(tmp_path / "SDNET2018.zip", 0.5)
        assert {example.id for example in index.examples} == {"D/UD/7002-1", "D/CD/7001-1"}


@pytest.mark.slow
def test_real_tiles_packed(real_data: Path, tmp_path: Path) -> None:
    """All of them: the known twins are found, the imbalance is stated, photos stay together."""
    block = Sdnet2018(reader="sdnet2018", source="cracks.tar.xz", image_size=64, test_share=0.2, split_seed=0)
    manifest = prepare("t", block, real_data, tmp_path / "t")
    assert manifest["n_train"] + manifest["n_test"] == 6000
    assert sum(side["cracked"] for side in manifest["counts"].values()) == 2025
    assert manifest["groups"] == {"train": 43, "test": 11}
    train = manifest["counts"]["train"]
    assert manifest["class_shares"]["train"]["cracked"] == round(train["cracked"] / manifest["n_train"], 4)
    assert {tuple(group["ids"]) for group in manifest["duplicates"]["listed"]} == {
        ("D/CD/7039-110", "D/CD/7039-110_2"), ("D/CD/7039-111", "D/CD/7039-111_2"),
        ("D/CD/7039-113", "D/CD/7039-113_2"), ("D/UD/7053-18", "D/UD/7053-18_2"),
    }  # fmt: skip


def test_real_twin_with_another_label(real_data: Path, tmp_path: Path) -> None:
    """The full set has 7039-112 among the cracked and, as 7039-112_2, among the uncracked: put it back."""
    with open_archive(real_data / "cracks.tar.xz") as archive:
        for name in archive.names:
            if name.startswith("D/") and name.split("/")[2].startswith(("7039-11", "7053-1", "7001-1")):
                (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / "tree" / name).write_bytes(archive.read(name))
        (tmp_path / "tree/D/UD/7039-112_2.jpg").write_bytes(archive.read("D/CD/7039-112.jpg"))
    block = Sdnet2018(reader="sdnet2018", source="tree", image_size=256, test_share=0.34, split_seed=0)
    manifest = prepare("t", block, tmp_path, tmp_path / "t")
    assert manifest["duplicates"]["contradictory"] == 1
    assert manifest["duplicates"]["listed"][0]["ids"] == ["D/CD/7039-112", "D/UD/7039-112_2"]
    assert any("1 with contradictory labels" in line for line in remarks(manifest))

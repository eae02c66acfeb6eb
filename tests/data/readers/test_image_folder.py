"""The reader of a user's own images: trees and tables, splits and groups, kinds of pictures, and what is refused."""

from __future__ import annotations

import io
import os
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from twinrun.data.archives import open_archive
from twinrun.data.example import Index
from twinrun.data.prepare import prepare
from twinrun.data.readers.image_folder import index_image_folder
from twinrun.study.errors import InputError, OutOfMemoryError
from twinrun.study.schema import ImageFolder


def block(**keys: Any) -> ImageFolder:
    return ImageFolder(**{"reader": "image_folder", "source": "x", "image_size": 8} | keys)


def encode(pixels: np.ndarray, kind: str = "PNG", mode: str | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels)
    (picture.convert(mode) if mode else picture).save(buffer, kind, **options)
    return buffer.getvalue()


def png(value: int = 90, height: int = 8, width: int = 8) -> bytes:
    return encode(np.full((height, width, 3), value, np.uint8))


def write(folder: Path, files: dict[str, bytes] | list[str]) -> Path:
    for number, name in enumerate(files):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(files[name] if isinstance(files, dict) else png(number % 256))
    return folder


def index_of(path: Path, data: ImageFolder | None = None, **keys: Any) -> Index:
    with open_archive(path) as archive:
        return index_image_folder(archive, data or block(**keys), path.parent)


def said(path: Path, **keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        index_of(path, **keys)
    return str(caught.value)


def pixels(path: Path, name: str, **keys: Any) -> np.ndarray:
    with open_archive(path) as archive:
        index = index_image_folder(archive, block(**keys), path.parent)
        return index.load(next(example for example in index.examples if example.id.endswith(name)))


TREE = ["train/cat/1.png", "train/dog/1.png", "test/cat/2.png", "test/dog/2.png"]


def test_the_positive_class_is_chosen_and_never_in_silence(tmp_path: Path) -> None:
    """`positive` puts it second; without it the order of names does, and a remark says so."""
    path = write(tmp_path / "x", TREE)
    assert index_of(path, positive="cat").classes == ("dog", "cat")
    chosen = prepare("own", block(source=str(path), positive="cat"), tmp_path, tmp_path / "a", lambda *_: None)
    by_name = prepare("own", block(source=str(path)), tmp_path, tmp_path / "b", lambda *_: None)
    assert chosen["classes"] == ["dog", "cat"]
    assert not [line for line in chosen["remarks"] if "positive" in line]
    assert [line for line in by_name["remarks"] if "positive" in line] == [
        "the positive class of F1 and AUC is dog, for its name comes second; `positive:` in the data block chooses"
    ]
    named = prepare("own", block(source=str(path), positive="dog"), tmp_path, tmp_path / "c", lambda *_: None)
    assert named["digest"] == by_name["digest"], "a name for what was so changes no run's data"
    refused = " ".join(said(path, positive="bird").split())
    assert "positive: 'bird' is not one of two classes one of two classes; there are cat, dog" in refused
    with pytest.raises(ValueError, match="positive is the second of two classes"):
        block(classes=["dog", "cat"], positive="dog")


@pytest.mark.parametrize("around", ["", "my set/", "a/b/"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_tree_with_its_own_split(around: str, packed: bool, tmp_path: Path) -> None:
    names = [*TREE, "val/cat/9.png", "train/cat/.hidden.png", "__MACOSX/x.png", "train/dog/Thumbs.db"]
    path = write(tmp_path / "x", [around + name for name in names] + [around + "README.txt"])
    if packed:
        with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
            for file in sorted(path.rglob("*")):
                archive.write(file, file.relative_to(path))
        path = tmp_path / "x.zip"
    index = index_of(path)
    assert index.classes == ("cat", "dog")
    assert [(e.id, e.split, e.label) for e in index.examples] == [
        ("train/cat/1.png", "train", 0), ("train/dog/1.png", "train", 1),
        ("test/cat/2.png", "test", 0), ("test/dog/2.png", "test", 1),
    ]  # fmt: skip
    assert index.extra["left_out"] == {"val": 1}


def test_a_tree_without_a_split_is_split_by_class(tmp_path: Path) -> None:
    path = write(tmp_path / "x", [f"{c}/deep/{i}.jpg" for c, n in (("a", 20), ("b", 40)) for i in range(n)])
    index = index_of(path, test_share=0.25, split_seed=3)
    assert Counter((e.split, e.label) for e in index.examples) == {
        ("train", 0): 15, ("train", 1): 30, ("test", 0): 5, ("test", 1): 10,
    }  # fmt: skip
    other = index_of(path, test_share=0.25, split_seed=4)
    assert {e.id for e in index.examples if e.split == "test"} != {e.id for e in other.examples if e.split == "test"}


def test_groups_of_a_pattern_stay_together_whatever_their_classes(tmp_path: Path) -> None:
    names = [f"{c}/p{patient}_{i}.png" for patient in range(12) for c in ("a", "b")[patient % 3 == 0 :] for i in (1, 2)]
    index = index_of(write(tmp_path / "x", names), group_pattern=r"^(p\d+)_", test_share=0.25, split_seed=0)
    sides = defaultdict(set)
    for example in index.examples:
        sides[example.group].add(example.split)
    assert set(sides) == {f"p{i}" for i in range(12)}
    assert all(len(found) == 1 for found in sides.values())
    # Of the 4 patients with b alone one, of the 8 with both two.
    held = {group for group, found in sides.items() if found == {"test"}}
    assert Counter(int(group[1:]) % 3 == 0 for group in held) == {True: 1, False: 2}


def test_class_order(tmp_path: Path) -> None:
    path = write(tmp_path / "x", [f"{s}/{c}/1.png" for s in ("train", "test") for c in ("10", "9", "2")])
    assert index_of(path).classes == ("2", "9", "10")
    assert index_of(path, classes=["9", "10", "2"]).classes == ("9", "10", "2")
    assert "not among `classes`: 2" in said(path, classes=["9", "10"])


def table(folder: Path, text: str) -> Path:
    path = write(folder / "x", ["i/1.png", "i/2.png", "i/3.png", "i/4.png", "i/5.png"])
    (folder / "t.csv").write_text(text)
    return path


def test_a_table_with_a_split(tmp_path: Path) -> None:
    text = "\ufeffpath,age,label,split\ni/1.png,3,b,train\ni/2.png,4, a ,train\n./i/3.png,5,a,TEST\ni/4.png,6,b,val\n\n"
    index = index_of(table(tmp_path, text), table="t.csv")
    assert index.classes == ("a", "b")
    assert [(e.id, e.split, e.label) for e in index.examples] == [
        ("i/1.png", "train", 1), ("i/2.png", "train", 0), ("i/3.png", "test", 0),
    ]  # fmt: skip
    assert index.extra["left_out"] == {"val": 1}
    assert index.extra["images_not_in_table"] == 1


def test_a_table_with_groups(tmp_path: Path) -> None:
    text = "path,label,group\n" + "".join(f"i/{i}.png,{'ab'[i % 2]},p{i // 2}\n" for i in (1, 2, 3, 4, 5))
    index = index_of(table(tmp_path, text), table="t.csv", test_share=0.5, split_seed=0)
    sides = {example.group: example.split for example in index.examples}
    assert sorted(sides) == ["p0", "p1", "p2"]
    assert sum(side == "test" for side in sides.values()) == 1  # of the two with both classes


@pytest.mark.parametrize(
    ("text", "keys", "part"),
    [
        ("", {}, "no column path and label"),
        ("path;label\ni/1.png;a\n", {}, "separated by commas"),
        ("path,label\ni/1.png\n", {}, "row 2: 1 cells, but there are 2 columns"),
        ("path,label\ni/1.png,\n", {}, "row 2: label is empty"),
        ("path,label,group\ni/1.png,a,\n", {}, "row 2: group is empty"),
        ("path,label,split\ni/1.png,a,dev\n", {}, "row 2: split 'dev'"),
        ("path,label,split\ni/1.png,a,train\ni/1.png,b,test\n", {}, "rows 2 and 3 both name i/1.png"),
        ("path,label,split\n1.png,a,train\n2.png,b,test\n", {}, "2 of 2 paths in"),
        ("path,label,split\n../t.csv,a,train\n", {}, "1 of 1 paths in"),
        ("path,label\ni/1.png,a\ni/2.png,b\n", {}, "the images have no split"),
        ("path,label,split\ni/1.png,a,train\n", {"test_share": 0.5, "split_seed": 0}, "a split of their own"),
        ("path,label,split,group\ni/1.png,a,train,p\ni/2.png,b,test,p\n", {}, "group p is on both sides"),
        ('path,label\n"i/1.png,a\n', {}, "not a table"),
    ],
)
def test_bad_tables(text: str, keys: dict[str, Any], part: str, tmp_path: Path) -> None:
    assert part in said(table(tmp_path, text), table="t.csv", **keys)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    assert "other.csv" in said(table(tmp_path, ""), table="other.csv")


@pytest.mark.parametrize(
    ("names", "keys", "part"),
    [
        (["readme.txt"], {}, "no images in it"),
        (["1.png", "2.png"], {}, "2 images lie in no class folder: 1.png, 2.png"),
        ([*TREE, "train/x.png"], {}, "1 images lie in no class folder: train/x.png"),
        ([*TREE, "more/cat/x.png"], {}, "folders beside train and test: more"),
        (["train/a/1.png", "val/a/1.png", "train/b/1.png"], {}, "no images in a folder test"),
        ([*TREE, "train/cat/scan.heic"], {}, "1 files in class folders are no images: train/cat/scan.heic"),
        (TREE, {"test_share": 0.5, "split_seed": 0}, "a split of their own"),
        (["a/1.png", "b/1.png"], {}, "the images have no split"),
        (["a/1.png", "b/x.png"], {"group_pattern": r"\d"}, "does not match: b/x.png"),
        (["train/a/p1-1.png", "test/a/p1-2.png"], {"group_pattern": r"p\d"}, "group p1 is on both sides"),
    ],
)  # fmt: skip
def test_bad_trees(names: list[str], keys: dict[str, Any], part: str, tmp_path: Path) -> None:
    assert part in said(write(tmp_path / "x", names), **keys)


@pytest.mark.parametrize("name", ["train/cow", "cow"])
def test_an_empty_class_folder_is_named(name: str, tmp_path: Path) -> None:
    names = TREE if "/" in name else ["cat/1.png", "dog/1.png"]
    path = write(tmp_path / "x", names)
    (path / name).mkdir()
    assert f"class folders without images: {name}" in said(path, test_share=None)


def test_a_class_on_one_side_only_is_named(tmp_path: Path) -> None:
    write(tmp_path / "x", [*TREE, "train/cow/1.png"])
    with pytest.raises(InputError, match="no test images of class cow"):
        prepare("t", block(), tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_keys() -> None:
    for keys, part in (
        ({"test_share": 0.5}, "go together"),
        ({"table": "t.csv", "group_pattern": "x"}, "column group"),
        ({"group_pattern": "("}, "no regular expression"),
        ({"classes": ["a", "a"]}, "names one twice"),
    ):
        with pytest.raises(ValueError, match=part):
            block(**keys)


RAMP = np.linspace(0, 250, 24).astype(np.uint8).reshape(4, 6)
KINDS = {
    "gray.png": encode(RAMP), "gray.pgm": encode(RAMP, "PPM"), "gray.bmp": encode(RAMP, "BMP"),
    "gray.tif": encode(RAMP, "TIFF"), "gray.TIFF": encode(RAMP, "TIFF", compression="tiff_lzw"),
    "palette.png": encode(RAMP, mode="P"), "one.png": encode(RAMP > 100, mode="1"),
    "colour.png": encode(RAMP, mode="RGB"), "alpha.png": encode(RAMP, mode="RGBA"),
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("color", "channels"), [("rgb", 3), ("gray", 1)])
def test_every_kind_of_picture_gives_the_same_pixels(name: str, color: str, channels: int, tmp_path: Path) -> None:
    path = write(tmp_path / "x", {f"train/a/{name}": KINDS[name], "test/a/1.png": png()})
    found = pixels(path, name, color=color)
    wanted = np.where(RAMP > 100, 255, 0) if name == "one.png" else RAMP
    np.testing.assert_array_equal(found, np.repeat(wanted[:, :, None], channels, 2))


def test_cmyk_and_jpeg_are_close(tmp_path: Path) -> None:
    smooth = np.full((16, 16), 120, np.uint8)
    files = {f"train/a/{mode}.jpg": encode(smooth, "JPEG", mode=mode) for mode in ("CMYK", "L")}
    path = write(tmp_path / "x", files | {"test/a/1.png": png()})
    for mode in ("CMYK", "L"):
        assert np.abs(pixels(path, f"{mode}.jpg").astype(int) - 120).max() <= 2


def test_what_is_transparent_is_black_and_what_was_turned_is_upright(tmp_path: Path) -> None:
    clear = np.full((4, 4, 4), 200, np.uint8)
    clear[:, :, 3] = [[0], [0], [255], [255]]
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    path = write(tmp_path / "x", {
        "train/a/clear.png": encode(clear), "test/a/turned.png": encode(RAMP, exif=exif),
    })  # fmt: skip
    assert pixels(path, "clear.png", color="gray")[:, :, 0].tolist()[1:3] == [[0] * 4, [200] * 4]
    np.testing.assert_array_equal(pixels(path, "turned.png", color="gray")[:, :, 0], np.rot90(RAMP, 3))


@pytest.mark.parametrize("fit", ["pad", "crop", "stretch"])
def test_non_square_images(fit: str, tmp_path: Path) -> None:
    wide = np.repeat(np.repeat(np.array([[10, 20, 30, 40]], np.uint8), 8, 0), 4, 1)  # 8 x 16: four stripes
    write(tmp_path / "x", {f"{s}/{c}/1.png": encode(wide) for s in ("train", "test") for c in "ab"})
    prepare("t", block(fit=fit, color="gray"), tmp_path, tmp_path / "out")
    image = np.load(tmp_path / "out/images.npy")[0, 0]
    wanted = {
        "pad": np.repeat([[10, 10, 20, 20, 30, 30, 40, 40]], 4, 0).tolist() + [[0] * 8] * 4,
        "crop": [[20] * 4 + [30] * 4] * 8,
        "stretch": [[10, 10, 20, 20, 30, 30, 40, 40]] * 8,
    }[fit]
    assert image.tolist() == wanted


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (encode(RAMP.astype(np.uint16) * 200), "more than 8 bits a channel"),
        (b"", "does not decode as an image"),
        (png(height=64, width=64)[:80], "does not decode as an image"),
        (b"<html>not found</html>", "does not decode as an image"),
    ],
)
def test_pictures_that_are_refused_are_named(content: bytes, part: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x", {"train/a/bad.png": content, "test/a/1.png": png()})
    with pytest.raises(InputError, match=rf"train/a/bad\.png .*{part}|train/a/bad\.png {part}"):
        pixels(path, "bad.png")


def test_several_pictures_in_one_file_are_refused(tmp_path: Path) -> None:
    two = encode(RAMP, "TIFF", save_all=True, append_images=[Image.fromarray(RAMP)])
    path = write(tmp_path / "x", {"train/a/bad.tif": two, "test/a/1.png": png()})
    with pytest.raises(InputError, match="holds 2 pictures"):
        pixels(path, "bad.tif")


def test_missing_and_damaged_images_are_left_out_where_the_params_say_so(tmp_path: Path) -> None:
    names = [f"i/{c}{n}.png" for c in "ab" for n in range(4)]
    path = write(tmp_path / "x", names)
    (path / "i/a3.png").write_bytes(b"<html>")
    rows = [f"{name},{name[2]},{'test' if name[3] == '0' else 'train'}\n" for name in [*names, "i/b9.png"]]
    (tmp_path / "t.csv").write_text("path,label,split\n" + "".join(rows))
    with pytest.raises(InputError, match=r"1 of 9 paths in .*t\.csv are missing: i/b9\.png"):
        prepare("t", block(table="t.csv"), tmp_path, tmp_path / "out")
    manifest = prepare("t", block(table="t.csv", on_error="skip"), tmp_path, tmp_path / "out")
    assert set(manifest["skipped"]) == {"i/a3.png", "i/b9.png"}
    assert manifest["counts"] == {"train": {"a": 2, "b": 3}, "test": {"a": 1, "b": 1}}


def test_the_same_picture_on_both_sides_is_found(tmp_path: Path) -> None:
    write(tmp_path / "x", {name: png(7 if "cat" in name else number) for number, name in enumerate(TREE)})
    manifest = prepare("t", block(), tmp_path, tmp_path / "out")
    assert "train/cat/1.png" in str(manifest["duplicates"])
    assert "test/cat/2.png" in str(manifest["duplicates"])


CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.mark.slow
def test_a_part_of_cifar10_as_jpeg(real_data: Path, tmp_path: Path) -> None:
    """The first of each class, out of an archive of 60,000 files; `benchmarks/packing.py` packs sets of that size."""
    first = {"train": 400, "test": 100}
    rows = [(f"{split}/{name}/{n:04}.jpg", name, split) for split, count in first.items() for name in CIFAR10
            for n in range(count)]  # fmt: skip
    (tmp_path / "part.csv").write_text("path,label,split\n" + "".join(f"{','.join(row)}\n" for row in rows))
    data = block(source=str(real_data / "cifar10-jpeg.tar.xz"), table="part.csv", image_size=32)
    manifest = prepare("cifar10", data, tmp_path, tmp_path / "out")
    assert manifest["counts"] == {split: dict.fromkeys(CIFAR10, count) for split, count in first.items()}
    assert np.load(tmp_path / "out/images.npy", mmap_mode="r").shape == (5_000, 3, 32, 32)
    # The published statistics of CIFAR-10; a part of it and JPEG at quality 75 move them little.
    np.testing.assert_allclose(manifest["channel_mean"], [0.4914, 0.4822, 0.4465], atol=0.006)
    np.testing.assert_allclose(manifest["channel_std"], [0.2470, 0.2435, 0.2616], atol=0.006)


@pytest.mark.slow
def test_lesions_of_mini_mias_by_patient(real_data: Path, tmp_path: Path) -> None:
    source = real_data / "mammography.tar.xz"
    with open_archive(source) as archive:
        crops = [name for name in archive.names if "roi-256/" in name and name.endswith(".pgm")]
    rows = [(name, name.split("/")[-2], (int(name.split("/mdb")[1][:3]) - 1) // 2) for name in crops]
    (tmp_path / "mias.csv").write_text("path,label,group\n" + "".join(f"{p},{c},patient {g}\n" for p, c, g in rows))
    data = block(source=str(source), table="mias.csv", classes=["benign", "malignant"], color="gray", image_size=64,
                 test_share=0.3, split_seed=0)  # fmt: skip
    manifest = prepare("mias", data, tmp_path, tmp_path / "out")
    assert {c: sum(manifest["counts"][s][c] for s in ("train", "test")) for c in data.classes} == {
        "benign": 68, "malignant": 51,
    }  # fmt: skip
    assert sum(manifest["groups"].values()) == len({group for *_, group in rows})
    assert manifest["channels"] == 1
    assert 25 <= manifest["n_test"] <= 45


SPLIT_WORDS = [
    ("Training", "Testing"), ("training", "testing"), ("training_set", "test_set"), ("TRAIN", "Test"),
    ("train-images", "test images"), ("TrainSet", "TestSet"), ("Train_Data", "Testing Data"),
]  # fmt: skip


@pytest.mark.parametrize(("train", "test"), SPLIT_WORDS)
def test_a_split_in_other_words_is_one(train: str, test: str, tmp_path: Path) -> None:
    names = [f"{side}/{c}/{i}.png" for side, n in ((train, 3), (test, 1)) for c in ("glioma", "none") for i in range(n)]
    index = index_of(write(tmp_path / "x", [*names, "Validation/none/9.png"]))
    assert index.classes == ("glioma", "none")
    assert Counter(e.split for e in index.examples) == {"train": 6, "test": 2}
    assert index.extra["split_folders"] == {train: "train", test: "test", "Validation": "val"}
    assert index.extra["left_out"] == {"val": 1}


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["train/a/1.png", "train/b/1.png", "val/a/1.png"], "rename the one to test on to test"),
        (["Training/a/1.png", "Validation/a/1.png"], "rename the one to test on to test"),
        (["Testing/a/1.png", "valid/a/1.png"], "rename the one to test on to train"),
        (["val/1.png", "cat/1.png", "dog/1.png"], "lie in no class folder"),
        (["training/x/1.png", "running/x/1.png"], "if these are classes, list all of them in `classes`"),
        (["cat/train/1.png", "cat/test/2.png", "dog/train/1.png"], "the split lies inside the class folders: cat, dog"),
    ],
)
def test_what_sounds_like_a_split_never_becomes_classes(names: list[str], part: str, tmp_path: Path) -> None:
    assert part in said(write(tmp_path / "x", names), test_share=0.5, split_seed=0)


def test_classes_that_sound_like_a_split_can_be_named(tmp_path: Path) -> None:
    path = write(tmp_path / "x", [f"{c}/{i}.png" for c in ("training", "running") for i in range(4)])
    assert index_of(path, test_share=0.5, split_seed=0, classes=["running", "training"]).classes[1] == "training"


def test_the_split_and_what_was_passed_over_are_told(tmp_path: Path) -> None:
    junk = ["@eaDir/1.png", ".ipynb_checkpoints/1-checkpoint.png", "__MACOSX/._1.png", "Thumbs.db", "#recycle/1.png",
            ".thumbnails/1.png", "$RECYCLE.BIN/1.png", "._1.png", "._2.png", "lost+found/1.png"]  # fmt: skip
    names = [f"{s}/{c}/{c}{s}{i}.png" for s in ("Training", "Testing") for c in "ab" for i in range(2)]
    path = write(tmp_path / "x", names + [f"{folder}{name}" for folder in ("", "Training/a/") for name in junk])
    manifest = prepare("t", block(), tmp_path, tmp_path / "out")
    assert manifest["n_train"] + manifest["n_test"] == 8
    assert manifest["classes"] == ["a", "b"]
    assert manifest["extra"]["passed_over"] == {
        "#recycle": 2, "$RECYCLE.BIN": 2, ".ipynb_checkpoints": 2, ".thumbnails": 2, "._*": 4, "@eaDir": 2,
        "Thumbs.db": 2, "__MACOSX": 2, "lost+found": 2,
    }  # fmt: skip
    assert "split by folders: Testing is test, Training is train" in manifest["remarks"]
    assert any("20 files of file managers and the like passed over: #recycle," in line for line in manifest["remarks"])
    assert path.is_dir()


def test_names_are_compared_as_people_see_them(tmp_path: Path) -> None:
    composed, apart = "gr\u00fcn", "gru\u0308n"  # as Linux and Windows write it, and as macOS does
    names = [f"train/{composed}/1.png", f"test/{apart}/2.png", "train/rot/3.png", "test/rot/4.png"]
    index = index_of(write(tmp_path / "x", names), classes=["rot", apart])
    assert index.classes == ("rot", composed)
    assert Counter((e.split, e.label) for e in index.examples) == dict.fromkeys(
        [("train", 0), ("train", 1), ("test", 0), ("test", 1)], 1
    )
    (tmp_path / "t.csv").write_text(f"path,label,split\ntest/{composed}/2.png,{apart},test\ntrain/rot/3.png,b,train\n")
    table = index_of(tmp_path / "x", table="t.csv")
    assert table.classes == ("b", composed)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("path,label,split,label\ni/1.png,a,train,b\n", "the column label is there twice"),
        ("path,label,Split,split\ni/1.png,a,train,test\n", "the column split is there twice"),
        ("path,label,split\ni/1.png,a,b,train\n", "row 2: 4 cells, but there are 3 columns"),
        ("path,label,split\ni/1.png,a,train\ni/2.png,a\n", "row 3: 2 cells, but there are 3 columns"),
        (f"path,label,split\ni/1.png,{'a' * 131_073},train\n", "field larger than field limit"),
    ],
)
def test_tables_that_could_be_misread(text: str, part: str, tmp_path: Path) -> None:
    assert part in said(table(tmp_path, text), table="t.csv")


def test_empty_cells_behind_the_last_column_are_nothing(tmp_path: Path) -> None:
    text = "path,label,split\ni/1.png,b,train,,\ni/2.png,a,test,\n"
    assert [e.id for e in index_of(table(tmp_path, text), table="t.csv").examples] == ["i/1.png", "i/2.png"]


def test_a_table_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = write(tmp_path / "x", TREE)
    os.mkfifo(tmp_path / "t.csv")
    assert "t.csv: no file" in said(path, table="t.csv")


def test_reasons_are_the_same_words_everywhere(tmp_path: Path) -> None:
    manifests = []
    for place in ("one", "two"):
        root = tmp_path / place
        files = {name: png(number) for number, name in enumerate(TREE)}
        files |= {"train/cat/bad.png": b"<html>", "train/cat/cut.png": png(height=64, width=64)[:80]}
        write(root / "x", files)
        manifests.append(prepare("t", block(on_error="skip"), root, root / "out"))
    assert manifests[0]["skipped"] == manifests[1]["skipped"]
    assert set(manifests[0]["skipped"]) == {"train/cat/bad.png", "train/cat/cut.png"}
    assert "0x" not in str(manifests[0]["skipped"])
    assert str(tmp_path) not in str(manifests[0]["skipped"])


def test_want_of_memory_leaves_no_image_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "x", {name: png(number) for number, name in enumerate(TREE)})

    def starved(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("PIL.ImageFile.ImageFile.load", starved)
        with pytest.raises(OutOfMemoryError, match=r"\.png: memory ran out") as caught:
            prepare("t", block(on_error="skip"), tmp_path, tmp_path / "out")
    assert caught.value.exit_code == 6
    assert not (tmp_path / "out").exists()
    assert prepare("t", block(on_error="skip"), tmp_path, tmp_path / "out")["skipped"] == {}

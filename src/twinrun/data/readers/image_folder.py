"""Reader of a user's own images: a folder for each class, with its own split or to be split, or a table of paths."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn
from unicodedata import normalize

from PIL import Image as Pillow

from twinrun.data.archives import Archive, pass_over
from twinrun.data.decode import open_picture, pixels_of
from twinrun.data.example import Example, Image, Index, held_out, in_order
from twinrun.data.tables import read_table
from twinrun.study.errors import InputError
from twinrun.study.files import explain_os_error, sha256_bytes
from twinrun.study.schema import ImageFolder

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp")
SPLITS = ("train", "test")
LEFT_OUT = ("val", "valid", "validation")  # for choosing a recipe: neither trained nor tested on
_LAYOUT = "images lie in train/<class>/ and test/<class>/, or, to be split by test_share, in <class>/"
# Words by which data sets call the sides of their split, such as Training, test_set, train-images.
_SIDES = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "val": "val", "valid": "val", "validation": "val", "validating": "val",
}  # fmt: skip
_SIDE_ENDS = re.compile(r"[ _-]?(set|data|dataset|images|imgs|split)$")


@dataclass(frozen=True)
class _Row:
    name: str  # in the archive
    id: str
    label: str
    split: str | None
    group: str


def index_image_folder(archive: Archive, data: ImageFolder, root: Path) -> Index:
    """Classes and examples of a tree or a table (relative to `root`): ids are paths, images (height, width, 1 or 3).

    Classes are in the order of `data.classes`, else by name, or by number where all names are numbers. Raises
    InputError for images outside class folders, files that are no images among them, empty class folders, a table
    that does not fit the files, and a group on both sides of the split.
    """
    missing: dict[str, str] = {}
    if data.table:
        rows, extra, missing = _read_table(archive, data, root / data.table)
    else:
        rows, extra = _walk_tree(archive, data)
    extra["left_out"] = dict(sorted(Counter(row.split for row in rows if row.split in LEFT_OUT).items()))
    rows = [row for row in rows if row.split not in LEFT_OUT]
    classes = _order_classes(archive, data, {row.label for row in rows})
    if len(classes) == 2 and data.classes is None and data.positive is None:
        extra["positive_by_name"] = classes[1]
    sides = _choose_sides(archive, data, rows)
    numbers = {name: number for number, name in enumerate(classes)}
    examples = [
        Example(row.id, "test" if sides[row.group] == "test" else "train", numbers[row.label], row.group, (row.name,))
        for row in rows
    ]
    return Index(classes, in_order(examples), lambda example: _decode(archive, example.where[0], data), extra, missing)


def _refuse(archive: Archive, what: str, names: Iterable[str], hint: str) -> NoReturn:
    listed = sorted(names)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    raise InputError(f"{archive.path}: {what}: {', '.join(listed[:3])}{more}", hint)


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def _side_of(folder: str) -> str | None:
    """The side that a folder's name means, if it sounds like one."""
    return _SIDES.get(_SIDE_ENDS.sub("", folder.lower()))


def _walk_tree(archive: Archive, data: ImageFolder) -> tuple[list[_Row], dict[str, Any]]:
    files, passed = pass_over(archive.names)
    extra: dict[str, Any] = {"passed_over": passed} if passed else {}
    images = [name for name in files if _is_image(name)]
    if not images:
        raise InputError(f"{archive.path}: no images in it", f"images end in {', '.join(SUFFIXES)}")
    # Archives often have one folder around everything.
    base = PurePosixPath(os.path.commonpath([str(PurePosixPath(name).parent) for name in images]) or ".")
    below = {name: PurePosixPath(name).relative_to(base) for name in images}
    tops = {path.parts[0] for path in below.values() if len(path.parts) > 1}
    sides = {top: side for top in sorted(tops) if (side := _side_of(top))}
    split = bool(sides) and not tops <= {normalize("NFC", name) for name in data.classes or ()}
    depth = 2 if split else 1  # where the class stands in a path: (split,) class, ..., file
    if flat := [str(path) for path in below.values() if len(path.parts) <= depth]:
        _refuse(archive, f"{len(flat)} images lie in no class folder", flat, _LAYOUT)
    if split:
        _check_split(archive, tops, sides)
        if any(top.lower() != side for top, side in sides.items()):
            extra["split_folders"] = sides
    elif {_side_of(path.parts[1]) for path in below.values() if len(path.parts) > 2} >= set(SPLITS):
        _refuse(archive, "the split lies inside the class folders", tops, _LAYOUT)
    folders = {str(base.joinpath(*path.parts[:depth])) for path in below.values()}
    _refuse_strangers(archive, files, folders)
    rows = []
    for name, path in below.items():
        group = str(path)
        if data.group_pattern:
            match = re.search(data.group_pattern, "/".join(path.parts[depth:]))
            if not match:
                _refuse(archive, f"group_pattern {data.group_pattern!r} does not match", [str(path)], "correct it")
            group = match[1] if match.re.groups else match[0]
        rows.append(_Row(name, str(path), path.parts[depth - 1], sides[path.parts[0]] if split else None, group))
    return rows, extra


def _check_split(archive: Archive, tops: set[str], sides: dict[str, str]) -> None:
    """InputError unless the top folders are train and test, in whatever words, and at most one for validation."""
    if missing := [side for side in SPLITS if side not in sides.values()]:
        listed = ", ".join(sorted(tops))
        hint = f"there is {listed}; {_LAYOUT}; if these are classes, list all of them in `classes`"
        if tops == sides.keys() and "val" in sides.values():
            hint = f"there is {listed}: rename the one to test on to {missing[0]}; {_LAYOUT}"
        raise InputError(f"{archive.path}: no images in a folder {', '.join(missing)}", hint)
    if other := tops - sides.keys():
        _refuse(archive, "folders beside train and test", other, f"allowed: {', '.join(LEFT_OUT)}; {_LAYOUT}")


def _refuse_strangers(archive: Archive, files: list[str], folders: set[str]) -> None:
    """InputError for files that are no images in class folders, and for class folders without any."""
    around = {str(PurePosixPath(folder).parent) for folder in folders}
    inside = [
        name for name in files if not _is_image(name) and any(str(p) in folders for p in PurePosixPath(name).parents)
    ]
    if inside:
        hint = f"images end in {', '.join(SUFFIXES)}; convert or move the others out of the class folders"
        _refuse(archive, f"{len(inside)} files in class folders are no images", inside, hint)
    if archive.path.is_dir():  # an archive does not always list its empty folders
        tops = {top: archive.path / top for top in around if (archive.path / top).is_dir()}
        there = {str(PurePosixPath(top, normalize("NFC", sub.name)))
                 for top, folder in tops.items() for sub in folder.iterdir() if sub.is_dir()}  # fmt: skip
        if empty := pass_over(there - folders)[0]:
            _refuse(archive, "class folders without images", empty, "remove them, or put images into them")


def _read_table(archive: Archive, data: ImageFolder, path: Path) -> tuple[list[_Row], dict[str, Any], dict[str, str]]:
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: no file", "`table` names a CSV file")
        content = path.read_bytes()
    except OSError as error:
        raise explain_os_error(error, path) from error
    hint = "columns, separated by commas: path, label, and as wished split (train, test, val) and group"
    lines = read_table(content, str(path), ("path", "label"), hint, ("split", "group"))
    known = frozenset(archive.names)
    rows, lost, seen = [], [], dict[str, int]()
    for number, row in lines:
        if empty := [key for key in ("path", "label", "split", "group") if row.get(key) == ""]:
            raise InputError(f"{path}: row {number}: {empty[0]} is empty", "every image needs it")
        name, side = str(PurePosixPath(row["path"])), row["split"].lower() if "split" in row else None
        if side is not None and side not in SPLITS + LEFT_OUT:
            allowed = f"allowed: {', '.join(SPLITS + LEFT_OUT)}"
            raise InputError(f"{path}: row {number}: split {row['split']!r}", allowed)
        if name in seen:
            raise InputError(f"{path}: rows {seen[name]} and {number} both name {name}", "an image stands there once")
        seen[name] = number
        if name not in known:
            lost.append(name)
        rows.append(_Row(name, name, row["label"], side, row.get("group") or name))
    images = [name for name in pass_over(archive.names)[0] if _is_image(name)]
    if (lost and data.on_error == "error") or len(lost) == len(rows):
        example = f"its images have names such as {images[0]}" if images else "there are no images in it"
        what = f"{len(lost)} of {len(rows)} paths in {path} are missing"
        _refuse(archive, what, lost, f"paths are inside it; {example}")
    extra = {
        "table": {"path": data.table, "sha256": sha256_bytes(content)},
        "images_not_in_table": sum(name not in seen for name in images),
    }
    return [row for row in rows if row.name in known], extra, dict.fromkeys(lost, "not in the source")


def _order_classes(archive: Archive, data: ImageFolder, labels: set[str]) -> tuple[str, ...]:
    if data.classes is None:
        positive = normalize("NFC", data.positive or "")
        if data.positive and (len(labels) != 2 or positive not in labels):
            hint = f"one of two classes; there are {', '.join(sorted(labels))}"
            raise InputError(f"{archive.path}: positive: {data.positive!r} is not one of two classes", hint)
        if data.positive:
            return (*(labels - {positive}), positive)
        numbers = all(map(str.isdecimal, labels))
        return tuple(sorted(labels, key=(lambda name: (int(name), name)) if numbers else None))
    classes = tuple(normalize("NFC", name) for name in data.classes)
    if unknown := labels - set(classes):
        _refuse(archive, "not among `classes`", unknown, f"`classes` names {', '.join(classes)}: all, in their order")
    return classes


def _choose_sides(archive: Archive, data: ImageFolder, rows: list[_Row]) -> dict[str, str]:
    """The side of each group: its own, or by `test_share` of the groups that hold the same classes."""
    if any(row.split for row in rows):
        if data.test_share is not None:
            raise InputError(
                f"{archive.path}: the images have a split of their own", "remove test_share and split_seed"
            )
        sides: dict[str, str] = {}
        for row in rows:
            if sides.setdefault(row.group, row.split or "") != row.split:
                raise InputError(f"{archive.path}: group {row.group} is on both sides of the split", "move its images")
        return sides
    if data.test_share is None:
        raise InputError(
            f"{archive.path}: the images have no split", "give test_share and split_seed, or say the split"
        )
    labels: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        labels[row.group].add(row.label)
    strata: dict[frozenset[str], list[str]] = defaultdict(list)
    for group, held in labels.items():
        strata[frozenset(held)].append(group)
    seed = data.split_seed or 0
    test = {name for members in strata.values() for name in held_out(members, data.test_share, seed)}
    return {group: "test" if group in test else "train" for group in labels}


def _decode(archive: Archive, name: str, data: ImageFolder) -> Image:
    """Pixels uint8 (height, width, 1 or 3); square already where `data.fit` is crop or stretch."""
    picture = open_picture(archive.read(name), f"{archive.path}: {name}")
    picture = picture.convert("L" if data.color == "gray" else "RGB")
    if data.fit == "crop":
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    elif data.fit == "stretch" and picture.width != picture.height:
        picture = picture.resize((data.image_size, data.image_size), Pillow.Resampling.BOX)
    return pixels_of(picture)

"""Reader of SDNET2018: tiles of concrete photos, cracked or not, split so that no photo is on both sides.

Source: Maguire, Dorafshan, Thomas, SDNET2018, Utah State University, 2018, https://doi.org/10.15142/T3TD19
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import PurePosixPath

from twinrun.data.archives import Archive, pass_over
from twinrun.data.decode import decode_picture
from twinrun.data.example import Example, Image, Index, held_out, in_order
from twinrun.study.errors import InputError

CLASSES = ("uncracked", "cracked")
_FOLDER = re.compile(r"([CU])([DPW])")  # cracked or uncracked; deck, pavement or wall
_TILE = re.compile(r"(\d+)-.+")  # photo, tile; the real set also has names like 7039-110_2
_SUFFIXES = (".jpg", ".jpeg")


def index_sdnet2018(archive: Archive, test_share: float, split_seed: int) -> Index:
    """Classes and examples of SDNET2018: ids like D/CD/7001-115, group = photo (D7001), images (height, width, 3).

    Raises InputError when nothing, or nothing on one side, is found, and for tiles without a photo number.
    """
    tiles: dict[str, tuple[str, str, int]] = {}  # id -> (member, photo, label)
    names, passed = pass_over(archive.names)
    for name in names:
        path = PurePosixPath(name)
        folder = _FOLDER.fullmatch(path.parent.name)
        if not folder or path.suffix.lower() not in _SUFFIXES:
            continue
        tile = _TILE.fullmatch(path.stem)
        if not tile:
            hint = "tiles are named photo-tile.jpg, such as 7001-115.jpg; move other files out of these folders"
            raise InputError(f"{archive.path}: {name}: no photo number in its name", hint)
        kind = folder[2]
        identity = f"{kind}/{folder[0]}/{path.stem}"
        if identity in tiles:
            raise InputError(f"{archive.path}: {name} and {tiles[identity][0]} are the same tile", "keep one of them")
        tiles[identity] = (name, f"{kind}{tile[1]}", int(folder[1] == "C"))
    if not tiles:
        hint = "name the archive or folder that holds D/CD, D/UD, P/CP, P/UP, W/CW, W/UW"
        raise InputError(f"{archive.path}: no tiles of SDNET2018 in it", hint)
    held_out = choose_photos({photo for _, photo, _ in tiles.values()}, test_share, split_seed)
    examples = [
        Example(identity, "test" if photo in held_out else "train", label, photo, (name,))
        for identity, (name, photo, label) in tiles.items()
    ]

    def load(example: Example) -> Image:
        (name,) = example.where
        return decode_picture(archive.read(name), f"{archive.path}: {name}", colour=True)

    return Index(CLASSES, in_order(examples), load, {"passed_over": passed} if passed else {})


def choose_photos(photos: Iterable[str], test_share: float, split_seed: int) -> set[str]:
    """The photos of the test side: of each kind (D, P, W) the share, and where it has two or more, one on each side."""
    kinds = defaultdict(list)
    for photo in photos:
        kinds[photo[0]].append(photo)
    return {photo for members in kinds.values() for photo in held_out(members, test_share, split_seed)}

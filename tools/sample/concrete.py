"""The sample data set `cracks`: procedural concrete with cracks, shadows, stains and joints, in SDNET2018's layout."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from tools.sample.bits import TURN, Bits, Grid, coordinates, cosine, noise, sine, stamp
from tools.sample.containers import zip_bytes

TILE = 64
ROWS, COLUMNS = 6, 8
HEIGHT, WIDTH = ROWS * TILE, COLUMNS * TILE
# The archive keeps the name that the program had when its bytes were settled: they are data.
README = """Procedural sample data of twinrun, in the layout of SDNET2018.

These images are drawn by a program (twinrun.data.concrete). They are NOT photographs of concrete and not part of
SDNET2018; results on them say nothing about real cracks.
"""


@dataclass(frozen=True)
class Surface:
    """How a kind of concrete looks: strengths of its textures, in grey levels unless said otherwise."""

    photos: tuple[str, ...]
    tone: tuple[int, int]  # range of a photo's mean grey
    patches: int  # cells of 64 and 24 pixels
    grain: int  # cells of 4 pixels
    speckle: int  # single pixels
    stones: int  # aggregate, pieces a tile
    joints: int  # percent of photos with one more joint


SURFACES = {
    "D": Surface(("7001", "7004", "7012", "7023", "7038", "7049"), (140, 185), 14, 12, 12, 14, 50),
    "P": Surface(("003", "007", "019", "042", "058", "091"), (105, 155), 16, 16, 18, 34, 30),
    "W": Surface(("7069", "7084", "7101", "7115", "7133", "7150"), (150, 200), 18, 6, 8, 5, 80),
}


def cracks_archive() -> bytes:
    """The zip: 18 photos of 48 tiles of 64x64 pixels, JPEG; a third of the tiles is cracked."""
    members = {"SDNET2018/README.txt": README.encode()}
    for kind, surface in SURFACES.items():
        for photo in surface.photos:
            picture, labels = draw_photo(kind, photo)
            for number in range(ROWS * COLUMNS):
                row, column = divmod(number, COLUMNS)
                tile = picture[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
                folder = f"{'C' if labels[row, column] else 'U'}{kind}"
                members[f"SDNET2018/{kind}/{folder}/{photo}-{number + 1}.jpg"] = _jpeg(tile)
    return zip_bytes(members)


def draw_photo(kind: str, photo: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (384, 512, 3) of one procedural photo, and which of its tiles are cracked, bool (6, 8)."""
    bits = Bits(f"twinrun sample cracks {kind}{photo}")
    surface = SURFACES[kind]
    grey = np.full((HEIGHT, WIDTH), bits.between(*surface.tone), np.int64)
    for cell, strength in ((64, surface.patches), (24, surface.patches), (4, surface.grain), (2, surface.grain // 2)):
        grey += noise(bits, HEIGHT, WIDTH, cell) * strength >> 7
    grey += bits.grid(2 * surface.speckle + 1, HEIGHT, WIDTH) - surface.speckle
    _stones(bits, grey, surface.stones * ROWS * COLUMNS)
    stain = _stains(bits)
    depth, labels = _cracks(bits)
    joints = np.zeros((HEIGHT, WIDTH), np.int64)
    while bits.chance(surface.joints) and joints.max() < 1 + 90:
        _joint(bits, joints)
        if bits.chance(50):
            break
    grey = grey - np.maximum(depth, joints) - (stain >> 1)
    grey = grey * _shadow(bits) >> 8
    tint = (bits.between(-2, 8), bits.between(-2, 3), bits.between(-10, 2))
    # Stains are brown: blue is darkened most.
    channels = [grey + colour - (stain * weight >> 3) for colour, weight in zip(tint, (0, 1, 3), strict=True)]
    return np.clip(np.stack(channels, axis=2), 0, 255).astype(np.uint8), labels


def _stones(bits: Bits, grey: Grid, count: int) -> None:
    places = bits.grid(1 << 16, count, 4).tolist()
    light, dark = np.zeros_like(grey), np.zeros_like(grey)
    for y, x, size, shade in places:
        target = light if shade & 1 else dark
        stamp(target, y * HEIGHT * 16 >> 16, x * WIDTH * 16 >> 16, 14 + size % 30, 12 + (shade >> 1) % 34)
    grey += light - dark


def _stains(bits: Bits) -> Grid:
    blobs = noise(bits, HEIGHT, WIDTH, 72) + (noise(bits, HEIGHT, WIDTH, 18) >> 2)
    return np.clip(blobs - bits.between(30, 75), 0, 30) * bits.between(8, 40) // 30


def _shadow(bits: Bits) -> Grid:
    """Brightness in 256ths: a soft-edged half-plane is darker in two photos of three."""
    if not bits.chance(66):
        return np.full((HEIGHT, WIDTH), 256, np.int64)
    rows, columns = coordinates(HEIGHT, WIDTH)
    heading = bits.between(0, TURN - 1)
    middle_y, middle_x = bits.between(60, HEIGHT - 60), bits.between(60, WIDTH - 60)
    across = ((rows - middle_y) * sine(heading) + (columns - middle_x) * cosine(heading)) >> 10
    soft = bits.between(3, 14)
    return 256 - np.clip(across + soft, 0, 2 * soft) * bits.between(40, 110) // (2 * soft)


def _joint(bits: Bits, joints: Grid) -> None:
    """A straight dark line across the photo, almost level or upright: like a crack in all but its straightness."""
    rows, columns = coordinates(HEIGHT, WIDTH)
    upright = bits.chance(50)
    along, across = (rows, columns) if upright else (columns, rows)
    slant, place = bits.between(-50, 50), bits.between(30, (WIDTH if upright else HEIGHT) - 30)
    distance = np.abs(across * 1024 - place * 1024 - along * slant)
    half = bits.between(700, 2200)
    depth = bits.between(35, 90)
    np.maximum(joints, np.clip(half + 700 - distance, 0, 1024) * depth >> 10, out=joints)


def _cracks(bits: Bits) -> tuple[Grid, np.ndarray]:
    """Darkness of cracks (height, width), and the tiles in which enough of one is seen: about a third."""
    depth = np.zeros((HEIGHT, WIDTH), np.int64)
    while True:
        _crack(bits, depth)
        seen = (depth >= 14).reshape(ROWS, TILE, COLUMNS, TILE).sum(axis=(1, 3))
        if 100 * int((seen >= 24).sum()) >= 36 * ROWS * COLUMNS:
            return depth, seen >= 24


def _crack(bits: Bits, depth: Grid) -> None:
    """One meandering line whose width and darkness change on its way; it may fork."""
    start = bits.between(0, HEIGHT) << 10, bits.between(0, WIDTH) << 10
    pending = [(*start, bits.between(0, TURN - 1), bits.between(170, 340))]
    width, dark = bits.between(20, 44), bits.between(60, 140)
    while pending:
        y, x, heading, steps = pending.pop()
        turns = bits.grid(256, steps, 3).tolist()
        home = heading
        for turn, change, fork in turns:
            # Small turns most of the time, a sharp one now and then, drawn back to the main direction.
            heading += (turn % 3) - 1 if turn < 216 else (turn % 13) - 6
            heading += (home > heading) - (home < heading) if turn % 5 == 0 else 0
            width = min(max(width + change % 3 - 1, 14), 48)
            dark = min(max(dark + (change >> 2) % 5 - 2, 30), 150)
            y, x = y + sine(heading), x + cosine(heading)
            stamp(depth, y >> 6, x >> 6, width, dark)
            if fork == 0 and len(pending) < 2:
                pending.append((y, x, heading + 8 - (turn & 16), steps // 3))


def _jpeg(tile: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Pillow.fromarray(tile).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()

"""One policy for picture files: which are read, how they become 8-bit grey or colour, which are refused.

Palettes become colour, CMYK becomes RGB, transparent parts become black. Pictures are turned upright as their EXIF
says: so do OpenCV, Ultralytics and every viewer, whereas torchvision's ImageFolder and timm leave them as stored. Of a
camera's JPEG with a preview behind it (MPO) the first picture counts, as everywhere. Refused: more than 8 bits a
channel (which part of the range is to be seen is a choice), several pictures in a file, missing rows, and odd sizes.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import TiffImagePlugin, UnidentifiedImageError

from twinrun.data.faults import DAMAGED, named_damage
from twinrun.study.errors import DamagedError

MOST_PIXELS = 150_000_000  # a full-field mammogram has 25 million; a decompression bomb has billions
LEAST_SIDE = 2
# No others: Pillow would hand an EPS file of whatever name to Ghostscript. A camera's MPO is opened as a JPEG.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP")
_UNKNOWN = f"it is not a whole picture of a kind that is read ({', '.join(FORMATS)})"
_GREY = ("1", "L", "LA", "La")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Pillow.Transpose.FLIP_LEFT_RIGHT, 3: Pillow.Transpose.ROTATE_180, 4: Pillow.Transpose.FLIP_TOP_BOTTOM,
    5: Pillow.Transpose.TRANSPOSE, 6: Pillow.Transpose.ROTATE_270, 7: Pillow.Transpose.TRANSVERSE,
    8: Pillow.Transpose.ROTATE_90,
}  # fmt: skip
_FAILS = "does not decode as an image"
_AGAIN = "fetch or convert it, remove it, or let `on_error: skip` in the task's data leave it out"
_MAXVAL = re.compile(rb"P[2356](?:(?:\s|#[^\r\n]*[\r\n])+\d+){2}(?:\s|#[^\r\n]*[\r\n])+(\d+)")
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
# First column and row and the steps of the seven passes of an interlaced PNG (PNG specification, 8.2).
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def decode_picture(content: bytes, where: str, *, colour: bool | None = None) -> NDArray[np.uint8]:
    """Pixels of an image file, uint8 (height, width, 1 or 3); `colour` forces three channels or one.

    Raises what `open_picture` does.
    """
    picture = open_picture(content, where)
    if colour is None:
        colour = picture.mode not in _GREY
    wanted = "RGB" if colour else "L"
    if picture.mode != wanted:
        picture = picture.convert(wanted)
    return pixels_of(picture)


def pixels_of(picture: Pillow.Image) -> NDArray[np.uint8]:
    """Pixels of a picture of mode L or RGB, uint8 (height, width, 1 or 3); in memory channel by channel, as packed."""
    planes = np.empty((len(picture.getbands()), picture.height, picture.width), np.uint8)
    for plane, band in zip(planes, picture.split(), strict=True):
        plane[...] = np.asarray(band)
    return planes.transpose(1, 2, 0)


def open_picture(content: bytes, where: str) -> Pillow.Image:
    """The decoded picture, upright and opaque, with 8 bits a channel at most, in whatever mode.

    Raises DamagedError naming `where` for what does not decode and for what the policy refuses; OutOfMemoryError.
    """
    with named_damage(where, _FAILS, _AGAIN), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the limits below are those that count
        try:
            picture: Pillow.Image = Pillow.open(io.BytesIO(content), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise _refusal(where, _UNKNOWN) from error
        if reason := _why_refused(picture, content):
            raise _refusal(where, reason)
        short = _tiff_is_short(picture)
        picture.load()
        if short or (picture.format == "PNG" and _png_is_short(content, picture)):
            raise _refusal(where, f"{DAMAGED}: rows are missing")
        if (turn := _UPRIGHT.get(_orientation(picture))) is not None:
            picture = picture.transpose(turn)
        if picture.has_transparency_data:
            ground = Pillow.new("RGBA", picture.size, (0, 0, 0, 255))
            ground.alpha_composite(picture.convert("RGBA"))
            return ground.convert("L" if picture.mode in _GREY else "RGB")
        return picture


def _refusal(where: str, reason: str) -> DamagedError:
    return DamagedError(f"{where} {_FAILS}: {reason}", _AGAIN, reason)


def _why_refused(picture: Pillow.Image, content: bytes) -> str:
    """Why the header alone rules a picture out, if it does."""
    width, height = picture.size
    if width * height > MOST_PIXELS:
        return f"{width} x {height} pixels are more than the {MOST_PIXELS:,} that are read"
    if min(width, height) < LEAST_SIDE:
        return f"{width} x {height} pixels are no picture"
    if (bits := _bits(picture, content)) > 8:
        return f"it has more than 8 bits a channel ({bits}): convert it to 8 bits first"
    frames = getattr(picture, "n_frames", 1)
    if frames > 1 and picture.format != "MPO":
        return f"it holds {frames} pictures: give each its own file"
    return ""


def _bits(picture: Pillow.Image, content: bytes) -> int:
    """Bits a channel as the file has them: Pillow cuts most kinds of 16 bits to 8 without a word."""
    if picture.format == "PNG":
        return content[24]
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return max(picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if picture.format == "PPM" and (header := _MAXVAL.match(content)):
        return int(header[1]).bit_length()
    if picture.mode in _DEEP:
        return 16 if picture.mode.startswith("I;") else 32
    return 8


def _tiff_is_short(picture: Pillow.Image) -> bool:
    """Whether a TIFF has fewer strips than its height needs, which Pillow leaves black where they are not packed."""
    if picture.format != "TIFF":
        return False
    boxes = [box for _, box, *_ in picture.tile]  # type: ignore[attr-defined]
    return sum((right - left) * (low - top) for left, top, right, low in boxes) < picture.width * picture.height


def _png_is_short(content: bytes, picture: Pillow.Image) -> bool:
    """Whether a PNG's compressed stream ends before its last row, which Pillow then leaves black."""
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if not interlaced and np.asarray(picture)[-1].any():
        return False  # nothing is written behind a row that is missing
    passes = _ADAM7 if interlaced else ((0, 0, 1, 1),)
    wanted = 0
    for left, top, right, down in passes:
        columns, rows = -(-(width - left) // right), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            wanted += rows * (1 + (columns * bits * _PNG_CHANNELS[kind] + 7) // 8)
    stream, place = zlib.decompressobj(), 8
    while place + 8 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        if content[place + 4 : place + 8] == b"IDAT":
            waiting = content[place + 8 : place + 8 + length]
            while waiting:
                wanted -= len(stream.decompress(waiting, 1 << 20))
                waiting = stream.unconsumed_tail
        if wanted <= 0:
            return False
        place += length + 12
    return True


def _orientation(picture: Pillow.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except MemoryError:
        raise
    except Exception:  # unreadable EXIF says nothing about the pixels
        return 1

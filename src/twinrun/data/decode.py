"""One policy for picture files of every kind: which are read, how they become 8-bit grey or colour, which are refused.

Palettes become colour, CMYK becomes RGB, transparent parts become black, EXIF rotation is applied. Refused: more than
8 bits a pixel (which part of the range is to be seen is a choice), several pictures in a file, and odd sizes.
"""

from __future__ import annotations

import io
import warnings

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps

from twinrun.study.errors import DamagedError

MOST_PIXELS = 150_000_000  # a full-field mammogram has 25 million; a decompression bomb has billions
LEAST_SIDE = 2
_GREY = ("1", "L", "LA", "La")
_DEEP = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
_ORIENTATION = 0x0112
_AGAIN = "fetch or convert it, remove it, or let `on_error: skip` in the task's data leave it out"


def decode_picture(content: bytes, where: str, *, colour: bool | None = None) -> NDArray[np.uint8]:
    """Pixels of an image file, uint8 (height, width, 1 or 3); `colour` forces three channels or one.

    Raises DamagedError as `open_picture` does.
    """
    picture = open_picture(content, where)
    if colour is None:
        colour = picture.mode not in _GREY
    wanted = "RGB" if colour else "L"
    if picture.mode != wanted:
        picture = picture.convert(wanted)
    return pixels_of(picture)


def pixels_of(picture: Pillow.Image) -> NDArray[np.uint8]:
    """Pixels of a picture of mode L or RGB, uint8 (height, width, 1 or 3)."""
    return np.asarray(picture).reshape(picture.height, picture.width, -1)


def open_picture(content: bytes, where: str) -> Pillow.Image:
    """The decoded picture, upright and opaque, with 8 bits a channel at most, in whatever mode.

    Raises DamagedError naming `where` for what does not decode and for what the policy refuses.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)  # the limit below is the one that counts
            picture: Pillow.Image = Pillow.open(io.BytesIO(content))
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise ValueError(f"{width} x {height} pixels are more than the {MOST_PIXELS:,} that are read")
        if min(width, height) < LEAST_SIDE:
            raise ValueError(f"{width} x {height} pixels are no picture")
        if picture.mode in _DEEP:
            raise ValueError(f"it has more than 8 bits a pixel ({picture.mode}): convert it to 8 bits first")
        if (frames := getattr(picture, "n_frames", 1)) > 1:
            raise ValueError(f"it holds {frames} pictures: give each its own file")
        picture.load()
        if picture.getexif().get(_ORIENTATION, 1) != 1:
            picture = ImageOps.exif_transpose(picture)
        if picture.has_transparency_data:
            ground = Pillow.new("RGBA", picture.size, (0, 0, 0, 255))
            ground.alpha_composite(picture.convert("RGBA"))
            return ground.convert("L" if picture.mode in _GREY else "RGB")
        return picture
    # Pillow raises OSError, SyntaxError, ValueError and more, by format and damage.
    except Exception as error:
        raise DamagedError(f"{where} does not decode as an image: {error}", _AGAIN) from error

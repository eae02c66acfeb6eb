"""One policy for picture files of every kind: which are read, how they become 8-bit grey or colour, which are refused.

Palettes become colour, CMYK becomes RGB, transparency is dropped, EXIF rotation is applied, 16-bit grey is scaled by
1/257 (whole range to whole range). Of several frames the first counts.
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
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")
_GREY = ("1", "L", "LA", "La", *_SIXTEEN_BITS)
_ORIENTATION = 0x0112
_AGAIN = "fetch the data again, remove that file, or let `on_error: skip` in the task's data leave it out"


def decode_picture(content: bytes, where: str, *, colour: bool | None = None) -> NDArray[np.uint8]:
    """Pixels of an image file, uint8 (height, width, 1 or 3); `colour` forces three channels or one.

    Raises DamagedError naming `where` for what does not decode, is a pixel wide, or has more than MOST_PIXELS.
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
        picture.load()
        return _plain(picture, colour)
    # Pillow raises OSError, SyntaxError, ValueError and more, by format and damage.
    except Exception as error:
        raise DamagedError(f"{where} does not decode as an image: {error}", _AGAIN) from error


def _plain(picture: Pillow.Image, colour: bool | None) -> NDArray[np.uint8]:
    if picture.getexif().get(_ORIENTATION, 1) != 1:
        picture = ImageOps.exif_transpose(picture)
    if colour is None:
        colour = picture.mode not in _GREY
    if picture.mode in _SIXTEEN_BITS:
        picture = _eight_bits(picture)
    elif picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    wanted = "RGB" if colour else "L"
    if picture.mode != wanted:
        picture = picture.convert(wanted)
    # One plane after the other, as the packed arrays have them: packing is then a plain copy.
    planes = b"".join(plane.tobytes() for plane in picture.split())
    return np.frombuffer(planes, np.uint8).reshape(-1, picture.height, picture.width).transpose(1, 2, 0)


def _eight_bits(picture: Pillow.Image) -> Pillow.Image:
    values = np.asarray(picture).astype(np.int64)
    if values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError("its pixels have more than 16 bits")
    return Pillow.fromarray(((values + 128) // 257).astype(np.uint8))

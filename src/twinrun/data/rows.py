"""One row of a packed array: an image made square, its exact sums; and reading and writing at a place of a file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from twinrun.data.example import Image

_PART_BYTES = 1 << 18  # read at a time: what stays in a cache


def fit_square(image: Image, size: int) -> Image:
    """Pad (height, width, channels) to a square with zeros at the right or the bottom and resize it to `size`.

    Areas are averaged (Pillow's BOX, fixed-point for uint8); an image of that size already stays as it is.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    if (height, width) != (side, side):
        # At the right: mammograms have the chest wall at the left edge, and it should stay there.
        square = np.zeros((side, side, image.shape[2]), np.uint8)
        square[:height, :width] = image
        image = square
    if side == size:
        return image
    grey = image.shape[2] == 1
    picture = Pillow.fromarray(np.ascontiguousarray(image[:, :, 0] if grey else image))
    resized = np.asarray(picture.resize((size, size), Pillow.Resampling.BOX))
    return resized[:, :, None] if grey else resized


def moments_of(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Exact sum and sum of squares of each channel, (channels, 2)."""
    if image.shape[-1] <= 256:
        # Fastest: 256 bytes sum to less than 2^16, and their squares to less than 2^24, so that float32 holds them
        # exactly in whatever order they are added.
        total = image.sum(1, dtype=np.uint16)
        squares = np.einsum("cyx,cyx->cy", image, image, dtype=np.float32, casting="unsafe")
    else:
        total = image.sum(-1, dtype=np.uint32)
        squares = np.multiply(image, image, dtype=np.uint16).sum(-1, dtype=np.uint32)
    return np.stack([part.sum(1, dtype=np.float64) for part in (total, squares)], -1).astype(np.int64)


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The beginning of a .npy file of uint8 of that shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def read_span(descriptor: int, start: int, end: int) -> Iterator[memoryview]:
    """The bytes from `start` to `end` of an open file, in parts, each valid until the next; fewer when it ends."""
    buffer = memoryview(bytearray(min(_PART_BYTES, max(0, end - start))))
    while start < end:
        count = os.preadv(descriptor, [buffer[: end - start]], start)
        if not count:
            return
        yield buffer[:count]
        start += count


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of it at that place of an open file, whose position stays as it is."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written

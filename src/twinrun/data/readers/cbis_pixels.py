"""Pixels of mammograms: DICOM decoding, the window to 8 bits, which image is a mask, where the breast is."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from scipy import ndimage

from twinrun.data.decode import MOST_PIXELS
from twinrun.data.faults import named_damage
from twinrun.study.errors import DamagedError

_FAILS = "does not decode as DICOM"
_DAMAGED = "fetch it again, or let `on_error: skip` in the task's data leave it out"
_BLOCK = 1 << 17  # pixels windowed at a time: what fits into a cache
_BACKGROUND = 25  # of 255: darker is film without tissue
_COARSE = 256  # the breast is looked for in a picture about so large


def decode_dicom(content: bytes, where: str) -> tuple[str, Any]:
    """The series description, in small letters, and pixels (height, width) of 8 or 16 bits, dark background.

    Raises DamagedError naming `where` for what does not decode or is no single grey image.
    """
    with named_damage(where, _FAILS, _DAMAGED, f"it {_FAILS}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's hold whatever stands in the file, and no file name
        dataset = pydicom.dcmread(io.BytesIO(content))
        height, width = int(dataset.Rows), int(dataset.Columns)
        if height * width > MOST_PIXELS:
            reason = f"{height} x {width} pixels are more than the {MOST_PIXELS:,} that are read"
            raise DamagedError(f"{where} {_FAILS}: {reason}", _DAMAGED, reason)
        dataset.pixel_array_options(view_only=True)  # no copy where the pixels are stored plainly
        pixels = dataset.pixel_array
        description = str(dataset.get("SeriesDescription", "")).lower()
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "ui" or pixels.dtype.itemsize > 2:
        reason = f"no single grey image of 8 or 16 bits but {pixels.dtype}, shape {pixels.shape}"
        raise DamagedError(f"{where} is {reason}", _DAMAGED, reason)
    return description, np.invert(pixels) if inverted else pixels


def is_mask(pixels: Any) -> bool:
    """Whether the image has two values only; a JPEG's may be a little off, at the edges."""
    high = int(pixels.max())
    between = (pixels > high // 8) & (pixels < high - high // 8)
    return bool(np.count_nonzero(between) * 50 <= pixels.size)


def window(pixels: Any) -> NDArray[np.uint8]:
    """Map minimum..maximum of an integer image (height, width) to 0..255, rounded, in integers only: the same bits
    on every processor; a constant image becomes 0.
    """
    low, high = int(pixels.min()), int(pixels.max())
    span = max(high - low, 1)
    values = np.arange(span + 1, dtype=np.int64)
    table = ((values * 255 + span // 2) // span if high > low else values * 0).astype(np.uint8)
    # Unsigned pixels are their own places in a table that begins at 0: no subtraction.
    first = min(low, 0) if pixels.dtype.kind == "u" else low
    table = np.concatenate([np.zeros(low - first, np.uint8), table])
    grey = np.empty(pixels.shape, np.uint8)
    # In blocks: numpy widens the indices to 8 bytes, which for a whole mammogram would be 200 MB.
    rows = max(1, _BLOCK // max(1, pixels.shape[1]))
    for top in range(0, len(pixels), rows):
        block = pixels[top : top + rows]
        places = block if first == 0 else np.subtract(block, first, dtype=np.intp)
        np.take(table, places, out=grey[top : top + rows], mode="wrap")  # every place is in it: nothing to check
    return grey


def breast_box(grey: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the largest connected bright area of (height, width): the breast without film labels.

    An image without one is kept whole.
    """
    height, width = grey.shape
    step = max(1, max(height, width) // _COARSE)
    coarse = grey[: height // step * step, : width // step * step]
    blocks = coarse.reshape(height // step, step, width // step, step).sum(axis=(1, 3), dtype=np.int64)
    areas, count = ndimage.label(blocks > _BACKGROUND * step * step)
    if not count:
        return 0, height, 0, width
    largest = int(np.argmax(np.bincount(areas.ravel())[1:])) + 1
    rows, columns = ndimage.find_objects(areas)[largest - 1]
    # One block more on every side: edges fade out.
    top, left = max(0, rows.start - 1) * step, max(0, columns.start - 1) * step
    return top, min(height, (rows.stop + 1) * step), left, min(width, (columns.stop + 1) * step)

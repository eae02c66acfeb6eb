"""Arrays written a run at a time: plainly, for a mapped file on a full disk ends the process without a word."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import ArrayLike, DTypeLike


class RowWriter:
    """Takes the rows of an array one after the other."""

    def __init__(self, stream: BinaryIO, dtype: np.dtype[Any], row: tuple[int, ...]) -> None:
        self._stream, self._dtype, self._row = stream, dtype, row

    def add(self, row: ArrayLike | None) -> None:
        """Write a row; a single number fills it."""
        whole = np.broadcast_to(np.asarray(row, self._dtype), self._row)
        self._stream.write(np.ascontiguousarray(whole).data)


@contextmanager
def written_rows(path: Path, shape: tuple[int, ...], dtype: DTypeLike = np.float32) -> Iterator[RowWriter]:
    """A .npy file of this shape, whose rows are then added; OSError when there is no room."""
    kind = np.dtype(dtype)
    with path.open("wb") as stream:
        header = {"descr": npy.dtype_to_descr(kind), "fortran_order": False, "shape": shape}
        npy.write_array_header_1_0(stream, header)
        yield RowWriter(stream, kind, shape[1:])

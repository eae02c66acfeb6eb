"""Random bits and integer textures for the sample data: the same on every processor and numpy version."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int64]

# 1024 sin(90 degrees i / 16), i = 0..16. Written out: a library's sine may differ in its last bit.
_QUARTER = (0, 100, 200, 297, 392, 483, 569, 650, 724, 792, 851, 903, 946, 980, 1004, 1019, 1024)
TURN = 64  # headings in a full turn


class Bits:
    """Numbers from Philox's raw output, keyed by the SHA-256 of a purpose.

    Only `random_raw` is used: numpy promises that stream for good, but not what its distributions make of it.
    """

    def __init__(self, purpose: str) -> None:
        key = int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:16], "little")
        self._philox = np.random.Philox(key=key)

    def grid(self, limit: int, *shape: int) -> Grid:
        """Whole numbers in 0..limit-1 (limit < 2^32) of that shape."""
        raw: Any = self._philox.random_raw(int(np.prod(shape)))
        return (((raw >> np.uint64(32)) * np.uint64(limit)) >> np.uint64(32)).astype(np.int64).reshape(shape)

    def between(self, low: int, high: int) -> int:
        """One whole number in low..high, both included."""
        return low + int(self.grid(high - low + 1, 1)[0])

    def chance(self, percent: int) -> bool:
        """True in that many of a hundred."""
        return self.between(0, 99) < percent


def sine(heading: int) -> int:
    """1024 sin of a heading in 64ths of a turn."""
    quarter, step = divmod(heading % TURN, TURN // 4)
    value = _QUARTER[TURN // 4 - step if quarter % 2 else step]
    return -value if quarter >= 2 else value


def cosine(heading: int) -> int:
    """1024 cos of a heading in 64ths of a turn."""
    return sine(heading + TURN // 4)


def noise(bits: Bits, height: int, width: int, cell_y: int, cell_x: int | None = None) -> Grid:
    """Value noise of that cell size, -128..127 (height, width): random lattice values, smoothly interpolated."""
    cell_x = cell_x or cell_y
    lattice = bits.grid(256, height // cell_y + 2, width // cell_x + 2)
    row, down = np.divmod(np.arange(height, dtype=np.int64), cell_y)
    column, across = np.divmod(np.arange(width, dtype=np.int64), cell_x)
    # Smoothstep 3t^2 - 2t^3 in 256ths.
    down = (down * down * (3 * cell_y - 2 * down) * 256 // cell_y**3)[:, None]
    across = across * across * (3 * cell_x - 2 * across) * 256 // cell_x**3
    upper = lattice[row][:, column] * (256 - across) + lattice[row][:, column + 1] * across
    lower = lattice[row + 1][:, column] * (256 - across) + lattice[row + 1][:, column + 1] * across
    return ((upper * (256 - down) + lower * down) >> 16) - 128


def coordinates(height: int, width: int) -> tuple[Grid, Grid]:
    """Row and column numbers, shapes (height, 1) and (1, width)."""
    return np.arange(height, dtype=np.int64)[:, None], np.arange(width, dtype=np.int64)[None, :]


def stamp(canvas: Grid, y16: int, x16: int, radius16: int, amount: int) -> None:
    """Raise `canvas` to at least a soft disc of that height around (y, x); in 16ths of a pixel."""
    reach = radius16 // 16 + 1
    top, left = max(0, y16 // 16 - reach), max(0, x16 // 16 - reach)
    part = canvas[top : max(0, y16 // 16 + reach + 1), left : max(0, x16 // 16 + reach + 1)]
    if not part.size:
        return
    rows, columns = coordinates(*part.shape)
    distance = ((rows + top) * 16 - y16) ** 2 + ((columns + left) * 16 - x16) ** 2
    limit = radius16 * radius16
    disc = np.maximum(limit - distance, 0) * amount // limit
    np.maximum(part, disc, out=part)

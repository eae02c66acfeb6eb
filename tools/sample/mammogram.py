"""Procedural mammogram-like images: breast outline, glandular tissue, masses and calcifications, 16 bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from tools.sample.bits import TURN, Bits, Grid, coordinates, cosine, noise, sine, stamp

HEIGHT, WIDTH = 96, 64
CROP = 32  # side of a cropped abnormality, pixels


@dataclass(frozen=True)
class Lesion:
    """One abnormality: place in pixels, and suspicion 0..255, from which its looks follow."""

    kind: Literal["mass", "calc"]
    malignant: bool
    y: int
    x: int
    suspicion: int


def draw_suspicion(bits: Bits, malignant: bool) -> int:
    """Benign in 0..143, malignant in 112..255: they overlap, so that no classifier can be perfect."""
    return bits.between(112, 255) if malignant else bits.between(0, 143)


def draw_mammogram(bits: Bits, density: int, view: str, lesions: list[Lesion]) -> NDArray[np.uint16]:
    """Pixels uint16 (96, 64) of a left breast, chest wall at the left edge; density 1..4 as in BI-RADS."""
    rows, columns = coordinates(HEIGHT, WIDTH)
    middle = 48 + bits.between(-3, 3) + (6 if view == "MLO" else 0)
    reach_x, reach_y = bits.between(44, 58), bits.between(36, 43)
    # 1024 in the middle of the chest wall, 0 at the skin.
    inside = 1024 - ((rows - middle) ** 2 * 1024 // reach_y**2 + columns**2 * 1024 // reach_x**2)
    inside += noise(bits, HEIGHT, WIDTH, 24) >> 1
    thick = np.clip(inside * 5, 0, 1024)
    fat = 9000 + noise(bits, HEIGHT, WIDTH, 16) * 16 + noise(bits, HEIGHT, WIDTH, 4) * 10
    # Glands fan out towards the nipple: long cells across, denser in the middle.
    glands = (
        noise(bits, HEIGHT, WIDTH, 10, 18) * 3 + noise(bits, HEIGHT, WIDTH, 5, 9) * 2 + noise(bits, HEIGHT, WIDTH, 3)
    )
    glands = np.clip(glands + density * 90 - 200, 0, 640) * np.clip(inside - 120, 0, 700) // 700
    tissue = fat + glands * (9 + density)
    if view == "MLO":
        # The pectoral muscle: a bright triangle in the upper corner of the chest wall.
        slope = bits.between(40, 60)
        muscle = np.clip((bits.between(22, 30) * slope - columns * slope - rows * 32) * 2, 0, 1024)
        tissue += muscle * 5 + noise(bits, HEIGHT, WIDTH, 6) * 8
        thick = np.maximum(thick, muscle)
    skin = np.clip(140 - np.abs(inside - 70), 0, 140) * 22
    for lesion in lesions:
        tissue += draw_lesion(bits, lesion)
    picture = (tissue * thick >> 10) + skin + bits.grid(500, HEIGHT, WIDTH) * (thick > 0)
    picture = np.where(thick > 0, picture, 0)
    # The scanner has 12 bits; the publisher spread them over 16.
    return (np.clip(picture, 0, 65535) >> 4 << 4).astype(np.uint16)


def place_lesion(bits: Bits, kind: Literal["mass", "calc"], malignant: bool) -> Lesion:
    """A lesion somewhere inside every breast outline."""
    y, x = bits.between(34, 64), bits.between(12, 32)
    return Lesion(kind, malignant, y, x, draw_suspicion(bits, malignant))


def draw_lesion(bits: Bits, lesion: Lesion) -> Grid:
    """Added brightness (96, 64)."""
    return (_mass if lesion.kind == "mass" else _calcifications)(bits, lesion)


def _mass(bits: Bits, lesion: Lesion) -> Grid:
    """Round and smooth when benign; the more suspicious, the brighter, the more irregular, the more spiculated."""
    canvas = np.zeros((HEIGHT, WIDTH), np.int64)
    radius = bits.between(50, 66) + lesion.suspicion * 80 // 256
    bright = 5000 + lesion.suspicion * 80
    stamp(canvas, lesion.y * 16, lesion.x * 16, radius, bright)
    for _ in range(lesion.suspicion // 40):  # lobes
        heading, away = bits.between(0, TURN - 1), radius * bits.between(35, 70) // 100
        y, x = lesion.y * 16 + (away * sine(heading) >> 10), lesion.x * 16 + (away * cosine(heading) >> 10)
        stamp(canvas, y, x, radius * bits.between(40, 75) // 100, bright)
    for _ in range(max(0, lesion.suspicion - 100) // 10):  # spicules
        heading, length = bits.between(0, TURN - 1), radius + bits.between(40, 130)
        for away in range(radius // 2, length, 6):
            y, x = lesion.y * 16 + (away * sine(heading) >> 10), lesion.x * 16 + (away * cosine(heading) >> 10)
            stamp(canvas, y, x, 18 - 8 * away // length, bright * (length + 30 - away) // (length + 30))
    return canvas


def _calcifications(bits: Bits, lesion: Lesion) -> Grid:
    """Few, round and scattered when benign; the more suspicious, the more, the finer and the tighter."""
    canvas = np.zeros((HEIGHT, WIDTH), np.int64)
    spread = 15 - lesion.suspicion // 28
    for _ in range(3 + lesion.suspicion // 5):
        # The mean of two draws: denser in the middle of the cluster.
        y = lesion.y * 16 + 8 * (bits.between(-spread, spread) + bits.between(-spread, spread))
        x = lesion.x * 16 + 8 * (bits.between(-spread, spread) + bits.between(-spread, spread))
        fine = bits.between(0, 255) < lesion.suspicion
        place = y + bits.between(0, 15), x + bits.between(0, 15)
        stamp(canvas, *place, bits.between(12, 16) if fine else bits.between(16, 24), bits.between(9000, 26000))
    return canvas

"""One policy for picture files: modes, rotation, limits; what is refused says why."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from twinrun.data.decode import MOST_PIXELS, decode_picture
from twinrun.study.errors import DamagedError

NOISE = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
FRAMES = [Pillow.fromarray(NOISE), Pillow.fromarray(255 - NOISE)]
RAMP = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8) * 5


def file(picture: Pillow.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_grey_and_colour() -> None:
    grey = decode_picture(file(Pillow.fromarray(RAMP)), "x")
    assert grey.shape == (6, 8, 1)
    assert np.array_equal(grey[:, :, 0], RAMP)
    colour = decode_picture(file(Pillow.fromarray(RAMP)), "x", colour=True)
    assert np.array_equal(colour, np.stack([RAMP] * 3, -1))
    pixels = np.stack([RAMP, RAMP.T.reshape(6, 8), RAMP[::-1]], -1)
    assert np.array_equal(decode_picture(file(Pillow.fromarray(pixels)), "x"), pixels)
    assert decode_picture(file(Pillow.fromarray(pixels)), "x", colour=False).shape == (6, 8, 1)


def test_palette_cmyk_bilevel_and_transparency() -> None:
    palette = Pillow.fromarray(RAMP).convert("RGB").quantize(16)
    assert np.array_equal(decode_picture(file(palette), "x"), np.asarray(palette.convert("RGB")))
    cmyk = Pillow.merge("CMYK", [Pillow.fromarray(RAMP)] * 4)
    found = decode_picture(file(cmyk, "TIFF"), "x")
    assert np.array_equal(found, np.asarray(cmyk.convert("RGB")))
    assert decode_picture(file(cmyk, "JPEG"), "x").shape == (6, 8, 3)
    bilevel = decode_picture(file(Pillow.fromarray(RAMP > 100)), "x")
    assert np.array_equal(bilevel[:, :, 0], (RAMP > 100) * 255)
    clear = Pillow.fromarray(np.dstack([RAMP, RAMP, RAMP, np.where(RAMP > 100, 255, 0).astype(np.uint8)]), "RGBA")
    assert np.array_equal(decode_picture(file(clear), "x")[:, :, 1], np.where(RAMP > 100, RAMP, 0))
    assert decode_picture(file(Pillow.fromarray(RAMP).convert("LA")), "x").shape == (6, 8, 1)


def test_exif_rotation_is_applied() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture = file(Pillow.fromarray(RAMP), "PNG", exif=exif)
    assert np.array_equal(decode_picture(picture, "x")[:, :, 0], np.rot90(RAMP, -1))


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is huge."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot identify"),
        (b"<html>", "cannot identify"),
        (file(Pillow.fromarray(NOISE))[:2000], "does not decode"),
        (file(Pillow.fromarray(np.zeros((64, 64, 3), np.uint8)), "JPEG")[:-200], "does not decode"),
        (file(Pillow.fromarray(np.zeros((1, 1), np.uint8))), "1 x 1 pixels are no picture"),
        (file(Pillow.fromarray(np.zeros((1, 50), np.uint8))), "50 x 1 pixels are no picture"),
        (file(Pillow.fromarray(np.zeros((9, 9), np.uint16))), r"more than 8 bits a pixel \(I;16\)"),
        (file(Pillow.fromarray(np.zeros((9, 9), np.float32)), "TIFF"), r"more than 8 bits a pixel \(F\)"),
        (file(*FRAMES[:1], kind="GIF", save_all=True, append_images=FRAMES[1:]), "it holds 2 pictures"),
        (bomb(20_000, 8_000), f"20000 x 8000 pixels are more than the {MOST_PIXELS:,} that are read"),
        (bomb(60_000, 60_000), "does not decode as an image"),
    ],
)  # fmt: skip
def test_what_is_refused_says_why(content: bytes, message: str) -> None:
    with pytest.raises(DamagedError, match=message) as caught:
        decode_picture(content, "some/file.png")
    assert "some/file.png does not decode as an image" in caught.value.message
    assert "on_error: skip" in caught.value.hint

"""One policy for picture files: modes, rotation, limits; what is refused says why."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image as Pillow

from twinrun.data.decode import MOST_PIXELS, decode_picture
from twinrun.data.faults import named_damage
from twinrun.study.errors import DamagedError, OutOfMemoryError, ResourceError, TwinrunError

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


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(width: int, height: int) -> bytes:
    """A small PNG that says it is huge."""

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole picture of a kind that is read"),
        (b"<html>", "not a whole picture of a kind that is read"),
        (file(Pillow.fromarray(NOISE))[:2000], "does not decode"),
        (file(Pillow.fromarray(np.zeros((64, 64, 3), np.uint8)), "JPEG")[:-200], "does not decode"),
        (file(Pillow.fromarray(np.zeros((1, 1), np.uint8))), "1 x 1 pixels are no picture"),
        (file(Pillow.fromarray(np.zeros((1, 50), np.uint8))), "50 x 1 pixels are no picture"),
        (file(Pillow.fromarray(np.zeros((9, 9), np.uint16))), r"more than 8 bits a channel \(16\)"),
        (file(Pillow.fromarray(np.zeros((9, 9), np.float32)), "TIFF"), r"more than 8 bits a channel \(32\)"),
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


def png(pixels: np.ndarray, rows: int | None = None, *extra: bytes, interlaced: bool = False) -> bytes:
    """A PNG of 8 or 16 bits by hand, with `rows` of its rows only, all checksums right."""
    height, width = pixels.shape[:2]
    bits, kind = pixels.dtype.itemsize * 8, {1: 0, 2: 4, 3: 2, 4: 6}[pixels.size // (height * width)]
    big = pixels.astype(f">u{pixels.dtype.itemsize}")
    body = b"".join(b"\0" + row.tobytes() for row in big[:rows])
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    parts = chunk(b"IHDR", header) + b"".join(extra) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def deep_tiff(pixels: np.ndarray) -> bytes:
    """An uncompressed TIFF of 16 bits a channel by hand."""
    height, width, channels = pixels.shape
    body = pixels.astype("<u2").tobytes()
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, channels, 200),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 300),
        (277, 3, 1, channels),
        (278, 4, 1, height),
        (279, 4, 1, len(body)),
        (284, 3, 1, 1),
    ]
    entries += [(338, 3, 1, 2)] if channels == 4 else []
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    return (head.ljust(200, b"\0") + struct.pack("<4H", 16, 16, 16, 16)).ljust(300, b"\0") + body


DEEP = np.random.default_rng(1).integers(0, 4096, (9, 9, 4)).astype(np.uint16)
DEEP_FILES = {
    "rgb.png": png(DEEP[:, :, :3]), "rgba.png": png(DEEP), "grey.png": png(DEEP[:, :, 0]),
    "la.png": png(DEEP[:, :, :2]),
    "rgb.tif": deep_tiff(DEEP[:, :, :3]), "rgba.tif": deep_tiff(DEEP),
    "rgb.ppm": b"P6\n# made by hand\n9 9 4095\n" + DEEP[:, :, :3].astype(">u2").tobytes(),
    "grey.pgm": b"P5 9 9 65535\n" + DEEP[:, :, 0].astype(">u2").tobytes(),
    "plain.ppm": b"P3 9 9 4095\n" + b" ".join(b"%d" % value for value in DEEP[:, :, :3].ravel()),
}  # fmt: skip


@pytest.mark.parametrize("name", DEEP_FILES)
def test_depth_is_that_of_the_file_whatever_pillow_makes_of_it(name: str) -> None:
    with pytest.raises(DamagedError, match=r"more than 8 bits a channel \(1[26]\): convert it") as caught:
        decode_picture(DEEP_FILES[name], name)
    assert "more than 8 bits" in caught.value.reason


def test_less_than_eight_bits_are_read() -> None:
    small = b"P5 4 2 15\n" + bytes([0, 5, 10, 15, 15, 10, 5, 0])
    assert decode_picture(small, "x")[:, :, 0].tolist() == [[0, 85, 170, 255], [255, 170, 85, 0]]


def taller(content: bytes, height: int) -> bytes:
    """The same TIFF, said to have more rows than its strips hold."""
    place = next(p for kind in (3, 4) if (p := content.find(struct.pack("<HHI", 257, kind, 1))) > 0)
    return content[: place + 8] + struct.pack("<I", height) + content[place + 12 :]


NEVER_BLACK = np.random.default_rng(2).integers(1, 256, (16, 16, 3)).astype(np.uint8)
SHORT = {
    "half.png": png(NEVER_BLACK, 8),
    "a row less.png": png(NEVER_BLACK, 15),
    "grey.png": png(NEVER_BLACK[:, :, 0], 8),
    "interlaced.png": png(NEVER_BLACK, 8, interlaced=True),
    "strips.tif": taller(file(Pillow.fromarray(NEVER_BLACK), "TIFF"), 32),
    "packed.tif": taller(file(Pillow.fromarray(NEVER_BLACK), "TIFF", compression="tiff_lzw"), 32),
    "short.pgm": b"P5 16 16 100\n" + bytes(128),
    "short.ppm": b"P6 16 16 255\n" + bytes(700),
}


@pytest.mark.parametrize("name", SHORT)
def test_missing_rows_are_damage_and_never_black(name: str) -> None:
    with pytest.raises(DamagedError) as caught:
        decode_picture(SHORT[name], name)
    assert caught.value.reason.startswith("it is damaged or cut short")


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("bits", [1, 8])
def test_whole_pictures_that_end_in_black_are_read(bits: int, interlace: bool) -> None:
    pixels = NEVER_BLACK.copy()
    pixels[4:] = 0
    picture = Pillow.fromarray(pixels)
    if bits == 1:
        picture = picture.convert("1")
    content = interlaced_png(np.asarray(picture)) if interlace and bits == 8 else file(picture)
    assert np.array_equal(decode_picture(content, "x", colour=True), np.asarray(picture.convert("RGB")))


def interlaced_png(pixels: np.ndarray) -> bytes:
    """An Adam7 PNG by hand."""
    body = b""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    for left, top, right, down in passes:
        body += b"".join(b"\0" + row.tobytes() for row in pixels[top::down, left::right])
    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def test_the_first_picture_of_a_cameras_jpeg_counts() -> None:
    first, preview = Pillow.fromarray(NEVER_BLACK), Pillow.fromarray(255 - NEVER_BLACK[:8, :8])
    content = file(first, "MPO", save_all=True, append_images=[preview])
    assert Pillow.open(io.BytesIO(content)).format == "MPO"
    alone = np.asarray(Pillow.open(io.BytesIO(file(first, "JPEG"))))
    assert np.array_equal(decode_picture(content, "x"), alone)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_viewers_and_opencv_do(orientation: int) -> None:
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    turned = {1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1], 5: RAMP.T, 6: np.rot90(RAMP, -1),
              7: RAMP[::-1, ::-1].T, 8: np.rot90(RAMP)}[orientation]  # fmt: skip
    for kind in ("PNG", "TIFF"):
        assert np.array_equal(decode_picture(file(Pillow.fromarray(RAMP), kind, exif=exif), "x")[:, :, 0], turned)


def test_unreadable_exif_in_an_intact_picture_is_ignored() -> None:
    for bad in (b"rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x01\x01\x12"):
        assert np.array_equal(decode_picture(png(NEVER_BLACK, None, chunk(b"eXIf", bad)), "x"), NEVER_BLACK)
    text = chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 8\nnot hex at all\n")
    assert np.array_equal(decode_picture(png(NEVER_BLACK, None, text), "x"), NEVER_BLACK)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 9 9
%%EndComments
(witness) (w) file closefile
"""


def test_no_other_program_is_ever_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("Ghostscript was called")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", started)
    for content in (EPS, b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 32, len(EPS)) + bytes(20) + EPS):
        with pytest.raises(DamagedError, match="not a whole picture of a kind that is read"):
            decode_picture(content, "x.png")


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (MemoryError(), OutOfMemoryError, 6),
        (OSError("out of memory when reading image file"), OutOfMemoryError, 6),
        (RuntimeError("Unable to decode as exceptions were raised by all available plugins:\n  pydicom: "),
         OutOfMemoryError, 6),
        (RuntimeError("all plugins:\n  pydicom: Unable to allocate 1.2 GiB for an array"), OutOfMemoryError, 6),
        (OSError(5, "Input/output error"), ResourceError, 2),
        (OSError("image file is truncated"), DamagedError, 2),
        (ValueError("<_io.BytesIO object at 0x7f28102cb6a0>"), DamagedError, 2),
    ],
)  # fmt: skip
def test_the_machines_fault_is_never_that_of_the_data(error: Exception, kind: type[TwinrunError], code: int) -> None:
    with pytest.raises(TwinrunError) as caught, named_damage("x.png", "does not decode", "hint"):
        raise error
    assert type(caught.value) is kind
    assert caught.value.exit_code == code
    assert caught.value.message.startswith("x.png")
    assert "0x" not in caught.value.message
    if kind is DamagedError:
        assert caught.value.reason == "it is damaged or cut short"

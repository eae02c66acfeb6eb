"""Valid files with a few bytes changed: whatever is wrong with them ends in one sentence, never in a traceback."""

from __future__ import annotations

import io
import pickle
import random
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from tests.data.readers.test_cbis_ddsm import dicom

from twinrun.data.archives import open_archive
from twinrun.data.decode import decode_picture
from twinrun.data.readers.cbis_pixels import decode_dicom
from twinrun.data.readers.cifar10 import load_pickle
from twinrun.data.tables import read_table
from twinrun.study.errors import InputError, OutOfMemoryError

MUTANTS = 120  # of each file
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3)).astype(np.uint8)
NOTHING_ODD = {"RGB": ("PNG", "JPEG", "BMP", "GIF", "TIFF", "PPM", "WEBP"), "P": ("PNG", "GIF"), "1": ("TIFF", "PPM")}


def picture(kind: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(PIXELS).convert(mode).save(buffer, kind, **({"exif": exif} if kind in ("PNG", "JPEG") else {}))
    return buffer.getvalue()


def packed(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a/gr\u00fcn.txt", b"x" * 300)
            archive.writestr("b.txt", b"y" * 30)
    else:
        form = {"pax": tarfile.PAX_FORMAT, "gnu": tarfile.GNU_FORMAT, "gz": tarfile.PAX_FORMAT}[kind]
        with tarfile.open(fileobj=buffer, mode="w:gz" if kind == "gz" else "w", format=form) as tar:
            for name in ("a/gr\u00fcn.txt", "b" * 120):
                info = tarfile.TarInfo(name)
                info.size, info.mtime = 30, 1.5 if form == tarfile.PAX_FORMAT else 1
                tar.addfile(info, io.BytesIO(b"y" * 30))
    return buffer.getvalue()


def read_archive(content: bytes, folder: Path) -> None:
    (folder / "x").write_bytes(content)
    with open_archive(folder / "x") as archive:
        for name in archive.names:
            archive.read(name)


FILES: dict[str, tuple[bytes, Callable[[bytes, Path], object]]] = {
    f"{mode}.{kind}": (picture(kind, mode), lambda content, _: decode_picture(content, "x"))
    for mode, kinds in NOTHING_ODD.items()
    for kind in kinds
}
FILES |= {kind: (packed(kind), read_archive) for kind in ("zip", "pax", "gnu", "gz")}
FILES |= {
    "dicom": (dicom(np.arange(30, dtype=np.uint16).reshape(5, 6)), lambda content, _: decode_dicom(content, "x")),
    "csv": ('path,label,"split"\na.png,"\u00e4,1",train\n'.encode(), lambda c, _: read_table(c, "x", ("path",), "")),
}
for _protocol in (2, 4):
    _batch = pickle.dumps({b"data": PIXELS.reshape(12, 30), b"labels": [0, 300, -1]}, _protocol)
    FILES[f"pickle {_protocol}"] = (_batch, lambda content, _: load_pickle(content, "x"))


def mutate(content: bytes, rng: random.Random) -> bytes:
    """One to four changes: bits, bytes of meaning such as 0 and 255, digits, pieces left out, doubled or cut off."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place, length = rng.randrange(len(changed)), rng.randint(1, 9)
        kind = rng.randrange(6)
        if kind == 0:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[place : place + length] = rng.choice([b"\0", b"\xff", b"\x7f", b"9", b"-", b"\\", b","]) * length
        elif kind == 2:
            changed[place : place + length] = rng.randbytes(length)
        elif kind == 3:
            del changed[place : place + length]
        elif kind == 4:
            changed[place:place] = changed[place : place + length]
        elif len(changed) > 1:
            del changed[max(1, place) :]
        if not changed:
            changed = bytearray(b"\0")
    return bytes(changed)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", FILES)
def test_a_mutant_is_read_or_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    content, read = FILES[name]
    read(content, tmp_path)
    rng = random.Random(name)
    refused = 0
    for number in range(MUTANTS):
        mutant = mutate(content, rng)
        try:
            read(mutant, tmp_path)
        except InputError as error:
            refused += 1
            memory = isinstance(error, OutOfMemoryError)
            odd = [letter for letter in error.message if unicodedata.category(letter) in ("Cc", "Cs")]
            assert (memory, odd) == (False, []), f"mutant {number}: {error!r}"  # noqa: PT017
        except Exception as error:
            raise AssertionError(f"mutant {number}: {mutant!r}") from error
    assert refused > MUTANTS // 20

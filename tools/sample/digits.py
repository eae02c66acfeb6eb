"""The sample data set `digits`: scikit-learn's 1,797 real handwritten digits as a CIFAR-10 python-version archive.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (the test part, 8x8, 0..16).
"""

from __future__ import annotations

import struct

import numpy as np
from tools.sample.bits import Bits
from tools.sample.containers import gzip_bytes, tar_bytes

from twinrun.data.readers.cifar10 import META, ROW_BYTES, TEST_BATCH, TRAIN_BATCHES

TEST_PER_CLASS = 36
_FOLDER = "cifar-10-batches-py/"
# Pixels repeat 4 times, rows 4 times (32 bytes), channels 3 times (1024 bytes): almost nothing else is left.
_DISTANCES = (1, 32, 1024)


def digits_archive() -> bytes:
    """The .tar.gz: 1,437 train images in five batches, 360 test images (36 a class), 32x32, three equal channels."""
    # Imported here: scikit-learn is slow to import and needed for nothing else.
    from sklearn.datasets import load_digits

    digits = load_digits()
    labels = digits.target.astype(np.int64)
    grey = digits.images.astype(np.int64) * 255 // 16
    rows = np.tile(grey.repeat(4, axis=1).repeat(4, axis=2).reshape(len(labels), -1), 3).astype(np.uint8)
    # Sorting random keys is a shuffle that needs no library's shuffle.
    order = np.argsort(Bits("twinrun sample digits order").grid(1 << 31, len(labels)), kind="stable")
    test = np.sort(np.concatenate([np.flatnonzero(labels[order] == label)[:TEST_PER_CLASS] for label in range(10)]))
    held_out = order[test]
    batches = dict(zip(TRAIN_BATCHES, np.array_split(np.delete(order, test), len(TRAIN_BATCHES)), strict=True))
    batches[TEST_BATCH] = held_out
    members = {_FOLDER + META: _meta(len(batches[TRAIN_BATCHES[0]]))}
    for number, (name, chosen) in enumerate(batches.items(), 1):
        text = "testing batch 1 of 1" if name == TEST_BATCH else f"training batch {number} of {len(TRAIN_BATCHES)}"
        names = [f"digit_s_{index:06d}.png" for index in chosen.tolist()]
        members[_FOLDER + name] = _batch(text, labels[chosen].tolist(), rows[chosen].tobytes(), names)
    return gzip_bytes(tar_bytes(members), _DISTANCES)


# Pickle opcodes by hand, in the form that Python 2 wrote the real files in (protocol 2): what pickle and numpy write
# depends on their versions.
def _string(text: str | bytes) -> bytes:
    raw = text.encode("ascii") if isinstance(text, str) else text
    if len(raw) < 256:
        return b"U" + struct.pack("<B", len(raw)) + raw  # SHORT_BINSTRING
    return b"T" + struct.pack("<i", len(raw)) + raw  # BINSTRING


def _integer(value: int) -> bytes:
    if value < 256:
        return b"K" + struct.pack("<B", value)  # BININT1
    return b"M" + struct.pack("<H", value) if value < 65536 else b"J" + struct.pack("<i", value)  # BININT2, BININT


def _list(items: list[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"  # EMPTY_LIST MARK ... APPENDS


def _dictionary(items: dict[str, bytes]) -> bytes:
    # PROTO 2, EMPTY_DICT, MARK, keys and values, SETITEMS, STOP
    return b"\x80\x02}(" + b"".join(_string(key) + value for key, value in items.items()) + b"u."


def _array(count: int, raw: bytes) -> bytes:
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _string("b") + b"\x87R"
    dtype = (
        b"cnumpy\ndtype\n"
        + _string("u1")
        + b"K\x00K\x01\x87R(K\x03"
        + _string("|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    shape = _integer(count) + _integer(ROW_BYTES) + b"\x86"
    return empty + b"(K\x01" + shape + dtype + b"\x89" + _string(raw) + b"tb"


def _batch(text: str, labels: list[int], raw: bytes, names: list[str]) -> bytes:
    items = {
        "batch_label": _string(text),
        "labels": _list([_integer(label) for label in labels]),
        "data": _array(len(labels), raw),
        "filenames": _list([_string(name) for name in names]),
    }
    return _dictionary(items)


def _meta(batch_size: int) -> bytes:
    names = _list([_string(str(label)) for label in range(10)])
    return _dictionary(
        {"num_cases_per_batch": _integer(batch_size), "label_names": names, "num_vis": _integer(ROW_BYTES)}
    )

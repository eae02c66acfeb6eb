"""Reader of the CIFAR-10 python version: batches of 3072-byte rows in pickles that are never trusted.

Format: https://www.cs.toronto.edu/~kriz/cifar.html
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from twinrun.data.archives import Archive
from twinrun.data.example import Example, Image, Index
from twinrun.data.faults import named_damage
from twinrun.study.errors import InputError

TRAIN_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST_BATCH = "test_batch"
META = "batches.meta"
ROW_BYTES = 3072
_HINT = "fetch the CIFAR-10 python version again (cifar-10-python.tar.gz)"


@dataclass
class _Dtype:
    """Stands for numpy.dtype in a pickle: it only keeps its code."""

    code: Any
    align: Any = 0
    copy: Any = 1

    def __setstate__(self, state: Any) -> None:
        """Byte order and flags mean nothing for single bytes."""


class _Array:
    """Stands for numpy.ndarray in a pickle: shape and bytes, checked."""

    values: Image

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype) or dtype.code not in (b"u1", "u1") or not isinstance(raw, bytes):
            raise pickle.UnpicklingError("its array is not of type uint8")
        self.values = np.frombuffer(raw, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    return _Array()


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("it encodes text in another way than latin1")
    return text.encode("latin1")


# Stand-ins, so that not even numpy's own unpickling runs on bytes from outside.
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no such file needs") from None


def load_pickle(content: bytes, where: str) -> dict[str, Any]:
    """The dict in a CIFAR-10 pickle with str keys; arrays become uint8 numpy arrays.

    Raises InputError naming `where` for anything that such files do not hold; nothing of it is executed.
    """
    # A hostile or cut pickle can raise nearly anything inside the unpickler.
    with named_damage(where, "is not a CIFAR-10 pickle", _HINT):
        try:
            value = _Unpickler(io.BytesIO(content), encoding="bytes").load()
        except MemoryError:
            bytearray(4 * len(content))  # fails again where memory is short: a true batch needs no more
            raise pickle.UnpicklingError("it asks for more memory than a file of its size can need") from None
    if not isinstance(value, dict):
        raise InputError(f"{where} is not a CIFAR-10 pickle: it holds no dictionary", _HINT)
    keys = [key.decode("latin1") if isinstance(key, bytes) else str(key) for key in value]
    plain = [item.values if isinstance(item, _Array) else item for item in value.values()]
    return dict(zip(keys, plain, strict=True))


def index_cifar10(archive: Archive) -> Index:
    """Classes and examples of CIFAR-10: ids like data_batch_1/00042, group = batch, images (32, 32, 3).

    Raises InputError for missing batches, rows of another width, and labels that fit neither rows nor classes.
    """
    folder = _folder(archive)
    names = load_pickle(archive.read(f"{folder}{META}"), f"{archive.path}: {folder}{META}").get("label_names")
    if not isinstance(names, list) or len(names) < 2:
        raise InputError(f"{archive.path}: {folder}{META}: label_names is missing or too short", _HINT)
    try:
        classes = tuple(name.decode() if isinstance(name, bytes) else str(name).encode().decode() for name in names)
    except UnicodeError as error:
        raise InputError(f"{archive.path}: {folder}{META}: a class has a name that is not UTF-8", _HINT) from error
    if twice := sorted({name for name in classes if classes.count(name) > 1}):
        raise InputError(f"{archive.path}: {folder}{META}: two classes are named {', '.join(twice)}", _HINT)
    arrays: dict[str, Image] = {}
    examples = []
    for batch in (*TRAIN_BATCHES, TEST_BATCH):
        rows, labels = _batch(archive, f"{folder}{batch}", len(classes))
        arrays[batch] = rows
        split = "test" if batch == TEST_BATCH else "train"
        examples += [Example(f"{batch}/{i:05d}", split, label, batch, (batch, i)) for i, label in enumerate(labels)]  # type: ignore[arg-type]

    def load(example: Example) -> Image:
        batch, row = example.where
        image: Image = arrays[batch][row].reshape(3, 32, 32).transpose(1, 2, 0)
        return image

    return Index(classes, tuple(examples), load)


def _folder(archive: Archive) -> str:
    metas = [name for name in archive.names if PurePosixPath(name).name == META]
    if len(metas) != 1:
        raise InputError(f"{archive.path}: {len(metas)} files named {META} in it, where one is expected", _HINT)
    return metas[0].removesuffix(META)


def _batch(archive: Archive, name: str, n_classes: int) -> tuple[Image, list[int]]:
    where = f"{archive.path}: {name}"
    batch = load_pickle(archive.read(name), where)
    rows, labels = batch.get("data"), batch.get("labels")
    if not isinstance(rows, np.ndarray) or rows.ndim != 2 or rows.shape[1] != ROW_BYTES:
        raise InputError(f"{where}: data is not an array of rows of {ROW_BYTES} bytes", _HINT)
    if not isinstance(labels, list) or len(labels) != len(rows):
        count = len(labels) if isinstance(labels, list) else "no"
        raise InputError(f"{where}: {count} labels for {len(rows)} images", _HINT)
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < n_classes:
            raise InputError(f"{where}: label {label!r} of row {row} is unknown; allowed: 0 to {n_classes - 1}", _HINT)
    return rows, labels

"""The packed arrays of a task as training reads them: memory-mapped, checked against their manifest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinrun.study.errors import InputError
from twinrun.study.files import DAMAGED_ARRAY, digest, read_json, refuse_pipe, sha256_file

PACKED_SCHEMA = 2
IMAGES = "images.npy"
LABELS = "labels.npy"
IDS = "ids.csv"
MANIFEST = "manifest.json"
_CHUNK_BYTES = 1 << 22  # of pixels under one digest, at most
_CHUNK_ROWS = 128
_PART_BYTES = 1 << 18  # read at a time: what stays in a cache
_DIGEST_KEYS = ("schema", "classes", "n_train", "n_test", "channel_mean", "channel_std", "chunks", "files")
_KEYS = (*_DIGEST_KEYS, "task", "channels", "image_size", "params_digest", "digest")


@dataclass(frozen=True)
class Packed:
    """images uint8 (n_train + n_test, channels, image_size, image_size), train first; labels int64, read-only.

    channel_mean and channel_std are those of the train images on the 0..1 scale.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    n_train: int
    n_test: int
    classes: tuple[str, ...]
    channels: int
    image_size: int
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]
    digest: str
    manifest: dict[str, Any]


def data_digest(manifest: dict[str, Any]) -> str:
    """SHA-256 of what training reads of a packed task: arrays, classes, split, channel statistics; not their source."""
    return digest({key: manifest[key] for key in _DIGEST_KEYS})


def chunk_rows(row: int) -> int:
    """How many images of `row` bytes each have one digest together: a matter of their size alone, on every machine."""
    return max(1, min(_CHUNK_ROWS, _CHUNK_BYTES // row))


def chunk_digests(path: Path, row: int, count: int) -> list[str]:
    """SHA-256 of each chunk of the `count` rows of `row` bytes at the end of a file."""
    digests = []
    with path.open("rb") as stream:
        end = os.fstat(stream.fileno()).st_size
        for start in range(end - count * row, end, step := chunk_rows(row) * row):
            hashed = hashlib.sha256()
            for part in read_span(stream.fileno(), start, min(end, start + step)):
                hashed.update(part)
            digests.append(hashed.hexdigest())
    return digests


def read_span(descriptor: int, start: int, end: int) -> Iterator[memoryview]:
    """The bytes from `start` to `end` of an open file, in parts, each valid until the next; fewer when it ends."""
    buffer = memoryview(bytearray(min(_PART_BYTES, max(0, end - start))))
    while start < end:
        count = os.preadv(descriptor, [buffer[: end - start]], start)
        if not count:
            return
        yield buffer[:count]
        start += count


def load_packed(folder: Path, params_digest: str) -> Packed:
    """Open the arrays that `twinrun prepare` wrote into `folder`; the images stay on the disk until they are read.

    `params_digest` is that of the task's data block. Raises InputError naming the file when one is missing, damaged,
    not the one that the manifest describes, or made for other params.
    """
    if not (folder / MANIFEST).exists():
        raise InputError(f"{folder / MANIFEST}: no such file: the task is not prepared", _remedy(folder))
    manifest = read_json(folder / MANIFEST)
    content = manifest if isinstance(manifest, dict) else {}
    if (schema := content.get("schema", PACKED_SCHEMA)) != PACKED_SCHEMA:
        message = f"{folder / MANIFEST}: schema {schema!r}, but this version reads {PACKED_SCHEMA}"
        raise InputError(message, _remedy(folder))
    if missing := [key for key in _KEYS if key not in content]:
        raise InputError(f"{folder / MANIFEST}: {missing[0]} is missing in it", _remedy(folder))
    if manifest["digest"] != data_digest(manifest):
        raise InputError(f"{folder / MANIFEST}: its digest is not that of its content: it was edited", _remedy(folder))
    if manifest["params_digest"] != params_digest:
        raise InputError(f"{folder}: prepared for other params of the task's data", _remedy(folder))
    count = manifest["n_train"] + manifest["n_test"]
    size, channels = manifest["image_size"], manifest["channels"]
    images = _array(folder / IMAGES, np.uint8, (count, channels, size, size))
    labels = _array(folder / LABELS, np.int64, (count,))
    # All of them at every start, at more than a gigabyte a second: a run's record vouches for its data.
    if sha256_file(folder / LABELS) != manifest["files"][LABELS]:
        message = f"{folder / LABELS}: its SHA-256 is not the recorded one: it was changed or is damaged"
        raise InputError(message, _remedy(folder))
    _check_chunks(folder, images, manifest["chunks"])
    if count and not (labels.min() >= 0 and labels.max() < len(manifest["classes"])):
        raise InputError(f"{folder / LABELS}: a label is outside 0 to {len(manifest['classes']) - 1}", _remedy(folder))
    return Packed(
        images, labels, manifest["n_train"], manifest["n_test"], tuple(manifest["classes"]), channels, size,
        tuple(manifest["channel_mean"]), tuple(manifest["channel_std"]), manifest["digest"], manifest,
    )  # fmt: skip


def _check_chunks(folder: Path, images: NDArray[np.uint8], recorded: list[str]) -> None:
    row = images[0].nbytes
    actual = chunk_digests(folder / IMAGES, row, len(images))
    extra = (folder / IMAGES).stat().st_size - images.offset - images.nbytes  # type: ignore[attr-defined]  # is mapped
    if actual != recorded or extra:
        pairs = enumerate(zip_longest(actual, recorded))
        first = next((number for number, (now, then) in pairs if now != then), len(actual)) * chunk_rows(row)
        message = f"{folder / IMAGES}: from image {first} on it is not as recorded: it was changed or is damaged"
        raise InputError(message, _remedy(folder))


def _array(path: Path, dtype: type[np.generic], shape: tuple[int, ...]) -> NDArray[Any]:
    refuse_pipe(path, _remedy(path.parent))
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", _remedy(path.parent)) from error
    except (OSError, *DAMAGED_ARRAY) as error:
        raise InputError(f"{path}: not a whole .npy file: {error}", _remedy(path.parent)) from error
    if array.dtype != np.dtype(dtype) or array.shape != shape:
        wanted = f"{np.dtype(dtype)} {shape}"
        raise InputError(f"{path}: {array.dtype} {array.shape}, but the manifest says {wanted}", _remedy(path.parent))
    return array


def _remedy(folder: Path) -> str:
    return f"make it again: twinrun prepare {folder.name}"

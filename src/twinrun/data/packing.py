"""Decode and pack images by all cores: every process writes its rows into the one file; a killed run goes on."""

from __future__ import annotations

import gc
import hashlib
import io
import os
import shutil
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from twinrun.data.example import Image, Index
from twinrun.data.packed import IMAGES
from twinrun.study.errors import DamagedError, InputError, OutOfMemoryError, ResourceError
from twinrun.study.files import read_json, write_json

Progress = Callable[[int, int], None]
PROGRESS = "progress.json"
MOMENTS = "moments.bin"
_CHUNK_BYTES = 1 << 22  # packed bytes that one process makes at a time, at most
_CHUNK_IMAGES = 128
_KEPT_BYTES = 24 << 20  # below the 32 MiB from which glibc's malloc always returns memory
_NOTE_SECONDS = 2.0  # between two notes of how far it is
_MEMORY = 1_700_000_000  # bytes for all processes
_PART_BYTES = 1 << 18  # read at a time: what stays in a cache
_MIXED = "a data set is one or the other"


@dataclass(frozen=True)
class Rows:
    """What was packed: positions of the images kept, why others were not, sums and sums of squares (n, channels, 2)."""

    kept: tuple[int, ...]
    skipped: dict[int, str]
    moments: NDArray[np.int64]
    channels: int
    sha256: str


@dataclass(frozen=True)
class _Job:
    """What every process knows: inherited by fork, so that nothing of it is pickled."""

    index: Index
    size: int
    channels: int
    skip: bool
    chunk: int
    images: int  # file descriptors
    moments: int
    header: int  # bytes before the first row

    @property
    def row(self) -> int:
        return self.channels * self.size * self.size


_job: _Job
_row: NDArray[np.uint8]  # one for all images, so that it stays in the cache


def pack_images(index: Index, size: int, folder: Path, key: str, *, skip: bool, progress: Progress | None) -> Rows:
    """Write images.npy (n, channels, size, size) into `folder`, in order; memory holds a few chunks, never the whole.

    What an earlier, killed call left in `folder` under the same `key` is checked by its digest and kept. `skip` leaves
    images that raise DamagedError out; without it the first one ends the work.
    """
    total = len(index.examples)
    first = _first(index, size, skip)
    channels = first.shape[2]
    row = channels * size * size
    header = npy_header((total, channels, size, size))
    chunk = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // row))
    for name in (IMAGES, MOMENTS):
        (folder / name).touch()
    with (folder / IMAGES).open("r+b") as images, (folder / MOMENTS).open("r+b") as moments:
        job = _Job(index, size, channels, skip, chunk, images.fileno(), moments.fileno(), len(header))
        hashed, done, skipped = _resume(folder, key, job, header)
        missing = (total - done * chunk) * row
        if missing > (free := shutil.disk_usage(folder).free):
            hint = "free some space, or name a smaller image_size"
            message = f"{folder.parent}: {missing / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free"
            raise ResourceError(message, hint)
        noted = time.monotonic()
        for number, failed in _chunks(job, done, -(-total // chunk), first.nbytes):
            skipped |= dict(failed)
            end = min(total, (number + 1) * chunk)
            for part in read_span(images.fileno(), len(header) + number * chunk * row, len(header) + end * row):
                hashed.update(part)
            if time.monotonic() - noted > _NOTE_SECONDS:
                noted = time.monotonic()
                note = {"key": key, "chunks": number + 1, "sha256": hashed.hexdigest()}
                write_json(folder / PROGRESS, note | {"skipped": list(skipped.items())})
            if progress:
                progress(end, total)
        kept = tuple(position for position in range(total) if position not in skipped)
        if skipped:
            hashed = _close_gaps(job, kept)
        os.fsync(images.fileno())
        sums = np.fromfile(folder / MOMENTS, np.int64).reshape(total, channels, 2)[list(kept)]
    return Rows(kept, skipped, sums, channels, hashed.hexdigest())


def _first(index: Index, size: int, skip: bool) -> Image:
    """The first image that can be had: it tells the channels and how large the images are."""
    for example in index.examples:
        try:
            return index.load(example)
        except DamagedError:
            if not skip:
                raise
    raise InputError("not one of the images can be decoded", "check the source")


def _resume(folder: Path, key: str, job: _Job, header: bytes) -> tuple[Any, int, dict[int, str]]:
    """Running SHA-256, chunks done and images skipped: those of a killed run when its rows are as it noted them."""
    if (folder / PROGRESS).exists():
        note = read_json(folder / PROGRESS)
        if isinstance(note, dict) and note.get("key") == key:
            hashed = hashlib.sha256()
            end = min(len(job.index.examples), note["chunks"] * job.chunk)
            for part in read_span(job.images, 0, job.header + end * job.row):
                hashed.update(part)
            if hashed.hexdigest() == note["sha256"]:
                return hashed, note["chunks"], dict(note["skipped"])
    os.ftruncate(job.images, 0)
    os.ftruncate(job.moments, 0)
    write_at(job.images, header, 0)
    return hashlib.sha256(header), 0, {}


def _chunks(job: _Job, begin: int, end: int, image_bytes: int) -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """Number of each finished chunk and what failed in it, in order; a few chunks ahead are in work."""
    # Decoding holds about ten times the 8-bit image: file, 16-bit pixels, padded square.
    cores = len(os.sched_getaffinity(0))
    workers = max(1, min(cores, end - begin, _MEMORY // (50_000_000 + 10 * image_bytes)))
    context = get_context("fork")  # the index is inherited: a decompressed archive need not be opened again
    with ProcessPoolExecutor(workers, context, _begin, (job, os.getpid())) as pool:
        pending: deque[tuple[int, Future[list[tuple[int, str]]]]] = deque()
        try:
            for number in range(begin, end):
                pending.append((number, pool.submit(_pack_chunk, number)))
                if len(pending) >= 4 * workers:
                    yield pending[0][0], pending.popleft()[1].result()
            while pending:
                yield pending[0][0], pending.popleft()[1].result()
        except BrokenProcessPool as error:
            message = "a process that decodes images was killed"
            raise OutOfMemoryError(message, "mostly memory ran out: give more; the same command goes on") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(job: _Job, parent: int) -> None:
    global _job, _row
    _job = job
    _row = np.empty((job.channels, job.size, job.size), np.uint8)
    # From its first large block on, malloc keeps what is freed: the pages of every image need not be mapped again.
    np.empty(_KEPT_BYTES, np.uint8)
    gc.freeze()  # what is inherited is not searched for garbage again and again
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # ctrl-C reaches all of them: the parent ends the work
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # A killed parent can tell nobody, and its pool would wait for ever.
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _pack_chunk(number: int) -> list[tuple[int, str]]:
    """Decode one chunk and write its rows; positions and reasons of the images that could not be had."""
    start = number * _job.chunk
    examples = _job.index.examples[start : start + _job.chunk]
    moments = np.zeros((len(examples), _job.channels, 2), np.int64)
    failed = []
    for place, example in enumerate(examples):
        try:
            image = fit_square(_job.index.load(example), _job.size)
        except DamagedError as error:
            if not _job.skip:
                raise
            failed.append((start + place, error.reason))
            image = np.zeros((_job.size, _job.size, _job.channels), np.uint8)
        if image.shape[2] != _job.channels:
            raise InputError(f"grey and colour images are mixed near {example.id}", _MIXED)
        _row[...] = image.transpose(2, 0, 1)
        moments[place] = moments_of(_row)
        write_at(_job.images, _row.data.cast("B"), _job.header + (start + place) * _job.row)
    write_at(_job.moments, moments.tobytes(), start * _job.channels * 16)
    return failed


def _close_gaps(job: _Job, kept: tuple[int, ...]) -> Any:
    """Move the rows of the images kept together and write the header anew; the SHA-256 of the whole is returned."""
    header = npy_header((len(kept), job.channels, job.size, job.size))
    hashed = hashlib.sha256(header)
    end = len(header)
    # From the front: a row only ever moves towards it, unless the header grew, which its padding prevents.
    for position in kept:
        for part in read_span(job.images, start := job.header + position * job.row, start + job.row):
            hashed.update(part)
            write_at(job.images, part, end)
            end += len(part)
    os.ftruncate(job.images, end)
    write_at(job.images, header, 0)
    return hashed


def fit_square(image: Image, size: int) -> Image:
    """Pad (height, width, channels) to a square with zeros at the right or the bottom and resize it to `size`.

    Areas are averaged (Pillow's BOX, fixed-point for uint8); an image of that size already stays as it is.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    if (height, width) != (side, side):
        # At the right: mammograms have the chest wall at the left edge, and it should stay there.
        square = np.zeros((side, side, image.shape[2]), np.uint8)
        square[:height, :width] = image
        image = square
    if side == size:
        return image
    grey = image.shape[2] == 1
    picture = Pillow.fromarray(np.ascontiguousarray(image[:, :, 0] if grey else image))
    resized = np.asarray(picture.resize((size, size), Pillow.Resampling.BOX))
    return resized[:, :, None] if grey else resized


def moments_of(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Exact sum and sum of squares of each channel, (channels, 2)."""
    if image.shape[-1] <= 256:
        # Fastest: 256 bytes sum to less than 2^16, and their squares to less than 2^24, so that float32 holds them
        # exactly in whatever order they are added.
        total = image.sum(1, dtype=np.uint16)
        squares = np.einsum("cyx,cyx->cy", image, image, dtype=np.float32, casting="unsafe")
    else:
        total = image.sum(-1, dtype=np.uint32)
        squares = np.multiply(image, image, dtype=np.uint16).sum(-1, dtype=np.uint32)
    return np.stack([part.sum(1, dtype=np.float64) for part in (total, squares)], -1).astype(np.int64)


def npy_header(shape: tuple[int, ...]) -> bytes:
    """The beginning of a .npy file of uint8 of that shape."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def read_span(descriptor: int, start: int, end: int) -> Iterator[memoryview]:
    """The bytes from `start` to `end` of an open file, in parts, each valid until the next; fewer when it ends."""
    buffer = memoryview(bytearray(min(_PART_BYTES, max(0, end - start))))
    while start < end:
        count = os.preadv(descriptor, [buffer[: end - start]], start)
        if not count:
            return
        yield buffer[:count]
        start += count


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of it at that place of an open file, whose position stays as it is."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written

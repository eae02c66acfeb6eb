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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from pydantic import BaseModel

from twinrun.data.example import Image, Index
from twinrun.data.packed import IMAGES, chunk_digests, chunk_rows, read_span
from twinrun.study.documents import read_document
from twinrun.study.errors import DamagedError, InputError, MismatchError, OutOfMemoryError, ResourceError
from twinrun.study.files import write_json

Progress = Callable[[int, int], None]
PROGRESS = "progress.json"
MOMENTS = "moments.bin"
_KEPT_BYTES = 24 << 20  # below the 32 MiB from which glibc's malloc always returns memory
_NOTE_SECONDS = 2.0  # between two notes of how far it is
_MEMORY = 1_700_000_000  # bytes for all processes
_MIXED = "a data set is one or the other"


@dataclass(frozen=True)
class Rows:
    """What was packed: positions of the images kept, why others were not, sums and sums of squares (n, channels, 2)."""

    kept: tuple[int, ...]
    skipped: dict[int, str]
    moments: NDArray[np.int64]
    channels: int
    chunks: list[str]  # SHA-256 of each


@dataclass(frozen=True)
class _Job:
    """What every process knows: inherited by fork, so that nothing of it is pickled."""

    index: Index
    size: int
    channels: int
    skip: bool
    chunk: int  # rows that one process makes at a time, and that have one digest
    images: int  # file descriptors
    moments: int
    header: int  # bytes before the first row

    @property
    def row(self) -> int:
        return self.channels * self.size * self.size


@dataclass(frozen=True)
class _Done:
    """A chunk as it lies in the file: the SHA-256 of its rows, positions and reasons of the images not to be had."""

    sha256: str
    failed: list[tuple[int, str]]


class _Note(BaseModel):
    """How far a packing is."""

    key: str
    chunks: list[tuple[str, list[tuple[int, str]]]]


_job: _Job


def pack_images(index: Index, size: int, folder: Path, key: str, *, skip: bool, progress: Progress | None) -> Rows:
    """Write images.npy (n, channels, size, size) into `folder`, in order; memory holds a few chunks, never the whole.

    Each process hashes the chunk of rows that it made before it is written. What an earlier, killed call left in
    `folder` under the same `key` is held against these digests, and what is not as it was is made again. `skip` leaves
    images that raise DamagedError out; without it the first one ends the work.
    """
    total = len(index.examples)
    first = _first(index, size, skip)
    channels = first.shape[2]
    row = channels * size * size
    header = npy_header((total, channels, size, size))
    chunk = chunk_rows(row)
    for name in (IMAGES, MOMENTS):
        (folder / name).touch()
    with (folder / IMAGES).open("r+b") as images, (folder / MOMENTS).open("r+b") as moments:
        job = _Job(index, size, channels, skip, chunk, images.fileno(), moments.fileno(), len(header))
        done = _resume(folder, key, job, header)
        missing = (total - len(done) * chunk) * row
        if missing > (free := shutil.disk_usage(folder).free):
            hint = "free some space, or name a smaller image_size"
            message = f"{folder.parent}: {missing / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB free"
            raise ResourceError(message, hint)
        noted = time.monotonic()
        for number, finished in _chunks(job, done, -(-total // chunk), first.nbytes):
            done[number : number + 1] = [finished]
            if time.monotonic() - noted > _NOTE_SECONDS:
                noted = time.monotonic()
                write_json(folder / PROGRESS, {"key": key, "chunks": [(part.sha256, part.failed) for part in done]})
            if progress:
                progress(min(total, (number + 1) * chunk), total)
        skipped = {position: reason for finished in done for position, reason in finished.failed}
        kept = tuple(position for position in range(total) if position not in skipped)
        digests = [finished.sha256 for finished in done]
        if skipped:
            _close_gaps(job, kept)
            digests = chunk_digests(folder / IMAGES, row, len(kept))
        os.fsync(images.fileno())
        sums = np.fromfile(folder / MOMENTS, np.int64).reshape(total, channels, 2)[list(kept)]
    return Rows(kept, skipped, sums, channels, digests)


def _first(index: Index, size: int, skip: bool) -> Image:
    """The first image that can be had: it tells the channels and how large the images are."""
    for example in index.examples:
        try:
            return index.load(example)
        except DamagedError:
            if not skip:
                raise
    raise InputError("not one of the images can be decoded", "check the source")


def _resume(folder: Path, key: str, job: _Job, header: bytes) -> list[_Done]:
    """The first chunks as a killed run noted them; whether they still are so, the processes will see."""
    done: list[_Done] = []
    if (folder / PROGRESS).exists():
        try:
            note = read_document(folder / PROGRESS, _Note, "the note of a packing", "")
            done = [_Done(sha256, failed) for sha256, failed in note.chunks if note.key == key]
        except ResourceError:
            raise
        except (InputError, MismatchError):
            done = []  # a note that is damaged is as good as none
    if not done:
        os.ftruncate(job.images, 0)
        os.ftruncate(job.moments, 0)
    write_at(job.images, header, 0)
    return done


def _chunks(job: _Job, noted: Sequence[_Done], end: int, image_bytes: int) -> Iterator[tuple[int, _Done]]:
    """Each finished chunk with its number, in order; a few chunks ahead are in work."""
    # Decoding holds about ten times the 8-bit image: file, 16-bit pixels, padded square.
    cores = len(os.sched_getaffinity(0))
    workers = max(1, min(cores, end, _MEMORY // (50_000_000 + 10 * image_bytes)))
    context = get_context("fork")  # the index is inherited: a decompressed archive need not be opened again
    with ProcessPoolExecutor(workers, context, _begin, (job, os.getpid())) as pool:
        pending: deque[tuple[int, Future[_Done]]] = deque()
        known = dict(enumerate(noted))
        try:
            for number in range(end):
                pending.append((number, pool.submit(_pack_chunk, number, known.get(number))))
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
    global _job
    _job = job
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


def _pack_chunk(number: int, noted: _Done | None) -> _Done:
    """Make one chunk and write its rows and their moments; one that lies there as it was noted is kept."""
    start = number * _job.chunk
    examples = _job.index.examples[start : start + _job.chunk]
    begin = _job.header + start * _job.row
    moments = np.zeros((len(examples), _job.channels, 2), np.int64)
    if noted and (kept := _rows_as_noted(noted, begin, len(examples))) is not None:
        for place, row in enumerate(kept):
            moments[place] = moments_of(row)
        write_at(_job.moments, moments.tobytes(), start * _job.channels * 16)
        return noted
    hashed = hashlib.sha256()
    failed = []
    for place, example in enumerate(examples):
        try:
            row = fit_square(_job.index.load(example), _job.size)
        except DamagedError as error:
            if not _job.skip:
                raise
            failed.append((start + place, error.reason))
            row = np.zeros((_job.channels, _job.size, _job.size), np.uint8)
        if len(row) != _job.channels:
            raise InputError(f"grey and colour images are mixed near {example.id}", _MIXED)
        moments[place] = moments_of(row)
        content = row.data.cast("B")
        hashed.update(content)  # now, while it is in the cache
        write_at(_job.images, content, begin + place * _job.row)
    write_at(_job.moments, moments.tobytes(), start * _job.channels * 16)
    return _Done(hashed.hexdigest(), failed)


def _rows_as_noted(noted: _Done, begin: int, count: int) -> NDArray[np.uint8] | None:
    """The rows in the file, (count, channels, size, size), where their digest is the noted one."""
    content = b"".join(bytes(part) for part in read_span(_job.images, begin, begin + count * _job.row))
    if hashlib.sha256(content).hexdigest() != noted.sha256:
        return None
    return np.frombuffer(content, np.uint8).reshape(count, _job.channels, _job.size, _job.size)


def _close_gaps(job: _Job, kept: tuple[int, ...]) -> None:
    """Move the rows of the images kept together and write the header anew."""
    header = npy_header((len(kept), job.channels, job.size, job.size))
    end = len(header)
    # From the front: a row only ever moves towards it, unless the header grew, which its padding prevents.
    for position in kept:
        for part in read_span(job.images, start := job.header + position * job.row, start + job.row):
            write_at(job.images, part, end)
            end += len(part)
    os.ftruncate(job.images, end)
    write_at(job.images, header, 0)


def fit_square(image: Image, size: int) -> NDArray[np.uint8]:
    """Pad (height, width, channels) to a square with zeros at the right or the bottom and resize it to `size`.

    Returns (channels, size, size). Areas are averaged (Pillow's BOX, fixed-point for uint8), each channel by itself;
    an image of that size already stays as it is.
    """
    planes = image.transpose(2, 0, 1)
    channels, height, width = planes.shape
    side = max(height, width)
    if (height, width) != (side, side):
        # At the right: mammograms have the chest wall at the left edge, and it should stay there.
        square = np.zeros((channels, side, side), np.uint8)
        square[:, :height, :width] = planes
        planes = square
    planes = np.ascontiguousarray(planes)
    if side == size:
        return planes
    pictures = [Pillow.fromarray(plane).resize((size, size), Pillow.Resampling.BOX) for plane in planes]
    return np.stack([np.asarray(picture) for picture in pictures])


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


def write_at(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    """Write all of it at that place of an open file, whose position stays as it is."""
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written

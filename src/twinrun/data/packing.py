"""Decode and pack images by all cores: every process writes its rows into the one file; a killed run goes on."""

from __future__ import annotations

import gc
import hashlib
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

from twinrun.data.example import Image, Index
from twinrun.data.packed import IMAGES
from twinrun.data.rows import fit_square, moments_of, npy_header, read_span, write_at
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
        found = np.fromfile(folder / MOMENTS, np.int64).reshape(total, channels, 2)[list(kept)]
    return Rows(kept, skipped, found, channels, hashed.hexdigest())


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

"""Decode a data set once, in parallel, and pack it: uint8 images, labels, ids and a manifest, all or nothing."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from twinrun.data.archives import open_archive
from twinrun.data.packed import IDS, IMAGES, LABELS, MANIFEST, PACKED_SCHEMA, data_digest
from twinrun.data.readers import DataBlock, Example, Image, Index, read_index
from twinrun.study.errors import InputError
from twinrun.study.files import digest, sha256_file, write_bytes, write_json, write_text
from twinrun.study.folders import replaced_folder

Progress = Callable[[int, int], None]
_CHUNK = 32  # images that one thread decodes at a time


def prepare(task: str, data: DataBlock, root: Path, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Pack the data set of `task` (source relative to `root`) into the folder `out`; the manifest is returned.

    `progress` is called with images done and images in all. Raises InputError for bad data, and then `out` is as it
    was before: the new folder is built beside it and renamed at the end.
    """
    with replaced_folder(out) as folder, open_archive(root / data.source, data.sha256) as archive:
        index = read_index(data, archive)
        counts = _count(task, index)
        facts = _pack(index, data.image_size, folder, progress)
        manifest = _describe(task, data, index, counts, archive.sha256, folder) | facts
        manifest["digest"] = data_digest(manifest)
        write_json(folder / MANIFEST, manifest)
    return manifest


def fit_square(image: Image, size: int) -> Image:
    """Pad (height, width, channels) to a square with zeros at the right or the bottom and resize it to `size`.

    Areas are averaged (Pillow's BOX, fixed-point for uint8); an image of that size already stays as it is.
    """
    height, width = image.shape[:2]
    side = max(height, width)
    if (height, width) != (side, side):
        # At the right: mammograms have the chest wall at the left edge, and it should stay there.
        image = np.pad(image, ((0, side - height), (0, side - width), (0, 0)))
    if side == size:
        return image
    grey = image.shape[2] == 1
    picture = Pillow.fromarray(np.ascontiguousarray(image[:, :, 0] if grey else image))
    resized = np.asarray(picture.resize((size, size), Pillow.Resampling.BOX))
    return resized[:, :, None] if grey else resized


def _count(task: str, index: Index) -> dict[str, dict[str, int]]:
    """Images by side and class; InputError for an empty class, for one class only, and for a group on both sides."""
    if len(index.classes) < 2:
        raise InputError(f"task {task}: one class only ({', '.join(index.classes)})", "a classifier needs two or more")
    found = Counter((example.split, example.label) for example in index.examples)
    counts = {
        split: {name: found[split, label] for label, name in enumerate(index.classes)} for split in ("train", "test")
    }
    for split, classes in counts.items():
        empty = [name for name, count in classes.items() if not count]
        if empty:
            message = f"task {task}: no {split} images of class {', '.join(empty)}"
            raise InputError(message, "check the source, and test_share and split_seed where the task has them")
    sides = {example.group: example.split for example in index.examples}
    for example in index.examples:
        if sides[example.group] != example.split:
            raise InputError(f"task {task}: {example.group} is on both sides of the split", "report this as a bug")
    return counts


def _chunks(index: Index, size: int) -> Iterator[NDArray[np.uint8]]:
    """Decoded images (n, channels, size, size) in order; a few chunks ahead are in work, never the whole set."""

    def decode(examples: tuple[Example, ...]) -> NDArray[np.uint8]:
        images = [fit_square(index.load(example), size) for example in examples]
        channels = {image.shape[2] for image in images}
        if len(channels) != 1:
            raise InputError(
                f"grey and colour images are mixed near {examples[0].id}", "a data set is one or the other"
            )
        return np.stack(images).transpose(0, 3, 1, 2)

    workers = min(16, len(os.sched_getaffinity(0)))
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[NDArray[np.uint8]]] = deque()
        try:
            for start in range(0, len(index.examples), _CHUNK):
                pending.append(pool.submit(decode, index.examples[start : start + _CHUNK]))
                if len(pending) >= 4 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _pack(index: Index, size: int, folder: Path, progress: Progress | None) -> dict[str, Any]:
    """Write images.npy in order, so that it is never in memory as a whole and a full disk shows as an error."""
    total = len(index.examples)
    n_train = sum(example.split == "train" for example in index.examples)
    sums: list[int] = []
    squares: list[int] = []
    done = channels = 0
    hashed = hashlib.sha256()
    with (folder / IMAGES).open("wb") as stream:
        for chunk in _chunks(index, size):
            if not done:
                channels = chunk.shape[1]
                sums, squares = [0] * channels, [0] * channels
                header = _npy_header((total, channels, size, size))
                hashed.update(header)
                stream.write(header)
            elif chunk.shape[1] != channels:
                raise InputError("grey and colour images are mixed", "a data set is one or the other")
            train = chunk[: max(0, n_train - done)].astype(np.int64)
            for channel in range(channels):
                sums[channel] += int(train[:, channel].sum())
                squares[channel] += int(np.square(train[:, channel]).sum())
            content = np.ascontiguousarray(chunk).tobytes()
            hashed.update(content)
            stream.write(content)
            done += len(chunk)
            if progress:
                progress(done, total)
        stream.flush()
        os.fsync(stream.fileno())
    values = n_train * size * size
    moments = [channel_moments(values, a, b) for a, b in zip(sums, squares, strict=True)]
    return {
        "channels": channels,
        "channel_mean": [mean for mean, _ in moments],
        "channel_std": [std for _, std in moments],
        "files": {
            IMAGES: hashed.hexdigest(),
            LABELS: sha256_file(_write_labels(index, folder)),
            IDS: sha256_file(_write_ids(index, folder)),
        },
    }


def _npy_header(shape: tuple[int, ...]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def channel_moments(count: int, total: int, squares: int) -> tuple[float, float]:
    """Mean and standard deviation of bytes on the 0..1 scale from their count, sum and sum of squares.

    Exact until the last step, hence the same bits everywhere; a constant channel gets 1.0, so that dividing is safe.
    """
    variance = count * squares - total * total  # times (255 count)^2
    return total / (255 * count), math.sqrt(variance / (255 * count) ** 2) or 1.0


def _write_labels(index: Index, folder: Path) -> Path:
    buffer = io.BytesIO()
    np.save(buffer, np.array([example.label for example in index.examples], np.int64), allow_pickle=False)
    write_bytes(folder / LABELS, buffer.getvalue())
    return folder / LABELS


def _write_ids(index: Index, folder: Path) -> Path:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "id", "split", "label", "class", "group"])
    for number, example in enumerate(index.examples):
        name = index.classes[example.label]
        writer.writerow([number, example.id, example.split, example.label, name, example.group])
    write_text(folder / IDS, text.getvalue())
    return folder / IDS


def _describe(
    task: str, data: DataBlock, index: Index, counts: dict[str, dict[str, int]], sha256: str | None, folder: Path
) -> dict[str, Any]:
    groups = {
        split: len({example.group for example in index.examples if example.split == split})
        for split in ("train", "test")
    }
    return {
        "schema": PACKED_SCHEMA,
        "task": task,
        "reader": data.reader,
        "params_digest": digest(data.read_keys()),
        "image_size": data.image_size,
        "procedural": data.procedural,
        "classes": list(index.classes),
        "counts": counts,
        "n_train": sum(counts["train"].values()),
        "n_test": sum(counts["test"].values()),
        "groups": groups,
        "source": {"path": data.source, "sha256": sha256},
        "extra": index.extra,
    }

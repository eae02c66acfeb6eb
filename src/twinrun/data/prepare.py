"""Pack a data set: uint8 images, labels, ids and a manifest that says what is in them and what was left out."""

from __future__ import annotations

import csv
import io
import math
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from twinrun.data.archives import open_archive
from twinrun.data.duplicates import find_duplicates
from twinrun.data.example import Index
from twinrun.data.faults import out_of_memory
from twinrun.data.packed import IDS, IMAGES, LABELS, MANIFEST, PACKED_SCHEMA, data_digest
from twinrun.data.packing import Progress, Rows, pack_images
from twinrun.data.readers import DataBlock, read_index
from twinrun.study.errors import InputError, ResourceError
from twinrun.study.files import code_digest, digest, explain_os_error, sha256_file, write_bytes, write_json, write_text
from twinrun.study.folders import replaced_folder, require_replaceable
from twinrun.study.lock import hold

_PACKAGE = Path(__file__).parents[1]
_FILES = (IMAGES, LABELS, IDS, MANIFEST)
_PATIENCE_SECONDS = 2.0
_IMBALANCE = 3.0  # times as many images in one class as in another: worth a remark
_NAMED = 5  # files in a remark
_VERSIONS = (np.__version__, PIL.__version__)  # of what decodes: another one may give other bits


def prepare(task: str, data: DataBlock, root: Path, out: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Pack the data set of `task` (source relative to `root`) into the folder `out`; the manifest is returned.

    `progress` is called with images done and images in all. A call that was killed, or ended by ResourceError for want
    of disk or memory, goes on where it was when it is called again. Raises InputError for bad data, and then `out` is
    as it was before and nothing is left beside it; BusyError when another process prepares the task.
    """
    require_replaceable(out, _FILES)  # before the work
    with open_archive(root / data.source, data.sha256) as archive, _part(out) as part:
        index = read_index(data, archive, root)
        _count(task, index)
        block = data.model_dump(exclude_defaults=True)
        order = [example.id for example in index.examples]  # a table of paths beside the archive may have changed
        key = digest([block, archive.stamp, order, code_digest(_PACKAGE, ["data"]), _VERSIONS])
        skip = data.on_error == "skip"
        rows = pack_images(index, data.image_size, part, key, skip=skip, progress=progress)
        kept = replace(index, examples=tuple(index.examples[position] for position in rows.kept))
        counts = _count(task, kept)
        missing = {index.examples[position].id: reason for position, reason in rows.skipped.items()}
        with replaced_folder(out, _FILES) as folder:
            manifest = _describe(task, data, kept, counts, archive.sha256)
            manifest |= _facts(kept, rows, data.image_size, part / IMAGES, folder)
            manifest["skipped"] = index.missing | missing
            manifest["remarks"] = remarks(manifest)
            manifest["digest"] = data_digest(manifest)
            write_json(folder / MANIFEST, manifest)
            (part / IMAGES).replace(folder / IMAGES)  # last: what fails before leaves the finished images in `part`
    return manifest


@contextmanager
def _part(out: Path) -> Iterator[Path]:
    """The folder beside `out` in which the work is done: kept for the next call when disk or memory ran out."""
    part = out.with_name(f".{out.name}.part")
    # The processes of a killed call hold it until they notice, which takes them a moment.
    lock = hold(
        part / "lock", f"{out}: another process prepares it", "wait for it, or end it", patience=_PATIENCE_SECONDS
    )
    try:
        with lock:
            try:
                yield part
            except (OSError, ResourceError):
                raise
            except MemoryError as error:
                raise out_of_memory(str(out)) from error
            except Exception:
                shutil.rmtree(part, ignore_errors=True)
                raise
            shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise explain_os_error(error, out) from error


def _count(task: str, index: Index) -> dict[str, dict[str, int]]:
    """Images by side and class; InputError for an empty class, for one class only, and for a group on both sides."""
    if len(index.classes) < 2:
        raise InputError(f"task {task}: one class only ({', '.join(index.classes)})", "a classifier needs two or more")
    images = Counter((example.split, example.label) for example in index.examples)
    counts = {
        split: {name: images[split, label] for label, name in enumerate(index.classes)} for split in ("train", "test")
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


def _facts(index: Index, rows: Rows, size: int, packed: Path, folder: Path) -> dict[str, Any]:
    """What only the packed pixels tell: statistics of the train images, digests of the files, duplicates."""
    n_train = sum(example.split == "train" for example in index.examples)
    totals = rows.moments[:n_train].sum(axis=0).tolist()
    moments = [channel_moments(n_train * size * size, total, squares) for total, squares in totals]
    row = rows.channels * size * size
    header = packed.stat().st_size - len(index.examples) * row

    def pixels(position: int) -> bytes:
        # Read, not mapped: of a set with many duplicates the whole file would come to be in memory.
        return np.fromfile(packed, np.uint8, row, offset=header + position * row).tobytes()

    return {
        "channels": rows.channels,
        "channel_mean": [mean for mean, _ in moments],
        "channel_std": [std for _, std in moments],
        "chunks": rows.chunks,
        "files": {
            LABELS: sha256_file(_write_labels(index, folder)),
            IDS: sha256_file(_write_ids(index, folder)),
        },
        "duplicates": find_duplicates(rows.moments, pixels, index.examples, index.classes),
    }


def _describe(
    task: str, data: DataBlock, index: Index, counts: dict[str, dict[str, int]], sha256: str | None
) -> dict[str, Any]:
    groups = {
        split: len({example.group for example in index.examples if example.split == split})
        for split in ("train", "test")
    }
    return {
        "schema": PACKED_SCHEMA,
        "task": task,
        "reader": data.reader,
        "params_digest": digest(data.model_dump(exclude_defaults=True)),
        "image_size": data.image_size,
        "procedural": data.procedural,
        "classes": list(index.classes),
        "counts": counts,
        "class_shares": {
            split: {name: round(count / sum(classes.values()), 4) for name, count in classes.items()}
            for split, classes in counts.items()
        },
        "on_error": data.on_error,
        "n_train": sum(counts["train"].values()),
        "n_test": sum(counts["test"].values()),
        "groups": groups,
        "source": {"path": data.source, "sha256": sha256},
        "extra": index.extra,
    }


def remarks(manifest: dict[str, Any]) -> list[str]:
    """One sentence for each thing in the manifest that a result depends on and a number of images does not show."""
    lines = []
    skipped = manifest["skipped"]
    if skipped:
        names = ", ".join(list(skipped)[:_NAMED]) + (" and more" if len(skipped) > _NAMED else "")
        lines.append(f"{len(skipped)} images left out (on_error: skip): {names}; reasons are in its manifest.json")
    if positive := manifest["extra"].get("positive_by_name"):
        lines.append(
            f"the positive class of F1 and AUC is {positive}, for its name comes second; `positive:` in the data block "
            "chooses"
        )
    if sides := manifest["extra"].get("split_folders"):
        lines.append("split by folders: " + ", ".join(f"{name} is {side}" for name, side in sides.items()))
    if passed := manifest["extra"].get("passed_over"):
        names = ", ".join(list(passed)[:_NAMED]) + (" and more" if len(passed) > _NAMED else "")
        lines.append(f"{sum(passed.values())} files of file managers and the like passed over: {names}")
    duplicates = manifest["duplicates"]
    if duplicates["groups"]:
        worst = duplicates["listed"][0]
        lines.append(
            f"{duplicates['images']} images are equal to another one (in {duplicates['groups']} groups): "
            f"{duplicates['across_split']} on both sides of the split, {duplicates['contradictory']} with "
            f"contradictory labels; for example "
            f"{' = '.join(worst['ids'][:4])} ({', '.join(worst['splits'] + worst['classes'])})"
        )
    counts = manifest["counts"]["train"]
    least, most = (pick(counts, key=lambda name: counts[name]) for pick in (min, max))
    if counts[most] >= _IMBALANCE * counts[least]:
        lines.append(
            f"imbalanced: {counts[most] / counts[least]:.1f} train images of class {most} for each of class {least}; "
            f"always saying {most} is right for {100 * manifest['class_shares']['test'][most]:.1f} % of the test images"
        )
    return lines

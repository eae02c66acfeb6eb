"""Packing at full size against the bare decoder on the same files: images a second, processor time, peak memory.

python -m benchmarks.packing tiles ARCHIVE [--images 56092]    # SDNET2018's size, by repeating real tiles
python -m benchmarks.packing mammograms [--images 40]          # CBIS-DDSM's size: 6,000 x 4,000, 16 bits

All sides use as many processes as the machine has cores. `bare` reads each file, decodes it to an array and throws it
away; `plain` also resizes it, writes it to a file and hashes it once, which no packing can leave out; `pack` is
`twinrun prepare`, which besides orders the planes, sums, looks for duplicates and notes how far it is. Rounds
alternate. Ratios are images a second of the first over those of the second, by wall time and by processor time.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import io
import os
import random
import resource
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pydicom
from PIL import Image
from tools.sample.cbis_writer import _CALC_COLUMNS, _MASS_COLUMNS, Series, dicom_bytes

from twinrun.data.archives import open_archive
from twinrun.data.packing import fit_square
from twinrun.data.prepare import prepare
from twinrun.data.readers.cbis_cases import csv_name
from twinrun.data.readers.cbis_pixels import window
from twinrun.study.schema import CbisDdsm, Sdnet2018

CHUNK = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["tiles", "mammograms"])
    parser.add_argument("archive", type=Path, nargs="?", help="real tiles to repeat")
    parser.add_argument("--images", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the files are made; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        if options.kind == "tiles":
            files = repeat_tiles(options.archive, folder / "x", options.images or 56_092)
            data: Any = Sdnet2018(reader="sdnet2018", source="x", image_size=256, test_share=0.2, split_seed=0)
            decode: Callable[[Path], Any] = decode_jpeg
        else:
            files = draw_mammograms(folder / "x", options.images or 40)
            data = CbisDdsm(reader="cbis_ddsm", source="x", image_size=1024, view="full")
            decode = decode_dicom
        print(f"{len(files)} files, {sum(path.stat().st_size for path in files) / 1e9:.2f} GB")
        sides: dict[str, Callable[[], None]] = {
            "bare": lambda: decode_all(files, decode, None),
            "plain": lambda: decode_all(files, decode, data.image_size),
            "pack": lambda: pack(data, folder, len(files)),
        }
        found: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for number in range(options.rounds):
            for side in list(sides)[:: -1 if number % 2 else 1]:
                wall, processor, peak = measure(sides[side])
                found[side].append((wall, processor))
                each = 1e3 * processor / len(files)
                print(
                    f"{side}: {wall:.1f} s, {len(files) / wall:.1f} images/s, {each:.3f} ms processor time an image, "
                    f"peak {peak / 1e9:.2f} GB",
                    flush=True,
                )
        for ours, other in (("pack", "bare"), ("pack", "plain"), ("plain", "bare")):
            for place, kind in enumerate(("wall", "processor")):
                pairs = zip(found[other], found[ours], strict=True)
                ratios = [theirs[place] / own[place] for theirs, own in pairs]
                middle = statistics.median(ratios)
                print(f"{ours} to {other}, {kind} time: {middle:.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


def measure(work: Callable[[], None]) -> tuple[float, float, int]:
    """Seconds, processor seconds and peak proportional set size of this process and its children."""
    peak, own_seconds, ended = 0, 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak, own_seconds
        while not ended.wait(0.5):
            total = 0
            own = psutil.Process()
            for process in (own, *own.children(recursive=True)):
                with contextlib.suppress(psutil.Error):
                    total += process.memory_full_info().pss
            peak = max(peak, total)
            own_seconds = time.thread_time()  # looking costs, too

    watcher = threading.Thread(target=watch)
    before, begin = used(), time.monotonic()
    watcher.start()
    try:
        work()
    finally:
        ended.set()
        watcher.join()
    return time.monotonic() - begin, used() - before - own_seconds, peak


def used() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(part.ru_utime + part.ru_stime for part in map(resource.getrusage, kinds))


def decode_all(files: list[Path], decode: Callable[[Path], Any], size: int | None) -> None:
    cores = len(os.sched_getaffinity(0))
    count = max(1, min(CHUNK, len(files) // (4 * cores)))
    parts = [(start, files[start : start + count]) for start in range(0, len(files), count)]
    with tempfile.TemporaryFile(dir=files[0].parents[1]) as out:
        work = functools.partial(decode_part, decode, size, out.fileno())
        with ProcessPoolExecutor(cores, get_context("fork")) as pool:
            for _ in pool.map(work, parts):
                pass
        os.fsync(out.fileno())


def decode_part(decode: Callable[[Path], Any], size: int | None, out: int, part: tuple[int, list[Path]]) -> None:
    start, paths = part
    for number, path in enumerate(paths, start):
        image = decode(path)
        if size:
            if image.dtype == np.uint16:
                image = window(image)[:, :, None]
            content = fit_square(image, size).tobytes()
            os.pwrite(out, content, number * len(content))
            hashlib.sha256(content).digest()


def decode_jpeg(path: Path) -> Any:
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return np.asarray(picture)


def decode_dicom(path: Path) -> Any:
    return pydicom.dcmread(io.BytesIO(path.read_bytes())).pixel_array


def pack(data: Any, folder: Path, count: int) -> None:
    manifest = prepare("x", data, folder, folder / "prepared")
    assert manifest["n_train"] + manifest["n_test"] == count
    shutil.rmtree(folder / "prepared")


def repeat_tiles(source: Path, folder: Path, count: int) -> list[Path]:
    """`count` tiles under names of their own: the real ones, then these turned and mirrored, as other photos."""
    files = []
    with open_archive(source) as archive:
        names = [name for name in archive.names if name.endswith(".jpg")]
        random.Random(0).shuffle(names)
        for number in range(count):
            name = names[number % len(names)]
            photo, tile = Path(name).stem.split("-", 1)
            path = folder / Path(name).parent / f"{int(photo) + 100 * (number // len(names))}-{tile}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(turned(archive.read(name), number // len(names)))
            files.append(path)
    return files


def turned(content: bytes, kind: int) -> bytes:
    """The picture in one of its eight positions, darker by one from the ninth on: no two kinds have the same pixels."""
    if kind == 0:
        return content
    picture = Image.open(io.BytesIO(content))
    pixels = np.rot90(np.asarray(picture), kind % 4)
    pixels = pixels[:, ::-1] if kind % 8 >= 4 else pixels
    buffer = io.BytesIO()
    dark = Image.fromarray(np.ascontiguousarray(pixels)).point(lambda value: max(0, value - kind // 8))
    dark.save(buffer, "JPEG", qtables=getattr(picture, "quantization"))  # noqa: B009 - of JPEG files only
    return buffer.getvalue()


def draw_mammograms(folder: Path, count: int) -> list[Path]:
    """`count` DICOM files of 6,000 x 4,000 pixels in TCIA's layout, with the four CSV files."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 4000, (6000, 4000), np.uint16)
    rows, columns = np.mgrid[:6000, :4000]
    breast = (np.clip(1 - np.hypot((rows - 3000) / 2600, columns / 2600), 0, 1) * 50_000).astype(np.uint16) + texture
    tables: dict[tuple[str, str], list[list[str]]] = {(k, s): [] for k in ("mass", "calc") for s in ("train", "test")}
    files = []
    for number in range(count):
        kind, split = list(tables)[number % 4]
        patient, pathology = f"P_{number:05d}", "MALIGNANT" if number % 8 < 4 else "BENIGN"
        name = f"{kind.title()}-{'Training' if split == 'train' else 'Test'}_{patient}_LEFT_CC"
        full, crop = Series(name, "full mammogram images"), Series(f"{name}_1", "cropped images")
        path = folder / full.stored
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(dicom_bytes(full, patient, "LEFT", "CC", np.roll(breast, number, 0)))
        files.append(path)
        tables[kind, split].append(
            [patient, "1", "LEFT", "CC", "1", kind, "", "", "4", pathology, "3", full.listed, crop.listed, crop.listed]
        )
    for (kind, split), table in tables.items():
        columns_of = _MASS_COLUMNS if kind == "mass" else _CALC_COLUMNS
        text = "\n".join(",".join(row) for row in (columns_of, *table))
        (folder / csv_name(kind, split)).write_text(text + "\n")
    return files


if __name__ == "__main__":
    main()

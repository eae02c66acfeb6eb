"""CBIS-DDSM from The Cancer Imaging Archive: the four CSV files, then series by series, each checked and in one step.

The archive's REST API is used as it is: tcia_utils reads a whole series into memory, takes a folder that exists for
one that is complete, and checks no digests unless told to; it would save one loop. The API packs a series anew for each
request, so that byte ranges mean nothing: what goes on after a break is the list of series, of about 24 MB each.
API: https://wiki.cancerimagingarchive.net/display/Public/NBIA+Search+REST+API+Guide
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from twinrun.data.archives import Archive, open_archive
from twinrun.data.readers.cbis_cases import ABNORMALITIES, SPLITS, csv_name, read_cases, some
from twinrun.data.readers.cbis_ddsm import find_layout
from twinrun.fetch.download import PATIENCE, Patience, Progress, download, record, recorded
from twinrun.study.errors import IncompleteError, InputError, ResourceError, TwinrunError
from twinrun.study.files import explain_os_error, read_json
from twinrun.study.folders import replaced_folder

FOLDER = "CBIS-DDSM"
API = "https://services.cancerimagingarchive.net/nbia-api/services/v1"
CSV_HOME = "https://www.cancerimagingarchive.net/wp-content/uploads"
_MOST_LIST_BYTES = 50_000_000  # of a CSV file or the list of series: real ones have 1 and 5 million
_AT_A_TIME = 4  # series; more is unkind to a public archive
_UID = re.compile(r"[0-9.]{1,64}")
_PATIENT = re.compile(r"(Mass|Calc)-(Training|Test)_P_[0-9]+_(LEFT|RIGHT)_(CC|MLO)(_[0-9]+)?")
_MD5 = re.compile(r"[0-9a-fA-F]{32}")


def fetch_cbis(
    data: Path,
    *,
    api: str = API,
    csv_home: str = CSV_HOME,
    progress: Progress | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Fetch the collection into data/CBIS-DDSM/<case>/<series>/; series that are there already are kept.

    Raises IncompleteError naming the series that could not be had: the next call tries these again.
    """
    folder = data / FOLDER
    for abnormality in ABNORMALITIES:
        for split in SPLITS:
            target = folder / csv_name(abnormality, split)
            if not target.exists():
                address = f"{csv_home}/{target.name}"
                download(address, target, recorded(target), patience=patience, most_bytes=_MOST_LIST_BYTES)
            record(target)
    with open_archive(folder) as archive:
        read_cases(archive)  # an error page or another file is noticed before the long part
    series = _list_series(folder, api, patience)
    wanted = [item for item in series if not (folder / item[0] / item[1]).is_dir()]
    failed: dict[str, TwinrunError] = {}

    def fetch_series(item: tuple[str, str, int]) -> None:
        try:
            _fetch_series(folder, item, api, patience)
        except InputError as error:
            failed[item[1]] = error

    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        try:
            for done, _ in enumerate(pool.map(fetch_series, wanted), len(series) - len(wanted) + 1):
                if progress:
                    progress(done, len(series))
        finally:
            pool.shutdown(cancel_futures=True)
    if failed:
        first = failed[min(failed)]
        message = f"{folder}: {len(failed)} of {len(series)} series could not be had: {some(sorted(failed))}"
        raise IncompleteError(message, f"the first: {first.message}; the same command tries these again")
    return folder


def copy_cbis(source: Path, data: Path, progress: Progress | None = None) -> Path:
    """Put a local copy (TCIA's folders or the JPEG copy, a folder or an archive) into `data`, after a look at it.

    Raises InputError for one without the four CSV files or without images.
    """
    with open_archive(source) as archive:
        read_cases(archive)
        if not find_layout(archive).files:
            hint = "TCIA's folders with DICOM files, or the JPEG copy with its dicom_info.csv, are needed"
            raise InputError(f"{source}: no images of CBIS-DDSM in it", hint)
        target = data / (FOLDER if source.is_dir() else FOLDER + "".join(source.suffixes[-2:]))
        if target.exists():
            raise InputError(f"{target}: there already", "remove it to put another copy there")
        try:
            _copy(archive, source, target, progress)
        except OSError as error:
            raise explain_os_error(error, target) from error
    return target


def _copy(archive: Archive, source: Path, target: Path, progress: Progress | None) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.is_file():
        part = target.with_name(f"{target.name}.part")
        shutil.copyfile(source, part)
        part.replace(target)
        record(target)
        return
    with replaced_folder(target, ()) as building:
        for done, name in enumerate(archive.names, 1):
            (building / name).parent.mkdir(parents=True, exist_ok=True)
            (building / name).write_bytes(archive.read(name))  # the archive's names are not always those on the disk
            if progress:
                progress(done, len(archive.names))


def _list_series(folder: Path, api: str, patience: Patience) -> list[tuple[str, str, int]]:
    """Case, series UID and number of images of every series, asked for once and kept beside the images."""
    target = folder / "series.json"
    if not target.exists():
        address = f"{api}/getSeries?Collection=CBIS-DDSM&format=json"
        download(address, target, patience=patience, most_bytes=_MOST_LIST_BYTES)
    try:
        listed = read_json(target)
        series = [(str(item["PatientID"]), str(item["SeriesInstanceUID"]), int(item["ImageCount"])) for item in listed]
    except ResourceError:
        raise
    except (TypeError, KeyError, ValueError, InputError) as error:
        target.unlink()
        raise InputError(f"{api}: its list of series is not one", "try again later") from error
    strange = [item for item in series if not _PATIENT.fullmatch(item[0]) or not _UID.fullmatch(item[1])]
    if strange or not series:
        target.unlink()
        said = f"it names {strange[0][:2]}" if strange else "it is empty"
        raise InputError(f"{api}: its list of series is not that of CBIS-DDSM: {said}", "try again later")
    return sorted(set(series))


def _fetch_series(folder: Path, item: tuple[str, str, int], api: str, patience: Patience) -> None:
    case, uid, count = item
    packed = folder / f"{uid}.zip"
    download(f"{api}/getImageWithMD5Hash?SeriesInstanceUID={uid}", packed, patience=patience)
    try:
        with open_archive(packed) as archive, replaced_folder(folder / case / uid, ("*.dcm",)) as building:
            files = list(_checked(archive))
            if len(files) != count:
                raise InputError(f"{packed}: {len(files)} images where the list of series says {count}", "")
            for name, content in files:
                (building / name).write_bytes(content)
    finally:
        packed.unlink(missing_ok=True)


def _checked(archive: Archive) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each image, compared with the publisher's MD5."""
    lists = [name for name in archive.names if PurePosixPath(name).name == "md5hashes.csv"]
    if len(lists) != 1:
        raise InputError(f"{archive.path}: no md5hashes.csv in it", "the archive's answer is not whole")
    try:
        rows = list(csv.reader(io.StringIO(archive.read(lists[0]).decode("utf-8-sig", "replace"))))
    except csv.Error as error:
        raise InputError(f"{archive.path}: {lists[0]}: not a table in CSV: {error}", "") from error
    known: dict[str, Any] = {}
    for row in rows:
        digests = [cell.strip().lower() for cell in row if _MD5.fullmatch(cell.strip())]
        if row and digests:
            known[PurePosixPath(row[0].strip()).name] = digests[0]
    for name in archive.names:
        if name.lower().endswith(".dcm"):
            short, content = PurePosixPath(name).name, archive.read(name)
            if hashlib.md5(content).hexdigest() != known.get(short):
                raise InputError(f"{archive.path}: {name}: its MD5 is not the one in md5hashes.csv", "")
            yield short, content

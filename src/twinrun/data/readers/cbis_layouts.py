"""Where CBIS-DDSM's images lie: DICOM in TCIA's folders, or the widely used JPEG copy with its dicom_info.csv."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from twinrun.data.archives import Archive, pass_over
from twinrun.data.decode import decode_picture
from twinrun.data.readers.cbis_cases import Case
from twinrun.data.readers.cbis_pixels import decode_dicom
from twinrun.data.tables import read_table
from twinrun.study.errors import InputError

_INFO = "dicom_info.csv"
_COLUMNS = ("image_path", "SeriesDescription")


@dataclass(frozen=True)
class Candidate:
    """A file that may be the image of a place; `description` is what a list says of it, where there is one."""

    name: str
    description: str = ""

    def decode(self, archive: Archive) -> tuple[str, Any]:
        """What the file itself says it is, and its grey pixels (height, width) of 8 or 16 bits."""
        where = f"{archive.path}: {self.name}"
        content = archive.read(self.name)
        if self.name.lower().endswith(".dcm"):
            return decode_dicom(content, where)
        return "", decode_picture(content, where, colour=False)[:, :, 0]


@dataclass(frozen=True)
class Layout:
    """Candidates by place: a place is the folder (TCIA) or the series (JPEG copy) that a row of the CSV files names."""

    kind: str
    by_series: bool
    files: dict[str, list[Candidate]]

    def place(self, case: Case, view: str) -> str:
        """Where the image of that row is."""
        return case.series[view] if self.by_series else case.folders[view]

    def masks(self, cases: Iterable[Case]) -> set[str]:
        """Places of masks alone, which no task reads."""
        return {case.mask_series for case in cases} if self.by_series else set()


def find_layout(archive: Archive) -> Layout:
    """The layout of `archive`; InputError when it holds images in neither."""
    infos = [name for name in archive.names if PurePosixPath(name).name == _INFO]
    if len(infos) > 1:
        raise InputError(f"{archive.path}: {', '.join(infos)}: two lists of the images", "keep one of them")
    if infos:
        return Layout("JPEG files", True, _listed(archive, infos[0]))
    found: dict[str, list[Candidate]] = defaultdict(list)
    for name in pass_over(archive.names)[0]:
        if name.lower().endswith(".dcm"):
            for part in name.split("/")[:-1]:
                if part.startswith(("Mass-", "Calc-")):
                    found[part].append(Candidate(name))
    return Layout("DICOM folders", False, dict(found))


def _listed(archive: Archive, info: str) -> dict[str, list[Candidate]]:
    """JPEG files by series UID: the folder they lie in, wherever that folder is."""
    where = f"{archive.path}: {info}"
    rows = read_table(archive.read(info), where, _COLUMNS, f"needed: {', '.join(_COLUMNS)}; fetch it again")
    # Descriptions by series and file: about 280 of the real list are empty, so the series UID alone finds the image.
    descriptions = {_tail(row["image_path"]): row["seriesdescription"].lower() for _, row in rows}
    found: dict[str, list[Candidate]] = defaultdict(list)
    for name in pass_over(archive.names)[0]:
        if _tail(name) in descriptions:
            found[PurePosixPath(name).parent.name].append(Candidate(name, descriptions[_tail(name)]))
    return dict(found)


def _tail(path: str) -> str:
    return "/".join(PurePosixPath(path.strip()).parts[-2:])

"""Reader of CBIS-DDSM: whole mammograms or cropped abnormalities, as DICOM in TCIA's folders or as the JPEG copy."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np

from twinrun.data.archives import Archive, pass_over
from twinrun.data.decode import decode_picture
from twinrun.data.example import Example, Image, Index, in_order
from twinrun.data.readers.cbis_cases import CLASSES, Case, count_cases, read_cases, some
from twinrun.data.readers.cbis_pixels import breast_box, decode_dicom, is_mask, window
from twinrun.data.tables import read_table
from twinrun.study.errors import DamagedError, InputError

_INFO = "dicom_info.csv"  # of the JPEG copy
_COLUMNS = ("image_path", "SeriesDescription")


def index_cbis_ddsm(
    archive: Archive, view: Literal["full", "crop"], *, breast_crop: bool = False, skip_missing: bool = False
) -> Index:
    """Classes and examples of CBIS-DDSM: group = patient, images (height, width, 1).

    full: one example a mammogram, malignant if any of its rows is (id P_00001_LEFT_CC); crop: one a row
    (id mass_P_00001_LEFT_CC_1). The publisher split masses and calcifications apart, so a few patients are in the
    train list of one and the test list of the other: their test images are left out and counted in `extra`. Images that
    the CSV files name and that are not there raise InputError, or are left out and listed with `skip_missing`.
    """
    cases = read_cases(archive)
    layout = find_layout(archive)
    train_patients = {case.patient for case in cases if case.split == "train"}
    malignant = {case.mammogram for case in cases if case.label}
    chosen: dict[str, Example] = {}
    lost: dict[str, str] = {}
    dropped = set()
    for case in cases:
        identity = case.mammogram if view == "full" else f"{case.abnormality}_{case.mammogram}_{case.number}"
        if case.split == "test" and case.patient in train_patients:
            dropped.add(identity)
            continue
        if identity in chosen:
            if view == "full":
                continue  # two abnormalities on one mammogram
            raise InputError(f"{archive.path}: two rows describe {identity}", "the publisher's files have one each")
        place = layout.place(case, view)
        if place not in layout.files:
            lost[identity] = place
            continue
        label = int(case.mammogram in malignant) if view == "full" else case.label
        chosen[identity] = Example(identity, case.split, label, case.patient, (place, case.side))
    # A mammogram can be listed under masses and calcifications; one copy is enough.
    missing = {identity: place for identity, place in lost.items() if identity not in chosen}
    if missing and not (skip_missing and chosen):
        message = (
            f"{archive.path}: {len(missing)} of the {len(missing) + len(chosen)} images that the CSV files name are "
            f"missing: {some(sorted(missing.values()))}"
        )
        raise InputError(message, f"fetch the missing {layout.kind}, or all of CBIS-DDSM again")
    named = {place for case in cases for place in (layout.place(case, "full"), layout.place(case, "crop"))}
    extra = count_cases(cases) | {
        "dropped_for_leakage": len(dropped),
        "layout": layout.kind,
        "not_in_csv": len(layout.files.keys() - named - layout.masks(cases)),
    }

    def load(example: Example) -> Image:
        place, side = example.where
        return _load(archive, layout.files[place], place, view, side, breast_crop)

    reasons = {identity: f"{place} is missing" for identity, place in sorted(missing.items())}
    return Index(CLASSES, in_order(list(chosen.values())), load, extra, reasons)


def _load(archive: Archive, candidates: list[Candidate], place: str, view: str, side: str, breast_crop: bool) -> Image:
    pictures = [(candidate.description, *candidate.decode(archive)) for candidate in candidates]
    if view == "crop":
        # Some series hold crop and mask under one description; then the mask shows by having two values only.
        named = [(said or listed, pixels) for listed, said, pixels in pictures]
        chosen = [pixels for said, pixels in named if "crop" in said]
        if len(chosen) != 1:
            chosen = [pixels for _, pixels in named if not is_mask(pixels)]
    else:
        chosen = [pixels for _, _, pixels in pictures]
    if len(chosen) != 1:
        kind = "whole mammogram" if view == "full" else "cropped image"
        reason = f"{place}: {len(chosen)} files in it can be the {kind}, where one is expected"
        raise DamagedError(f"{archive.path}: {reason}", "fetch that folder again", reason)
    grey = window(chosen[0])
    del pictures, chosen  # 16 bits a pixel and several of them: a worker's memory counts
    # Whole mammograms of right breasts are mirrored, so that all point one way; crops have no way to point.
    if view == "full" and side == "RIGHT":
        grey = grey[:, ::-1]
    if breast_crop:
        top, bottom, left, right = breast_box(grey)
        grey = grey[top:bottom, left:right]
    return np.ascontiguousarray(grey)[:, :, None]


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
    files: dict[str, list[Candidate]] = defaultdict(list)
    for name in pass_over(archive.names)[0]:
        if name.lower().endswith(".dcm"):
            for part in name.split("/")[:-1]:
                if part.startswith(("Mass-", "Calc-")):
                    files[part].append(Candidate(name))
    return Layout("DICOM folders", False, dict(files))


def _listed(archive: Archive, info: str) -> dict[str, list[Candidate]]:
    """JPEG files by series UID: the folder they lie in, wherever that folder is."""
    where = f"{archive.path}: {info}"
    rows = read_table(archive.read(info), where, _COLUMNS, f"needed: {', '.join(_COLUMNS)}; fetch it again")
    # Descriptions by series and file: about 280 of the real list are empty, so the series UID alone finds the image.
    descriptions = {_tail(row["image_path"]): row["seriesdescription"].lower() for _, row in rows}
    files: dict[str, list[Candidate]] = defaultdict(list)
    for name in pass_over(archive.names)[0]:
        if _tail(name) in descriptions:
            files[PurePosixPath(name).parent.name].append(Candidate(name, descriptions[_tail(name)]))
    return dict(files)


def _tail(path: str) -> str:
    return "/".join(PurePosixPath(path.strip()).parts[-2:])

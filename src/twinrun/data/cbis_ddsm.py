"""Reader of CBIS-DDSM: whole mammograms or cropped abnormalities from DICOM in TCIA's folders."""

from __future__ import annotations

import io
from collections import defaultdict
from typing import Any, Literal

import numpy as np
import pydicom

from twinrun.data.archives import Archive
from twinrun.data.cbis_cases import CLASSES, read_cases, some
from twinrun.data.readers import Example, Image, Index, in_order
from twinrun.study.errors import InputError

_DAMAGED = "it is damaged: fetch it again"


def index_cbis_ddsm(archive: Archive, view: Literal["full", "crop"]) -> Index:
    """Classes and examples of CBIS-DDSM: group = patient, images (height, width, 1).

    full: one example a mammogram, malignant if any of its rows is (id P_00001_LEFT_CC); crop: one a row
    (id mass_P_00001_LEFT_CC_1). The publisher split masses and calcifications apart, so a few patients are in the
    train list of one and the test list of the other: their test images are left out and counted in `extra`.
    """
    cases = read_cases(archive)
    train_patients = {case.patient for case in cases if case.split == "train"}
    folders = _folders(archive)
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
        folder = case.full_folder if view == "full" else case.crop_folder
        if folder not in folders:
            lost[identity] = folder
            continue
        label = int(case.mammogram in malignant) if view == "full" else case.label
        where = (folder, view, case.side)
        chosen[identity] = Example(identity, case.split, label, case.patient, where)
    # A mammogram can be listed under masses and calcifications; one copy is enough.
    missing = sorted(folder for identity, folder in lost.items() if identity not in chosen)
    if missing:
        message = f"{archive.path}: {len(missing)} of the images that the CSV files name are missing: {some(missing)}"
        raise InputError(message, "fetch the missing DICOM folders, or all of CBIS-DDSM again")

    def load(example: Example) -> Image:
        folder, view, side = example.where
        return _load(archive, folders[folder], folder, view, side)

    return Index(CLASSES, in_order(list(chosen.values())), load, {"dropped_for_leakage": len(dropped)})


def _folders(archive: Archive) -> dict[str, list[str]]:
    """DICOM files by the folder that the CSV files name, wherever that folder lies."""
    found = defaultdict(list)
    for name in archive.names:
        if name.lower().endswith(".dcm"):
            for part in name.split("/")[:-1]:
                if part.startswith(("Mass-", "Calc-")):
                    found[part].append(name)
    return dict(found)


def _load(archive: Archive, names: list[str], folder: str, view: str, side: str) -> Image:
    pictures = [(name, *_decode(archive, name)) for name in names]
    if view == "crop":
        # Some series hold crop and mask under one description; then the mask shows by having two values only.
        described = [picture for picture in pictures if "crop" in picture[1]]
        pictures = described if len(described) == 1 else [p for p in pictures if not _is_mask(p[2])]
    if len(pictures) != 1:
        kind = "whole mammogram" if view == "full" else "cropped image"
        message = f"{archive.path}: {folder}: {len(pictures)} files in it can be the {kind}, where one is expected"
        raise InputError(message, "fetch that folder again")
    grey = window(pictures[0][2])
    # Whole mammograms of right breasts are mirrored, so that all point one way; crops have no way to point.
    return (grey[:, ::-1] if view == "full" and side == "RIGHT" else grey)[:, :, None]


def _decode(archive: Archive, name: str) -> tuple[str, Any]:
    content = archive.read(name)
    try:
        dataset = pydicom.dcmread(io.BytesIO(content))
        pixels = dataset.pixel_array
        description = str(dataset.get("SeriesDescription", "")).lower()
        inverted = dataset.PhotometricInterpretation == "MONOCHROME1"
    # pydicom raises many kinds, by tag and damage.
    except Exception as error:
        raise InputError(f"{archive.path}: {name} does not decode as DICOM: {error}", _DAMAGED) from error
    if pixels.ndim != 2 or not pixels.size or pixels.dtype.kind not in "ui" or pixels.dtype.itemsize > 2:
        found = f"{pixels.dtype}, shape {pixels.shape}"
        raise InputError(f"{archive.path}: {name} is no single grey image of 8 or 16 bits but {found}", _DAMAGED)
    return description, np.invert(pixels) if inverted else pixels


def _is_mask(pixels: Any) -> bool:
    return bool(np.all((pixels == 0) | (pixels == pixels.max())))


def window(pixels: Any) -> Image:
    """Map minimum..maximum of an integer image (height, width) to 0..255, rounded, in integers only: the same bits
    on every processor; a constant image becomes 0.
    """
    low, high = int(pixels.min()), int(pixels.max())
    span = max(high - low, 1)
    values = np.arange(span + 1, dtype=np.int64)
    table = ((values * 255 + span // 2) // span if high > low else values * 0).astype(np.uint8)
    grey: Image = table[pixels.astype(np.int32) - low]
    return grey

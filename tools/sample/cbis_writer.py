"""The sample data set `mammograms`: procedural images as CBIS-DDSM, its CSV files and DICOM in TCIA's folders."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import UID, ExplicitVRLittleEndian
from tools.sample.bits import Bits, coordinates
from tools.sample.containers import zip_bytes
from tools.sample.mammogram import CROP, HEIGHT, WIDTH, Lesion, draw_mammogram, place_lesion

from twinrun.data.readers.cbis_cases import csv_name
from twinrun.study.files import sha256_bytes

PATIENTS = {("mass", "train"): 70, ("mass", "test"): 25, ("calc", "train"): 70, ("calc", "test"): 25}
NOTE = "Procedural image drawn by a program (twinrun); not a patient"
# The archive keeps the name that the program had when its bytes were settled: they are data.
README = """Procedural sample data of twinrun, in the layout of CBIS-DDSM.

These images and descriptions are made by a program (twinrun.data.mammogram). They are NOT mammograms of patients and
not part of CBIS-DDSM; results on them say nothing about breast cancer.
"""
_DIGITAL_MAMMOGRAPHY_STORAGE = UID("1.2.840.10008.5.1.4.1.1.1.2")
_MASS_COLUMNS = (
    "patient_id", "breast_density", "left or right breast", "image view", "abnormality id", "abnormality type",
    "mass shape", "mass margins", "assessment", "pathology", "subtlety", "image file path", "cropped image file path",
    "ROI mask file path",
)  # fmt: skip
_CALC_COLUMNS = (
    "patient_id", "breast density", "left or right breast", "image view", "abnormality id", "abnormality type",
    "calc type", "calc distribution", "assessment", "pathology", "subtlety", "image file path",
    "cropped image file path", "ROI mask file path",
)  # fmt: skip
# Words of the real files: (shape, margin) and (type, distribution), benign and malignant.
_WORDS = {
    ("mass", False): (("OVAL", "ROUND", "LOBULATED"), ("CIRCUMSCRIBED", "OBSCURED")),
    ("mass", True): (("IRREGULAR", "IRREGULAR-ARCHITECTURAL_DISTORTION"), ("SPICULATED", "ILL_DEFINED")),
    ("calc", False): (("COARSE", "PUNCTATE", "ROUND_AND_REGULAR"), ("DIFFUSELY_SCATTERED", "REGIONAL")),
    ("calc", True): (("PLEOMORPHIC", "FINE_LINEAR_BRANCHING"), ("CLUSTERED", "LINEAR")),
}


@dataclass(frozen=True)
class Series:
    """One DICOM series of a folder such as Mass-Training_P_00001_LEFT_CC."""

    folder: str
    kind: Literal["full mammogram images", "cropped images", "ROI mask images"]

    def uid(self, level: str) -> str:
        """A fixed UID in the arc that the standard keeps for UIDs made from random numbers."""
        return f"2.25.{int(sha256_bytes(f'{self.folder} {self.kind} {level}'.encode())[:30], 16)}"

    @property
    def listed(self) -> str:
        """The path that the CSV files give: folder, study UID, series UID, file."""
        name = "000001.dcm" if self.kind == "ROI mask images" else "000000.dcm"
        return f"{self.folder}/{self.uid('study')}/{self.uid('series')}/{name}"

    @property
    def stored(self) -> str:
        """The path that TCIA's downloads have: the CSV's folder, then names of its own."""
        date = "07-20-2016" if self.kind == "full mammogram images" else "07-21-2016"
        study, series = (int(self.uid(level)[-5:]) for level in ("study", "series"))
        return f"CBIS-DDSM/{self.folder}/{date}-DDSM-NA-{study:05d}/1.000000-{self.kind}-{series:05d}/1-1.dcm"


def mammograms_archive() -> bytes:
    """The zip: 380 mammograms of 190 patients, 280 train and 100 test, with the crop and mask of each abnormality."""
    members = {"CBIS-DDSM/README.txt": README.encode()}
    patient = 0
    for (kind, split), count in PATIENTS.items():
        rows = []
        for number in range(count):
            patient += 1
            # Nine patients of twenty are malignant, spread evenly: a coin would leave small sets out of balance.
            rows += _patient(members, f"P_{patient:05d}", kind, split, malignant=number * 9 % 20 < 9)
        columns = _MASS_COLUMNS if kind == "mass" else _CALC_COLUMNS
        members[f"CBIS-DDSM/{csv_name(kind, split)}"] = _csv(columns, rows)
    return zip_bytes(members, (1, 2, WIDTH, 2 * WIDTH))


def _csv(columns: tuple[str, ...], rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    # The real files have a line feed inside one quoted field of every row.
    quirk = columns.index("ROI mask file path" if "mass shape" in columns else "cropped image file path")
    for row in rows:
        writer.writerow([cell + "\n" if number == quirk else cell for number, cell in enumerate(row)])
    return text.getvalue().encode()


def _patient(members: dict[str, bytes], patient: str, kind: str, split: str, *, malignant: bool) -> list[list[str]]:
    """Both views of one breast: their files into `members`, their CSV rows returned."""
    bits = Bits(f"twinrun sample mammograms {patient}")
    side = "LEFT" if bits.chance(50) else "RIGHT"
    density = bits.between(1, 4)
    count = 2 if bits.chance(10) else 1
    benign = "BENIGN_WITHOUT_CALLBACK" if bits.chance(25) else "BENIGN"
    pathology = "MALIGNANT" if malignant else benign
    words = [choices[bits.between(0, len(choices) - 1)] for choices in _WORDS[kind, malignant]]
    assessment = bits.between(4, 5) if malignant else bits.between(2, 4)
    rows = []
    for view in ("CC", "MLO"):
        lesions = [place_lesion(bits, "mass" if kind == "mass" else "calc", malignant) for _ in range(count)]
        pixels = draw_mammogram(bits, density, view, lesions)
        name = f"{kind.title()}-{'Training' if split == 'train' else 'Test'}_{patient}_{side}_{view}"
        full = Series(name, "full mammogram images")
        members[full.stored] = dicom_bytes(full, patient, side, view, _turn(pixels, side))
        for number, lesion in enumerate(lesions, 1):
            crop = Series(f"{name}_{number}", "cropped images")
            mask = Series(f"{name}_{number}", "ROI mask images")
            members[crop.stored] = dicom_bytes(crop, patient, side, view, _turn(_crop(pixels, lesion), side))
            members[mask.stored] = dicom_bytes(mask, patient, side, view, _turn(_mask(lesion), side))
            long_kind = "mass" if kind == "mass" else "calcification"
            rows.append(
                [patient, str(density), side, view, str(number), long_kind, *words, str(assessment), pathology,
                 str(bits.between(1, 5)), full.listed, crop.listed, mask.listed]
            )  # fmt: skip
    return rows


def _turn(pixels: NDArray[np.generic], side: str) -> NDArray[np.generic]:
    # A right breast is the mirror image: its chest wall is at the right edge.
    return pixels[:, ::-1] if side == "RIGHT" else pixels


def _crop(pixels: NDArray[np.uint16], lesion: Lesion) -> NDArray[np.uint16]:
    top = min(max(lesion.y - CROP // 2, 0), HEIGHT - CROP)
    left = min(max(lesion.x - CROP // 2, 0), WIDTH - CROP)
    return pixels[top : top + CROP, left : left + CROP]


def _mask(lesion: Lesion) -> NDArray[np.uint8]:
    rows, columns = coordinates(HEIGHT, WIDTH)
    inside = (rows - lesion.y) ** 2 + (columns - lesion.x) ** 2 <= 81
    return np.where(inside, 255, 0).astype(np.uint8)


def dicom_bytes(series: Series, patient: str, side: str, view: str, pixels: NDArray[np.generic]) -> bytes:
    """A DICOM file, explicit VR little endian, whose every byte is set here."""
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = _DIGITAL_MAMMOGRAPHY_STORAGE
    meta.MediaStorageSOPInstanceUID = UID(series.uid("image"))
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # Without these pydicom would write its own version.
    meta.ImplementationClassUID = UID("2.25.207041290346829187")
    meta.ImplementationVersionName = "TWINRUN_SAMPLE"
    data = Dataset()
    data.file_meta = meta
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.StudyDate, data.ContentDate = "20160720", "20160720"
    data.StudyTime, data.ContentTime = "000000", "000000"
    data.Modality, data.BodyPartExamined = "MG", "BREAST"
    data.SeriesDescription = series.kind
    data.PatientName = data.PatientID = series.folder
    data.PatientComments = data.ImageComments = NOTE
    data.StudyInstanceUID, data.SeriesInstanceUID = UID(series.uid("study")), UID(series.uid("series"))
    data.SeriesNumber, data.InstanceNumber = 1, 1
    data.Laterality, data.PatientOrientation = side[0], view
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape
    bits = pixels.dtype.itemsize * 8
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits, bits - 1, 0
    data.add_new("PixelData", "OW" if bits == 16 else "OB", pixels.astype(f"<u{bits // 8}").tobytes())
    buffer = io.BytesIO()
    dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()

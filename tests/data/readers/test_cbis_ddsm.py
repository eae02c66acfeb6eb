"""The CBIS-DDSM reader: real CSV files, TCIA's folders, patient-wise sides, integer windowing."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from twinrun.data.archives import Archive, open_archive
from twinrun.data.readers.cbis_cases import csv_name, read_cases
from twinrun.data.readers.cbis_ddsm import index_cbis_ddsm
from twinrun.data.readers.cbis_pixels import window
from twinrun.study.errors import InputError

MASS_HEADER = (
    "patient_id,breast_density,left or right breast,image view,abnormality id,abnormality type,mass shape,"
    "mass margins,assessment,pathology,subtlety,image file path,cropped image file path,ROI mask file path"
)
CALC_HEADER = MASS_HEADER.replace("breast_density", "breast density").replace("mass shape,mass margins", "calc type,x")


def row(patient: str, split: str, kind: str = "Mass", side: str = "LEFT", view: str = "CC", number: int = 1,
        pathology: str = "BENIGN") -> str:  # fmt: skip
    name = f"{kind}-{'Training' if split == 'train' else 'Test'}_{patient}_{side}_{view}"
    paths = f'{name}/1.2/1.3/000000.dcm,{name}_{number}/1.2/1.3/000000.dcm,"{name}_{number}/1.2/1.3/000001.dcm\n"'
    return f"{patient},3,{side},{view},{number},{kind.lower()},A,B,4,{pathology},3,{paths}"


def dicom(pixels: NDArray[np.generic], description: str = "") -> bytes:
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.UID("1.2.840.10008.5.1.4.1.1.7")
    meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3")
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data = pydicom.dataset.Dataset()
    data.file_meta, data.SeriesDescription = meta, description
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.Rows, data.Columns = pixels.shape
    data.BitsAllocated = data.BitsStored = pixels.dtype.itemsize * 8
    data.HighBit = data.BitsStored - 1
    data.add_new("PixelData", "OW", pixels.tobytes())
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


FULL = np.arange(12, dtype=np.uint16).reshape(4, 3) * 100
PART = np.arange(4, dtype=np.uint16).reshape(2, 2) + 7
MASK = np.array([[0, 255], [255, 0]], np.uint8)


def write(folder: Path, rows: dict[tuple[str, str], list[str]], newline: str = "\n") -> Path:
    """A data set with the given rows; DICOM folders are made for all of them."""
    folder.mkdir()
    for kind in ("mass", "calc"):
        for split in ("train", "test"):
            lines = rows.get((kind, split), [])
            header = MASS_HEADER if kind == "mass" else CALC_HEADER
            (folder / csv_name(kind, split)).write_bytes((newline.join([header, *lines]) + newline).encode())
            for line in lines:
                full, crop = (path.split("/")[0] for path in line.split(",")[11:13])
                target = folder / "CBIS-DDSM" / full / "07-20-2016-DDSM-NA-1" / "1.0-full mammogram images-2"
                target.mkdir(parents=True, exist_ok=True)
                (target / "1-1.dcm").write_bytes(dicom(FULL, "full mammogram images"))
                target = folder / "CBIS-DDSM" / crop / "07-21-2016-DDSM-NA-1" / "1.0-ROI mask images-2"
                target.mkdir(parents=True)
                (target / "1-1.dcm").write_bytes(dicom(PART, "cropped images"))
                (target / "1-2.dcm").write_bytes(dicom(MASK, "ROI mask images"))
    return folder


USUAL = {
    ("mass", "train"): [row("P_1", "train"), row("P_1", "train", number=2, pathology="MALIGNANT"),
                        row("P_2", "train", side="RIGHT", pathology="BENIGN_WITHOUT_CALLBACK")],
    ("mass", "test"): [row("P_3", "test")],
    ("calc", "train"): [row("P_4", "train", "Calc", view="MLO", pathology="MALIGNANT")],
    ("calc", "test"): [row("P_1", "test", "Calc", side="RIGHT"),
                       row("P_5", "test", "Calc", pathology="MALIGNANT")],
}  # fmt: skip


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_full_mammograms(newline: str, tmp_path: Path) -> None:
    with open_archive(write(tmp_path / "x", USUAL, newline)) as archive:
        index = index_cbis_ddsm(archive, "full")
        assert [(e.id, e.split, e.label, e.group) for e in index.examples] == [
            ("P_1_LEFT_CC", "train", 1, "P_1"),
            ("P_2_RIGHT_CC", "train", 0, "P_2"),
            ("P_4_LEFT_MLO", "train", 1, "P_4"),
            ("P_3_LEFT_CC", "test", 0, "P_3"),
            ("P_5_LEFT_CC", "test", 1, "P_5"),
        ]
        assert index.extra["dropped_for_leakage"] == 1
        left, right = index.load(index.examples[0]), index.load(index.examples[1])
    assert left.shape == (4, 3, 1)
    assert np.array_equal(left[:, :, 0], window(FULL))
    assert np.array_equal(right, left[:, ::-1])


def test_crops_are_told_from_masks(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", USUAL)
    for path in folder.rglob("1-1.dcm"):
        if "Calc-Test_P_5_LEFT_CC_1" in str(path):  # one description for both, as in some real series
            path.write_bytes(dicom(PART, "ROI mask images"))
        if "Mass-Test_P_3_LEFT_CC_1" in str(path):
            path.write_bytes(dicom(MASK, "ROI mask images"))
            path.with_name("1-2.dcm").write_bytes(dicom(PART, "ROI mask images"))
    with open_archive(folder) as archive:
        index = index_cbis_ddsm(archive, "crop")
        assert [e.id for e in index.examples] == [
            "calc_P_4_LEFT_MLO_1", "mass_P_1_LEFT_CC_1", "mass_P_1_LEFT_CC_2", "mass_P_2_RIGHT_CC_1",
            "calc_P_5_LEFT_CC_1", "mass_P_3_LEFT_CC_1",
        ]  # fmt: skip
        assert [e.label for e in index.examples] == [1, 0, 1, 0, 1, 0]
        for example in index.examples:
            assert np.array_equal(index.load(example)[:, :, 0], window(PART))


def read_full(folder: Path) -> None:
    with open_archive(folder) as archive:
        index_cbis_ddsm(archive, "full")


def test_missing_csv_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", USUAL)
    (folder / csv_name("calc", "test")).unlink()
    with pytest.raises(InputError, match=r"calc_case_description_test_set\.csv is missing"):
        read_full(folder)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",BENIGN,", ",NORMAL,", r"mass_.*train_set\.csv: row 2: pathology 'NORMAL' is unknown"),
        (",LEFT,", ",UP,", "row 2: left or right breast 'UP' is unknown"),
        (",CC,", ",XX,", "row 2: image view 'XX' is unknown"),
        ("pathology", "path", "no column pathology"),
        ("P_1,3,", "P_1,", "row 2: 13 cells, but there are 14 columns"),
    ],
)
def test_bad_rows_are_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "x", USUAL)
    path = folder / csv_name("mass", "train")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=message) as caught:
        read_full(folder)
    assert caught.value.hint


def test_csv_that_is_none(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", USUAL)
    for content in (b"\xff\xfe\x00", b'a,"b', b""):
        (folder / csv_name("mass", "test")).write_bytes(content)
        with pytest.raises(InputError, match=r"mass_case_description_test_set\.csv"):
            read_full(folder)


def test_patient_on_both_sides_of_one_kind(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", USUAL | {("mass", "test"): [row("P_2", "test")]})
    with pytest.raises(InputError, match="both hold P_2: no patient may be on both sides"):
        read_full(folder)


def test_missing_images_are_counted_and_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "x", USUAL)
    for name in ("Mass-Training_P_1_LEFT_CC", "Calc-Test_P_5_LEFT_CC"):
        for path in (folder / "CBIS-DDSM" / name).rglob("*.dcm"):
            path.unlink()
    with pytest.raises(
        InputError, match=r"2 of the 5 images .* missing: Calc-Test_P_5_LEFT_CC, Mass-Training_P_1_LEFT_CC"
    ):
        read_full(folder)


@pytest.mark.parametrize("content", [b"", b"no DICOM", dicom(FULL)[:-5], dicom(FULL)[:200]])
def test_image_that_does_not_decode(content: bytes, tmp_path: Path) -> None:
    folder = write(tmp_path / "x", USUAL)
    next((folder / "CBIS-DDSM" / "Mass-Test_P_3_LEFT_CC").rglob("*.dcm")).write_bytes(content)
    with open_archive(folder) as archive:
        index = index_cbis_ddsm(archive, "full")
        with pytest.raises(InputError, match=r"Mass-Test_P_3_LEFT_CC/.*1-1\.dcm does not decode as DICOM"):
            index.load(next(example for example in index.examples if example.group == "P_3"))


@given(hnp.arrays(np.uint16, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_window(pixels: NDArray[np.uint16]) -> None:
    found = window(pixels)
    low, high = int(pixels.min()), int(pixels.max())
    assert found.dtype == np.uint8
    if low == high:
        assert not found.any()
        return
    assert found.min() == 0
    assert found.max() == 255
    exact = (pixels.astype(float) - low) * 255 / (high - low)
    assert np.all(np.abs(found - exact) <= 0.5 + 1e-9)


def test_window_of_signed_pixels() -> None:
    assert window(np.array([[-32768, 0, 32767]], np.int16)).tolist() == [[0, 128, 255]]


@pytest.fixture(scope="module")
def real_cases(real_data: Path) -> Path:
    return real_data / "cbis-ddsm-descriptions.tar.xz"


def test_real_descriptions(real_cases: Path, tmp_path: Path) -> None:
    with open_archive(real_cases) as archive:
        cases = read_cases(archive)  # both copies, LF and CRLF, must agree
    found = {}
    for kind in ("mass", "calc"):
        for split in ("train", "test"):
            part = [case for case in cases if (case.abnormality, case.split) == (kind, split)]
            found[kind, split] = (len(part), len({case.patient for case in part}), sum(case.label for case in part))
    assert found == {
        ("mass", "train"): (1318, 691, 637), ("mass", "test"): (378, 201, 147),
        ("calc", "train"): (1546, 602, 544), ("calc", "test"): (326, 151, 129),
    }  # fmt: skip
    # The whole index, with an empty file for every image that the real CSV files name.
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as target, open_archive(real_cases) as archive:
        for name in archive.names:
            target.writestr(name, archive.read(name))
        for folder in {name for case in cases for name in case.folders.values()}:
            target.writestr(f"CBIS-DDSM/{folder}/1/2/1-1.dcm", b"")
    with open_archive(tmp_path / "x.zip") as archive:
        check_real_index(archive, cases_in_train=2864)


def check_real_index(archive: Archive, cases_in_train: int) -> None:
    full, crop = index_cbis_ddsm(archive, "full"), index_cbis_ddsm(archive, "crop")
    assert sum(example.split == "train" for example in full.examples) == 1231 + 1227 - 38
    assert sum(example.split == "train" for example in crop.examples) == cases_in_train
    for index in (full, crop):
        sides = {split: {e.group for e in index.examples if e.split == split} for split in ("train", "test")}
        assert not sides["train"] & sides["test"]
        assert index.extra["dropped_for_leakage"] > 0
        assert len({example.id for example in index.examples}) == len(index.examples)


def test_what_macos_and_a_nas_leave_behind_is_no_image(tmp_path: Path) -> None:
    tree = write(tmp_path / "x", USUAL)
    for image in sorted(tree.rglob("1-1.dcm")):
        (image.parent / "._1-1.dcm").write_bytes(b"\0\5\x16\7")
        (image.parent / "@eaDir").mkdir()
        (image.parent / "@eaDir" / "1-1.dcm").write_bytes(b"thumbnail")
    with open_archive(tree) as archive:
        index = index_cbis_ddsm(archive, "full")
        assert [index.load(example).shape for example in index.examples] == [(4, 3, 1)] * 5

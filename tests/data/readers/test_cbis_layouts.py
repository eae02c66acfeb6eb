"""CBIS-DDSM as it is: the real CSV rows, images drawn in TCIA's layout and as the JPEG copy, both views, by policy."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Pillow
from tools.sample.cbis_writer import Series, dicom_bytes

from twinrun.data.archives import open_archive
from twinrun.data.prepare import prepare, remarks
from twinrun.data.readers.cbis_cases import PUBLISHED, Case, count_cases, csv_name, read_cases
from twinrun.data.readers.cbis_ddsm import index_cbis_ddsm
from twinrun.data.readers.cbis_pixels import breast_box, is_mask, window
from twinrun.study.errors import InputError
from twinrun.study.schema import CbisDdsm

HEIGHT, WIDTH = 60, 40
ROWS_EACH = 24  # rows of each real CSV file whose images are drawn


def film(case: Case) -> NDArray[np.uint16]:
    """A breast at the left edge, brightest at its chest wall, a film label at the upper right; darker when benign."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    breast = np.clip(1 - np.hypot((rows - 30) / 24, columns / 22), 0, 1) * 50_000 + 600
    pixels = np.where(breast > 600, breast + 8_000 * case.label, 600).astype(np.uint16)
    pixels[2:6, 33:38] = 60_000
    pixels[0, 0] = 65_535 - sum(case.patient.encode()) % 97  # patients differ
    return pixels if case.side == "LEFT" else pixels[:, ::-1]


def crop(case: Case) -> NDArray[np.uint16]:
    seed = sum(f"{case.abnormality}{case.mammogram}{case.number}".encode())
    return np.random.default_rng(seed).integers(100, 60_000, (12, 9)).astype(np.uint16)


def mask(case: Case) -> NDArray[np.uint8]:
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return np.where(np.hypot(rows - 30, columns - 10) < 5, 255, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def real(real_data: Path) -> Path:
    return real_data / "cbis-ddsm-descriptions.tar.xz"


def subset(real: Path, folder: Path, ending: str) -> list[Case]:
    """Write the first real rows of each CSV file, in bytes as they are; every patient of them is whole or not there."""
    with open_archive(real) as archive:
        for kind in ("mass", "calc"):
            for split in ("train", "test"):
                name = csv_name(kind, split)
                (source,) = [one for one in archive.names if one.startswith(f"descriptions{ending}/") and name in one]
                text = io.StringIO(archive.read(source).decode(), newline="")
                table = list(csv.reader(text))
                target = io.StringIO(newline="")
                csv.writer(target, lineterminator="\r\n" if ending else "\n").writerows(table[: 1 + ROWS_EACH])
                folder.mkdir(exist_ok=True)
                (folder / name).write_bytes(target.getvalue().encode())
    with open_archive(folder) as written:
        return read_cases(written)


def pictures(case: Case) -> dict[str, NDArray[np.generic]]:
    return {"full mammogram images": film(case), "cropped images": crop(case), "ROI mask images": mask(case)}


def write_tcia(folder: Path, cases: list[Case]) -> None:
    """DICOM by the sample's writer, in the folders of TCIA's download."""
    for case in cases:
        for kind, pixels in pictures(case).items():
            series = Series(case.folders["full" if "full" in kind else "crop"], kind)  # type: ignore[arg-type]
            path = folder / series.stored
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dicom_bytes(series, case.patient, case.side, case.view, pixels))


def write_jpegs(folder: Path, cases: list[Case], undescribed: int = 0) -> None:
    """The JPEG copy: jpeg/<series>/<n>-<n>.jpg and csv/dicom_info.csv, some descriptions empty as in the real one."""
    lines = []
    for number, case in enumerate(cases):
        series = {"full mammogram images": case.series["full"], "cropped images": case.series["crop"],
                  "ROI mask images": case.mask_series}  # fmt: skip
        for kind, pixels in pictures(case).items():
            name = f"{series[kind]}/{1 + number % 2}-{100 + number}{kind[0]}.jpg".replace("f.jpg", ".jpg")
            path = folder / "jpeg" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not (kind.startswith("full") and any(path.parent.iterdir())):
                Pillow.fromarray(window(pixels)).save(path, quality=95)
                described = "" if number < undescribed else kind
                lines.append([f"CBIS-DDSM/dicom/{name[:-4]}.dcm", f"CBIS-DDSM/jpeg/{name}", case.patient, described])
    (folder / "csv").mkdir(exist_ok=True)
    with (folder / "csv" / "dicom_info.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["file_path", "image_path", "PatientID", "SeriesDescription"], *lines])


@pytest.mark.parametrize("ending", ["", "-crlf"])
def test_published_counts(real: Path, ending: str, tmp_path: Path) -> None:
    with open_archive(real) as archive:
        for name in archive.names:
            if name.startswith(f"descriptions{ending}/"):
                (tmp_path / Path(name).name).write_bytes(archive.read(name))
    with open_archive(tmp_path) as archive:
        cases = read_cases(archive)
    counts = count_cases(cases)
    assert counts["as_published"] is True
    assert counts["rows"] == {name: rows for name, (rows, _) in PUBLISHED.items()}
    assert counts["patients"] == {name: patients for name, (_, patients) in PUBLISHED.items()}
    # BENIGN_WITHOUT_CALLBACK (104 + 37 + 474 + 67) counts as benign.
    assert sum(not case.label for case in cases) == (577 + 194 + 528 + 130) + (104 + 37 + 474 + 67)
    assert count_cases(cases[1:])["as_published"] is False


@pytest.mark.parametrize("ending", ["", "-crlf"])
def test_real_rows_in_tcias_folders(real: Path, ending: str, tmp_path: Path) -> None:
    cases = subset(real, tmp_path / "x", ending)
    assert len(cases) == 4 * ROWS_EACH
    assert {case.abnormality for case in cases} == {"mass", "calc"}
    write_tcia(tmp_path / "x", cases)
    check_both_views(tmp_path / "x", cases, exact=True)


@pytest.mark.parametrize("undescribed", [0, 30])
def test_real_rows_as_the_jpeg_copy(real: Path, undescribed: int, tmp_path: Path) -> None:
    cases = subset(real, tmp_path / "x", "")
    write_jpegs(tmp_path / "x", cases, undescribed)
    check_both_views(tmp_path / "x", cases, exact=False)


def check_both_views(folder: Path, cases: list[Case], *, exact: bool) -> None:
    in_train = {case.patient for case in cases if case.split == "train"}
    used = [case for case in cases if case.split == "train" or case.patient not in in_train]
    close = 0 if exact else 40  # JPEG
    with open_archive(folder) as archive:
        full, crops = index_cbis_ddsm(archive, "full"), index_cbis_ddsm(archive, "crop")
        assert {example.id for example in full.examples} == {case.mammogram for case in used}
        assert len(crops.examples) == len(used)
        assert full.extra["not_in_csv"] == 0
        assert full.extra["layout"] == ("DICOM folders" if exact else "JPEG files")
        first = {case.mammogram: case for case in reversed(used)}
        for example in full.examples:
            case = first[example.id]
            found = full.load(example)[:, :, 0]
            seen = film(case) if case.side == "LEFT" else film(case)[:, ::-1]
            assert np.abs(found.astype(int) - window(seen)).max() <= close
            assert found[30, 2] > 100 > found[30, -2], "the chest wall is at the left"
        by_id = {f"{case.abnormality}_{case.mammogram}_{case.number}": case for case in used}
        for example in crops.examples:
            expected = window(crop(by_id[example.id]))
            found = crops.load(example)[:, :, 0]
            assert found.shape == expected.shape
            assert np.abs(found.astype(int) - expected).mean() <= close / 4
            assert example.label == by_id[example.id].label
    sides = {split: {e.group for e in full.examples if e.split == split} for split in ("train", "test")}
    assert not sides["train"] & sides["test"]


def data(view: str, **more: object) -> CbisDdsm:
    return CbisDdsm(reader="cbis_ddsm", source="x", image_size=32, view=view, **more)  # type: ignore[arg-type]


def test_csv_and_images_that_do_not_match(real: Path, tmp_path: Path) -> None:
    cases = subset(real, tmp_path / "x", "")
    write_tcia(tmp_path / "x", cases)
    gone = sorted({case.folders["full"] for case in cases if case.split == "train"})[:2]
    for name in gone:
        for path in (tmp_path / "x/CBIS-DDSM" / name).rglob("*.dcm"):
            path.unlink()
    stranger = Series("Mass-Training_P_99999_LEFT_CC", "full mammogram images")
    (tmp_path / "x" / stranger.stored).parent.mkdir(parents=True)
    (tmp_path / "x" / stranger.stored).write_bytes(b"")
    with pytest.raises(
        InputError, match=f"2 of the .* images that the CSV files name are missing: {gone[0]}, {gone[1]}"
    ):
        prepare("t", data("full"), tmp_path, tmp_path / "out/t")
    damaged = next(case for case in cases if case.split == "train" and case.folders["full"] not in gone)
    path = next((tmp_path / "x/CBIS-DDSM" / damaged.folders["full"]).rglob("*.dcm"))
    path.write_bytes(path.read_bytes()[:900])
    manifest = prepare("t", data("full", on_error="skip"), tmp_path, tmp_path / "out/t")
    reasons = manifest["skipped"]
    assert len(reasons) == 3
    assert sorted(reason for reason in reasons.values() if "is missing" in reason) == [f"{n} is missing" for n in gone]
    assert "does not decode as DICOM" in reasons[damaged.mammogram]
    assert manifest["extra"]["not_in_csv"] == 1
    assert any("3 images left out" in line for line in remarks(manifest))


def test_breast_crop(real: Path, tmp_path: Path) -> None:
    cases = subset(real, tmp_path / "x", "")
    write_tcia(tmp_path / "x", cases)
    with open_archive(tmp_path / "x") as archive:
        whole, cut = (index_cbis_ddsm(archive, "full", breast_crop=choice) for choice in (False, True))
        for before, after in zip(whole.examples, cut.examples, strict=True):
            picture, breast = whole.load(before), cut.load(after)
            assert picture.shape == (HEIGHT, WIDTH, 1)
            assert breast.shape[0] < HEIGHT
            assert breast.shape[1] < 30, "the film label at the right is gone"
            assert breast.sum() > 0.75 * picture[:, :30].sum()
    plain = prepare("t", data("full"), tmp_path, tmp_path / "out/t")
    cropped = prepare("u", data("full", breast_crop=True), tmp_path, tmp_path / "out/u")
    assert plain["digest"] != cropped["digest"]


def test_breast_box_of_odd_films() -> None:
    assert breast_box(np.zeros((40, 30), np.uint8)) == (0, 40, 0, 30)
    assert breast_box(np.full((40, 30), 255, np.uint8)) == (0, 40, 0, 30)
    large = np.zeros((4000, 3000), np.uint8)
    large[1000:3000, :1200] = 90
    large[100:400, 2500:2900] = 255
    top, bottom, left, right = breast_box(large)
    assert (left, top <= 1000 - 1, bottom >= 3000) == (0, True, True)
    assert top > 950
    assert bottom < 3050
    assert 1200 <= right < 1250


def test_masks_are_told_from_crops_in_jpeg(tmp_path: Path) -> None:
    rows, columns = np.mgrid[:200, :150]
    outline = np.where(np.hypot(rows - 90, columns - 70) < 30, 255, 0).astype(np.uint8)
    Pillow.fromarray(outline).save(tmp_path / "mask.jpg", quality=60)
    assert is_mask(np.asarray(Pillow.open(tmp_path / "mask.jpg")))
    assert is_mask(outline)
    assert not is_mask(np.random.default_rng(0).integers(0, 255, (50, 50), np.uint8))


def test_lists_that_are_none(real: Path, tmp_path: Path) -> None:
    cases = subset(real, tmp_path / "x", "")
    write_jpegs(tmp_path / "x", cases)
    info = tmp_path / "x/csv/dicom_info.csv"
    for content, message in (
        (b"image_path\n", "no column SeriesDescription"),
        (b"image_path,x\na,b\n", "no column SeriesDescription"),
        (b"\xff\xfe", "not a table in CSV and UTF-8"),
    ):
        info.write_bytes(content)
        with pytest.raises(InputError, match=message), open_archive(tmp_path / "x") as archive:
            index_cbis_ddsm(archive, "full")

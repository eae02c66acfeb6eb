"""The case-description CSVs of CBIS-DDSM: their rows, labels and the publisher's patient-wise split, checked.

Source: Sawyer-Lee et al., CBIS-DDSM, TCIA, 2016, https://doi.org/10.7937/K9/TCIA.2016.7O02S9CY
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from twinrun.data.archives import Archive
from twinrun.data.example import Split
from twinrun.data.tables import read_table
from twinrun.study.errors import InputError

CLASSES = ("benign", "malignant")
ABNORMALITIES = ("mass", "calc")
SPLITS: tuple[Split, Split] = ("train", "test")
# Rows and patients of the publisher's files.
PUBLISHED = {
    "mass_train": (1318, 691), "mass_test": (378, 201), "calc_train": (1546, 602), "calc_test": (326, 151),
}  # fmt: skip
_LABELS = {"MALIGNANT": 1, "BENIGN": 0, "BENIGN_WITHOUT_CALLBACK": 0}
_COLUMNS = (
    "patient_id", "left or right breast", "image view", "abnormality id", "pathology", "image file path",
    "cropped image file path", "ROI mask file path",
)  # fmt: skip
_VALUES = {"left or right breast": ("LEFT", "RIGHT"), "image view": ("CC", "MLO"), "pathology": tuple(_LABELS)}


@dataclass(frozen=True)
class Case:
    """One row: an abnormality on one mammogram, and where its images are.

    `folders` and `series` (UIDs) are those of the whole mammogram and of the cropped abnormality.
    """

    abnormality: str
    split: Split
    patient: str
    side: str
    view: str
    number: str
    label: int
    folders: dict[str, str]
    series: dict[str, str]
    mask_series: str

    @property
    def mammogram(self) -> str:
        """Patient, side and view, such as P_00001_LEFT_CC."""
        return f"{self.patient}_{self.side}_{self.view}"


def count_cases(cases: list[Case]) -> dict[str, Any]:
    """Rows and patients by file, and whether they are the publisher's: a manifest states them."""
    rows: Counter[str] = Counter()
    patients: dict[str, set[str]] = defaultdict(set)
    for case in cases:
        rows[f"{case.abnormality}_{case.split}"] += 1
        patients[f"{case.abnormality}_{case.split}"].add(case.patient)
    counted = {name: (count, len(patients[name])) for name, count in rows.items()}
    return {
        "rows": dict(rows),
        "patients": {name: len(ids) for name, ids in patients.items()},
        "as_published": counted == PUBLISHED,
    }


def csv_name(abnormality: str, split: str) -> str:
    """The publisher's name of a CSV file."""
    return f"{abnormality}_case_description_{split}_set.csv"


def read_cases(archive: Archive) -> list[Case]:
    """Every row of the four CSV files.

    Raises InputError for a missing file or column, unknown labels (naming the row), and patients on both sides of
    one abnormality's split.
    """
    cases = []
    for abnormality in ABNORMALITIES:
        patients: dict[str, set[str]] = {}
        for split in SPLITS:
            rows = _read_csv(archive, abnormality, split)
            patients[split] = {case.patient for case in rows}
            cases += rows
        both = sorted(patients["train"] & patients["test"])
        if both:
            names = f"{csv_name(abnormality, 'train')} and {csv_name(abnormality, 'test')}"
            hint = "the publisher's files share no patient: fetch them again"
            raise InputError(f"{archive.path}: {names} both hold {some(both)}: no patient may be on both sides", hint)
    return cases


def some(names: list[str], limit: int = 5) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _read_csv(archive: Archive, abnormality: str, split: Split) -> list[Case]:
    wanted = csv_name(abnormality, split)
    copies = [name for name in archive.names if PurePosixPath(name).name == wanted]
    if not copies:
        hint = "the four case-description CSV files of CBIS-DDSM are needed beside the images"
        raise InputError(f"{archive.path}: {wanted} is missing in it", hint)
    versions = [_parse(archive, name, abnormality, split) for name in copies]
    if any(version != versions[0] for version in versions):
        raise InputError(f"{archive.path}: {some(copies)} differ", "keep only one of them")
    return versions[0]


def _parse(archive: Archive, name: str, abnormality: str, split: Split) -> list[Case]:
    where = f"{archive.path}: {name}"
    cases = []
    hint = f"needed: {', '.join(_COLUMNS)}; fetch it again"
    for number, cells in read_table(archive.read(name), where, _COLUMNS, hint):
        row = {column: cells[column.lower()] for column in _COLUMNS}
        for column, allowed in _VALUES.items():
            if row[column] not in allowed:
                hint = f"allowed: {', '.join(allowed)}"
                raise InputError(f"{where}: row {number}: {column} {row[column]!r} is unknown", hint)
        paths = {
            "full": row["image file path"].split("/"), "crop": row["cropped image file path"].split("/"),
            "mask": row["ROI mask file path"].split("/"),
        }  # fmt: skip
        series = {view: parts[-2] if len(parts) > 1 else "" for view, parts in paths.items()}
        cases.append(
            Case(
                abnormality, split, row["patient_id"], row["left or right breast"], row["image view"],
                row["abnormality id"], _LABELS[row["pathology"]],
                {view: parts[0] for view, parts in paths.items()}, series, series["mask"],
            )
        )  # fmt: skip
    return cases

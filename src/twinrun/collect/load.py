"""The collected files as frames and arrays: whatever is damaged is named on the way in."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from twinrun.collect.artifacts import unreadable
from twinrun.collect.cells import EXACT, unquote
from twinrun.collect.schema import COLLECTED_SCHEMA, METRICS, Digests, StudyInfo
from twinrun.study.documents import checked, read_document
from twinrun.study.errors import InputError, MismatchError, ResourceError
from twinrun.study.files import DAMAGED_ARRAY, explain_os_error, read_json, refuse_pipe, sha256_file, write_json

AGAIN = "it is damaged or not complete: run `twinrun collect` (or `twinrun import`) again"
DIGESTS = "digests.json"
RESULT_COLUMNS = (
    "id", "task", "optimizer", "seed", "arm", "replicate", "label", "status", "device", "noise", "entropy", "epochs",
    "accuracy", "f1", "auc", "loss", "initial_fingerprint", "fingerprint", "params_digest",
)  # fmt: skip
UNKNOWN = "unknown"  # the noise of imported runs
IMPORTED_COLUMNS = ("id", "task", "optimizer", "seed", "arm", "replicate", "label", "status")  # the others by choice
# Named so that a hash of digits is never read as a number.
TEXT_COLUMNS = (
    "id", "task", "optimizer", "arm", "label", "status", "device", "noise", "entropy", "initial_fingerprint",
    "fingerprint", "params_digest", "run", "run_seed",
)  # fmt: skip


def read_results(path: Path, info: dict[str, Any]) -> pd.DataFrame:
    """results.csv in the order of study.json; of an import the columns that it has not are empty."""
    imported = info.get("imported")
    results = read_frame(path, TEXT_COLUMNS, RESULT_COLUMNS if imported is None else IMPORTED_COLUMNS)
    if imported is not None:
        known = {str(seed): seed for seed in info["grid"]["seeds"]}
        results["seed"] = results["seed"].astype(str).map(known).astype(object)
        results["noise"] = UNKNOWN
        for name in (column for column in (*RESULT_COLUMNS, *imported["metrics"]) if column not in results):
            results[name] = pd.Series(np.nan, index=results.index, dtype=object if name in TEXT_COLUMNS else float)
    results = one_row_a_run(results, info["runs"], path)
    results["row"] = results.groupby("task").cumcount()
    check_values(results, path, tuple(dict.fromkeys((*METRICS, "loss", *(imported or {}).get("metrics", ())))))
    return results


def read_frame(path: Path, text: tuple[str, ...], needed: tuple[str, ...]) -> pd.DataFrame:
    """A CSV with the columns `needed`, those of `text` as text; InputError or MismatchError names what is wrong."""
    refuse_pipe(path, AGAIN)
    try:
        # Only an empty cell is a missing value: a task may well be called `nan`.
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(text, "str"),
            keep_default_na=False,
            na_values=[""],
            **EXACT,
        )
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", AGAIN) from error
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        damaged = MismatchError(f"{path}: cannot be read ({' '.join(str(error).split())})", AGAIN)
        raise unreadable(path, error, damaged) from error
    absent = [column for column in needed if column not in frame]
    if absent:
        raise MismatchError(f"{path}: the columns {', '.join(absent)} are missing", AGAIN)
    return unquote(frame)


def write_digests(folder: Path) -> None:
    """Note the SHA-256 of every file of a collected study, beside them."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != DIGESTS)
    write_json(folder / DIGESTS, {path.relative_to(folder).as_posix(): sha256_file(path) for path in files})


def require_as_collected(folder: Path) -> None:
    """MismatchError for a file that was changed since; a folder without digests is of an older version, and taken."""
    if not os.path.lexists(folder / DIGESTS):
        return
    noted = read_document(folder / DIGESTS, Digests, "the digests of a collected study", AGAIN)
    for name, sha256 in noted.root.items():
        try:
            if not (folder / name).is_file():
                raise MismatchError(f"{folder / name}: missing", AGAIN)
            if sha256_file(folder / name) != sha256:
                raise MismatchError(f"{folder / name}: was changed after it was collected or imported", AGAIN)
        except OSError as error:
            raise explain_os_error(error, folder / name) from error


def read_info(path: Path) -> dict[str, Any]:
    """The description of the collected study; MismatchError when it is of another schema or lacks something."""
    if not path.is_file():
        raise InputError(f"{path}: no such file", "run `twinrun collect` first, in the folder that holds params.yaml")
    try:
        info = read_json(path)
    except ResourceError:
        raise
    except InputError as error:
        raise MismatchError(error.message, AGAIN) from error
    if not isinstance(info, dict) or info.get("schema") != COLLECTED_SCHEMA:
        version = info.get("schema") if isinstance(info, dict) else type(info).__name__
        raise MismatchError(f"{path}: schema {version!r}, this version reads {COLLECTED_SCHEMA}", "`twinrun collect`")
    checked(info, path, StudyInfo, "a collected study", AGAIN)
    return info


def check_measured(measured: pd.DataFrame, path: Path) -> None:
    """Make what was measured numbers; MismatchError for a text or a negative value."""
    for name in ("train_seconds", "eval_seconds", "total_seconds", "energy_joules", "attempts"):
        if name in measured:
            measured[name] = _numbers(measured, name, path)
            if (measured[name] < 0).any() or np.isinf(measured[name]).any():
                raise MismatchError(f"{path}: the column {name} holds something negative or infinite", AGAIN)


def _numbers(frame: pd.DataFrame, name: str, path: Path) -> pd.Series:
    try:
        # `nan` is a value that is missing, as an empty cell is.
        return pd.to_numeric(frame[name].replace("nan", math.nan)).astype(float)
    except (ValueError, TypeError) as error:
        raise MismatchError(f"{path}: the column {name} holds something that is no number", AGAIN) from error


def check_labels(labels: NDArray[Any], classes: int, path: Path) -> None:
    """MismatchError for labels that are no whole numbers or name no class; -1 throughout means that none is known."""
    known = labels.dtype.kind in "iu"
    if not known or (labels.size and not (labels == -1).all() and not (0 <= labels.min() <= labels.max() < classes)):
        raise MismatchError(f"{path}: labels that are none of the {classes} classes", AGAIN)


def check_values(results: pd.DataFrame, path: Path, metrics: tuple[str, ...] = (*METRICS, "loss")) -> None:
    """Make the metrics numbers; MismatchError for a text, a share outside [0, 1], an unknown status, a foreign id."""
    for name in metrics:
        results[name] = _numbers(results, name, path)
        odd = results[name].notna() & ~results[name].between(0, 1 if name != "loss" else np.finfo(float).max)
        if odd.any():
            first = results[odd].iloc[0]
            raise MismatchError(f"{path}: {first['id']} has {name} {first[name]}", AGAIN)
    parts = (results[name].astype(str) for name in ("task", "optimizer", "seed", "label"))
    named = results["id"] == pd.DataFrame(dict(enumerate(parts))).agg("/".join, axis=1)
    if not named.all():
        raise MismatchError(f"{path}: {results.loc[~named, 'id'].iloc[0]} is not the run that its row describes", AGAIN)
    unknown = results[~results["status"].isin(["complete", "diverged"])]
    if len(unknown):
        first = unknown.iloc[0]
        raise MismatchError(f"{path}: {first['id']} has the status {first['status']!r}", AGAIN)


def one_row_a_run(frame: pd.DataFrame, runs: list[str], path: Path) -> pd.DataFrame:
    """The rows in the order of study.json, whatever order the file has them in: the arrays follow that order."""
    doubles = frame.loc[frame["id"].duplicated(), "id"].tolist()
    if doubles:
        raise MismatchError(f"{path}: more than one row for {', '.join(doubles[:5])}", AGAIN)
    if set(frame["id"]) != set(runs):
        odd = sorted(set(frame["id"]) ^ set(runs))
        said = "is in only one of the two" if len(frame) == len(runs) else "is missing or extra"
        raise MismatchError(f"{path}: {len(frame)} rows for {len(runs)} runs in study.json; {odd[0]} {said}", AGAIN)
    return frame.set_index("id").loc[runs].reset_index()


def read_array(path: Path, again: str = AGAIN) -> NDArray[Any]:
    """A memory-mapped array; InputError or MismatchError, with the hint `again`, when it is missing or damaged."""
    refuse_pipe(path, again)
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file", again) from error
    except (OSError, *DAMAGED_ARRAY):
        # An empty array cannot be mapped; it can be read.
        try:
            array = np.load(path, allow_pickle=False)
        except (OSError, *DAMAGED_ARRAY) as error:
            damaged = MismatchError(f"{path}: not a whole numpy array ({error})", again)
            raise unreadable(path, error, damaged) from error
    return array

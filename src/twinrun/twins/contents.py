"""Files that a program leaves, read as values: tensors, arrays, keys, rows; anything else is its bytes."""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import math
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import deserialize

from twinrun.inspect.bits import Bits

_SAFETENSORS = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
    "C64": "complex64",
}  # fmt: skip
# What trainers keep beside tensors: numpy's generator state and arrays, and their own arguments. None of it runs code.
_HARMLESS = (np.ndarray, np.empty(0).__reduce__()[0], argparse.Namespace)
_PDF_DATES = re.compile(rb"(/(?:CreationDate|ModDate) *)\((?:D:)?[0-9][^)]{0,40}\)")
_SVG_DATE = re.compile(rb"<dc:date>[^<]*</dc:date>")
_SVG_NAMES = re.compile(rb'(?<=["#])[a-zA-Z_]{1,8}[0-9a-f]{10}(?=[")])')
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,999}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?|-?inf")


def read_contents(path: Path) -> tuple[Any, str]:
    """What is in a file, and what it was read as; as bytes, with the reason, where its format cannot be read.

    Nothing in the file is executed: arrays of objects and torch files that hold more than tensors are bytes.
    """
    kind = Path(path.name.removesuffix(".tar")).suffix.lower()  # timm's checkpoints are called last.pth.tar
    name, reader = READERS.get(kind, ("bytes", Path.read_bytes))
    try:
        return reader(path), name
    except Exception as error:  # a damaged, encrypted or foreign file fails in many ways
        said = " ".join(str(error).split())[:120] or type(error).__name__
        return path.read_bytes(), f"bytes, not readable as {name}: {said}"


def _safetensors(path: Path) -> dict[str, Any]:
    tensors = {}
    for name, tensor in deserialize(path.read_bytes()):
        kind = _SAFETENSORS.get(tensor["dtype"], str(tensor["dtype"]).lower())
        tensors[name] = Bits(kind, tuple(tensor["shape"]), np.frombuffer(tensor["data"], np.uint8))
    return tensors


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The free text beside the tensors of a file that `read_contents` could read."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return dict(json.loads(stream.read(length)).get("__metadata__", {}))


def _npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _npy(path: Path) -> Any:
    return np.load(path, allow_pickle=False)


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _json_lines(path: Path) -> Any:
    lines = path.read_text(encoding="utf-8").splitlines()
    return {f"line {number}": json.loads(line) for number, line in enumerate(lines, 1) if line.strip()}


def _table(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    header, *rows = list(csv.reader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ","))
    return {
        "columns": header,
        **{f"row {number}": _cells(header, row) for number, row in enumerate(rows, 1)},
    }


def _cells(header: list[str], row: list[str]) -> Any:
    values = [_value(cell) for cell in row]
    unique = len(set(header)) == len(header) == len(row)
    return dict(zip(header, values, strict=True)) if unique else values


def _value(cell: str) -> Any:
    # 007 and 1_0 are names to whoever wrote them: what is no number in JSON's sense is its text.
    if _WHOLE.fullmatch(cell):
        return int(cell)
    number = float(cell) if _DECIMAL.fullmatch(cell) else math.nan
    return number if math.isfinite(number) or cell in ("nan", "inf", "-inf") else cell


def _torch(path: Path) -> Any:
    from twinrun.training.torch_files import load_tensors

    return load_tensors(path, _HARMLESS)


def _zip(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _gzip(path: Path) -> bytes:
    with gzip.open(path) as stream:
        return stream.read()


def _pdf(path: Path) -> bytes:
    return _PDF_DATES.sub(rb"\1", path.read_bytes())


def _svg(path: Path) -> bytes:
    """Without the date, and with the names that matplotlib draws at random numbered as they appear."""
    numbers: dict[bytes, bytes] = {}
    text = _SVG_DATE.sub(b"", path.read_bytes())
    return _SVG_NAMES.sub(lambda match: numbers.setdefault(match[0], b"%d" % len(numbers)), text)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    ".safetensors": ("safetensors", _safetensors),
    ".npz": ("npz", _npz),
    ".npy": ("npy", _npy),
    ".json": ("JSON", _json),
    ".jsonl": ("JSON lines", _json_lines),
    ".csv": ("CSV", _table),
    ".tsv": ("TSV", _table),
    ".zip": ("zip", _zip),
    ".gz": ("gzip", _gzip),
    ".pdf": ("PDF", _pdf),
    ".svg": ("SVG", _svg),
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".bin"), ("torch file (weights_only=True)", _torch)),
}

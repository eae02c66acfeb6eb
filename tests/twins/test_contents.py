"""Files of every format: equal contents, the first difference, and files that differ in their packaging alone."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from twinrun.study.errors import InputError
from twinrun.twins import comparing
from twinrun.twins.comparing import DIFFERENT, PACKAGING, SAME, FileResult, compare_files
from twinrun.twins.contents import read_contents
from twinrun.twins.metrics import compare_metric, read_metric
from twinrun.twins.running import Twin


def twins(folder: Path, count: int = 2) -> list[Twin]:
    made = [Twin(number, 0, folder / f"twin_{number}", 0, 1.0, "") for number in range(1, count + 1)]
    for one in made:
        one.folder.mkdir(exist_ok=True)
    return made


def compare(folder: Path, name: str, write: Callable[[Path, Any], None], *contents: Any) -> FileResult:
    made = twins(folder, len(contents))
    for one, content in zip(made, contents, strict=True):
        write(one.folder / name, content)
    return compare_files(made, [name])[0]


def zipped(path: Path, entry: tuple[bytes, int]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo("a.txt", (2020 + entry[1], 1, 1, 0, 0, 0)), entry[0])


WRITERS: dict[str, tuple[Callable[[Path, Any], None], Any, Any, str]] = {
    "w.safetensors": (
        lambda path, value: save_file({"a": np.zeros(3), "b": np.float32(value)}, path),
        [1, 2], [1, 3], "1 of 2 entries differ, the first is ['b']: 1 of 2 elements differ",
    ),
    "w.npz": (lambda path, value: np.savez(path, a=np.zeros(2), b=value), [1.0], [2.0], "['b']: 1 of 1 elements"),
    "w.npy": (lambda path, value: np.save(path, value), [1, 2], [1, 3], "1 of 2 elements differ, by at most 1, first"),
    "w.json": (
        lambda path, value: path.write_text(json.dumps({"a": {"b": value}})), 0.5, 0.25, "['a']['b']: 0.5 against 0.25"
    ),
    "w.jsonl": (lambda path, value: path.write_text(f'{{"a": 1}}\n{{"a": {value}}}\n'), 1, 2, "['line 2']['a']: 1 ag"),
    "w.csv": (
        lambda path, value: path.write_text(f"epoch,loss\n1,0.5\n2,{value}\n"), "0.25", "0.125", "['row 2']['loss']: 0."
    ),
    "w.pt": (lambda path, value: torch.save({"w": torch.tensor(value)}, path), [1.0], [2.0], "['w']: 1 of 1 elements"),
    "w.zip": (zipped, (b"abc", 0), (b"abd", 0), "['a.txt']: 3 bytes; 1 differ, the first at offset 2"),
    "w.pdf": (lambda path, value: path.write_bytes(value), b"(D:1)", b"(D:2)", "1 differ, the first at offset 3"),
    "w.svg": (
        lambda path, value: path.write_bytes(b'<a id="p%s"/>' % value), b"0123456789/", b"0123456780/", "differ"
    ),
    "w.log": (lambda path, value: path.write_bytes(value), b"abc", b"abx", "3 bytes; 1 differ, the first at offset 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_the_first_difference_is_named(name: str, tmp_path: Path) -> None:
    write, one, other, words = WRITERS[name]
    found = compare(tmp_path, name, write, one, one, other)
    assert found.verdict == DIFFERENT
    assert found.what.startswith("2 versions among 3; twin 1 against twin 3: ")
    assert words in found.what
    assert not found.read_as.startswith("bytes,")
    again = tmp_path / "again"
    again.mkdir()
    assert compare(again, name, write, one, one).verdict == SAME


def test_packaging_alone_is_no_difference(tmp_path: Path) -> None:
    cases: dict[str, tuple[Callable[[Path, Any], None], Any, Any, str]] = {
        "a.zip": (zipped, (b"abc", 0), (b"abc", 1), "the dates of the members"),
        "a.json": (lambda path, text: path.write_text(text), '{"a":1,"b":2}', '{"b": 2, "a": 1}', "they are written"),
        "a.csv": (lambda path, text: path.write_text(text), "x\n0.50\n", "x\n0.5\n", "they are written"),
        "a.safetensors": (
            lambda path, text: save_file({"a": np.zeros(1)}, path, {"when": text}), "now", "then", "metadata: when"
        ),
        "a.pdf": (
            lambda path, day: path.write_bytes(b"/CreationDate (D:202611%sZ) (D:1)" % day), b"28", b"29", "written"
        ),
        "a.svg": (
            lambda path, name: path.write_text(f'<dc:date>{name}</dc:date><a id="m{name}"/><use href="#m{name}"/>'),
            "0123456789", "9876543210", "written",
        ),
        "a.gz": (
            lambda path, mtime: path.write_bytes(gzip.compress(b"x", mtime=mtime)), 1, 2, "they are written"
        ),
    }  # fmt: skip
    for name, (write, one, other, words) in cases.items():
        found = compare(tmp_path, name, write, one, other)
        assert found.verdict == PACKAGING, name
        assert words in found.what


def test_npz_differing_in_dates_alone(tmp_path: Path) -> None:
    def write(path: Path, year: int) -> None:
        np.save(path.with_suffix(".npy"), np.arange(3))
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo("a.npy", (year, 1, 1, 0, 0, 0)), path.with_suffix(".npy").read_bytes())

    assert "dates of the members" in compare(tmp_path, "a.npz", write, 2020, 2021).what


def test_bfloat16_has_ulps(tmp_path: Path) -> None:
    def write(path: Path, step: int) -> None:
        bits = torch.tensor([0x3F80 + step], dtype=torch.int16)
        save_torch({"w": bits.view(torch.bfloat16)}, path)

    assert compare(tmp_path, "a.safetensors", write, 0, 2).largest_ulps == 2


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    trap = tmp_path / "sprung"

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (trap,))

    torch.save({"a": Trap()}, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    for name in ("a.pt", "a.npy"):
        content, how = read_contents(tmp_path / name)
        assert isinstance(content, bytes)
        assert how.startswith("bytes, not readable as")
    assert not trap.exists()


def test_a_damaged_file_is_compared_as_bytes(tmp_path: Path) -> None:
    for name in ("a.npz", "a.safetensors", "a.json", "a.csv", "a.pt", "a.npy", "a.zip", "a.gz"):
        found = compare(tmp_path, name, lambda path, data: path.write_bytes(data), b"\xffgarbage", b"\xffgarbagf")
        assert found.verdict == DIFFERENT, name
        assert "8 bytes; 1 differ" in found.what


def header(path: Path, flags: int, method: int, content: bytes) -> None:
    """A zip archive whose one member says of itself that it is packed so."""
    zipped(path, (content, 0))
    data = bytearray(path.read_bytes())
    for start in (6, data.index(b"PK\1\2") + 8):  # in front of the member, and in the directory
        data[start], data[start + 2] = flags, method
    path.write_bytes(data)


def deep(depth: int) -> Callable[[Path, Any], None]:
    return lambda path, inner: path.write_text("[" * depth + inner + "]" * depth)


@pytest.mark.parametrize(
    ("name", "write", "one", "other", "how"),
    [
        ("a.zip", lambda path, data: header(path, 1, 0, data), b"x", b"y", "as zip: File 'a.txt' is encrypted"),
        ("a.zip", lambda path, data: header(path, 0, 97, data), b"x", b"y", "as zip: That compression method is not"),
        ("a.json", deep(100_000), "1", "2", "as JSON: maximum recursion depth exceeded"),
        ("a.json", deep(600), "1", "2", "JSON"),  # it can be read, and is too deep to be compared
    ],
    ids=["encrypted", "method", "too deep", "deep"],
)
def test_what_cannot_be_read_is_compared_as_bytes(
    name: str, write: Callable[[Path, Any], None], one: Any, other: Any, how: str, tmp_path: Path
) -> None:
    found = compare(tmp_path, name, write, one, other)
    assert found.verdict == DIFFERENT
    assert how in found.read_as
    assert "bytes; " in found.what


def test_files_of_the_same_bytes_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing, "read_contents", None)
    found = compare(tmp_path, "a.pt", lambda path, data: path.write_bytes(data), b"x", b"x")
    assert (found.verdict, found.read_as) == (SAME, "bytes")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    made = twins(tmp_path, 3)
    for one in made[:2]:
        (one.folder / "a.txt").write_text("x")
    assert compare_files(made, ["*.txt"])[0].what == "not written by twin 3"
    with pytest.raises(InputError, match=r"'b/\*' matches nothing that the twins wrote\n  they wrote: a.txt"):
        compare_files(made, ["b/*"])
    with pytest.raises(InputError, match="wrote no file at all"):
        compare_files(made[2:], ["b/*"])


def test_metrics_are_read_and_checked(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"a": {"b": 0.5}, "t": true, "s": "x", "n": NaN, "x.y": 2}')
    (tmp_path / "m.csv").write_text("epoch,acc\n1,0.25\n2,0.75\n")
    assert read_metric(Twin(1, 0, tmp_path, 0, 1.0, ""), "m.json:a.b") == 0.5
    assert read_metric(Twin(1, 0, tmp_path, 0, 1.0, ""), "m.json:x.y") == 2
    assert read_metric(Twin(1, 0, tmp_path, 0, 1.0, ""), "m.csv:acc") == 0.75
    for wanted, words in {
        "m.json:c": "no key 'c' in m.json\n  there is: a, t, s, n, x.y",
        "m.json:a.c": "no key 'c'", "m.json:t": "True is no finite number", "m.json:s": "'x' is no finite number",
        "m.json:n": "nan is no finite number", "m.json:a": "is no finite number", "m.csv:loss": "columns: epoch, acc",
        "other.json:a": "other.json was not written", "m.json": "it is FILE:KEY", "m.json:t.u": "it is no mapping",
    }.items():  # fmt: skip
        with pytest.raises(InputError) as caught:
            read_metric(Twin(1, 0, tmp_path, 0, 1.0, ""), wanted)
        assert words in str(caught.value)


def test_metrics_that_cannot_be_read_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text(f'{{"big": 1{"0" * 400}}}')
    (tmp_path / "m.csv").write_bytes("größe\n1\n".encode("latin-1"))
    (tmp_path / "wide.csv").write_text("epoch,acc\n1,0.25,0.5\n")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "long.json").write_text("1" * 5000)
    for wanted, words in {
        "m.json:big": "a whole number that no float64 holds",
        "m.csv:acc": "JSON, JSON lines or CSV, or in what is printed",
        "wide.csv:loss": "columns: epoch, acc",
        "deep.json:a": "deep.json is neither JSON nor JSON lines",
        "long.json:a": "long.json is neither JSON nor JSON lines",
    }.items():
        with pytest.raises(InputError, match=words):
            read_metric(Twin(1, 0, tmp_path, 0, 1.0, ""), wanted)


@pytest.mark.parametrize(("one", "other"), [("007", "7"), ("1_0", "10"), ("-0", "0"), (" 7", "7"), ("1e400", "2e400")])
def test_cells_that_are_written_otherwise_than_a_number_are_texts(one: str, other: str, tmp_path: Path) -> None:
    assert compare(tmp_path, "a.csv", lambda path, cell: path.write_text(f"id\n{cell}\n"), one, other).verdict == (
        DIFFERENT
    )


def test_digits_that_say_nothing_are_packaging(tmp_path: Path) -> None:
    found = compare(tmp_path, "a.csv", lambda path, cell: path.write_text(f"loss\n{cell}\n"), "0.50", "5e-1")
    assert found.verdict == PACKAGING


def test_metrics_over_twins_have_the_reports_statistics(tmp_path: Path) -> None:
    made = twins(tmp_path, 5)
    for value, one in enumerate(made, 1):
        (one.folder / "m.json").write_text(json.dumps({"a": value}))
    found, problems = compare_metric(made, "m.json:a")
    assert found is not None
    assert not problems
    assert (found.mean, round(found.sd or 0, 3), round(found.sd_low or 0, 3), round(found.sd_high or 0, 3)) == (
        3.0, 1.581, 0.947, 4.543,
    )  # fmt: skip
    (made[0].folder / "m.json").unlink()
    assert "twin 1: --metric" in compare_metric(made, "m.json:a")[1][0]

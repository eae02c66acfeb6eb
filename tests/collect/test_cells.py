"""CSV cells that a spreadsheet would run, and arrays on a disk without room."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.collect.cells import quoted, unquoted, write_csv
from twinrun.collect.load import read_frame
from twinrun.collect.study_arrays import written_rows
from twinrun.report.table import Column, Table, markdown


@given(st.text(alphabet="'=+-@\t1a", max_size=6))
def test_every_text_comes_back_and_none_is_a_formula(text: str) -> None:
    cell = quoted(text)
    assert unquoted(cell) == text
    try:
        float(cell)
    except ValueError:
        assert not cell.startswith(tuple("=+-@\t\r"))


def test_formulas_are_text_in_the_file_and_themselves_again_when_read(tmp_path: Path) -> None:
    frame = pd.DataFrame({"id": ["=1+1", "-x", "@y", "plain"], "value": [-0.5, 1.0, np.nan, 2.0]})
    write_csv(tmp_path / "t.csv", frame)
    assert (tmp_path / "t.csv").read_text() == "id,value\n'=1+1,-0.5\n'-x,1.0\n'@y,\nplain,2.0\n"
    pd.testing.assert_frame_equal(read_frame(tmp_path / "t.csv", ("id",), ("id", "value")), frame.astype({"id": "str"}))


def test_html_in_names_and_captions_is_text_in_markdown() -> None:
    table = Table(
        "t", "<b>Title</b>", "Of <img src=x>, `<task>`.", (Column("a", "A", "", ""),), [{"a": "<script>"}],
        notes=("<i>",),
    )  # fmt: skip
    text = markdown(table)
    assert "\\<b>Title" in text
    assert "Of \\<img src=x>, `<task>`." in text
    assert "| \\<script\\> |" in text
    assert "\n\\<i>" in text


@pytest.mark.parametrize("shape", [(3, 2, 4), (2, 0, 0), (0, 5)])
def test_rows_make_the_file_that_numpy_makes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    with written_rows(tmp_path / "rows.npy", shape) as rows:
        for row in values:
            rows.add(row)
    np.save(tmp_path / "numpy.npy", values)
    assert (tmp_path / "rows.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()


def test_a_full_disk_is_an_error_and_not_the_end_of_the_process() -> None:
    def fill() -> None:
        with written_rows(Path("/dev/full"), (4, 100_000)) as rows:
            for _ in range(4):
                rows.add(np.nan)

    with pytest.raises(OSError, match="No space left") as caught:
        fill()
    assert caught.value.errno == errno.ENOSPC

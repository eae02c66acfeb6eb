"""What a run writes: bytes that depend on the arrays alone."""

from __future__ import annotations

import io
import zipfile

import numpy as np

from twinrun.study.files import sha256_bytes
from twinrun.training.outcome import no_predictions, npz


def test_numpy_reads_the_archive_and_its_bytes_are_fixed() -> None:
    arrays = {"probabilities": np.arange(6, dtype=np.float32).reshape(2, 3), "labels": np.array([1, 2])}
    content = npz(arrays)
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        assert list(found) == ["probabilities", "labels"]
        for name, array in arrays.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype
    members = zipfile.ZipFile(io.BytesIO(content)).infolist()
    assert {(m.date_time, m.extra, m.compress_type) for m in members} == {((1980, 1, 1, 0, 0, 0), b"", 0)}
    # The same under every Python: numpy.savez's bytes are not.
    assert sha256_bytes(content) == "7efa0f72cb89e32ac4071542e3741198d660bf37d9f1ae1da92cdd2b8630910a"


def test_a_run_that_diverged_has_predictions_of_nothing() -> None:
    assert [part.shape for part in no_predictions(3)] == [(0, 3), (0,), (0, 3)]

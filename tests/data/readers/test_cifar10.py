"""The CIFAR-10 reader: real pickle forms, and nothing else, ever executed."""

from __future__ import annotations

import os
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinrun.data.archives import open_archive
from twinrun.data.readers.cifar10 import index_cifar10, load_pickle
from twinrun.study.errors import InputError

NAMES = [b"cat", b"dog"]


def write_batches(folder: Path, change: dict[str, Any] | None = None, protocol: int = 2) -> Path:
    """Six batches of four random images; `change` replaces entries of data_batch_3."""
    inner = folder / "cifar-10-batches-py"
    inner.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]:
        batch = {b"data": rng.integers(0, 256, (4, 3072), np.uint8), b"labels": [0, 1, 0, 1]}
        if name == "data_batch_3":
            batch |= {key.encode(): value for key, value in (change or {}).items()}
        (inner / name).write_bytes(pickle.dumps(batch, protocol))
    (inner / "batches.meta").write_bytes(pickle.dumps({b"label_names": NAMES}, protocol))
    return folder


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_batches(protocol: int, tmp_path: Path) -> None:
    with open_archive(write_batches(tmp_path / "x", protocol=protocol)) as archive:
        index = index_cifar10(archive)
    assert index.classes == ("cat", "dog")
    assert [example.split for example in index.examples] == ["train"] * 20 + ["test"] * 4
    assert index.examples[5].id == "data_batch_2/00001"
    row = np.random.default_rng(0).integers(0, 256, (4, 3072), np.uint8)[1]
    image = index.load(index.examples[1])
    assert image.shape == (32, 32, 3)
    assert image[2, 5].tolist() == [row[2 * 32 + 5], row[1024 + 2 * 32 + 5], row[2048 + 2 * 32 + 5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 1, 2, 1]}, "data_batch_3: label 2 of row 2 is unknown; allowed: 0 to 1"),
        ({"labels": [0, True, 0, 1]}, "label True of row 1 is unknown"),
        ({"labels": [0]}, "1 labels for 4 images"),
        ({"labels": None}, "no labels for 4 images"),
        ({"data": np.zeros((4, 3071), np.uint8)}, "rows of 3072 bytes"),
        ({"data": np.zeros((4, 3072), np.float32)}, "not of type uint8"),
        ({"data": [1, 2]}, "rows of 3072 bytes"),
    ],
)
def test_bad_batches(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with open_archive(write_batches(tmp_path / "x", change)) as archive, pytest.raises(InputError, match=message):
        index_cifar10(archive)


def test_missing_batch_and_meta(tmp_path: Path) -> None:
    folder = write_batches(tmp_path / "x")
    (folder / "cifar-10-batches-py" / "data_batch_4").unlink()
    with open_archive(folder) as archive, pytest.raises(InputError, match="data_batch_4 is missing"):
        index_cifar10(archive)
    (folder / "cifar-10-batches-py" / "batches.meta").unlink()
    with open_archive(folder) as archive, pytest.raises(InputError, match=r"0 files named batches\.meta"):
        index_cifar10(archive)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def test_forbidden_global_is_not_executed(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    for protocol in range(6):
        content = pickle.dumps({b"labels": Bomb(witness)}, protocol)
        with pytest.raises(InputError, match=r"evil is not a CIFAR-10 pickle: it asks for posix\.system"):
            load_pickle(content, "evil")
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\x80\x02", b"not a pickle", b"\x80\x02}q\x00.extra"[:3], pickle.dumps([1]),
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80\x02c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01tb.",
    ],
)  # fmt: skip
def test_damaged_pickles(content: bytes) -> None:
    with pytest.raises(InputError, match="x is not a CIFAR-10 pickle"):
        load_pickle(content, "x")


def test_sample_pickles_have_the_form_of_the_real_ones(sample: Path) -> None:
    with tarfile.open(sample / "digits.tar.gz") as tar:
        member = tar.extractfile("cifar-10-batches-py/data_batch_2")
        assert member is not None
        content = member.read()
    ours = load_pickle(content, "x")
    plain = pickle.loads(content, encoding="bytes")
    assert list(plain) == [b"batch_label", b"labels", b"data", b"filenames"]
    assert plain[b"batch_label"] == b"training batch 2 of 5"
    assert plain[b"data"].dtype == np.uint8
    assert np.array_equal(plain[b"data"], ours["data"])
    assert plain[b"labels"] == ours["labels"]


@pytest.mark.parametrize(
    ("names", "part"),
    [
        ([b"cat", b"cat"], "two classes are named cat"),
        ([b"cat", b"d\xff"], "not UTF-8"),
        (["cat", "\udcff"], "not UTF-8"),
    ],
)
def test_class_names_that_cannot_be_told(names: list[Any], part: str, tmp_path: Path) -> None:
    folder = write_batches(tmp_path / "x")
    meta = folder / "cifar-10-batches-py" / "batches.meta"
    meta.write_bytes(
        b"\x80\x02}(X\x0b\x00\x00\x00label_names](X\x03\x00\x00\x00catX\x03\x00\x00\x00\xed\xb3\xbfeu."
        if isinstance(names[1], str)
        else pickle.dumps({b"label_names": names}, 2)
    )
    with open_archive(folder) as archive, pytest.raises(InputError, match=part):
        index_cifar10(archive)


def test_a_pickle_that_asks_for_all_memory_is_at_fault_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    hostile = b"\x80\x04r\xff\xff\xff\x7f."  # a memo with two billion places
    monkeypatch.setattr("twinrun.data.readers.cifar10._Unpickler.load", lambda _: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(InputError, match="more memory than a file of its size can need") as caught:
        load_pickle(hostile, "x")
    assert caught.value.exit_code == 2
    monkeypatch.setattr("builtins.bytearray", lambda _: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(InputError, match="x: memory ran out") as caught:
        load_pickle(hostile, "x")
    assert caught.value.exit_code == 6

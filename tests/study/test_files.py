"""Atomic writes and digests."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinrun.study import files
from twinrun.study.errors import InputError


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EFBIG, "larger than is allowed\n.*`ulimit -f`"),
        (errno.EISDIR, "a folder stands where a file should be\n.*move that folder away"),
    ],
)
def test_a_failed_write_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    target = tmp_path / "a.json"
    files.write_json(target, {"old": 1})

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=said):
        files.write_json(target, {"new": 2})
    assert files.read_json(target) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(InputError, match="runs"):
        files.write_text(tmp_path / "runs" / "a.txt", "x")


def test_broken_json_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"a\.json: not valid JSON"):
        files.read_json(tmp_path / "a.json")


def test_a_pipe_is_no_document_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"a\.json: a pipe or a device, no file"):
        files.read_json(tmp_path / "a.json")


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


@given(st.dictionaries(st.text(), st.integers() | st.floats(allow_nan=False, allow_infinity=False)))
def test_digest_does_not_depend_on_the_order_of_keys(value: dict[str, float]) -> None:
    assert files.digest(value) == files.digest(dict(reversed(value.items())))


def test_code_digest_sees_every_file_and_only_the_named_parts(tmp_path: Path) -> None:
    for name in ("study/a.py", "training/deep/b.py", "cli.py", "analysis/c.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    before = files.code_digest(tmp_path, ["study", "training"])
    (tmp_path / "cli.py").write_text("# changed\n")
    (tmp_path / "analysis/c.py").write_text("# changed\n")
    assert files.code_digest(tmp_path, ["study", "training"]) == before
    (tmp_path / "training/deep/b.py").write_text("x = 2\n")
    assert files.code_digest(tmp_path, ["study", "training"]) != before


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"twin")
    assert files.sha256_file(tmp_path / "a") == hashlib.sha256(b"twin").hexdigest() == files.sha256_bytes(b"twin")


def test_names_from_outside_never_steer_the_terminal() -> None:
    error = InputError("a\x1b[2J\x07\r.png \udcff gr\u00fcn\u00a0\u65e5\tb\nc", "\x9b31m")
    assert str(error) == "a?[2J??.png ? gr\u00fcn\u00a0\u65e5\tb\nc\n  ?31m"
    str(error).encode()

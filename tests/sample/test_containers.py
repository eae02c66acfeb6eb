"""The hand-written deflate, gzip, zip and tar: what the standard library reads back."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from tools.sample.containers import deflate, gzip_bytes, tar_bytes, zip_bytes

repetitive = st.builds(lambda parts, times: b"".join(part * times for part in parts),
                       st.lists(st.binary(max_size=20), max_size=20), st.integers(1, 200))  # fmt: skip
distances = st.lists(st.integers(1, 32768), min_size=1, max_size=4, unique=True).map(tuple)


@given(st.one_of(st.binary(max_size=2000), repetitive), distances)
def test_deflate_is_undone_by_zlib(data: bytes, reach: tuple[int, ...]) -> None:
    assert zlib.decompress(deflate(data, reach), -zlib.MAX_WBITS) == data


def test_every_match_length_and_distance_code() -> None:
    rng = np.random.default_rng(1)
    for distance in (1, 2, 3, 4, 5, 7, 9, 13, 192, 193, 257, 1024, 24576, 24577, 32768):
        for length in (*range(3, 70), 114, 115, 131, 227, 257, 258, 259, 600):
            head = rng.integers(0, 256, distance, np.uint8).tobytes()
            data = head + (head * (length // distance + 1))[:length] + b"\x00\xff"
            assert zlib.decompress(deflate(data, (distance,)), -zlib.MAX_WBITS) == data


def test_deflate_of_nothing_and_its_constant_bytes() -> None:
    assert deflate(b"", (1,)) == zlib.compress(b"", wbits=-15)
    assert deflate(b"aaaaaaaaaa", (1,)).hex() == "4b840300"


def test_gzip() -> None:
    data = b"twinrun" * 500
    assert gzip.decompress(gzip_bytes(data, (7,))) == data
    assert len(gzip_bytes(data, (7,))) < 60


def test_zip_and_tar_are_read_by_the_standard_library() -> None:
    members = {"b/two.txt": b"2" * 300, "a.txt": b"", "c": bytes(range(256))}
    with zipfile.ZipFile(io.BytesIO(zip_bytes(members, (1,)))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(members)
        assert {name: archive.read(name) for name in members} == members
        assert archive.getinfo("b/two.txt").compress_type == zipfile.ZIP_DEFLATED
        assert archive.getinfo("c").compress_type == zipfile.ZIP_STORED
        assert archive.getinfo("c").date_time == (1980, 1, 1, 0, 0, 0)
        assert archive.getinfo("c").external_attr >> 16 == 0o100644
    with tarfile.open(fileobj=io.BytesIO(tar_bytes(members))) as tar:
        assert tar.getnames() == sorted(members)
        assert {info.mtime for info in tar} == {0}
    assert zip_bytes(members) == zip_bytes(dict(reversed(members.items())))

"""Writers of deflate, gzip, zip and tar bytes that no library's version can change.

Formats: RFC 1951 (deflate), RFC 1952 (gzip), PKWARE's APPNOTE (zip), POSIX ustar.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zlib

import numpy as np
from numpy.typing import NDArray

_EXTRA_LENGTH = (0,) * 8 + (1,) * 4 + (2,) * 4 + (3,) * 4 + (4,) * 4 + (5,) * 4 + (0,)
_EXTRA_DISTANCE = (0, 0, *(bits for bits in range(14) for _ in range(2)))
_LONGEST = 258


def _bases(first: int, extras: tuple[int, ...]) -> list[int]:
    bases = [first]
    for bits in extras[:-1]:
        bases.append(bases[-1] + (1 << bits))
    return bases


_LENGTH_BASES = [*_bases(3, _EXTRA_LENGTH[:-1]), _LONGEST]
_DISTANCE_BASES = _bases(1, _EXTRA_DISTANCE)


def _reverse(code: int, bits: int) -> int:
    return int(f"{code:0{bits}b}"[::-1], 2)


def _symbol(number: int) -> tuple[int, int]:
    """Code (first bit lowest) and length of a literal or length symbol in deflate's fixed tree."""
    if number < 144:
        return _reverse(0x30 + number, 8), 8
    if number < 256:
        return _reverse(0x190 + number - 144, 9), 9
    if number < 280:
        return _reverse(number - 256, 7), 7
    return _reverse(0xC0 + number - 280, 8), 8


def _match(length: int, distance: int) -> tuple[int, int]:
    """Code and length of one back reference."""
    index = max(i for i, base in enumerate(_LENGTH_BASES) if base <= length)
    code, bits = _symbol(257 + index)
    code |= (length - _LENGTH_BASES[index]) << bits
    bits += _EXTRA_LENGTH[index]
    index = max(i for i, base in enumerate(_DISTANCE_BASES) if base <= distance)
    code |= _reverse(index, 5) << bits
    bits += 5
    return code | (distance - _DISTANCE_BASES[index]) << bits, bits + _EXTRA_DISTANCE[index]


def deflate(data: bytes, distances: tuple[int, ...]) -> bytes:
    """A raw deflate stream of `data` whose back references reach exactly the given distances (bytes, at most 32768).

    zlib would pack better, but its output differs between its versions, and that of the samples may not.
    """
    values = np.frombuffer(data, np.uint8)
    size = len(values)
    best = np.zeros(size, np.int32)
    reach = np.zeros(size, np.int32)
    for distance in distances:
        if distance < size:
            # Position of the next byte that differs from the one `distance` before it.
            ends = np.full(size - distance, size, np.int32)
            different = values[distance:] != values[:-distance]
            ends[different] = np.flatnonzero(different).astype(np.int32) + distance
            ends = np.minimum.accumulate(ends[::-1])[::-1]
            lengths = np.minimum(ends - np.arange(distance, size, dtype=np.int32), _LONGEST)
            better = lengths > best[distance:]
            best[distance:][better] = lengths[better]
            reach[distance:][better] = distance
    # Greedy: take a match of three or more wherever one starts, literals in between.
    literal = np.ones(size, bool)
    places, codes, widths = [], [], []
    known: dict[tuple[int, int], tuple[int, int]] = {}
    position = 0
    for place in np.flatnonzero(best >= 3).tolist():
        if place < position:
            continue
        key = int(best[place]), int(reach[place])
        if key not in known:
            known[key] = _match(*key)
        places.append(place)
        codes.append(known[key][0])
        widths.append(known[key][1])
        position = place + key[0]
        literal[place:position] = False
    return _pack(values, literal, places, codes, widths)


def _pack(
    values: NDArray[np.uint8], literal: NDArray[np.bool_], places: list[int], codes: list[int], widths: list[int]
) -> bytes:
    """The bits of one block: literals where `literal`, and the references with these codes at their places."""
    size = len(values)
    table = np.array([_symbol(number) for number in range(256)], np.int64)
    code, width = np.zeros(size + 2, np.int64), np.zeros(size + 2, np.int64)
    code[0], width[0] = 0b011, 3  # last block, fixed tree
    inner = slice(1, size + 1)
    code[inner] = np.where(literal, table[values, 0], 0)
    width[inner] = np.where(literal, table[values, 1], 0)
    at = np.array(places, np.int64) + 1
    code[at], width[at] = np.array(codes, np.int64), np.array(widths, np.int64)
    width[-1] = 7  # the end symbol: seven zero bits
    used = width > 0
    code, width = code[used], width[used]
    starts = np.cumsum(width) - width
    shift = np.arange(int(width.sum()), dtype=np.int64) - np.repeat(starts, width)
    return np.packbits(((np.repeat(code, width) >> shift) & 1).astype(np.uint8), bitorder="little").tobytes()


def gzip_bytes(data: bytes, distances: tuple[int, ...]) -> bytes:
    """A gzip file without name and time."""
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    return header + deflate(data, distances) + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)


def tar_bytes(members: dict[str, bytes]) -> bytes:
    """An ustar file: names sorted, owner 0, mode 0644, time 0."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in sorted(members.items()):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], distances: tuple[int, ...] = ()) -> bytes:
    """A zip file: names sorted (ASCII), dated 1980-01-01, mode 0644; members are deflated where that is shorter."""
    body, directory = [], []
    offset = 0
    for name, content in sorted(members.items()):
        packed = deflate(content, distances) if distances else content
        method = 8 if len(packed) < len(content) else 0
        packed = packed if method else content
        encoded = name.encode("ascii")
        # Version 2.0, no flags, method, 00:00:00, 1980-01-01, checksum, sizes, length of name, no extra field.
        shared = struct.pack(
            "<HHHHHIIIHH", 20, 0, method, 0, 0x21, zlib.crc32(content), len(packed), len(content), len(encoded), 0
        )
        body += [b"PK\x03\x04", shared, encoded, packed]
        attributes = struct.pack("<HHHII", 0, 0, 0, 0o100644 << 16, offset)
        directory += [b"PK\x01\x02", struct.pack("<H", 3 << 8 | 20), shared, attributes, encoded]
        offset += 30 + len(encoded) + len(packed)
    index = b"".join(directory)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, len(members), len(members), len(index), offset, 0)
    return b"".join([*body, index, end])

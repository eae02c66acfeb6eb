"""The embedded sample data: the same bytes as ever, in the real formats, marked as procedural."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from sklearn.datasets import load_digits
from tools.sample.bits import TURN, Bits, cosine, noise, sine
from tools.sample.build import SAMPLE_SHA256, build_sample

from twinrun.data.archives import open_archive
from twinrun.data.readers.cbis_ddsm import index_cbis_ddsm
from twinrun.data.readers.cifar10 import index_cifar10
from twinrun.study.files import sha256_file


def test_digests(sample: Path) -> None:
    assert {path.name: sha256_file(path) for path in sample.iterdir()} == SAMPLE_SHA256
    sizes = {path.name: path.stat().st_size for path in sample.iterdir()}
    assert sizes["digits.tar.gz"] < 400_000
    assert sizes["cracks.zip"] <= 2_000_000
    assert sizes["mammograms.zip"] <= 6_000_000


@pytest.mark.slow
def test_building_twice_gives_the_same(tmp_path: Path) -> None:
    assert build_sample(tmp_path) == SAMPLE_SHA256


def test_digits_are_the_real_ones(sample: Path) -> None:
    with open_archive(sample / "digits.tar.gz") as archive:
        index = index_cifar10(archive)
    real = load_digits()
    key = {
        (image.astype(np.uint8).tobytes(), int(label)) for image, label in zip(real.images, real.target, strict=True)
    }
    found = set()
    for example in index.examples:
        small = index.load(example)[::4, ::4, 1].astype(np.int64)
        found.add((np.ceil(small * 16 / 255).astype(np.uint8).tobytes(), example.label))
    assert found == key
    assert len(index.examples) == 1797
    assert sum(example.split == "test" for example in index.examples) == 360


def test_mammograms_are_marked_and_patientwise(sample: Path) -> None:
    with open_archive(sample / "mammograms.zip") as archive:
        for view in ("full", "crop"):
            index = index_cbis_ddsm(archive, view)  # type: ignore[arg-type]
            sides = {split: {e.group for e in index.examples if e.split == split} for split in ("train", "test")}
            assert not sides["train"] & sides["test"]
            assert index.load(index.examples[0]).shape == ((96, 64, 1) if view == "full" else (32, 32, 1))
        assert b"NOT mammograms" in archive.read("CBIS-DDSM/README.txt")
        name = next(name for name in archive.names if "full mammogram" in name)
        data = pydicom.dcmread(io.BytesIO(archive.read(name)))
    assert data.Modality == "MG"
    assert (data.BitsAllocated, data.pixel_array.dtype) == (16, np.uint16)
    assert data.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert "Procedural" in data.ImageComments
    assert "Procedural" in data.PatientComments
    assert "pydicom" not in str(data.file_meta).lower()


def test_cracks_are_marked(sample: Path) -> None:
    with zipfile.ZipFile(sample / "cracks.zip") as archive:
        assert archive.testzip() is None
        assert b"NOT photographs" in archive.read("SDNET2018/README.txt")
        cracked = sum("/C" in name for name in archive.namelist())
    assert 0.3 <= cracked / 864 <= 0.42


def test_bits_are_fixed_for_good() -> None:
    bits = Bits("twinrun test")
    values = bits.grid(1 << 32, 1000)
    assert hashlib.sha256(values.astype("<i8").tobytes()).hexdigest() == BITS_SHA256
    assert 0.45 < (values < 1 << 31).mean() < 0.55
    numbers = [Bits(f"purpose {i}").between(3, 5) for i in range(60)]
    assert set(numbers) == {3, 4, 5}
    texture = noise(bits, 50, 70, 8, 16)
    assert texture.shape == (50, 70)
    assert -128 <= texture.min() < 0 < texture.max() <= 127


BITS_SHA256 = "31be4fba58a6f3c5705c66d5c22054f3c94be8635f61260efda92cca193aa510"


def test_integer_sine() -> None:
    angles = np.arange(-TURN, 2 * TURN)
    expected = np.round(1024 * np.sin(angles * 2 * np.pi / TURN))
    assert np.abs([sine(angle) for angle in angles.tolist()] - expected).max() <= 1
    assert [cosine(angle) for angle in angles.tolist()] == [sine(angle + 16) for angle in angles.tolist()]


def test_packed_imports_no_heavy_library() -> None:
    code = (
        "import sys, twinrun.data.packed, twinrun.data.example\n"
        "print([name for name in ('torch', 'PIL', 'pydicom', 'sklearn', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

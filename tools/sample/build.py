"""The embedded sample data: three archives in the formats of the real data sets, the same bytes everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from twinrun.study.files import sha256_bytes, write_bytes

# What build_sample must give. A change here is a new sample: rebuild data.dvc, datastore/ and expected/ with it.
SAMPLE_SHA256: dict[str, str] = {
    "digits.tar.gz": "01e156e6d0fffc00198934c546391025f719886e8de8688166f10574688f6dfe",
    "cracks.zip": "d3ebe89b94fe01d041e6a790ac6e0e555c534c4711b759af044d2fc796f28e1a",
    "mammograms.zip": "df59279a56c1ee1e80118bace4e6e394b603f8ae55b58b7623e5f6b417871ef2",
}


def build_sample(out: Path) -> dict[str, str]:
    """Write digits.tar.gz, cracks.zip and mammograms.zip into `out`; their SHA-256 by name is returned."""
    digests = {}
    for name, build in _builders().items():
        content = build()
        write_bytes(out / name, content)
        digests[name] = sha256_bytes(content)
    return digests


def _builders() -> dict[str, Callable[[], bytes]]:
    # Imported here: scikit-learn, Pillow and pydicom are slow to import.
    from tools.sample.cbis_writer import mammograms_archive
    from tools.sample.concrete import cracks_archive
    from tools.sample.digits import digits_archive

    return {"digits.tar.gz": digits_archive, "cracks.zip": cracks_archive, "mammograms.zip": mammograms_archive}

"""Readers: one a format of data set, chosen by the params."""

from __future__ import annotations

from pathlib import Path

from twinrun.data.archives import Archive
from twinrun.data.example import Index
from twinrun.study.schema import CbisDdsm, Cifar10, ImageFolder, Sdnet2018

DataBlock = Cifar10 | Sdnet2018 | CbisDdsm | ImageFolder


def read_index(data: DataBlock, archive: Archive, root: Path) -> Index:
    """The index of the data set in `archive`, by the reader that the params name; `root` is the study folder."""
    # Imported here: pydicom is slow to import and only one reader needs it.
    if isinstance(data, Cifar10):
        from twinrun.data.readers.cifar10 import index_cifar10

        return index_cifar10(archive)
    if isinstance(data, Sdnet2018):
        from twinrun.data.readers.sdnet2018 import index_sdnet2018

        return index_sdnet2018(archive, data.test_share, data.split_seed)
    if isinstance(data, ImageFolder):
        from twinrun.data.readers.image_folder import index_image_folder

        return index_image_folder(archive, data, root)
    from twinrun.data.readers.cbis_ddsm import index_cbis_ddsm

    skip = data.on_error == "skip"
    return index_cbis_ddsm(archive, data.view, breast_crop=data.breast_crop, skip_missing=skip)

"""Data sets and weights from their public homes, a mirror or a local copy, each checked before it takes its name."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from twinrun.data.archives import open_archive
from twinrun.fetch.download import PATIENCE, Digest, Patience, Progress, check_and_rename, download, record, recorded
from twinrun.study.errors import InputError
from twinrun.study.files import explain_os_error

_PYTORCH = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Remote:
    """One file: where it is, what it is called below data/, and its digest where its publisher states one."""

    url: str
    name: str
    digest: Digest | None = None
    is_archive: bool = True


CIFAR10 = Remote(
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    "cifar-10-python.tar.gz",
    Digest("md5", "c58f30108f718f92721af3b95e74349a", "its publisher"),
)
# The publisher's bundle: a README and the tiles as a zip within the zip. Page: digitalcommons.usu.edu/all_datasets/48
SDNET2018 = Remote(
    "https://digitalcommons.usu.edu/context/all_datasets/article/1047/type/native/viewcontent",
    "SDNET2018.zip",
    Digest("md5", "677411e784f194422c90f52d9ed0d7c6", "its publisher"),
)
# torchvision's ImageNet weights (version 1), whose names hold the beginning of their SHA-256.
WEIGHTS = tuple(
    Remote(_PYTORCH + name, f"weights/{name}", Digest("sha256", name[-12:-4], "its name"), is_archive=False)
    for name in (
        "resnet18-f37072fd.pth",
        "resnet50-0676ba61.pth",
        "mobilenet_v3_small-047dcff4.pth",
        "mobilenet_v3_large-8738ca79.pth",
    )
)
FILES = {"cifar10": (CIFAR10,), "sdnet2018": (SDNET2018,), "weights": WEIGHTS}


def fetch(
    name: str, data: Path, origin: str | None = None, progress: Progress | None = None, patience: Patience = PATIENCE
) -> list[Path]:
    """Fetch the files of a data set into the folder `data`; their paths are returned, those already there included.

    `origin` is another place: an address or a local file, or for several files the folder or the beginning of the
    address that they have in common.
    """
    remotes = FILES[name]
    paths = []
    for remote in remotes:
        place = origin
        if origin and len(remotes) > 1:
            place = f"{origin.rstrip('/')}/{Path(remote.name).name}"
        paths.append(fetch_file(remote, data, place, progress, patience))
    return paths


def fetch_file(
    remote: Remote,
    data: Path,
    origin: str | None = None,
    progress: Progress | None = None,
    patience: Patience = PATIENCE,
) -> Path:
    """Fetch one file into `data`, unless it is there with its digest already."""
    target = data / remote.name
    # The recorded digest counts where there is one: a file must stay the one that results were made with.
    digest = recorded(target) or remote.digest
    if target.exists():
        if digest:
            digest.check(target, str(target))
    else:
        check = _whole_archive if remote.is_archive else None
        if origin and not is_address(origin):
            _copy(Path(origin), target, remote.digest or digest, check)
        else:
            download(origin or remote.url, target, digest, check=check, progress=progress, patience=patience)
    record(target)
    return target


def is_address(origin: str) -> bool:
    """Whether `--from` names something on the network."""
    return "://" in origin


def _copy(source: Path, target: Path, digest: Digest | None, check: Callable[[Path], None] | None) -> None:
    if not source.is_file():
        raise InputError(f"{source}: no such file", "--from names a file, or an address that begins with https://")
    part = target.with_name(f"{target.name}.copy.part")  # a download that was broken off has the name without `.copy`
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.stat().st_size > shutil.disk_usage(target.parent).free:
            raise InputError(f"{target.parent}: {source} does not fit on the disk", "free some space")
        shutil.copyfile(source, part)
        check_and_rename(part, target, digest, check)
        for rest in ("part", "part.json"):  # of a download that is no longer needed
            target.with_name(f"{target.name}.{rest}").unlink(missing_ok=True)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise explain_os_error(error, target) from error


def _whole_archive(path: Path) -> None:
    open_archive(path).close()

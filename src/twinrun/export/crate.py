"""Whether an unpacked RO-Crate of a study is as it was packed; `to_crate.py` packs it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from twinrun.study.errors import MismatchError
from twinrun.study.files import read_json, sha256_file

METADATA = "ro-crate-metadata.json"
PROGRAM = "#twinrun"  # in the metadata, what made the runs


def check_crate(folder: Path) -> int:
    """The number of files that a crate's metadata names, each of them as it was packed; 0 where there is no crate.

    Raises MismatchError naming the first file that is missing or was changed. Other files in the folder are left alone.
    """
    if not (folder / METADATA).is_file():
        return 0
    content = read_json(folder / METADATA)
    graph = content.get("@graph") if isinstance(content, dict) else None
    again = "unpack the crate again"
    if not isinstance(graph, list) or not all(isinstance(entity, dict) for entity in graph):
        raise MismatchError(f"{folder / METADATA}: not the metadata of an RO-Crate", again)
    noted = {unquote(str(entity.get("@id"))): entity["sha256"] for entity in graph if "sha256" in entity}
    wrong = []
    for name, sha256 in noted.items():
        file = folder / name
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise MismatchError(f"{folder / METADATA}: {name!r} is no path in the crate", again)
        if not file.is_file():
            wrong.append(f"{file} is missing")
        elif sha256_file(file) != sha256:
            wrong.append(f"{file} was changed")
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise MismatchError(f"the crate is not as it was packed: {wrong[0]}{more}", again)
    return len(noted)

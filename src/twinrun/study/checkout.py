"""Whether the code that runs is the code of the study folder, which DVC notes as what a run was made from."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from twinrun.study.errors import MismatchError
from twinrun.study.files import read_json, sha256_file
from twinrun.study.layout import IMAGE_FACTS, Layout

# The import closure of preparing data and training a run: what can change a run's bits. A test holds that it is so.
CODE_PARTS = ("study", "data", "training")
REPORT_PARTS = ("stats", "collect", "report")  # what besides makes tables and figures
LOCATE_PARTS = ("inspect", "collect")  # what besides finds first differences


def require_same_code(layout: Layout, parts: Iterable[str] = CODE_PARTS, *, running: Path | None = None) -> None:
    """Refuse to work in a checkout whose `parts` are not those of the imported package (`running`): MismatchError.

    A folder without code of its own, and one from which the package is imported, have nothing to compare.
    """
    running = running or Path(__file__).parents[1]
    if not layout.source.is_dir() or layout.source.samefile(running):
        return
    if Path(sys.prefix).is_relative_to(layout.root.resolve()):  # even while both are equal: an edit here would not run
        raise MismatchError(
            f"the environment of this folder, {sys.prefix}, runs the code of another checkout: {running}",
            "it was copied with the folder: remove it, and `make environment` makes a new one",
        )
    own, theirs = _files(running, parts), _files(layout.source, parts)
    different = sorted(name for name in own.keys() | theirs.keys() if own.get(name) != theirs.get(name))
    if different:
        more = f" and {len(different) - 1} more files differ" if len(different) > 1 else " differs"
        raise MismatchError(
            f"the code that runs, in {running}, is not the code of this folder: {layout.source / different[0]}{more}",
            f"nothing was run; {_remedy()}",
        )


def _files(package: Path, parts: Iterable[str]) -> dict[str, str]:
    return {
        file.relative_to(package).as_posix(): sha256_file(file)
        for part in parts
        for file in (package / part, *(package / part).rglob("*"))
        if file.is_file() and "__pycache__" not in file.parts
    }


def image_revision() -> str | None:
    """The commit that the container image was built from (`unknown` when it was not told); None outside an image."""
    return str(read_json(IMAGE_FACTS).get("revision")) if IMAGE_FACTS.is_file() else None


def _remedy() -> str:
    revision = image_revision()
    if revision is None:
        return "`make environment` in this folder, or `pip install --editable .`, takes its code into use"
    return f"build the image from this checkout again, or check out the commit of the image ({revision})"

"""Every input of a study is where DVC sees it, or is held by its digest: a change is never overlooked."""

from __future__ import annotations

from pathlib import Path

from twinrun.study.errors import InputError
from twinrun.study.layout import Layout
from twinrun.study.params import Params
from twinrun.study.schema import ImageFolder


def require_inputs_in_sight(params: Params, layout: Layout) -> None:
    """Raise InputError naming the sources and tables of the grid's tasks that could change without anybody noticing.

    dvc.yaml depends on data/; DVC looks behind links to files there, but not behind links to folders. An archive
    elsewhere is allowed when the params file states its SHA-256.
    """
    hidden = []
    for task in params.grid.tasks:
        data = params.tasks[task].data
        inputs = {} if data.sha256 else {"source": data.source}
        if isinstance(data, ImageFolder) and data.table:
            inputs["table"] = data.table
        for key, name in inputs.items():
            if reason := _why_hidden(layout, name):
                hidden.append(f"tasks.{task}.data.{key}: {name}: {reason}")
    if hidden:
        hint = (
            f"DVC watches {layout.data.name}/ alone, so that a change elsewhere would go unnoticed: put it there; an "
            "archive (not a folder) may lie elsewhere when `sha256` states its digest"
        )
        raise InputError("\n".join(hidden), hint)


def _why_hidden(layout: Layout, name: str) -> str:
    path = Path(name)
    if path.is_absolute() or ".." in path.parts or path.parts[:1] != (layout.data.name,):
        return f"it is not below {layout.data.name}/"
    for depth in range(2, len(path.parts) + 1):
        place = layout.root / Path(*path.parts[:depth])
        if place.is_symlink() and place.is_dir():
            return f"{Path(*path.parts[:depth])} is a link to a folder"
    return ""

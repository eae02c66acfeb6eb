"""A finished study as an RO-Crate: records, tables, figures, params, code and stack, each file with its digest."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rocrate.model import ContextEntity
from rocrate.rocrate import ROCrate

from twinrun.export.crate import METADATA, PROGRAM
from twinrun.export.exporting import FinishedRun
from twinrun.study.errors import InputError
from twinrun.study.files import read_json, sha256_file, write_json
from twinrun.study.folders import replaced_folder
from twinrun.study.layout import RECORD, Layout
from twinrun.study.params import Params
from twinrun.study.records import read_measured

STACK = "stack.json"
FILES = ("dvc.yaml", "dvc.lock", "data.dvc", "requirements.lock", "LICENSE", "CITATION.cff")
FOLDERS = ("models", "expected", "collected", "located", "analysis", "report", "src/twinrun")
PACKED = ("params.yaml", STACK, METADATA, "runs", *FILES, *(folder.split("/")[0] for folder in FOLDERS))
DESCRIPTIONS = {
    "params.yaml": "The params: which runs the study has, and how each is trained",
    STACK: "The machines and versions that the runs were made with",
    "dvc.lock": "Digests of every input and output",
    "requirements.lock": "Every installed package by version and hash",
}


def write_crate(params: Params, params_file: Path, layout: Layout, runs: Sequence[FinishedRun], out: Path) -> None:
    """Write the crate of these runs into the folder `out`, whole or not at all, in place of an older one.

    Neither the data nor what is prepared of them is in it: their licence may not allow it, and their digests are.
    """
    crate = ROCrate()
    root = crate.root_dataset
    root["name"] = f"twinrun study {params.study}"
    root["description"] = (
        f"{len(runs)} training runs of {', '.join(params.tasks[task].title for task in params.grid.tasks)}, with "
        "records, fingerprints (SHA-256 over all weights), tables and figures. `twinrun verify` in this folder checks "
        "every file and trains deterministic runs again, once the data are prepared."
    )
    stacks: dict[str, dict[str, object]] = {}
    newest = ""
    for run in runs:
        measured = read_measured(layout.runs / run.id)
        newest = max(newest, measured.finished)
        stack = {"versions": measured.versions, "host": measured.host, "environment": measured.environment}
        entry = stacks.setdefault(repr(stack), stack | {"runs": []})
        entry["runs"] += [run.id]  # type: ignore[operator] # a list
    root["datePublished"] = newest  # the time of the newest run: the same study makes the same crate
    if (out / METADATA).is_file() and f'"{PROGRAM}"' not in json.dumps(read_json(out / METADATA)):
        hint = "nothing was changed; name another folder with --out"
        raise InputError(f"{out}: holds an RO-Crate that twinrun did not make", hint)
    with replaced_folder(out, PACKED, mark=METADATA) as building:
        write_json(building / STACK, list(stacks.values()))
        _add(crate, building / STACK, STACK)
        _add(crate, params_file, "params.yaml")
        for name in FILES:
            if (layout.root / name).is_file():
                _add(crate, layout.root / name, name)
        for name in FOLDERS:
            for file in sorted((layout.root / name).rglob("*")):
                if file.is_file() and "__pycache__" not in file.parts:
                    _add(crate, file, file.relative_to(layout.root).as_posix())
        for run in runs:
            for file in sorted((layout.runs / run.id).iterdir()):
                said = f"{run.id}, {run.tags['twinrun.status']}, fingerprint {run.tags['twinrun.fingerprint']}"
                _add(crate, file, f"runs/{run.id}/{file.name}", said if file.name == RECORD else "")
        if (layout.root / "LICENSE").is_file():
            root["license"] = {"@id": "LICENSE"}
        program = {"@type": "SoftwareApplication", "name": "twinrun", "identifier": runs[0].tags["twinrun.code_digest"]}
        root["mentions"] = crate.add(ContextEntity(crate, PROGRAM, properties=program))
        crate.write(building)


def _add(crate: ROCrate, file: Path, name: str, description: str = "") -> None:
    properties = {"sha256": sha256_file(file), "contentSize": str(file.stat().st_size)}
    if description or name in DESCRIPTIONS:
        properties["description"] = description or DESCRIPTIONS[name]
    crate.add_file(file, name, properties=properties)

"""analysis.json, the index of what `twinrun analyze` made: for the page, and for the export of figures and tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from twinrun.report.section import Answer
from twinrun.report.table import Column
from twinrun.study.documents import checked
from twinrun.study.errors import InputError, MismatchError
from twinrun.study.files import read_json, refuse_pipe, sha256_file
from twinrun.study.records import Sha256, seal

ANALYSIS_SCHEMA = 5
AGAIN = "run `twinrun analyze` again"
File = Annotated[str, Field(pattern=r"^(tables|figures)/[\w-]+\.\w+$")]


class _Entry(BaseModel):
    name: str
    thesis_name: str
    title: str
    caption: str
    files: list[File]
    command: str

    def has(self, *endings: str) -> bool:
        return all(any(name.endswith(ending) for name in self.files) for ending in endings)


class _Table(_Entry):
    notes: list[str]
    columns: list[Column]
    filled: bool
    filled_by: str
    file: File
    main: bool
    for_programs: bool


class _Figure(_Entry):
    alt: str


class _Section(BaseModel):
    name: str
    title: str
    about: str
    filled_by: str
    folded: bool
    answers: list[Answer]
    sentences: list[str]
    tables: list[str]
    figures: list[str]


class Index(BaseModel):
    """What the analysis holds, section by section."""

    schema_version: Literal[5] = Field(alias="schema")
    study_digest: str
    sections: list[_Section]
    tables: list[_Table]
    figures: list[_Figure]
    digests: dict[File, Sha256]  # of every file that the entries name
    seal: Sha256

    @model_validator(mode="after")
    def _names(self) -> Index:
        tables, figures = ({entry.name for entry in entries} for entries in (self.tables, self.figures))
        for section in self.sections:
            if absent := sorted({*section.tables} - tables | {*section.figures} - figures):
                raise ValueError(f"the section {section.name} names {absent[0]}, which is not there")
        for table in self.tables:
            if not table.has(".csv"):
                raise ValueError(f"{table.name} has no CSV file")
        for figure in self.figures:
            if not figure.has(".svg", ".png"):
                raise ValueError(f"{figure.name} has no SVG and PNG file")
        if other := {name for entry in (*self.tables, *self.figures) for name in entry.files} ^ self.digests.keys():
            raise ValueError(f"{min(other)} is among the files or the digests, and not among both")
        return self


def read_index(path: Path) -> dict[str, Any]:
    """The checked content of analysis.json; InputError or MismatchError names what is wrong with it."""
    if not os.path.lexists(path):
        raise InputError(f"{path}: no such file", "`twinrun analyze` makes it")
    content = read_json(path)
    checked(content, path, Index, "an analysis of this version", AGAIN)
    if content["seal"] != seal(content):
        raise MismatchError(f"{path}: was changed after it was written (its seal does not fit)", AGAIN)
    return dict(content)


def require_whole(analysis: Path, index: dict[str, Any]) -> None:
    """MismatchError for a table or figure that is not the one that `twinrun analyze` wrote."""
    for name, sha256 in index["digests"].items():
        path = analysis / name
        refuse_pipe(path, AGAIN)
        if not path.is_file() or sha256_file(path) != sha256:
            raise MismatchError(f"{path}: missing, or not the file that was made of the study", AGAIN)

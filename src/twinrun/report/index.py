"""analysis.json, the index of what `twinrun analyze` made: for the page, and for the export of figures and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from twinrun.report.section import Answer
from twinrun.report.table import Column
from twinrun.study.documents import checked
from twinrun.study.files import read_json

ANALYSIS_SCHEMA = 4
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

    schema_version: Literal[4] = Field(alias="schema")
    study_digest: str
    sections: list[_Section]
    tables: list[_Table]
    figures: list[_Figure]

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
        return self


def read_index(path: Path) -> dict[str, Any]:
    """The checked content of analysis.json; InputError or MismatchError names what is wrong with it."""
    content = read_json(path)
    checked(content, path, Index, "an analysis of this version", AGAIN)
    return dict(content)

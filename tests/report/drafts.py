"""Studies and drafts of the report for tests of single sections."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from tests.collect.synthetic import CODE, Synthetic, write_study

from twinrun.collect.collect import collect
from twinrun.collect.study import Study, load_study
from twinrun.report.build import SECTIONS
from twinrun.report.section import Draft, Section
from twinrun.report.table import Table
from twinrun.study.layout import Layout


def collected(root: Path, spec: Synthetic) -> Layout:
    """A synthetic study, collected."""
    params, layout = write_study(root, spec)
    collect(params, layout, code_digest=CODE)
    return layout


def study_of(root: Path, spec: Synthetic) -> Study:
    return load_study(collected(root, spec).collected)


def draft_of(study: Study, *sections: Section) -> Draft:
    """A draft with the tables of these sections, or of all."""
    draft = Draft(study)
    for section in sections or SECTIONS:
        draft.tables |= {table.name: table for table in section.tables(draft)}
    return draft


def replace_frame(draft: Draft, name: str, frame: pd.DataFrame) -> None:
    """Put another frame in place of a table's."""
    table = draft.tables[name]
    draft.tables[name] = Table(name, table.title, table.caption, table.columns, frame.to_dict("records"))  # type: ignore[arg-type]
    draft.tables[name].__dict__["frame"] = frame

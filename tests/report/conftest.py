"""One synthetic study, analyzed and reported once for all tests of the report."""

from __future__ import annotations

import pytest
from tests.collect.synthetic import Synthetic
from tests.report.drafts import collected

from twinrun.report.build import analyze
from twinrun.report.page import write_report
from twinrun.study.layout import Layout

SAMPLE = Synthetic(n_test=80, epochs=3, diverged=frozenset({"cracks/adam/42/nd_2"}))


@pytest.fixture(scope="session")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """With collected/, analysis/ and report/; copy what you change."""
    layout = collected(tmp_path_factory.mktemp("reported"), SAMPLE)
    analyze(layout.collected, layout.analysis)
    write_report(layout.analysis, layout.collected, layout.report)
    return layout

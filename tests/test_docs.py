"""The pages of docs/: every link leads somewhere, and the notebook's cells run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import REPOSITORY


def test_the_notebook_runs_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    text = (REPOSITORY / "docs" / "notebook.md").read_text()
    cells: dict[str, Any] = {}
    for code in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(code, cells)
    assert f"`{cells['study']!r}`" in text
    assert cells["churn"]["churn"].between(0, 1).all()
    row = cells["churn"].query("task == 'cifar10' and optimizer == 'sgd' and seed == 0 and arm == 'nd'").iloc[0]
    assert cells["differ"] == pytest.approx(row["churn"], abs=0.1)
    assert cells["heads"].ndim == 2
    assert cells["wrong"] == pytest.approx(row["error"], abs=0.1)


@pytest.mark.parametrize("page", [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md"])
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(#[^)\s]*)?\)", page.read_text())
    missing = [link for link, _ in links if "://" not in link and not (page.parent / link).exists()]
    assert missing == []
    for link, anchor in links:
        if anchor:
            heads = re.findall(r"^#+ (.*)$", (page.parent / link).read_text(), re.M)
            assert anchor[1:] in {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in heads}

"""Finished runs for Weights & Biases, offline: nothing is sent; `wandb sync` sends it when the user wants that."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when the package is imported

import pandas as pd
import wandb

from twinrun.export.exporting import Analysis, FinishedRun

PROJECT = "twinrun"


class Writer:
    """One offline run for each run, and one named `study` for the tables and figures, in `out/wandb`."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def add_run(self, run: FinishedRun) -> None:
        """Values of each epoch under `curve/`, results as the summary, parameters and tags as the config."""
        study = run.tags["twinrun.study"]
        with self._start(run.id, run.version, study, dict(run.params) | {"twinrun": dict(run.tags)}) as tracked:
            for epoch, values in run.curve:
                tracked.log({f"curve/{name}": value for name, value in values.items()}, step=epoch)
            tracked.summary.update(dict(run.results))

    def add_analysis(self, study: str, analysis: Analysis) -> None:
        """Tables as wandb tables of text and figures as images."""
        with self._start("study", analysis.version, study, {"tables": len(analysis.tables)}) as tracked:
            for table in analysis.tables:
                frame = pd.read_csv(table.path, dtype=str, keep_default_na=False)
                rows = wandb.Table(dataframe=frame)
                tracked.log({f"tables/{table.name}": rows}, step=0)
            for figure in analysis.figures:
                tracked.log({f"figures/{figure.name}": wandb.Image(str(figure.path), caption=figure.title)}, step=0)

    def _start(self, name: str, version: str, study: str, config: dict[str, Any]) -> Any:
        # The same run has the same id in every export: sent twice, it is the same run.
        number = hashlib.sha256(f"{study}/{name}/{version}".encode()).hexdigest()[:16]
        for unfinished in (self.out / "wandb").glob(f"offline-run-*-{number}"):
            shutil.rmtree(unfinished)
        self.out.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            console="off", silent=True, disable_git=True, disable_code=True, save_code=False, x_disable_stats=True,
            x_disable_machine_info=True, disable_job_creation=True,
        )  # fmt: skip
        return wandb.init(
            mode="offline", dir=str(self.out), project=PROJECT, group=study, name=name, id=number, config=config,
            settings=settings,
        )  # fmt: skip
